"""``R/attachment/hold``: which files are held, by whom and until when."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import transaction

from tests.support.application import (
    ALICE,
    ANONYMOUS,
    BOB,
    BUCKET,
    CAROL,
    COLLECTION,
    INVALID_PARAMETERS,
    INVALID_POSTED_DATA,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    error,
    links_of,
    put,
    put_collection,
    read,
    stored_files,
    userid,
    write_behind,
)
from tests.support.backends import ON_DATABASES, ON_MEMORY, Build
from tests.support.protected import changed_setting

URL = f"{RECORD}/attachment"
HOLD = f"{URL}/hold"
DAY = 86_400_000
FAR = 4_102_444_800_000  # The year 2100.


def now() -> int:
    return int(time.time() * 1000)


def hold(app: Any, url: str = HOLD, headers: Any = ALICE, status: Any = 200, **data: Any) -> Any:
    return app.put_json(url, {"data": data}, headers=headers, status=status)


def held(app: Any, url: str = HOLD) -> Any:
    return app.get(url, headers=ALICE, status=200).json["data"]


def release(app: Any, status: int = 204) -> Any:
    return app.delete(HOLD, headers=ALICE, status=status)


def pass_by(app: Any) -> None:
    """Let the date of every hold pass."""
    links = app.app.registry.attachment_links
    with transaction.manager:
        for link in [link for page in links.under() for link in page]:
            if link.hold:
                links._put(replace(link, hold={**link.hold, "until": 1}))


@ON_DATABASES
class TestHold:
    def test_is_told(self, app: Any) -> None:
        attach(app)
        before, record = now(), app.get(RECORD, headers=ALICE).json
        response = hold(app, until=FAR, reason="An audit")
        found = held(app)
        assert response.json["data"] == found
        since = found.pop("since")
        assert before <= since <= now()
        by = userid(app)
        assert found == {"until": FAR, "date": FAR, "reason": "An audit", "by": by}
        assert app.get(RECORD, headers=ALICE).json == record

    def test_of_a_date_ends_by_itself(self, app: Any) -> None:
        attach(app)
        hold(app, until=FAR)
        assert release(app, status=423).json["details"]["until"] == FAR
        app.delete(URL, headers=ALICE, status=423)
        pass_by(app)
        app.get(HOLD, headers=ALICE, status=404)
        release(app, status=404)
        app.delete(URL, headers=ALICE, status=204)
        assert not stored_files(app)

    def test_with_an_open_end_is_ended(self, app: Any) -> None:
        attach(app)
        hold(app, until=None)
        app.delete(RECORD, headers=ALICE, status=423)
        release(app)
        app.get(HOLD, headers=ALICE, status=404)
        app.delete(RECORD, headers=ALICE, status=200)
        assert not stored_files(app)

    def test_can_have_both(self, app: Any) -> None:
        attach(app)
        hold(app, until=FAR, reason="One")
        since = held(app)["since"]
        hold(app, until=None)
        expected = {"until": None, "date": FAR, "reason": "One", "by": userid(app)}
        assert held(app) == {**expected, "since": since}
        refused = release(app, status=423)
        assert refused.json["details"]["until"] == FAR
        assert held(app)["until"] is None
        pass_by(app)
        assert held(app)["until"] is None
        release(app)
        app.get(HOLD, headers=ALICE, status=404)

    def test_moves_later_and_not_earlier(self, app: Any) -> None:
        attach(app)
        hold(app, until=FAR)
        refused = hold(app, until=FAR - 1, status=423)
        assert error(refused) == (121, "A date can only be moved later.")
        assert refused.json["details"]["until"] == FAR
        hold(app, until=FAR)
        hold(app, until=FAR + 1, reason="Another")
        assert (held(app)["until"], held(app)["reason"]) == (FAR + 1, "Another")
        hold(app, until=None)
        assert hold(app, until=FAR, status=423).json["details"]["until"] is None

    def test_begins_anew_when_it_has_ended(self, app: Any) -> None:
        attach(app)
        hold(app, until=FAR, reason="One")
        pass_by(app)
        before = now()
        hold(app, until=before + DAY)
        assert held(app)["since"] >= before
        assert held(app)["reason"] is None

    def test_belongs_to_the_record_and_not_to_copies(self, app: Any) -> None:
        attach(app)
        hold(app, until=None)
        body = {"copy_from": RECORD}
        app.post_json(f"{OTHER}/attachment", body, headers=ALICE, status=201)
        app.get(f"{OTHER}/attachment/hold", headers=ALICE, status=404)
        assert len(stored_files(app)) == 1
        app.delete(f"{OTHER}/attachment", headers=ALICE, status=204)
        app.delete(URL, headers=ALICE, status=423)
        release(app)
        app.delete(URL, headers=ALICE, status=204)
        assert not stored_files(app)

    def test_of_a_copy_is_its_own(self, app: Any) -> None:
        attach(app)
        app.post_json(f"{OTHER}/attachment", {"copy_from": RECORD}, headers=ALICE, status=201)
        hold(app, f"{OTHER}/attachment/hold", until=None)
        app.delete(URL, headers=ALICE, status=204)
        app.delete(OTHER, headers=ALICE, status=423)
        assert read(app, f"{OTHER}/attachment")

    def test_leaves_other_changes_alone(self, app: Any) -> None:
        attach(app)
        hold(app, until=None)
        app.patch_json(RECORD, {"data": {"title": "x"}}, headers=ALICE, status=200)
        changed = {"attachment": attachment_of(app), "title": "y"}
        app.put_json(RECORD, {"data": changed}, headers=ALICE, status=200)
        app.patch_json(URL, {"data": {"filename": "new.txt"}}, headers=ALICE, status=200)
        attach(app, OTHER)
        app.delete(OTHER, headers=ALICE, status=200)
        assert held(app)["until"] is None
        assert attachment_of(app)["filename"] == "new.txt"

    def test_in_a_batch_with_the_file_that_it_holds(self, app: Any) -> None:
        attach(app, OTHER)
        requests = [
            {"method": "POST", "path": f"/v1{URL}", "body": {"copy_from": OTHER}},
            {"method": "PUT", "path": f"/v1{HOLD}", "body": {"data": {"until": FAR}}},
            {"method": "GET", "path": f"/v1{HOLD}"},
            {"method": "DELETE", "path": f"/v1{URL}"},
            {"method": "DELETE", "path": f"/v1{HOLD}"},
        ]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [each["status"] for each in answers] == [201, 200, 200, 423, 423]
        assert answers[2]["body"]["data"]["until"] == FAR
        assert held(app)["until"] == FAR
        app.delete(OTHER, headers=ALICE, status=200)
        assert attachment_of(app) is not None

    def test_in_a_batch_ends_before_the_file_goes(self, app: Any) -> None:
        attach(app)
        hold(app, until=None)
        requests = [
            {"method": "DELETE", "path": f"/v1{HOLD}"},
            {"method": "DELETE", "path": f"/v1{RECORD}"},
        ]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [each["status"] for each in answers] == [204, 200]
        assert not stored_files(app)

    def test_in_the_default_bucket(self, app: Any) -> None:
        record = "/buckets/default/collections/c/records/r"
        attach(app, record)
        hold(app, f"{record}/attachment/hold", until=None)
        assert held(app, f"{record}/attachment/hold")["until"] is None
        app.delete(f"{record}/attachment", headers=ALICE, status=423)
        app.delete(f"{record}/attachment/hold", headers=ALICE, status=204)

    def test_obeys_preconditions(self, app: Any) -> None:
        attach(app)
        app.put_json(
            HOLD, {"data": {"until": None}}, headers={**ALICE, "If-Match": '"1"'}, status=412
        )
        app.get(HOLD, headers=ALICE, status=404)


@ON_DATABASES
class TestVersions:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        return build(keep_old_files="true", max_versions="1")

    def versions(self, app: Any) -> dict[str, str]:
        """The ids of the versions by their filenames."""
        found = app.get(f"{URL}/versions", headers=ALICE).json["data"]
        return {each["filename"]: each["id"] for each in found}

    def test_are_kept_when_they_are_replaced(self, app: Any) -> None:
        attach(app, filename="held.txt")
        hold(app, until=None)
        for name in ("one.txt", "two.txt", "three.txt"):
            attach(app, content=name.encode(), filename=name, status=200)
        app.get(HOLD, headers=ALICE, status=404)
        # The held one does not count.
        assert [*self.versions(app)] == ["three.txt", "two.txt", "held.txt"]
        version = self.versions(app)["held.txt"]
        app.delete(f"{URL}/versions/{version}", headers=ALICE, status=423)
        app.delete(RECORD, headers=ALICE, status=423)
        app.delete(COLLECTION, headers=ALICE, status=423)
        app.delete(URL, headers=ALICE, status=204)
        assert "held.txt" in self.versions(app)

    def test_are_released_by_restoring_them(self, app: Any) -> None:
        attach(app, filename="held.txt")
        hold(app, until=None)
        attach(app, content=b"two", filename="two.txt")
        version = self.versions(app)["held.txt"]
        app.post(f"{URL}/versions/{version}/restore", headers=ALICE, status=200)
        assert held(app)["until"] is None
        app.delete(URL, headers=ALICE, status=423)
        release(app)
        app.delete(RECORD, headers=ALICE, status=200)

    def test_are_not_lost_when_the_setting_is_gone(self, app: Any) -> None:
        """Without ``keep_old_files``, a DELETE of the attachment also deletes earlier files."""
        attach(app, filename="held.txt")
        hold(app, until=None)
        attach(app, content=b"two", filename="two.txt")
        with changed_setting(app, "keep_old_files", False):
            app.delete(URL, headers=ALICE, status=423)
            attach(app, content=b"three", filename="three.txt")
            assert [*self.versions(app)] == ["three.txt", "held.txt"]


@ON_MEMORY
class TestRefuses:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        app = build()
        attach(app)
        return app

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"until": 0},
            {"until": 1},
            {"until": -1},
            {"until": 2**63},
            {"until": 10**400},
            {"until": FAR + 0.5},
            {"until": float(FAR)},
            {"until": str(FAR)},
            {"until": True},
            {"until": []},
            {"until": {}},
            {"reason": "x"},
            {"until": FAR, "reason": 1},
            {"until": FAR, "reason": ["x"]},
            {"until": FAR, "reason": "x" * 1001},
            {"until": FAR, "reason": "two\nlines"},
            {"until": FAR, "reason": "\x1b[2J"},
            {"until": FAR, "reason": "\x00"},
            {"until": FAR, "reason": "\u202e"},
            {"until": FAR, "by": "bob"},
            {"until": FAR, "since": 1},
            {"until": FAR, "is_open": True},
        ],
        ids=lambda data: json.dumps(data)[:40],
    )
    def test_what_is_no_hold(self, app: Any, data: Any) -> None:
        refused = app.put_json(HOLD, {"data": data}, headers=ALICE, status=400)
        assert error(refused)[0] in (INVALID_PARAMETERS, INVALID_POSTED_DATA)
        app.get(HOLD, headers=ALICE, status=404)

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"x", b"[]", b"null", b"{}", b"\xff"),
            *(b'{"data": null}', b'{"data": []}', b'{"data": 1}'),
            *(b'{"data": {"until": NaN}}', b'{"data": {"until": Infinity}}'),
            b'{"data": {"until": null, "reason": "\\ud800"}}',
        ],
    )
    def test_what_is_no_json_for_it(self, app: Any, body: bytes) -> None:
        headers = {**ALICE, "Content-Type": "application/json"}
        error(app.put(HOLD, body, headers=headers, status=400))
        app.get(HOLD, headers=ALICE, status=404)

    def test_reasons_that_are_too_long_to_be_read(self, app: Any) -> None:
        refused = hold(app, until=FAR, reason="x" * 2**20, status=413)
        error(refused)
        app.get(HOLD, headers=ALICE, status=404)

    def test_records_without_a_file(self, app: Any) -> None:
        put(app, OTHER)
        url = f"{OTHER}/attachment/hold"
        for method in ("get", "delete"):
            error(getattr(app, method)(url, headers=ALICE, status=404))
        error(hold(app, url, until=FAR, status=404))
        error(hold(app, f"{COLLECTION}/records/none/attachment/hold", until=FAR, status=404))
        elsewhere = f"{BUCKET}/collections/none/records/r/attachment/hold"
        error(hold(app, elsewhere, until=FAR, status=404))

    def test_files_of_others(self, app: Any) -> None:
        write_behind(app, OTHER, {"attachment": {"location": "https://example.com/a.txt"}})
        error(hold(app, f"{OTHER}/attachment/hold", until=FAR, status=404))
        app.delete(OTHER, headers=ALICE)

    def test_to_end_what_is_not_there(self, app: Any) -> None:
        error(release(app, status=404))


@ON_MEMORY
class TestWhoMay:
    @pytest.fixture
    def app(self, build: Build) -> Any:
        """A file of alice's that bob may read, or write."""
        app = build()
        attach(app)
        return app

    def allow(self, app: Any, uri: str, permission: str) -> None:
        permissions = {permission: [userid(app, BOB)]}
        app.patch_json(uri, {"permissions": permissions}, headers=ALICE)

    def answers(self, app: Any, headers: Any) -> list[int]:
        """The statuses of reading, setting and ending a hold."""
        url = HOLD
        return [
            app.get(url, headers=headers, status="*").status_int,
            hold(app, headers=headers, until=None, status="*").status_int,
            app.delete(url, headers=headers, status="*").status_int,
        ]

    def test_strangers_may_not(self, app: Any) -> None:
        assert self.answers(app, CAROL) == [403, 403, 403]
        assert self.answers(app, ANONYMOUS) == [401, 401, 401]

    @pytest.mark.parametrize(
        ("uri", "permission", "expected"),
        [
            (RECORD, "read", [200, 403, 403]),
            (RECORD, "write", [200, 403, 403]),
            (COLLECTION, "read", [200, 403, 403]),
            (COLLECTION, "record:create", [403, 403, 403]),
            (COLLECTION, "write", [200, 200, 204]),
            (BUCKET, "write", [200, 200, 204]),
        ],
    )
    def test_others_may_as_they_are_allowed(
        self, app: Any, uri: str, permission: str, expected: list[int]
    ) -> None:
        hold(app, until=None, reason="alice's")
        self.allow(app, uri, permission)
        assert self.answers(app, BOB) == expected

    def test_strangers_do_not_learn_what_exists(self, app: Any) -> None:
        nothing = f"{COLLECTION}/records/none/attachment/hold"
        for headers in (CAROL, ANONYMOUS):
            for url in (HOLD, nothing):
                statuses = {
                    app.get(url, headers=headers, status="*").status_int,
                    hold(app, url, headers=headers, until=None, status="*").status_int,
                    app.delete(url, headers=headers, status="*").status_int,
                }
                assert statuses <= {401, 403}

    def test_who_set_it_last_is_told(self, app: Any) -> None:
        hold(app, until=FAR)
        self.allow(app, COLLECTION, "write")
        hold(app, headers=BOB, until=None)
        assert held(app)["by"] == userid(app, BOB)


@ON_DATABASES
class TestEachNewFile:
    def test_is_held_when_it_comes(self, build: Build) -> None:
        app = build(hold="30d")
        before = now()
        attach(app)
        found = held(app)
        assert before + 30 * DAY <= found["until"] <= now() + 30 * DAY
        assert found["by"] is None
        assert "kinto.attachment.hold" in found["reason"]
        attach(app, content=b"new", status=423)
        app.delete(URL, headers=ALICE, status=423)
        assert len(links_of(app)) == 1

    def test_also_if_it_is_copied_and_not_if_it_is_restored(self, build: Build) -> None:
        app = build(**{"resources.b.kept.hold": "1h", "resources.b.kept.keep_old_files": "true"})
        put_collection(app, f"{BUCKET}/collections/kept")
        attach(app)
        target = f"{BUCKET}/collections/kept/records/r/attachment"
        app.post_json(target, {"copy_from": RECORD}, headers=ALICE, status=201)
        assert held(app, f"{target}/hold")["until"] < now() + 3_600_001
        app.get(HOLD, headers=ALICE, status=404)
        pass_by(app)
        attach(app, target.removesuffix("/attachment"), content=b"new", status=200)
        *_, oldest = app.get(f"{target}/versions", headers=ALICE).json["data"]
        app.post(f"{target}/versions/{oldest['id']}/restore", headers=ALICE, status=200)
        app.get(f"{target}/hold", headers=ALICE, status=404)

    def test_of_a_batch_is_not_replaced_in_it(self, build: Build) -> None:
        app = build(**{"resources.b.c.hold": "1h"})
        put_collection(app, f"{BUCKET}/collections/other")
        sources = [f"{BUCKET}/collections/other/records/{name}" for name in "ab"]
        for source in sources:
            attach(app, source, content=source.encode())
        copies = [
            {"method": "POST", "path": f"/v1{URL}", "body": {"copy_from": source}}
            for source in sources
        ]
        detach = {"method": "DELETE", "path": f"/v1{URL}"}
        requests = [*copies, detach]
        answers = app.post_json("/batch", {"requests": requests}, headers=ALICE).json["responses"]
        assert [each["status"] for each in answers] == [201, 423, 423]
        assert read(app, URL) == sources[0].encode()

    def test_can_be_held_for_longer(self, build: Build) -> None:
        app = build(hold="1h")
        attach(app)
        hold(app, until=FAR, reason="An audit")
        assert held(app)["until"] == FAR
        assert held(app)["by"] == userid(app)
