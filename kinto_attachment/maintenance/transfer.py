"""Moving one file to another storage, while requests replace, delete, share and read it.

1. A row says that there may be a copy in the target (see ``index/spares.py``). It has the token of
this run, until somebody takes the row over or deletes the copy.
2. The file is copied and hashed, without a transaction. The copy is read back.
3. If the row still has the token, the links are changed, and a row is written for the copy that is
   left behind. This is one transaction, under the lock of the file.

``spare_copies.py`` deletes the unneeded copy in either storage.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageError, cause
from kinto_attachment.files.repeating import repeated
from kinto_attachment.files.uploads import disposition_of
from kinto_attachment.http.streams import BaseReader, HashingReader, Reader
from kinto_attachment.index.link import Link
from kinto_attachment.index.spares import Spare
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.contents import is_vouched_for, problem_of
from kinto_attachment.maintenance.rates import Rate
from kinto_attachment.storage.storages import Storage
from kinto_attachment.uris import RecordURI

LEASE = 300_000  # Milliseconds after which a run that has not renewed its row is considered dead.
RENEWED = 60.0  # Seconds between two renewals.
TRIES = 5
TAKEN = "the storage {} has another file of this name"

Result = Literal["moved", "gone", "busy", "damaged", "missing", "failed"]


class Lost(Exception):
    """Another run, or gc, has changed the row of the copy."""


class _OfOthers(Exception):
    """Somebody else has written the file in the target."""


@dataclass(frozen=True)
class Moved:
    """The result for a file, and the row of its copy, which has to be settled.

    ``gone``: it was deleted, or moved by another run, in the meantime. ``busy``: another run is
    moving it. ``damaged`` and ``missing`` are about the source.
    """

    link: Link
    result: Result
    reason: str = ""
    error: StorageError | None = None
    spare: Spare | None = None


class Transfer:
    """Moves files to a storage; threads may share it.

    ``kept_for`` returns how long a copy stays in a source (ms), ``is_random`` whether a key is
    random and so never used again.
    """

    def __init__(
        self,
        registry: Registry,
        target: Storage,
        rate: Rate,
        kept_for: Callable[[Storage], int],
        is_random: Callable[[str], bool],
    ) -> None:
        self.registry = registry
        self.links = registry.attachment_links
        self.target = target
        self.rate = rate
        self.kept_for = kept_for
        self.is_random = is_random
        self.token = secrets.token_hex(8)

    def move(self, link: Link, *, take_over: bool = False) -> Moved:
        """Move a file, by one of its links.

        With ``take_over``, another run that may be moving it loses it.
        """
        for _ in range(TRIES):
            attempt = _Attempt(self, link)
            try:
                if attempt.is_taken():
                    return attempt.taken()
                if not repeated(partial(attempt.begin, take_over=take_over)):
                    break
                return attempt.run()
            except Lost:
                continue
            except StorageError as error:
                return Moved(link, "failed", cause(error), error)
        return Moved(link, "busy")


class _Attempt:
    """One attempt to move one file."""

    def __init__(self, transfer: Transfer, link: Link) -> None:
        self._transfer = transfer
        self._links = transfer.links
        self._target = transfer.target
        self._link = link
        self._key = link.key
        self._is_named = not transfer.is_random(link.key)
        self._spare = Spare(link.key, 0, transfer.target.name, writer=transfer.token)
        self._is_known = False  # Whether there was a row of the copy before.
        self._disposition = ""

    def is_taken(self) -> bool:
        """Whether the target has a file with this name that no run has written.

        This is checked first, because files with a row may be deleted.
        """
        if not self._is_named:
            return False
        with transaction.manager:
            spare = self._links.spares.get(self._target.name, self._key)
        return spare is None and self._target.files.exists(self._key)

    def taken(self) -> Moved:
        return Moved(self._link, "failed", TAKEN.format(self._target.title))

    def begin(self, *, take_over: bool) -> bool:
        """Save a row for the copy to write; False if another run seems to be working."""
        now = msec_time()
        with transaction.manager:
            self._disposition = self._read_disposition()
            if self._is_named:
                # Or a new file may get the name if this one is deleted before it was copied. It
                # is reserved already if a run was killed, or if its upload has just ended.
                self._links.reservations.claim(self._key)
            self._links.locks.lock(self._key)
            before = self._links.spares.get(self._target.name, self._key)
            self._is_known = before is not None
            is_free = before is None or take_over or _is_free(before, self._spare.writer, now)
            if is_free:
                readonly = before is not None and before.readonly
                self._spare = replace(self._spare, since=now, readonly=readonly)
                self._links.spares.put(self._spare)
            self._links.locks.clear(self._key)
        return is_free

    def run(self) -> Moved:
        """:raises Lost:"""
        moved = self._outcome()
        if self._is_named:
            with transaction.manager:
                self._links.reservations.release(self._key)
        return moved

    def _outcome(self) -> Moved:
        try:
            moved = self._copy() or repeated(self._switch)
        except FileNotFound:
            moved = self._not_there()
        except _OfOthers:
            self._forget()
            return self.taken()
        except StorageError as error:
            moved = Moved(self._link, "failed", cause(error), error)
        return replace(moved, spare=self._spare)

    def _read_disposition(self) -> str:
        resolver = self._transfer.registry.attachment_collection_settings
        rules = resolver.without_user(RecordURI.parse(self._link.record))
        return disposition_of(rules, self._link.filename, self._link.mimetype)

    def _copy(self) -> Moved | None:
        """Write the copy and compare it with the index; None if it is correct.

        :raises FileNotFound: there is no file to be copied.
        :raises _OfOthers: the target has another file of this name.
        """
        for is_last in (False, True):
            is_written, problem = self._write()
            if problem:
                return Moved(self._link, "damaged", problem)
            problem = self._problem_of_copy()
            if not problem:
                return None
            if is_written:
                return Moved(self._link, "failed", f"the copy is damaged: {problem}")
            # The file existed: a killed run or somebody else has written it.
            if is_last or (self._is_named and not self._is_known):
                raise _OfOthers()
            self._delete_copy()
        raise AssertionError("unreachable")

    def _write(self) -> tuple[bool, str]:
        """Whether the copy was written, and not there already, and what is wrong with the file.

        :raises FileNotFound: there is no file to be copied.
        """
        link = self._link
        source = self._transfer.registry.attachment_storages[link.storage].files
        headers = {"disposition": self._disposition}
        if link.encoding:
            headers["encoding"] = link.encoding
        with closing(source.open(link.key)) as file:
            reader = HashingReader(_Watched(file, self._transfer.rate, self._renew))
            try:
                self._target.files.write(link.key, reader, link.mimetype, **headers)
            except KeyTaken:
                return False, ""
        if reader.size != link.size:
            return True, f"it has {reader.size} bytes instead of {link.size}"
        if reader.sha256 != link.hash:
            return True, f"its SHA-256 is {reader.sha256} instead of {link.hash}"
        return True, ""

    def _problem_of_copy(self) -> str:
        files = self._target.files
        try:
            if is_vouched_for(files, self._link):
                return ""
            return problem_of(files, self._link, self._transfer.rate)
        except FileNotFound:
            raise Lost() from None  # Somebody has deleted it.

    def _not_there(self) -> Moved:
        with transaction.manager:
            present = self._links.of_key(self._key)
        is_there = any(link.storage == self._link.storage for link in present)
        return Moved(self._link, "missing" if is_there else "gone")

    def _switch(self) -> Moved:
        """Change the storage in the links to the target.

        :raises Lost:
        """
        source = self._transfer.registry.attachment_storages[self._link.storage]
        now, spare = msec_time(), replace(self._spare, since=msec_time())
        with transaction.manager:
            self._lock()
            readonly = self._spare.readonly
            moved = self._links.move(self._key, source.name, self._target.name, readonly=readonly)
            if moved:
                self._links.spares.put(spare)
                due = now + self._transfer.kept_for(source)
                readonly = moved[0].readonly
                left = Spare(self._key, now, source.name, due=due, readonly=readonly)
                self._links.spares.put(left)
            self._links.locks.clear(self._key)
        if moved:
            self._spare = spare
        return Moved(self._link, "moved" if moved else "gone")

    def _renew(self) -> None:
        """Renew the row, which shows that this run is still working.

        :raises Lost:
        """
        renewed = replace(self._spare, since=msec_time())
        with transaction.manager:
            self._lock()
            self._links.spares.put(renewed)
            self._links.locks.clear(self._key)
        self._spare = renewed

    def _delete_copy(self) -> None:
        """:raises Lost:"""
        with transaction.manager:
            self._lock()
            if any(link.storage == self._target.name for link in self._links.of_key(self._key)):
                raise Lost()
            self._target.files.delete(self._key)
            self._links.locks.clear(self._key)

    def _forget(self) -> None:
        """:raises Lost:"""
        with transaction.manager:
            self._lock()
            self._links.spares.delete(self._target.name, [self._key])
            self._links.locks.clear(self._key)

    def _lock(self) -> None:
        """Lock the file in the transaction.

        :raises Lost: the row of the copy has changed since this run wrote it.
        """
        self._links.locks.lock(self._key)
        if self._links.spares.get(self._target.name, self._key) != self._spare:
            raise Lost()


class _Watched(BaseReader):
    """The bytes of a file, at a limited rate; calls ``renew`` regularly."""

    def __init__(self, reader: Reader, rate: Rate, renew: Callable[[], None]) -> None:
        self._reader = reader
        self._rate = rate
        self._renew = renew
        self._renewed = time.monotonic()

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._rate.take(len(data))
        if time.monotonic() > self._renewed + RENEWED:
            self._renew()
            self._renewed = time.monotonic()
        return data


def _is_free(spare: Spare, token: str, now: int) -> bool:
    return spare.writer in ("", token) or spare.since <= now - LEASE
