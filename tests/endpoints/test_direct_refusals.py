"""What refuses a direct upload: at its creation, or at its end if it occurs in between.

For uploads to the storage and to the server; settings change as after a restart of servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import direct
from tests.support.application import (
    ALICE,
    BOB,
    COLLECTION,
    CONTENT,
    OTHER,
    RECORD,
    attach,
    error,
    put,
    read,
    stored_files,
    userid,
)
from tests.support.backends import Build, runs_on
from tests.support.sampling import sampled

# Servers with different settings share the records, which requires a database.
pytestmark = runs_on("moto-postgresql")

URL = f"{RECORD}/attachment"
HOLD = f"{URL}/hold"


def permit(app: Any, *users: Any, **data: Any) -> None:
    """Set who may write the collection besides alice, and the collection's own data."""
    writers = [userid(app, user) for user in users]
    put(app, COLLECTION, data=data, permissions={"write": writers})


def settings(**values: Any) -> Callable[[Build, Any], Any]:
    return lambda build, _: build(**values)


def of_collection(**data: Any) -> Callable[[Build, Any], Any]:
    def change(_: Build, app: Any) -> Any:
        permit(app, BOB, **data)
        return app

    return change


def fill_quota(build: Build, app: Any) -> Any:
    """Use up the quota with another file."""
    app.delete(URL, headers=ALICE)
    attach(app, OTHER)
    return build(**{"resources.b.quota_files": "1"})


def hold(_: Build, app: Any) -> Any:
    app.put_json(HOLD, {"data": {"until": None, "reason": "audit"}}, headers=ALICE)
    return app


def release(app: Any) -> None:
    app.delete(HOLD, headers=ALICE)


def withdraw(_: Build, app: Any) -> Any:
    permit(app)
    return app


def replace_file(_: Build, app: Any) -> Any:
    attach(app, content=b"by another client")
    return app


@dataclass(frozen=True)
class Reason:
    """``begin`` returns the server to use from then on; without ``end``, it stays in force.

    Bytes that the server can refuse ``early`` are not stored: they can be sent again.
    """

    begin: Callable[[Build, Any], Any]
    status: int
    errno: int
    end: Callable[[Any], object] | None = None
    early: bool = False


def nothing(_: Any) -> None:
    """The following requests go to the original server again."""


REASONS = {
    "quota": Reason(fill_quota, 507, 121, nothing),
    "locked": Reason(
        of_collection(attachment={"locked": True}), 423, 121, lambda app: permit(app, BOB)
    ),
    "held": Reason(hold, 423, 121, release),
    "max_size": Reason(settings(max_size=len(CONTENT) - 1), 413, 113, early=True),
    "min_size": Reason(settings(min_size=len(CONTENT) + 1), 400, 109, early=True),
    "extensions": Reason(settings(extensions="pdf"), 400, 109, early=True),
    "schema": Reason(of_collection(schema={"type": "object", "required": ["title"]}), 400, 107),
    "rights": Reason(withdraw, 403, 121, lambda app: permit(app, BOB)),
    "precondition": Reason(replace_file, 412, 114),
}


@pytest.fixture(params=REASONS.values(), ids=REASONS)
def reason(request: pytest.FixtureRequest) -> Reason:
    found: Reason = request.param
    return found


@pytest.fixture(params=["storage", "kinto"])
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def started(app: Any) -> Any:
    """A server on which bob may write, with a file that is to be replaced."""
    permit(app, BOB)
    attach(app, content=b"old")
    return app


def creation(app: Any, reason: Reason) -> dict[str, str]:
    """The headers of a creation, with a precondition if the reason is a failed one."""
    if reason.status != 412:
        return BOB
    return {**BOB, "If-Match": app.get(RECORD, headers=ALICE).headers["ETag"]}


def held_by(app: Any) -> tuple[Any, ...]:
    """Everything that clients see of the record, and the stored files."""
    record = app.get(RECORD, headers=ALICE, status="*")
    return record.status_int, record.json.get("data"), stored_files(app)


def unfinished(app: Any) -> list[Any]:
    files = app.app.registry.attachment_storages.default.files
    listed = app.get(f"{COLLECTION}/attachments/uploads", headers=ALICE).json["data"]
    return [*files.list_unfinished(), *listed]


@sampled(2, "reason", "via")
def test_at_its_creation(build: Build, started: Any, reason: Reason, via: str) -> None:
    headers = creation(started, reason)
    app = reason.begin(build, started)
    before = held_by(app)
    refused = direct.create(app, headers=headers, via=via, status=reason.status)
    assert error(refused)[0] == reason.errno
    assert held_by(app) == before
    assert unfinished(app) == []


@sampled(2, "reason", "via")
def test_at_its_end(build: Build, started: Any, reason: Reason, via: str) -> None:
    upload = direct.begin(started, headers=creation(started, reason), via=via)
    if via == "storage":
        direct.send_all(upload, CONTENT)

    def end(server: Any, status: int) -> Any:
        if via == "kinto":
            return direct.put_own(server, upload, CONTENT, status=status)
        return direct.complete(server, upload, BOB, status=status)

    app = reason.begin(build, started)
    record = held_by(app)[:2]
    assert error(end(app, reason.status))[0] == reason.errno
    assert held_by(app)[:2] == record
    if reason.early and via == "kinto":
        end(started, 200)
    elif reason.end is None:
        end(started, 410)
        assert direct.state(started, upload, BOB)["state"] == "failed"
        assert held_by(app)[:2] == record
        assert unfinished(app) == []
    else:
        reason.end(started)
        end(started, 201 if record[0] == 404 or "attachment" not in record[1] else 200)
        assert read(started) == CONTENT
