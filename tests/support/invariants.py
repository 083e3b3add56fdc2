"""What has to hold whatever happened: no file is lost and, after gc, none is left."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import transaction
from pyramid.paster import get_app

from kinto_attachment.errors import FileNotFound
from kinto_attachment.files.locations import possible_keys
from kinto_attachment.maintenance import gc as maintenance
from kinto_attachment.metadata import FIELD
from kinto_attachment.storage import CHUNK_SIZE
from tests.support import live
from tests.support.application import forget_database
from tests.support.usage import miscounted

# A grace period that spares nothing, for when no request is under way.
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


def lost(registry: Any) -> list[str]:
    """Records whose file is missing or is not what they say."""
    found = []
    for uri, record in records(registry).items():
        attachment = record.get(FIELD)
        if attachment is not None:
            problem = wrong(registry, uri, attachment)
            if problem:
                found.append(f"{uri}: {problem}")
    return found


def left(registry: Any) -> list[str]:
    """Files, links, and other remains of what is gone; none while no request is under way."""
    index = registry.attachment_links
    found = []
    linked = links(registry)
    with transaction.manager:
        found += [f"in the outbox: {entry.keys}" for entry in index.outbox.entries()]
        names = index.reservations.before(2**53)
        spares = index.spares.all()
    found += [f"reserved: {name}" for name in names]
    found += [f"a spare copy: {spare}" for spare in spares]
    pointing = Counter(
        (uri, key_in(registry, record[FIELD]))
        for uri, record in records(registry).items()
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
    return found + miscounted(registry)


def collect(registry: Any) -> maintenance.Report:
    """Run gc as if all that is there were old.

    ``really``: of few files, those that killed requests have left may be most.
    """
    report = maintenance.gc(
        registry, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0), really=True
    )
    assert not report.errors, report.errors
    return report


def records(registry: Any) -> dict[str, dict[str, Any]]:
    """All records, by URI; also those whose collection is gone."""
    found = {}
    with transaction.manager:
        for parent in registry.storage.all_resources_timestamps("record"):
            rows = registry.storage.list_all(resource_name="record", parent_id=parent)
            assert len(rows) < registry.attachment_links.page_size, "too many to see them all"
            found.update({f"{parent}/records/{row['id']}": row for row in rows})
    return found


def key_in(registry: Any, attachment: Any) -> str:
    (key,) = possible_keys(registry.attachment_settings, registry.route_prefix, attachment)
    return key


def wrong(registry: Any, uri: str, attachment: Any) -> str:
    """What is wrong with the file of a record's attachment; nothing, it is hoped."""
    key = key_in(registry, attachment)
    with transaction.manager:
        present = registry.attachment_links.of_record(uri)
    storage = next((link.storage for link in present if link.key == key), "")
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


def links(registry: Any) -> list[Any]:
    with transaction.manager:
        return [link for page in registry.attachment_links.under() for link in page]
