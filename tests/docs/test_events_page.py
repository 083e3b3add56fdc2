"""The plugins in docs/events.rst work as pasted, and what it says about events is true."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kinto_attachment
from kinto_attachment import (
    AttachmentAdded,
    AttachmentEvent,
    AttachmentRead,
    AttachmentReceiving,
    AttachmentRemoved,
    AttachmentReplaced,
)
from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    CONTENT,
    attach,
    attachment_of,
    check_invariant,
    clear,
    make_app,
    put,
    put_collection,
    read,
    userid,
)
from tests.support.documents import code_blocks, tables

PAGE = "docs/events.rst"
KINDS = (AttachmentAdded, AttachmentReplaced, AttachmentRemoved, AttachmentRead)
DRAFTS = "/buckets/main/collections/drafts"
PUBLIC = "/buckets/main/collections/public"
DRAFT, PUBLISHED = f"{DRAFTS}/records/r", f"{PUBLIC}/records/r"

Start = Callable[..., Any]


@pytest.fixture(params=["included before", "included after"])
def start(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgresql_database: dict[str, str],
) -> Iterator[Start]:
    """A server with the one plugin of the page that contains a given text.

    It uses PostgreSQL, which rolls back what other plugins wrote in a refused request.
    """
    monkeypatch.syspath_prepend(tmp_path)
    apps = []

    def starter(part: str) -> Any:
        (code,) = [block for block in code_blocks(PAGE, "python") if part in block]
        (tmp_path / "pasted_plugin.py").write_text(code)
        where = "included_first" if request.param == "included before" else "includes"
        storage = {"base_path": str(tmp_path / "files")}
        app = make_app(storage, postgresql_database, **{where: "pasted_plugin"})
        apps.append(app)
        put_collection(app, DRAFTS)
        return app

    yield starter
    for app in apps:
        clear(app)
    sys.modules.pop("pasted_plugin", None)


class TestTheLog:
    def test_has_every_event(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        app = start("on_attachment")
        attach(app, DRAFT, filename="first.txt")
        read(app, f"{DRAFT}/attachment")
        attach(app, DRAFT, filename="second.txt")
        app.delete(f"{DRAFT}/attachment", headers=ALICE)
        who = userid(app)
        lines = [log.getMessage() for log in caplog.records if log.name == "pasted_plugin"]
        assert lines == [
            f"AttachmentAdded of {DRAFT} by {who}",
            f"AttachmentRead of {DRAFT} by {who}",
            f"AttachmentReplaced of {DRAFT} by {who}",
            "  it was first.txt",
            f"AttachmentRemoved of {DRAFT} by {who}",
        ]


class TestTheNight:
    @pytest.mark.parametrize("hour", [3, 12])
    def test_has_no_pictures(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, hour: int
    ) -> None:
        app = start("AttachmentReceiving")
        plugin = sys.modules["pasted_plugin"]
        monkeypatch.setattr(plugin, "is_night", lambda: hour < 6)
        attach(app, DRAFT, filename="a.txt", status=201)
        answer = attach(app, DRAFT, filename="a.png", status=403 if hour < 6 else 200)
        if hour < 6:
            message = "a.png: no pictures between 22 and 6 o'clock."
            assert answer.json["message"] == message
            assert attachment_of(app, DRAFT)["filename"] == "a.txt"
        check_invariant(app)


class TestThePublisher:
    @pytest.fixture
    def app(self, start: Start) -> Iterator[Any]:
        app = start("allow_metadata_changes")
        put(app, PUBLIC, permissions={"read": ["system.Everyone"]})
        yield app
        check_invariant(app)

    def publish(self, app: Any) -> None:
        app.patch_json(DRAFT, {"data": {"status": "published"}}, headers=ALICE)

    def test_shares_the_file(self, app: Any) -> None:
        attachment = attach(app, DRAFT).json
        self.publish(app)
        assert attachment_of(app, PUBLISHED, ANONYMOUS) == attachment
        assert read(app, f"{PUBLISHED}/attachment", ANONYMOUS) == CONTENT
        assert read(app, attachment["location"], ANONYMOUS) == CONTENT

    def test_the_file_lives_until_the_last_lets_go(self, app: Any) -> None:
        location = attach(app, DRAFT).json["location"]
        self.publish(app)
        app.delete(DRAFT, headers=ALICE)
        assert read(app, location, ANONYMOUS) == CONTENT
        app.delete(PUBLISHED, headers=ALICE)
        app.get(location, headers=ALICE, status=404)

    def test_an_upload_is_published_with_its_record(self, app: Any) -> None:
        attach(app, DRAFT, data={"status": "published"})
        attach(app, DRAFT, content=b"new")
        assert read(app, f"{PUBLISHED}/attachment", ANONYMOUS) == b"new"

    def test_in_a_batch_and_by_post(self, app: Any) -> None:
        record = {"data": {"status": "published"}}
        app.post_json(f"{DRAFTS}/records", record, headers=ALICE)
        attach(app, DRAFT)
        part = {"method": "PATCH", "path": DRAFT, "body": record}
        app.post_json("/batch", {"requests": [part]}, headers=ALICE)
        assert read(app, f"{PUBLISHED}/attachment", ANONYMOUS) == CONTENT

    def test_lets_no_client_write_attachments(self, app: Any) -> None:
        attachment = attach(app, DRAFT).json
        forged = {"data": {"status": "published", "attachment": {**attachment, "size": 1}}}
        app.put_json(f"{DRAFTS}/records/other", forged, headers=ALICE, status=400)
        app.get(f"{PUBLIC}/records/other", headers=ALICE, status=404)


def test_the_page_names_the_events_and_their_attributes() -> None:
    events, attributes, of_receiving = tables(PAGE)
    assert [row[0] for row in events[1:]] == [kind.__name__ for kind in KINDS]
    named = {row[0] for row in attributes[1:]}
    assert named == {field.name for kind in KINDS for field in dataclasses.fields(kind)}
    fields = {field.name for field in dataclasses.fields(AttachmentReceiving)}
    assert {row[0] for row in of_receiving[1:]} == fields


def test_all_events_have_one_base() -> None:
    for kind in KINDS:
        assert issubclass(kind, AttachmentEvent)
        assert kind.__name__ in kinto_attachment.__all__
    assert "AttachmentEvent" in kinto_attachment.__all__


class TestTheReport:
    ORDERS = "/buckets/main/collections/orders"
    REPORT = "/buckets/main/collections/reports/records/orders"

    def test_is_made_anew_for_each_order(self, start: Start) -> None:
        app = start("def report(")
        put_collection(app, self.ORDERS)
        put_collection(app, self.REPORT.partition("/records/")[0])
        put(app, f"{self.ORDERS}/records/first", data={"amount": 3, "note": "x"})
        put(app, f"{self.ORDERS}/records/second", data={"amount": 4})
        url = f"{self.REPORT}/attachment"
        assert read(app, url) == b"id,amount\r\nfirst,3\r\nsecond,4\r\n"
        app.delete(f"{self.ORDERS}/records/first", headers=ALICE)
        assert read(app, url) == b"id,amount\r\nsecond,4\r\n"
        assert attachment_of(app, self.REPORT)["mimetype"] == "text/csv"
        check_invariant(app)

    def test_is_written_for_those_who_may_write_it(self, start: Start) -> None:
        app = start("def report(")
        put_collection(app, self.ORDERS)
        put_collection(app, self.REPORT.partition("/records/")[0])
        put(app, self.ORDERS, permissions={"write": [userid(app, BOB)]})
        order = f"{self.ORDERS}/records/first"
        app.put_json(order, {"data": {"amount": 3}}, headers=BOB, status=403)
        app.get(order, headers=ALICE, status=404)
        check_invariant(app)
