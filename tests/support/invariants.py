"""Invariants that must hold in every case: no file is lost and, after gc, none is left."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import transaction
from pyramid.paster import get_app

from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.index.link import Link
from kinto_attachment.maintenance import gc as maintenance
from kinto_attachment.metadata import FIELD
from kinto_attachment.storage import CHUNK_SIZE
from tests.support import live
from tests.support.application import forget_database
from tests.support.usage import miscounted

# A grace period that spares no files, for when no request is in progress.
AT_ONCE = timedelta(seconds=-1)


@contextlib.contextmanager
def inside(server: live.Server) -> Iterator[Any]:
    """The registry of a server's application, built once more in this process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HTTPS is not enabled")
        warnings.filterwarnings("ignore", message="Reuse existing PostgreSQL connection")
        app = get_app(str(server.ini), options={"http_port": str(server.port)})
    try:
        yield app.registry
    finally:
        forget_database(app.registry.settings["storage_url"])


@dataclass(frozen=True)
class Present:
    """The state in the database, read once."""

    records: dict[str, dict[str, Any]]  # By URI.
    links: list[Link]
    remains: list[str]  # Objects that were begun or have ended, but are not finished.

    @classmethod
    def read(cls, registry: Any) -> Present:
        index = registry.attachment_links
        with transaction.manager:
            remains = [f"in the outbox: {entry.keys}" for entry in index.outbox.entries()]
            remains += [f"reserved: {name}" for name in index.reservations.before(2**53)]
            remains += [f"a spare copy: {spare}" for spare in index.spares.all()]
            return cls(_records(registry), _links(registry), remains)


def check(registry: Any, told: str = "", *, collecting: bool = False) -> Present:
    """Check that no file is lost, and none is left after gc; returns the state then.

    gc runs if something is left for it; with ``collecting``, always.
    """
    present = Present.read(registry)
    assert not (found := lost(registry, present)), f"{found} after:\n{told}"
    if collecting or left(registry, present):
        collect(registry)
        present = Present.read(registry)
        assert not (found := lost(registry, present)), f"{found} after gc, after:\n{told}"
        assert not (found := left(registry, present)), f"{found} after gc, after:\n{told}"
    return present


def lost(registry: Any, present: Present | None = None) -> list[str]:
    """Records whose file is missing or differs from their description."""
    present = present or Present.read(registry)
    found = []
    for uri, record in present.records.items():
        attachment = record.get(FIELD)
        if attachment is not None:
            problem = wrong(registry, uri, attachment, present.links)
            if problem:
                found.append(f"{uri}: {problem}")
    return found


def left(registry: Any, present: Present | None = None) -> list[str]:
    """Files, links and other remains of deleted objects; none while no request is in progress."""
    present = present or Present.read(registry)
    linked, found = present.links, [*present.remains]
    pointing = Counter(
        (uri, key_in(registry, record[FIELD]))
        for uri, record in present.records.items()
        if record.get(FIELD) is not None
    )
    current = Counter((link.record, link.key) for link in linked if link.state == "current")
    found += [f"a record without its link: {pair}" for pair in pointing - current]
    found += [f"a link without its record: {pair}" for pair in current - pointing]
    shared = Counter(link.key for link in linked)
    found += [
        f"{link} is not alone" for link in linked if not link.shared and shared[link.key] > 1
    ]
    for storage in registry.attachment_storages:
        stored = {file.key for file in storage.files.list()}
        here = {link.key for link in linked if link.storage == storage.name}
        found += [f"stored without a link: {key}" for key in sorted(stored - here)]
        found += [f"linked but not stored: {key}" for key in sorted(here - stored)]
        found += [f"unfinished: {remains}" for remains in storage.files.list_unfinished()]
    return found + miscounted(registry, linked)


def collect(registry: Any) -> maintenance.Report:
    """Run gc as if everything were old.

    ``really``: if there are few files, most of them may be left by killed requests.
    """
    report = maintenance.gc(
        registry, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0), really=True
    )
    assert not report.errors, report.errors
    return report


def records(registry: Any) -> dict[str, dict[str, Any]]:
    """All records, by URI; also those whose collection was deleted."""
    with transaction.manager:
        return _records(registry)


def _records(registry: Any) -> dict[str, dict[str, Any]]:
    found = {}
    for parent in registry.storage.all_resources_timestamps("record"):
        rows = registry.storage.list_all(resource_name="record", parent_id=parent)
        assert len(rows) < registry.attachment_links.page_size, "too many to see them all"
        found.update({f"{parent}/records/{row['id']}": row for row in rows})
    return found


def key_in(registry: Any, attachment: Any) -> str:
    (key,) = possible_keys(registry.attachment_settings, registry.route_prefix, attachment)
    return key


def wrong(registry: Any, uri: str, attachment: Any, linked: list[Link]) -> str:
    """What is wrong with the file of a record's attachment; empty if nothing is."""
    key = key_in(registry, attachment)
    of_record = (link.storage for link in linked if (link.record, link.key) == (uri, key))
    storage = next(of_record, "")
    try:
        reader = registry.attachment_storages[storage].files.open(key)
    except FileNotFound:
        return f"{key} is missing"
    size, digest = 0, hashlib.sha256()
    with contextlib.closing(reader):
        while chunk := reader.read(CHUNK_SIZE):
            size += len(chunk)
            digest.update(chunk)
    if (size, digest.hexdigest()) != (attachment["size"], attachment["hash"]):
        return f"{key} has other content"
    return ""


def content(registry: Any, key: str) -> bytes:
    """The bytes of a small file in the default storage."""
    with contextlib.closing(registry.attachment_storages.default.files.open(key)) as reader:
        found: bytes = reader.read(CHUNK_SIZE)
        return found


def links(registry: Any) -> list[Link]:
    with transaction.manager:
        return _links(registry)


def _links(registry: Any) -> list[Link]:
    return [link for page in registry.attachment_links.under() for link in page]
