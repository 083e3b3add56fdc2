"""The ``sync`` of kinto.js, whose clients write copies of records that they pulled before.

Two clients edit the same records. One of them is offline while the other one attaches, replaces
and removes files. The final state of the server, and what both clients are told, is compared for
each strategy and each value of the settings.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.endpoints.test_clients import run_javascript
from tests.support import documents, live
from tests.support.application import sha256

ALICE = ("alice", "secret")
STRATEGIES = ("manual", "client_wins", "server_wins")
# The names of collections, and their settings.
SETTINGS = {
    "recommended": {"client_metadata": "ignore", "delete_on_omission": "false"},
    "ignoring": {"client_metadata": "ignore"},
    "keeping": {"delete_on_omission": "false"},
    "defaults": {},
}
RUNS = [
    *(("recommended", strategy) for strategy in STRATEGIES),
    *((name, "client_wins") for name in ("ignoring", "keeping", "defaults")),
    ("defaults", "server_wins"),
]
# The last thing that the clients did to the file of each record.
FILES = {
    "untouched": "untouched, at first",
    "replaced": "replaced, later",
    "added": "added, later",
    "removed": None,
    "again": "again, later",
    "created": "created, later",
    "gone": "gone, later",  # Another client deleted the record, without knowing of the file.
    "plain": None,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Server]:
    options = {
        f"resources.b.{name}-{strategy}.{option}": value
        for name, strategy in RUNS
        for option, value in SETTINGS[name].items()
    }
    folder = tmp_path_factory.mktemp("files")
    with live.kinto({"base_path": str(folder), **options}, engine="waitress") as server:
        assert requests.put(f"{server.url}/buckets/b", auth=ALICE, timeout=90).ok
        for name, strategy in RUNS:
            url = f"{server.url}/buckets/b/collections/{name}-{strategy}"
            assert requests.put(url, auth=ALICE, timeout=90).ok
        yield server


@pytest.fixture(scope="module")
def results(server: live.Server) -> dict[str, Any]:
    """What the clients were told and have in the end, by collection."""
    settings = {
        "url": server.url,
        "authorization": "Basic " + b64encode(":".join(ALICE).encode()).decode(),
        "bucket": "b",
        "hooks": "".join(documents.code_blocks("docs/offline.rst", "javascript")),
        "runs": [
            {"collection": f"{name}-{strategy}", "strategy": strategy} for name, strategy in RUNS
        ],
    }
    found: dict[str, Any] = run_javascript(settings, "kinto_sync.cjs")
    return found


def on_server(server: live.Server, collection: str) -> dict[str, Any]:
    """The current records by id."""
    url = f"{server.url}/buckets/b/collections/{collection}/records"
    records = requests.get(url, auth=ALICE, timeout=90).json()["data"]
    return {record["id"]: record for record in records}


def files_of(records: dict[str, Any]) -> dict[str, str | None]:
    """The content of each record's file, as it can be downloaded."""
    found: dict[str, str | None] = {}
    for record_id, record in records.items():
        found[record_id] = None
        if (attachment := record.get("attachment")) is not None:
            content = requests.get(attachment["location"], auth=ALICE, timeout=90).content
            assert sha256(content) == attachment["hash"]
            found[record_id] = content.decode()
    return found


def without_status(copies: dict[str, Any]) -> dict[str, Any]:
    return {
        record_id: {name: value for name, value in record.items() if name != "_status"}
        for record_id, record in copies.items()
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_the_recommended_settings_no_file_is_lost(
    server: live.Server, results: dict[str, Any], strategy: str
) -> None:
    collection = f"recommended-{strategy}"
    result, records = results[collection], on_server(server, collection)
    assert files_of(records) == FILES
    for sync in (*result["syncs"], *result["last"]):
        assert sync["errors"] == []
    for sync in (result["syncs"][-1], *result["last"]):
        assert sync["ok"], sync
    assert without_status(result["copies"]["alice"]) == records
    assert without_status(result["copies"]["bob"]) == records


@pytest.mark.parametrize("strategy", ["manual", "client_wins"])
def test_what_was_written_offline_arrives(
    server: live.Server, results: dict[str, Any], strategy: str
) -> None:
    records = on_server(server, f"recommended-{strategy}")
    titles = {record_id: record["title"] for record_id, record in records.items()}
    assert titles == {**dict.fromkeys(FILES, "of bob"), "created": "new", "gone": "new"}


def test_the_server_wins_where_it_is_asked_to(
    server: live.Server, results: dict[str, Any]
) -> None:
    records = on_server(server, "recommended-server_wins")
    titles = {record_id: record.get("title") for record_id, record in records.items()}
    changed = dict.fromkeys(("replaced", "added", "removed", "again", "gone"), "new")
    assert titles == {**dict.fromkeys(FILES, "of bob"), **changed, "created": None}


def test_by_default_the_refused_records_are_named_and_the_others_written(
    server: live.Server, results: dict[str, Any]
) -> None:
    for name in ("defaults", "keeping"):
        collection = f"{name}-client_wins"
        (sync,) = results[collection]["syncs"]
        records = f"/buckets/b/collections/{collection}/records"
        assert not sync["ok"]
        refused = {error["path"]: error["error"] for error in sync["errors"]}
        assert set(refused) == {f"{records}/{each}" for each in ("replaced", "removed")}
        for path, error in refused.items():
            assert error["details"][0]["uri"] == path
        stored = on_server(server, collection)
        titles = {record_id: record["title"] for record_id, record in stored.items()}
        expected = {**dict.fromkeys(FILES, "of bob"), "created": "new", "gone": "new"}
        assert titles == {**expected, "replaced": "new", "removed": "new"}


def test_by_default_a_client_that_wins_deletes_files_that_it_does_not_know(
    server: live.Server, results: dict[str, Any]
) -> None:
    """For this reason, the documentation recommends other settings for such clients."""
    lost = dict.fromkeys(("added", "again", "created"))
    for name in ("defaults", "ignoring"):
        assert files_of(on_server(server, f"{name}-client_wins")) == {**FILES, **lost}
    assert files_of(on_server(server, "keeping-client_wins")) == FILES
    assert files_of(on_server(server, "defaults-server_wins")) == FILES
