"""With rows of an earlier release, everything works, and reindex completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import transaction

from kinto_attachment.index.link import Link
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.reindex import reindex
from tests.support import invariants, lingering, old_rows
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    attach,
    attachment_of,
    put,
    put_collection,
    read,
    records,
    stored_content,
    stored_files,
)
from tests.support.backends import ON_EACH_DATABASE, Build
from tests.support.old_rows import record

pytestmark = ON_EACH_DATABASE

CURRENT = {
    "c/replaced": b"22",
    "public/copy": b"22",
    "kept/living": b"third",
    "lingering/replaced": b"stays",
}
EVERYONE = {"read": ["system.Everyone"]}


@pytest.fixture
def app(build: Build) -> Iterator[Any]:
    app = build(old_rows.SETTINGS, **old_rows.OPTIONS)
    old_rows.load(app)
    yield app
    lingering.end(app)


def links(app: Any, name: str = "") -> dict[bytes, Link]:
    """The links of a record, or all links, by the content of their files."""
    prefix = record(name) if name else ""
    found = [link for link in invariants.links(app.app.registry) if prefix in link.record]
    return {stored_content(app, link.key): link for link in found}


def kept(app: Any, content: bytes) -> str:
    return f"/attachments/{links(app)[content].key}"


def assert_hidden(app: Any, *contents: bytes) -> None:
    for content in contents:
        app.get(kept(app, content), headers=ALICE, status=404)
        app.get(kept(app, content), headers=BOB, status=404)
        app.get(kept(app, content), headers=ANONYMOUS, status=401)


def locks(app: Any) -> int:
    with transaction.manager:
        storage = app.app.registry.storage
        return len(storage.list_all("attachment-lock", "attachments-lock:*"))


def test_rows_have_what_the_release_knew(app: Any) -> None:
    for link in invariants.links(app.app.registry):
        assert not any((link.created, link.attached, link.life, link.ended, link.storage))
        assert link.original is link.hold is None
    assert not gc(
        app.app.registry, grace=timedelta(seconds=-1), orphan_age=timedelta(0), pause=timedelta(0)
    ).found


def test_files_are_read(app: Any) -> None:
    for name, content in CURRENT.items():
        assert read(app, f"{record(name)}/attachment") == content
        assert read(app, attachment_of(app, record(name))["location"]) == content
    for content in (b"first", b"second", b"one", b"another", b"lingers"):
        assert read(app, kept(app, content)) == content
    assert_hidden(app, b"withdrawn")


def test_files_are_replaced(app: Any) -> None:
    for name in (*CURRENT, "packed/r", "kept/removed", "lingering/removed", "c/plain"):
        attach(app, record(name), content=f"new {name}".encode())
    for name in CURRENT:
        assert read(app, f"{record(name)}/attachment") == f"new {name}".encode()
        link = links(app, name)[f"new {name}".encode()]
        assert 0 < link.created <= link.attached
    assert {content: link.state for content, link in links(app, "kept/living").items()} == {
        **dict.fromkeys((b"first", b"second", b"third"), "kept"),
        b"new kept/living": "current",
    }
    for content in (b"first", b"second", b"third", b"one", b"another", b"stays"):
        assert read(app, kept(app, content)) == content


def test_the_first_upload_draws_a_life_and_later_ones_inherit_it(app: Any) -> None:
    attach(app, record("c/new"), content=b"new")
    attach(app, record("kept/new"), content=b"older")
    attach(app, record("kept/new"), content=b"newer")
    attach(app, record("kept/living"), content=b"fourth")
    new, (older, newer) = links(app)[b"new"], links(app, "kept/new").values()
    assert older.life == newer.life != new.life
    assert {len(new.life), len(newer.life)} == {16}
    # The old links of a record belong to one life, which has no id.
    assert {link.life for link in links(app, "kept/living").values()} == {""}


def test_files_are_renamed(app: Any) -> None:
    body = {"data": {"filename": "renamed.txt"}}
    for name in ("c/replaced", "packed/r"):
        app.patch_json(f"{record(name)}/attachment", body, headers=ALICE)
    (link,) = links(app, "packed/r").values()
    assert link.filename == "renamed.txt.gz"
    assert link.original == attachment_of(app, record("packed/r"))["original"]
    assert links(app, "public/copy")[b"22"].filename == "notes.txt"


def test_files_are_copied(app: Any) -> None:
    copies = {record("packed/r"): record("public/packed"), record("kept/living"): record("c/x")}
    app.post_json("/publish", {"copies": copies})
    (link,) = links(app, "public/packed").values()
    assert link.original == attachment_of(app, record("packed/r"))["original"]
    assert link.life
    app.delete(record("packed/r"), headers=ALICE)
    assert read(app, f"{record('public/packed')}/attachment")
    app.delete(record("public/packed"), headers=ALICE)
    assert link.key not in stored_files(app)


@pytest.mark.parametrize("path", [f"{record('kept/living')}/attachment", record("kept/living")])
def test_kept_files_stay_stored(app: Any, path: str) -> None:
    app.delete(path, headers=ALICE)
    assert {link.state for link in links(app, "kept/living").values()} == {"kept"}
    assert len(links(app, "kept/living")) == 3


def test_a_file_stays_readable_when_the_attachment_is_deleted(app: Any) -> None:
    app.delete(f"{record('kept/living')}/attachment", headers=ALICE)
    for content in (b"first", b"second", b"third"):
        assert read(app, kept(app, content)) == content


def delete_record(app: Any) -> None:
    app.delete(record("kept/living"), headers=ALICE)


def delete_collection(app: Any) -> None:
    app.delete(f"{BUCKET}/collections/kept", headers=ALICE)
    put_collection(app, f"{BUCKET}/collections/kept")


def delete_bucket(app: Any) -> None:
    app.delete(BUCKET, headers=ALICE)
    put_collection(app, f"{BUCKET}/collections/kept")


@pytest.mark.parametrize("end", [delete_record, delete_collection, delete_bucket])
def test_a_namesake_of_what_is_deleted_now_sees_nothing(
    app: Any, end: Callable[[Any], None]
) -> None:
    end(app)
    put(app, record("kept/living"), permissions=EVERYONE)
    assert_hidden(app, b"first", b"second", b"third")
    lives = {(link.life, link.ended) for link in links(app, "kept/living").values()}
    assert len(lives) == 1
    assert "" not in lives.pop()


def test_other_files_go(app: Any) -> None:
    for name in records(app):
        app.delete(name, headers=ALICE)
    left = {b"first", b"second", b"third", b"one", b"another", b"secret", b"secret too"}
    lasting = {b"hidden", b"hidden too", b"lingers", b"stays", b"withdrawn"}
    assert links(app).keys() == left | lasting
    assert_hidden(app, *left - {b"secret", b"secret too"})


def test_a_namesake_of_what_had_been_deleted_sees_nothing_once_it_has_a_file(app: Any) -> None:
    attach(app, record("kept/deleted"), content=b"of the namesake", permissions=EVERYONE)
    assert_hidden(app, b"secret", b"secret too")
    reindex(app.app.registry)
    assert {content: link.ended for content, link in links(app, "kept/deleted").items()} == {
        b"secret": "record",
        b"secret too": "record",
        b"of the namesake": "",
    }


def test_a_namesake_of_what_had_been_deleted_sees_nothing_after_reindex(app: Any) -> None:
    reindex(app.app.registry)
    put_collection(app, f"{BUCKET}/collections/gone")
    for name in ("kept/deleted", "gone/r"):
        put(app, record(name), permissions=EVERYONE)
    assert_hidden(app, b"secret", b"secret too", b"hidden", b"hidden too")


def test_reindex_completes_the_rows(app: Any) -> None:
    before = locks(app)
    report = reindex(app.app.registry)
    # A file of two records is found by one of its links, and both links are completed.
    assert report.completed == len(invariants.links(app.app.registry))
    assert not report.found
    for link in invariants.links(app.app.registry):
        stat = app.app.registry.attachment_storages.default.files.stat(link.key)
        assert link.created == link.attached == int(stat.modified.timestamp() * 1000)
    (packed,) = links(app, "packed/r").values()
    assert packed.original == attachment_of(app, record("packed/r"))["original"]
    ended = {content: link.ended for content, link in links(app).items() if link.ended}
    assert ended == {
        **dict.fromkeys((b"secret", b"secret too"), "record"),
        **dict.fromkeys((b"hidden", b"hidden too"), "collection"),
    }
    lives = {link.record: link.life for link in links(app).values() if link.ended}
    assert len({*lives.values(), ""}) == 3, "one for each record"
    assert locks(app) <= before
    assert reindex(app.app.registry).completed == 0
    test_files_are_read(app)


def test_reindex_leaves_no_lock_behind(app: Any) -> None:
    """Neither for a file of two records, nor for a missing file."""
    storage, index = app.app.registry.attachment_storages.default.files, app.app.registry.storage
    (packed,) = links(app, "packed/r").values()
    storage.delete(packed.key)
    with transaction.manager:
        index.delete_all("attachment", "attachments:*", with_deleted=False)
        index.delete_all("attachment-lock", "attachments-lock:*", with_deleted=False)
    report = reindex(app.app.registry)
    assert report.missing == [record("packed/r")]
    assert report.linked == len(CURRENT)
    assert locks(app) == 0
    app.delete(record("packed/r"), headers=ALICE)
    # Files without a record that can no longer be identified as ours.
    with transaction.manager:
        left = app.app.registry.attachment_links.without_links(sorted(stored_files(app)))
    storage.delete(*left)
