"""Removing the stored bytes and, later, the rows of upload sessions that have ended."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator

import transaction
from kinto.core.utils import msec_time

from kinto_attachment.errors import StorageError, cause
from kinto_attachment.files import session_ends
from kinto_attachment.files.direct_activity import goes_on
from kinto_attachment.index.session import Session
from kinto_attachment.kinto_types import Registry
from kinto_attachment.maintenance.shards import Shard

logger = logging.getLogger(__name__)


class OldSessions:
    """The sessions of some storages that need cleaning up."""

    def __init__(
        self, registry: Registry, storages: Container[str], shard: Shard, *, dry_run: bool
    ) -> None:
        self._registry = registry
        self._sessions = registry.attachment_sessions
        self._storages = storages
        self._shard = shard
        self._dry_run = dry_run

    def remove(self) -> Iterator[tuple[Session, bool]]:
        """End expired sessions, remove the bytes of ended ones, and delete the rows of old ones.

        :returns: the sessions that had stored bytes, and whether these were removed.
        """
        now = msec_time()
        for session in self._all():
            if session.seen_at(now).state == "expired" and session.is_unfinished:
                is_removed = self._expire(session)
                if is_removed is not None:
                    yield session, is_removed
            elif not session.is_unfinished and session.partial is not None:
                yield session, self._dry_run or self._discard(session)
            elif not session.is_unfinished and session.expires <= now:
                self._forget(session)

    def _all(self) -> Iterator[Session]:
        pages = self._sessions.pages()
        while True:
            with transaction.manager:
                page = next(pages, None)
            if page is None:
                return
            for session in page:
                if session.storage in self._storages and self._shard.has(session.key):
                    yield session

    def _discard(self, session: Session) -> bool:
        # The row does not show whether another request was writing when the session ended.
        return session_ends.discard(self._registry, session, release=False)

    def _expire(self, session: Session) -> bool | None:
        """Whether its stored bytes were removed; None if it continues."""
        try:
            if goes_on(self._registry, session, save=not self._dry_run):
                return None
        except StorageError as error:
            message = "Could not ask the storage whether an upload goes on: %s: %s"
            logger.exception(message, session.key, cause(error))
            return False
        return self._dry_run or session_ends.expire(self._registry, session)

    def _forget(self, session: Session) -> None:
        if not self._dry_run:
            with transaction.manager:
                self._sessions.delete(session)
