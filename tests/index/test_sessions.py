"""Rows of uploads in several requests."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import transaction
from kinto.core.utils import msec_time
from sqlalchemy import text

from kinto_attachment.index import sessions
from kinto_attachment.index.session import Session, parent_of
from kinto_attachment.storage import Partial
from tests.support.application import ALICE, COLLECTION, CONTENT, RECORD, put
from tests.support.backends import ON_EACH_DATABASE, ON_POSTGRESQL
from tests.support.tus import append, begin, head

ENDED = 500
NOW = 2_000_000_000_000


@ON_POSTGRESQL
def test_sessions_that_have_ended_are_not_read_to_find_the_others(app: Any) -> None:
    """They stay for a day or longer, and each new upload looks for unfinished ones."""
    url = begin(app, len(CONTENT))
    registry = app.app.registry
    with transaction.manager:
        for number in range(ENDED):
            registry.attachment_sessions.put(ended(number))
    plan = plan_of_search(registry)
    assert plan["Actual Rows"] == 1
    assert (
        plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0) == 0
    )
    (found,) = app.get(f"{COLLECTION}/attachments/uploads", headers=ALICE).json["data"]
    assert url.endswith(found["id"])


def ended(number: int) -> Session:
    times = {"created": 1, "expires": msec_time() + 1_000_000}
    names = {"filename": "a", "mimetype": "text/plain", "storage": "", "protocol": "tus/1.0.0"}
    uploader = {"owner": "basicauth:x", "record": RECORD}
    return Session(f"{number}", key=f"{number}", state="failed", **uploader, **names, **times)


def plan_of_search(registry: Any) -> dict[str, Any]:
    """The innermost node of PostgreSQL's plan for finding the sessions that may continue."""
    search = {
        "parent_id": parent_of(COLLECTION),
        "least": sessions.LEAST,
        "now": msec_time(),
        "owner": None,
    }
    with transaction.manager, registry.storage.client.connect() as connection:
        connection.execute(text("ANALYZE objects"))
        explained = connection.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {sessions.LIVING}"), search
        )
        (((plan,),),) = explained.fetchall()
    node: dict[str, Any] = plan["Plan"]
    while "Plans" in node:
        (node,) = node["Plans"]
    return node


def session(upload: str, **changes: Any) -> Session:
    """A session of alice that may continue until NOW is over."""
    file = {"filename": "a", "mimetype": "text/plain", "storage": "", "key": f"{upload}.txt"}
    times = {"created": 1, "expires": NOW + 1}
    known = {"owner": "alice", "record": RECORD, "protocol": "tus/1.0.0", **file, **times}
    return Session(upload, **{**known, **changes})


@ON_EACH_DATABASE
def test_those_that_may_go_on(app: Any) -> None:
    rows = app.app.registry.attachment_sessions
    mine = session("mine", partial={**asdict(Partial("x", "x.txt", "text/plain")), "size": 5})
    theirs = session("theirs", owner="bob", created=2, state="finishing")
    elsewhere = session("elsewhere", record="/buckets/b/collections/other/records/r")
    over = session("over", expires=NOW)
    failed = session("failed", state="failed")
    with transaction.manager:
        for each in (mine, theirs, elsewhere, over, failed):
            rows.put(each)
        assert rows.unfinished_of(COLLECTION, "alice", NOW) == [mine]
        assert rows.unfinished_in(COLLECTION, NOW) == [theirs, mine]
        assert rows.unfinished_totals(NOW) == (3, 5)
        assert not rows.put_within(1, session("new"), NOW)
        assert rows.put_within(2, session("new"), NOW)
        assert not rows.put_within(2, session("newer"), NOW)


@ON_EACH_DATABASE
def test_what_a_writer_commits_that_was_put_out_of_force(app: Any) -> None:
    rows = app.app.registry.attachment_sessions
    written = session("u", writer="second")
    with transaction.manager:
        rows.put(written)
        assert not rows.commit(replace(written, notes="late"), "first")
        assert rows.get(RECORD, "u") == written
        assert rows.commit(replace(written, notes="in time"), "second")
        assert rows.get(RECORD, "u") == replace(written, notes="in time")


@ON_EACH_DATABASE
def test_a_session_that_has_ended_keeps_nothing_of_what_was_sent(app: Any) -> None:
    data = json.dumps({"title": "x"})
    url = begin(app, len(CONTENT), data=data, content=CONTENT[:5])
    app.delete(url, headers=ALICE)
    url = begin(app, len(CONTENT), data=data)
    put(app, COLLECTION, data={"schema": {"properties": {"title": {"type": "number"}}}})
    append(app, url, 0, CONTENT, status=400)
    head(app, url, status=410)
    with transaction.manager:
        (page,) = app.app.registry.attachment_sessions.pages()
    assert [session.state for session in page] == ["failed", "failed"]
    for session in page:
        assert (session.data, session.notes, session.hash) == (None, "", None)
