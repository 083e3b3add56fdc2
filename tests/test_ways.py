"""The comparison of the two ways to write records: what it detects, and what it ignores."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
from kinto.core.events import ResourceChanged
from pyramid.events import NewResponse

from tests.support import transcripts, ways
from tests.support.application import (
    ALICE,
    BUCKET,
    COLLECTION,
    OTHER,
    RECORD,
    attach,
    clear,
    links_of,
    on_event,
    put,
    put_collection_behind,
    write_behind,
)
from tests.support.backends import ON_EACH_DATABASE, ON_MEMORY
from tests.support.transcripts import Transcript, difference

pytestmark = ON_MEMORY


def run(app: Any, before: Callable[[Any], object], after: Callable[[Any], object]) -> Transcript:
    """Make some requests, after ``before`` and before ``after``."""
    put_collection_behind(app)
    with transcripts.noting() as transcript:
        before(app)
        attach(app, data={"title": "x"}, permissions={"read": ["system.Everyone"]})
        attach(app, content=b"new")
        put(app, OTHER, data={"title": "plain"})
        app.delete(OTHER, headers=ALICE)
        after(app)
        clear(app)
    return transcript


def nothing(app: Any) -> None:
    pass


def usual(app: Any) -> Transcript:
    """The transcript of the same requests alone, recorded once for each application."""
    if not hasattr(app, "usual"):
        app.usual = run(app, nothing, nothing)
    noted: Transcript = app.usual
    return noted


def answer(change: Callable[[Any], object]) -> Callable[[Any], None]:
    """Change the response to the first upload."""

    def act(app: Any) -> None:
        registry = app.app.registry

        def act_once(event: Any) -> None:
            if event.request.method == "POST":
                registry.unregisterHandler(act_once, (NewResponse,))
                change(event.response)

        registry.registerHandler(act_once, (NewResponse,))

    return act


def add_header(response: Any) -> None:
    response.headers["X-Other"] = "y"


def accept(response: Any) -> None:
    response.status = 202


def shorten(response: Any) -> None:
    response.json = {**response.json, "size": 1}


def change(what: Callable[[Any], None]) -> Callable[[Any], None]:
    def act(app: Any) -> None:
        on_event(app, ResourceChanged, what)

    return act


def change_payload(event: Any) -> None:
    event.payload["seen"] = "y"


def change_impacted(event: Any) -> None:
    event.impacted_objects[0]["new"]["seen"] = "y"


def stored(action: Callable[[Any], object]) -> Callable[[Any], None]:
    """A change of the stored data without Kinto."""

    def act(app: Any) -> None:
        with transaction.manager:
            action(app.app.registry)

    return act


def drop_link(app: Any) -> None:
    (link,) = links_of(app)
    with transaction.manager:
        app.app.registry.storage.delete("attachment", link.parent, link.id, with_deleted=False)


ALTERED: dict[str, tuple[Callable[[Any], object], Callable[[Any], object], str]] = {
    "a header": (answer(add_header), nothing, '+  "X-Other: y"'),
    "a payload": (change(change_payload), nothing, '+   "seen": "y"'),
    "an impacted object": (change(change_impacted), nothing, '"seen": "y"'),
    "a status": (answer(accept), nothing, '+ "status": "202 Accepted"'),
    "a body": (answer(shorten), nothing, '+  "size": 1'),
    "a request": (nothing, lambda app: app.get(RECORD, headers=ALICE), '+ "request": "GET'),
    "a row": (nothing, lambda app: write_behind(app, RECORD, {"x": "y"}), '+     "x": "y"'),
    "a permission": (
        nothing,
        stored(lambda each: each.permission.add_principal_to_ace(RECORD, "read", "bob")),
        " bob",
    ),
    "a group": (
        nothing,
        stored(lambda each: each.permission.add_user_principal("bob", "/group")),
        "bob /group",
    ),
    "a tombstone": (
        nothing,
        stored(lambda each: each.storage.purge_deleted("record", COLLECTION)),
        '-    "deleted": true',
    ),
    "the history": (
        nothing,
        stored(lambda each: each.storage.delete_all("history", BUCKET, with_deleted=False)),
        '-    "resource_name": "history"',
    ),
    "a timestamp": (
        nothing,
        stored(lambda each: each.storage.resource_timestamp("record", "/buckets/b/other")),
        '+    "parent_id": "/buckets/b/other"',
    ),
    "a link": (nothing, drop_link, '-    "resource_name": "attachment"'),
    "the outbox": (
        nothing,
        stored(lambda each: each.attachment_links.outbox.add(["some-key"])),
        '+     "keys": [',
    ),
    "a file": (
        nothing,
        lambda app: app.app.registry.attachment_storages.default.files.write(
            "some-key", io.BytesIO(b"y"), "text/plain"
        ),
        '"key": "some-key"',
    ),
}


@ON_EACH_DATABASE
@pytest.mark.parametrize("case", list(ALTERED))
def test_a_difference_of_each_kind_is_seen(app: Any, case: str) -> None:
    before, after, line = ALTERED[case]
    assert line in difference(usual(app), run(app, before, after))


@ON_EACH_DATABASE
def test_runs_that_do_the_same_are_the_same(app: Any) -> None:
    for _ in range(ways.ATTEMPTS):
        found = difference(run(app, nothing, nothing), run(app, nothing, nothing))
        if not found:
            break
    assert not found


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """The container and key of each value in a transcript that is not an object or list."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        if isinstance(value[key], dict | list):
            yield from leaves(value[key])
        else:
            yield value, key


def test_no_value_may_be_another_one(app: Any) -> None:
    """Except times that are not from Kinto."""
    unseen = []
    first, second = Transcript(), Transcript()
    for number, entry in enumerate(run(app, nothing, nothing).entries):
        first.entries, second.entries = [entry], [copy.deepcopy(entry)]
        assert not difference(first, second)
        for parent, key in itertools.islice(leaves(second.entries), number % 11, None, 11):
            before, parent[key] = parent[key], "something else"
            if not difference(first, second):
                unseen.append((key, before))
            parent[key] = before
    assert not [each for each in unseen if each[0] not in transcripts.TIMES]


def test_the_fields_of_an_answer_have_an_order() -> None:
    first, other = Transcript(), Transcript()
    first.entries, other.entries = [{"body": {"a": 1, "b": 2}}], [{"body": {"b": 2, "a": 1}}]
    assert difference(first, other)


def test_names_that_are_random_have_to_agree_with_each_other() -> None:
    one, two, three = (f"{n}f1ed002-ab59-4b5c-aa97-ae7ea3c9b1d4" for n in "123")
    first, same, other = Transcript(), Transcript(), Transcript()
    first.entries = [{"body": one}, {"body": one}]
    same.entries = [{"body": two}, {"body": two}]
    other.entries = [{"body": two}, {"body": three}]
    assert not difference(first, same)
    assert difference(first, other)


def test_timestamps_have_to_be_in_the_same_order() -> None:
    first, same, equal, other = Transcript(), Transcript(), Transcript(), Transcript()
    first.entries = [{"body": 1795000000001}, {"body": '"1795000000002"'}]
    same.entries = [{"body": 1795000000005}, {"body": '"1795000000009"'}]
    equal.entries = [{"body": 1795000000005}, {"body": '"1795000000005"'}]
    other.entries = [{"body": 1795000000009}, {"body": '"1795000000005"'}]
    assert not difference(first, same)
    for each in (equal, other):
        assert difference(first, each)
        assert transcripts.differ_in_times_alone(first, each)


SOME_TESTS = """
import itertools, pytest
from tests.support import transcripts, ways

pytestmark = pytest.mark.both_ways
count = itertools.count(1795000000000)

def note(body):
    transcripts.current.entries.append({"body": body})

def test_that_is_the_same():
    note("x")

def test_that_differs():
    note(ways.current)

def test_that_fails_without():
    assert ways.current == "fast"

def test_that_fails_with():
    assert ways.current == "safe"

def test_whose_times_differ_once():
    time = next(count)
    note(time)
    note(time + (time == 1795000000000))
"""


class Outcomes:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            self.found[report.nodeid.partition("::")[2]] = report.outcome


def test_a_test_in_both_ways_fails_if_one_does_or_if_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "test_both.py").write_text(SOME_TESTS)
    outcomes = Outcomes()
    options = f"-q --tb=no -c /dev/null --rootdir {tmp_path} -p no:cacheprovider"
    # This runs garbage collection several times.
    options += " -p no:unraisableexception"
    pytest.main([*options.split(), str(tmp_path)], plugins=[ways, outcomes])
    assert outcomes.found == {
        "test_that_is_the_same": "passed",
        "test_that_differs": "failed",
        "test_that_fails_without": "failed",
        "test_that_fails_with": "failed",
        "test_whose_times_differ_once": "passed",
    }
