"""Rows of uploads in several requests."""

from __future__ import annotations

import json
from typing import Any

import transaction
from kinto.core.utils import msec_time
from sqlalchemy import text

from kinto_attachment.index import sessions
from kinto_attachment.index.session import Session, parent_of
from tests.support.application import ALICE, COLLECTION, CONTENT, RECORD, put
from tests.support.backends import ON_EACH_DATABASE, ON_POSTGRESQL
from tests.support.tus import append, begin, head

ENDED = 500


@ON_POSTGRESQL
def test_sessions_that_have_ended_are_not_read_to_find_the_others(app: Any) -> None:
    """They stay for a day or longer, and each new upload looks for those that go on."""
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
    """What PostgreSQL does to find the sessions that may go on: the innermost node."""
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
