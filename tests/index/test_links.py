"""Files that belong to several records live until the last of them releases them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from io import BytesIO
from itertools import product
from typing import Any

import pytest
import transaction
from kinto.core.events import ACTIONS, ResourceChanged
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import build_request, instance_uri

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.index.holds import Hold
from kinto_attachment.index.link import Link
from kinto_attachment.index.links import Links
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.parsers import DownloadMode
from kinto_attachment.storage.memory import MemoryStorage
from kinto_attachment.storage.storages import Storage, Storages
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    COLLECTION,
    RECORD,
    attach,
    attachment_of,
    key_of,
    outbox,
    put,
    put_collection,
    read,
    stored_files,
    stored_links,
)
from tests.support.backends import ON_DATABASES, ON_EACH_DATABASE, ON_MEMORY, Build
from tests.support.owned import STRAY

pytestmark = ON_DATABASES

PUBLISHED = f"{BUCKET}/collections/published"
PUBLISHER = "plugin:publisher"
AT_ONCE = timedelta(seconds=-5)  # Clocks differ.
FAR = 4_102_444_800_000  # The year 2100, in ms.


def includeme(config: Any) -> None:
    """A plugin that publishes a collection when its status is set to ``to-publish``.

    Like real ones, it copies the records by Kinto's storage, and notifies the changes with a
    request that it creates.
    """
    config.add_subscriber(
        on_status, ResourceChanged, for_resources=("collection",), for_actions=(ACTIONS.UPDATE,)
    )


def on_status(event: Any) -> None:
    for impacted in event.impacted_objects:
        if impacted["new"].get("status") == "to-publish":
            uri = instance_uri(
                event.request, "collection", bucket_id="b", id=impacted["new"]["id"]
            )
            publish(event.request, uri)


def publish(request: Any, source: str) -> None:
    storage = request.registry.storage
    records = {r["id"]: r for r in storage.list_all(resource_name="record", parent_id=source)}
    published = storage.list_all(resource_name="record", parent_id=PUBLISHED)
    for record in records.values():
        copy = {name: value for name, value in record.items() if name != "last_modified"}
        try:
            old = storage.get("record", PUBLISHED, record["id"])
        except ObjectNotFoundError:
            new = storage.create("record", PUBLISHED, copy)
            notify(request, ACTIONS.CREATE, new)
        else:
            new = storage.update("record", PUBLISHED, record["id"], copy)
            notify(request, ACTIONS.UPDATE, new, old)
    for old in published:
        if old["id"] not in records:
            new = storage.delete("record", PUBLISHED, old["id"])
            notify(request, ACTIONS.DELETE, new, old)


def notify(request: Any, action: ACTIONS, new: Any, old: Any = None) -> None:
    path = f"{PUBLISHED}/records/{new['id']}"
    fake = build_request(request, {"method": "PUT", "path": path})
    fake.matchdict = {"bucket_id": "b", "collection_id": "published", "id": new["id"]}
    fake.bound_data = request.bound_data
    fake.authn_type, fake.selected_userid = PUBLISHER.split(":")
    fake.current_resource_name = "record"
    fake._attachment_auto_save = True
    fake.notify_resource_event(
        parent_id=PUBLISHED,
        timestamp=new["last_modified"],
        data=new,
        action=action,
        old=old,
        resource_name="record",
    )


def record(number: int, collection: str = COLLECTION) -> str:
    return f"{collection}/records/r{number}"


def request_publication(app: Any) -> None:
    app.patch_json(COLLECTION, {"data": {"status": "to-publish"}}, headers=ALICE)
    app.patch_json(COLLECTION, {"data": {"status": "published"}}, headers=ALICE)


@pytest.fixture
def app(build: Build) -> Any:
    """A server with the publishing plugin, and three published records."""
    app = build({"includes": __name__})
    put_collection(app, PUBLISHED)
    for number in range(3):
        attach(app, record(number), content=b"file %d" % number)
    request_publication(app)
    return app


def read_published(app: Any, number: int) -> bytes:
    return read(app, f"{record(number, PUBLISHED)}/attachment")


class TestPublishing:
    def test_copies_point_at_the_same_files(self, app: Any) -> None:
        assert len(stored_files(app)) == 3
        assert len(stored_links(app)) == 6
        for number in range(3):
            copy = attachment_of(app, record(number, PUBLISHED))
            assert copy == attachment_of(app, record(number))
            assert read_published(app, number) == b"file %d" % number

    def test_replacing_the_original_leaves_the_copy(self, app: Any) -> None:
        attach(app, record(0), content=b"new")
        assert read_published(app, 0) == b"file 0"
        assert read(app, f"{record(0)}/attachment") == b"new"
        assert len(stored_files(app)) == 4
        request_publication(app)
        assert read_published(app, 0) == b"new"
        assert len(stored_files(app)) == 3

    @pytest.mark.parametrize(
        "path", [f"{record(0)}/attachment", record(0), f"{COLLECTION}/records", COLLECTION]
    )
    def test_deleting_the_original_leaves_the_copy(self, app: Any, path: str) -> None:
        app.delete(path, headers=ALICE)
        for number in range(3):
            assert read_published(app, number) == b"file %d" % number
        assert len(stored_files(app)) == 3

    @pytest.mark.parametrize(
        "path",
        [
            f"{record(0, PUBLISHED)}/attachment",
            record(0, PUBLISHED),
            f"{PUBLISHED}/records",
            PUBLISHED,
        ],
    )
    def test_deleting_the_copy_leaves_the_original(self, app: Any, path: str) -> None:
        app.delete(path, headers=ALICE)
        for number in range(3):
            assert read(app, f"{record(number)}/attachment") == b"file %d" % number
        assert len(stored_files(app)) == 3

    def test_the_last_one_takes_the_file_along(self, app: Any) -> None:
        app.delete(record(0), headers=ALICE)
        request_publication(app)
        assert len(stored_files(app)) == 2
        assert not outbox(app)

    @pytest.mark.parametrize("first", [COLLECTION, PUBLISHED])
    def test_collections_one_after_the_other(self, app: Any, first: str) -> None:
        second = PUBLISHED if first == COLLECTION else COLLECTION
        app.delete(first, headers=ALICE)
        app.delete(second, headers=ALICE)
        assert not stored_files(app)
        assert not stored_links(app)

    def test_the_bucket_of_both(self, app: Any) -> None:
        app.delete(BUCKET, headers=ALICE)
        assert not stored_files(app)
        assert not stored_links(app)

    def test_both_in_one_batch(self, app: Any) -> None:
        requests = [
            {"method": "DELETE", "path": f"/v1{record(0, collection)}"}
            for collection in (COLLECTION, PUBLISHED)
        ]
        app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert len(stored_files(app)) == 2

    def test_the_file_is_read_by_readers_of_the_copy(self, app: Any) -> None:
        location = attachment_of(app, record(0))["location"]
        app.get(location, headers=BOB, status=404)
        put(app, PUBLISHED, permissions={"read": ["system.Everyone"]})
        assert read(app, location, headers=ANONYMOUS) == b"file 0"
        app.get(f"{record(0)}/attachment", headers=ANONYMOUS, status=401)
        app.delete(record(0, PUBLISHED), headers=ALICE)
        app.get(location, headers=BOB, status=404)

    def test_in_the_request_that_uploads(self, app: Any) -> None:
        """Both the upload and the copy write a link to a file that is not committed yet."""
        requests = [
            {
                "method": "PUT",
                "path": f"/v1{record(3)}/attachment?filename=a.json",
                "body": {"n": 1},
            },
            {
                "method": "PATCH",
                "path": f"/v1{COLLECTION}",
                "body": {"data": {"status": "to-publish"}},
            },
        ]
        app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert read_published(app, 3) == b'{"n":1}'
        app.delete(record(3), headers=ALICE)
        assert read_published(app, 3) == b'{"n":1}'

    def test_of_the_same_again_changes_nothing(self, app: Any) -> None:
        before = stored_links(app)
        request_publication(app)
        assert stored_links(app) == before

    def test_clients_may_not_do_the_same(self, app: Any) -> None:
        attachment = attachment_of(app, record(0))
        body = {"data": {"attachment": attachment}}
        app.put_json(record(9, PUBLISHED), body, headers=ALICE, status=400)
        assert len(stored_links(app)) == 6

    def test_keeps_old_files(self, build: Build) -> None:
        app = build({"includes": __name__}, keep_old_files="true")
        put_collection(app, PUBLISHED)
        attach(app, record(0), content=b"old")
        request_publication(app)
        attach(app, record(0), content=b"new")
        request_publication(app)
        app.delete(COLLECTION, headers=ALICE)
        assert read_published(app, 0) == b"new"
        assert len(stored_files(app)) == 2

    @ON_MEMORY
    def test_history_names_the_publisher(self, build: Build) -> None:
        app = build({"includes": __name__})
        put_collection(app, PUBLISHED)
        attach(app, record(0))
        request_publication(app)
        query = f"{BUCKET}/history?uri={record(0, PUBLISHED)}"
        (entry,) = app.get(query, headers=ALICE).json["data"]
        assert entry["user_id"] == PUBLISHER


@ON_EACH_DATABASE
class TestLocks:
    """Locks leave nothing in the database."""

    def test_of_a_file_that_is_kept(self, build: Build) -> None:
        app = build(keep_old_files="true")
        attach(app)
        attach(app, content=b"new")
        assert not locks(app)

    def test_of_a_file_that_was_shared(self, build: Build) -> None:
        app = build({"includes": __name__})
        put_collection(app, PUBLISHED)
        attach(app, record(0))
        request_publication(app)
        for collection in (PUBLISHED, COLLECTION):
            app.delete(collection, headers=ALICE)
        assert not locks(app)

    def test_of_a_file_that_gc_takes(self, build: Build) -> None:
        app = build()
        stray = STRAY
        app.app.registry.attachment_storages.default.files.write(
            stray, BytesIO(b"x"), "text/plain"
        )
        assert gc(
            app.app.registry, grace=AT_ONCE, orphan_age=timedelta(0), pause=timedelta(0)
        ).unlinked == [stray]
        assert not locks(app)


def locks(app: Any) -> list[Any]:
    with transaction.manager:
        backend = app.app.registry.storage
        return list(backend.list_all("attachment-lock", "attachments-lock:*"))


class TestManyOfOne:
    """A file with more records than the database returns in one page."""

    @pytest.mark.parametrize("path", [PUBLISHED, f"{PUBLISHED}/records", BUCKET])
    def test_are_all_dropped(self, build: Build, path: str) -> None:
        app = build({"includes": "tests.files.test_listeners", "storage_max_fetch_size": 4})
        put_collection(app, PUBLISHED)
        attachment = attach(app).json
        writes = [[record(number, PUBLISHED), attachment, "flag"] for number in range(10)]
        app.post_json("/write", writes, headers=ALICE)
        app.delete(RECORD, headers=ALICE)
        assert stored_files(app) == {key_of(attachment)}
        app.delete(path, headers=ALICE)
        if path.endswith("/records"):  # Kinto deletes one page of them.
            for _ in range(3):
                app.delete(path, headers=ALICE)
        assert not stored_links(app)
        assert not stored_files(app)


@pytest.fixture
def links(build: Build) -> Iterator[Links]:
    """The index alone, in a transaction that is rolled back, and files in memory."""
    registry = build().app.registry
    backend, usage = registry.storage, registry.attachment_usage
    transaction.begin()
    storage = Storage("", MemoryStorage(), DownloadMode("stream"))
    yield Links(backend, Storages({"": storage}), page_size=5, usage=usage)
    transaction.abort()
    backend.flush()


def link(key: str, uri: str = RECORD) -> Link:
    return Link(uri, key, "notes.txt", "0" * 64, "text/plain", 3)


def dropped(links: Links, found: list[Link]) -> list[str]:
    """The keys of files whose last link is among these."""
    return [each.key for each in links.drop(found)]


@ON_MEMORY
def test_full_pages_are_not_read_in_vain_again_and_again(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{number}.txt" for number in range(400)]
    for number, key in enumerate(keys):
        links.add(link(key, f"{RECORD}{number}"))
    full, ask = 0, links._rows.list_below

    def counted(*args: Any, **options: Any) -> list[dict[str, Any]]:
        nonlocal full
        rows = ask(*args, **options)
        full += len(rows) >= links.page_size
        return rows

    monkeypatch.setattr(links._rows, "list_below", counted)
    assert sorted(one.key for page in links.under() for one in page) == sorted(keys)
    assert full <= 12, "all 16 parts of the first level would be full"


@ON_EACH_DATABASE
class TestIndex:
    def test_of_a_record(self, links: Links) -> None:
        links.add(link("a.txt"))
        links.add(link("b.txt", f"{RECORD}2"))
        assert links.of_record(RECORD) == [link("a.txt")]
        assert links.of_record(f"{RECORD}3") == []

    def test_of_a_key(self, links: Links) -> None:
        links.add(link("a.txt"))
        assert links.of_key("a.txt") == [link("a.txt")]
        assert links.of_key("b.txt") == []

    def test_of_records(self, links: Links) -> None:
        uris = [f"{COLLECTION}/records/r{number}" for number in range(60)]
        for number in (1, 5, 59):
            links.add(link(f"{number}.txt", uris[number]))
        ids = [uri.rsplit("/", 1)[1] for uri in uris]
        assert {found.key for found in links.of_records(COLLECTION, ids)} == {
            "1.txt",
            "5.txt",
            "59.txt",
        }
        assert links.of_records(COLLECTION, ids[:5]) == [link("1.txt", uris[1])]

    def test_under_gives_each_once_whatever_the_page(self, links: Links) -> None:
        for number in range(40):
            links.add(link(f"{number}.txt", f"{COLLECTION}/records/r{number}"))
        links.add(link("other.txt", f"{BUCKET}/collections/c2/records/r"))
        found = [one.key for page in links.under(f"{COLLECTION}/") for one in page]
        assert sorted(found) == sorted(f"{number}.txt" for number in range(40))

    def test_a_file_stays_until_its_last_link_goes(self, links: Links) -> None:
        links.add(link("a.txt"))
        for number in range(3):
            links.share(link("a.txt", f"{RECORD}{number}"))
        for uri in (f"{RECORD}1", RECORD, f"{RECORD}0"):
            assert dropped(links, links.of_record(uri)) == []
        assert dropped(links, links.of_record(f"{RECORD}2")) == ["a.txt"]
        assert links.of_key("a.txt") == []

    def test_a_link_that_was_shared_since_it_was_read(self, links: Links) -> None:
        links.add(link("a.txt"))
        stale = links.of_record(RECORD)
        links.share(link("a.txt", f"{RECORD}2"))
        assert dropped(links, stale) == []
        assert [left.record for left in links.of_key("a.txt")] == [f"{RECORD}2"]
        assert dropped(links, links.of_record(f"{RECORD}2")) == ["a.txt"]

    def test_all_links_of_a_file_at_once(self, links: Links) -> None:
        links.add(link("a.txt"))
        links.share(link("a.txt", f"{RECORD}2"))
        assert dropped(links, links.of_key("a.txt")) == ["a.txt"]

    def test_a_file_that_is_gone_cannot_be_shared(self, links: Links) -> None:
        with pytest.raises(AttachmentGone):
            links.share(link("a.txt"))

    def test_a_file_in_the_outbox_can_be_rescued(self, links: Links) -> None:
        for key in ("a.txt", "b.txt"):
            links.storages.default.files.write(key, BytesIO(b"xyz"), "text/plain")
        (entry,) = links.outbox.add(["a.txt", "b.txt"])
        links.share(link("a.txt"))
        (found,) = links.of_key("a.txt")
        assert replace(found, created=0, attached=0) == link("a.txt")
        assert found.created == found.attached > 0
        assert [waiting.keys for waiting in links.outbox.entries()] == [["b.txt"]]
        # A process that read the entry earlier must not delete its files.
        assert not links.outbox.take(entry)

    def test_an_entry_is_taken_once(self, links: Links) -> None:
        (entry,) = links.outbox.add(["a.txt"])
        assert links.outbox.take(entry)
        assert not links.outbox.take(entry)
        assert links.outbox.entries() == []

    def test_earlier_files_that_are_held_since_they_were_read_stay(self, links: Links) -> None:
        ended, dated, endless = Hold(until=1), Hold(until=FAR), Hold(until=1, is_open=True)
        cases = list(product([None, ended], [None, ended, dated, endless]))
        read = []
        for number, (before, _) in enumerate(cases):
            hold = before and before.dump()
            kept = replace(link(f"{number}.txt", f"{RECORD}{number}"), state="kept", hold=hold)
            links.add(kept)
            read.append(kept)
        for kept, (before, by_now) in zip(read, cases, strict=True):
            if by_now is not None and by_now != before:
                links.revise(kept.key, partial(replace, hold=by_now.dump()))
        links.drop_kept(read)
        left = [bool(links.of_key(kept.key)) for kept in read]
        assert left == [by_now in (dated, endless) for _, by_now in cases]

    def test_names_are_claimed_once(self, links: Links) -> None:
        assert links.reservations.claim("a.txt")
        assert not links.reservations.claim("a.txt")
        links.reservations.release("a.txt")
        assert links.reservations.claim("a.txt")
        links.reservations.release("a.txt")


def test_the_index_is_in_no_client_s_way(app: Any) -> None:
    """Its objects are in Kinto's storage, but in no bucket and no list."""
    attach(app)
    assert {item["id"] for item in app.get("/buckets", headers=ALICE).json["data"]} == {"b"}
    rights = app.get("/permissions", headers=ALICE).json["data"]
    assert not [right for right in rights if "attachment" in right["uri"]]
