"""The earlier files of a record: which are kept, which linger, and which are deleted.

The rules are those of the record's collection: ``keep_old_files``, ``max_versions``, ``linger``.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any

from kinto_attachment.files.ledger import Ledger, NewFile, RecordChange
from kinto_attachment.files.link_steps import LinkSteps
from kinto_attachment.index.holds import standing
from kinto_attachment.index.link import ENDING, Link
from kinto_attachment.index.lives import Lives
from kinto_attachment.kinto_types import Registry
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.uris import RecordURI


class EarlierFiles:
    """Decides about the earlier files of records at ``now``, in ms since the epoch."""

    def __init__(
        self, registry: Registry, ledger: Ledger, steps: LinkSteps, lives: Lives, now: int
    ) -> None:
        self.registry = registry
        self.ledger = ledger
        self.steps = steps
        self.lives = lives
        self.now = now

    def surplus(self, change: RecordChange, living: list[Link], key: str | None) -> set[str]:
        """The keys of the oldest files, as far as the earlier files exceed ``max_versions``.

        Files that are held are kept in addition.
        """
        rules = self.rules(change.record)
        if not (rules.keep_old_files and rules.max_versions):
            return set()
        living = [link for link in living if standing(link, self.now) is None]
        earlier = [link for link in living if link.key != key and link.state not in ENDING]
        earlier.sort(key=attrgetter("age"), reverse=True)
        room = rules.max_versions - len(self.new_intermediate(change, key))
        return {link.key for link in earlier[max(room, 0) :]}

    def retire(self, link: Link, change: RecordChange) -> None:
        """Drop a link, or change its state if the file is kept for good or for a while."""
        if link.state == "bundle":
            self.steps.drop(link)
            return
        rules = self.rules(change.record)
        withdrawn = change.let_go
        if link.state == "current":
            link = replace(link, retired=self.now)
        if change.ended:
            link = self.lives.end(link, change.ended)
        if link.state in ENDING:
            if withdrawn and link.state == "lingering":
                self.steps.retain(link, "withdrawn", link.until)
        elif rules.keep_old_files:
            if link.state == "current" or change.ended:
                self.steps.retain(link, "kept")
        elif rules.linger and link.state == "current":
            until = self.now + int(rules.linger * 1000)
            self.steps.let_linger(link, "withdrawn" if withdrawn else "lingering", until)
        else:
            self.steps.drop(link)

    def new_intermediate(self, change: RecordChange, key: str | None) -> list[tuple[NewFile, Any]]:
        """Those of these files that are kept, with their attachment objects."""
        rules = self.rules(change.record)
        if not (change.intermediate and rules.keep_old_files):
            return []
        files = [(self.ledger.new_file(each), each) for each in change.intermediate]
        kept = [(file, each) for file, each in files if file is not None and file.key != key]
        return kept[-rules.max_versions :]  # 0 keeps all.

    def rules(self, record: str) -> CollectionSettings:
        resolver = self.registry.attachment_collection_settings
        return resolver.without_user(RecordURI.parse(record), self.ledger)
