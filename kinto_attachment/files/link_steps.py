"""The changes of links that a request makes, written file by file in one order."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files.ledger import Ledger, NewFile
from kinto_attachment.index.link import Link, State
from kinto_attachment.index.objects import digest_of
from kinto_attachment.index.outbox import File
from kinto_attachment.kinto_types import Registry

# Seconds after it was stored, during which a file is linked without checking that it still exists.
# gc waits longer than that, and then for open transactions, so it can only have deleted older
# files.
UNCHECKED_SECONDS = 1.0
# The links of more files than this are dropped in bulk, if that is the only step.
FEW_FILES = 50

NEW, COPIED, UPDATED, RETAINED, DROPPED = range(5)


class LinkSteps:
    """Steps that are first collected and then written.

    All requests change links in the same order of files, which prevents deadlocks. When a file
    moves from one record to another, the new link is written before the old one is dropped, so the
    file always has a link.
    """

    def __init__(self, registry: Registry, ledger: Ledger) -> None:
        self._registry = registry
        self._ledger = ledger
        self._links = registry.attachment_links
        self._steps: list[tuple[str, int, Callable[[], None]]] = []
        self._new: list[tuple[Link, NewFile, bool | None]] = []
        self._dropped: list[Link] = []
        self._orphans: list[File] = []
        self._lingering: dict[int, list[Link]] = defaultdict(list)

    def add(self, link: Link, file: NewFile, *, is_new: bool | None = None) -> None:
        """Link a file that this request stored: see :meth:`Links.add`."""
        self._new.append((link, file, is_new))
        self._step(link.key, NEW, partial(self._add, link, file, is_new))

    def share(self, link: Link, known_in: Sequence[str], *, is_new: bool) -> None:
        """Link a file that already existed: see :meth:`Links.share`."""
        step = partial(self._links.share, link, known_in=known_in, is_new=is_new)
        self._step(link.key, COPIED, step)

    def restore(self, version: Link, attached: int, *, is_new: bool) -> None:
        """Make an earlier file the current one again: see :meth:`Links.restore`."""
        step = partial(self._links.restore, version, attached, is_new=is_new)
        self._step(version.key, COPIED, step)

    def share_if_known(self, link: Link) -> None:
        """Link a file that already existed, if the index knows it."""
        self._step(link.key, COPIED, partial(self._share_if_known, link))

    def update(self, link: Link) -> None:
        self._step(link.key, UPDATED, partial(self._links.update, link))

    def retain(self, link: Link, state: State, until: int = 0) -> None:
        self._step(link.key, RETAINED, partial(self._links.retain, link, state, until))

    def let_linger(self, link: Link, state: State, until: int) -> None:
        """Keep the file until a time (ms since the epoch), and delete it then."""
        self.retain(link, state, until)
        self._lingering[until].append(link)

    def drop(self, link: Link) -> None:
        self._dropped.append(link)

    def remove_below(self, uri: str) -> None:
        """Remove all links below a bucket or collection that one statement can remove.

        See :meth:`Links.remove_below`.
        """
        self._ledger.when_committed(self._ledger.garbage, *self._links.remove_below(uri))

    def drop_version(self, link: Link) -> None:
        """Drop an earlier file of a record: see :meth:`Links.drop_version`."""
        self._step(link.key, DROPPED, partial(self._drop_version, link))

    def write(self) -> None:
        """Write the steps that were collected since the last call.

        :raises AttachmentGone: a file was deleted in the meantime.
        """
        if self._is_replacement():
            self._replace(*self._new[0][:2], self._dropped[0])
        else:
            self._write_one_by_one()
        self._steps.clear()
        self._new.clear()
        self._dropped.clear()

    def _write_one_by_one(self) -> None:
        if self._steps or len(self._dropped) <= FEW_FILES:
            for link in self._dropped:
                self._step(link.key, DROPPED, partial(self._drop, [link]))
            self._dropped.clear()
        for _, _, step in sorted(self._steps, key=itemgetter(0, 1)):
            step()
        self._drop(self._dropped)

    def _is_replacement(self) -> bool:
        """Whether the only steps replace one file by a new one."""
        if not len(self._steps) == len(self._new) == len(self._dropped) == 1:
            return False
        (link, file, is_new), old = self._new[0], self._dropped[0]
        return (
            is_new is False
            and link.record == old.record
            and link.key != old.key
            and not (old.shared or old.readonly)
            and _is_recent(file)
        )

    def _replace(self, link: Link, file: NewFile, old: Link) -> None:
        self._ledger.linking.add(link.key)
        entry = self._links.replace(link, old)
        if not _is_recent(file):
            self._links.confirm(link)
        self._ledger.when_committed(self._ledger.linked, link.key)
        if entry is None:
            self._drop([dataclasses.replace(old, shared=True)])
        else:
            self._ledger.when_committed(self._ledger.garbage, entry)

    def discard_files(self) -> None:
        """Let files that no longer have a link be deleted after the commit, or when due."""
        discard(self._registry, self._ledger, self._orphans)
        for due, links in self._lingering.items():
            discard(self._registry, self._ledger, links, due)

    def _step(self, key: str, rank: int, step: Callable[[], None]) -> None:
        self._steps.append((digest_of(key), rank, step))

    def _add(self, link: Link, file: NewFile, is_new: bool | None) -> None:
        self._ledger.linking.add(link.key)
        # The rest of a form may arrive hours after its file, and a process can be paused at any
        # time, also while the link is written: gc may have deleted the file by then.
        if _is_recent(file):
            self._links.add(link, is_new=is_new)
            if not _is_recent(file):
                self._links.confirm(link)
        else:
            self._links.share(link, known_in=[link.storage], is_new=is_new)
        # This saves the queries that check whether the file is in use.
        self._ledger.when_committed(self._ledger.linked, link.key)

    def _share_if_known(self, link: Link) -> None:
        with suppress(AttachmentGone):
            self._links.share(link)

    def _drop_version(self, link: Link) -> None:
        self._orphans += self._links.drop_version(link)

    def _drop(self, links: list[Link]) -> None:
        self._orphans += self._links.drop(links)


def discard(registry: Registry, ledger: Ledger, files: Iterable[File], due: int = 0) -> None:
    """Let files be deleted after the commit, or at ``due`` (ms since the epoch) unless it is 0."""
    entries = registry.attachment_links.outbox.add_files(files, due)
    ledger.when_committed(ledger.garbage, *entries)


def _is_recent(file: NewFile) -> bool:
    return time.monotonic() - file.stored < UNCHECKED_SECONDS
