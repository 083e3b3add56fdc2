"""The events for other plugins: changes of attachments, after they are committed."""

from __future__ import annotations

from typing import Any

import pytest
import transaction

from kinto_attachment import (
    AttachmentAdded,
    AttachmentRead,
    AttachmentRemoved,
    AttachmentReplaced,
)
from tests.support.application import (
    ALICE,
    BOB,
    BUCKET,
    COLLECTION,
    CONTENT,
    DEFAULT,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    on_event,
    put,
    put_raw,
    read,
    seen,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"
KINDS = (AttachmentAdded, AttachmentReplaced, AttachmentRemoved, AttachmentRead)


def told(app: Any) -> list[tuple[type, str]]:
    """Return the events and their records, and forget them."""
    events = [(type(event), event.record_uri) for event in seen(app, *KINDS)]
    app.app.registry.seen.clear()
    return events


class TestWrites:
    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_of_uploads(self, app: Any, upload: Any) -> None:
        first = upload(app).json
        second = upload(app, content=b"new").json
        added, replaced = seen(app, *KINDS)
        assert (type(added), added.record_uri) == (AttachmentAdded, RECORD)
        assert added.attachment == first
        assert added.request.registry is app.app.registry
        assert (type(replaced), replaced.record_uri) == (AttachmentReplaced, RECORD)
        assert (replaced.attachment, replaced.old) == (second, first)

    def test_on_a_record_that_was_there(self, app: Any) -> None:
        put(app, RECORD)
        attach(app)
        app.delete(URL, headers=ALICE)
        attach(app)
        kinds = [kind for kind, _ in told(app)]
        assert kinds == [AttachmentAdded, AttachmentRemoved, AttachmentAdded]

    def test_of_a_removal(self, app: Any) -> None:
        attachment = attach(app).json
        app.app.registry.seen.clear()
        app.delete(URL, headers=ALICE)
        (removed,) = seen(app, *KINDS)
        assert (type(removed), removed.record_uri) == (AttachmentRemoved, RECORD)
        assert removed.attachment == attachment
        app.delete(URL, headers=ALICE)
        assert len(seen(app, *KINDS)) == 1

    def test_of_a_record_written_without_it(self, app: Any) -> None:
        attach(app)
        put(app, RECORD, data={})
        assert told(app)[1:] == [(AttachmentRemoved, RECORD)]

    def test_of_deleted_records(self, app: Any) -> None:
        attach(app)
        attach(app, OTHER)
        put(app, f"{COLLECTION}/records/without")
        told(app)
        app.delete(f"{COLLECTION}/records", headers=ALICE)
        assert sorted(told(app), key=str) == [
            (AttachmentRemoved, OTHER),
            (AttachmentRemoved, RECORD),
        ]

    def test_of_a_batch(self, app: Any) -> None:
        attach(app)
        told(app)
        requests = [
            {"method": "DELETE", "path": f"/v1{URL}"},
            {"method": "PUT", "path": f"/v1{OTHER}/attachment?filename=a.json", "body": {"n": 1}},
        ]
        app.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert sorted(told(app), key=str) == [
            (AttachmentAdded, OTHER),
            (AttachmentRemoved, RECORD),
        ]

    def test_in_the_default_bucket_name_the_real_one(self, app: Any) -> None:
        attach(app, DEFAULT)
        bucket = app.get("/", headers=ALICE).json["user"]["bucket"]
        assert told(app) == [(AttachmentAdded, DEFAULT.replace("default", bucket))]

    def test_of_nothing_that_is_refused(self, app: Any) -> None:
        attach(app, data="nope", status=400)
        attach(app, headers=BOB, status=403)
        app.delete(URL, headers=ALICE, status=404)
        assert told(app) == []

    def test_of_nothing_that_is_not_written(self, app: Any) -> None:
        attachment = attach(app).json
        told(app)
        put(app, RECORD, data={"attachment": attachment, "title": "A"})
        assert told(app) == []

    @ON_DATABASES
    def test_come_outside_of_any_transaction(self, app: Any) -> None:
        """A subscriber may use Kinto's storage, in its own transaction."""
        written = []

        def write(event: Any) -> None:
            with transaction.manager:
                storage = event.request.registry.storage
                record = storage.get("record", COLLECTION, "r")
                written.append(storage.create("note", "notes", {"of": record["attachment"]}))

        on_event(app, AttachmentAdded, write)
        attachment = attach(app).json
        with transaction.manager:
            (note,) = app.app.registry.storage.list_all("note", "notes")
        assert written == [note]
        assert note["of"] == attachment


class TestReads:
    @pytest.fixture
    def served(self, build: Build) -> Any:
        app = build(downloads="proxy")
        attach(app)
        told(app)
        return app

    def test_of_the_record_s_file(self, served: Any) -> None:
        read(served)
        (event,) = seen(served, *KINDS)
        assert (type(event), event.record_uri) == (AttachmentRead, RECORD)
        assert event.attachment["filename"] == "notes.txt"

    def test_by_location(self, served: Any) -> None:
        read(served, attachment_of(served)["location"])
        (event,) = seen(served, *KINDS)
        assert (type(event), event.record_uri) == (AttachmentRead, RECORD)
        assert event.attachment["filename"] == "notes.txt"

    def test_of_a_part(self, served: Any) -> None:
        served.get(URL, headers={**ALICE, "Range": "bytes=0-0"}, status=206)
        assert told(served) == [(AttachmentRead, RECORD)]

    def test_elsewhere(self, app: Any) -> None:
        """Also if the storage itself, or the web server in front, sends the bytes."""
        attach(app)
        told(app)
        app.get(URL, headers=ALICE)
        assert told(app) == [(AttachmentRead, RECORD)]

    def test_of_nothing_that_is_not_sent(self, served: Any) -> None:
        etag = served.get(URL, headers=ALICE).headers["ETag"]
        told(served)
        served.head(URL, headers=ALICE)
        served.get(URL, headers={**ALICE, "If-None-Match": etag}, status=304)
        served.get(URL, headers={**ALICE, "Range": "bytes=99-"}, status=416)
        served.get(URL, headers=BOB, status=403)
        assert told(served) == []


@ON_MEMORY
def test_a_deleted_bucket_is_kinto_s_to_tell(app: Any) -> None:
    """Its records are not loaded for an event: a bucket may have a million."""
    attach(app)
    told(app)
    app.delete(BUCKET, headers=ALICE)
    assert told(app) == []
    assert CONTENT
