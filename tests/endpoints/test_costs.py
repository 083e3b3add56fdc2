"""How many statements a request executes: what is not used costs nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.application import ALICE, RECORD, attach, put_raw
from tests.support.backends import ON_POSTGRESQL, Build
from tests.support.statements import counted

pytestmark = ON_POSTGRESQL

URL = f"{RECORD}/attachment"
REQUESTS = {
    "upload": lambda app: attach(app, content=b"one"),
    "replacement": lambda app: put_raw(app, content=b"two"),
    "download": lambda app: app.get(URL, headers=ALICE),
    "deletion": lambda app: app.delete(URL, headers=ALICE),
    "upload again": lambda app: attach(app, content=b"three"),
    "record": lambda app: app.delete(RECORD, headers=ALICE),
}
PLAIN = {
    "upload": 23,
    "replacement": 27,
    "download": 4,
    "deletion": 25,
    "upload again": 24,
    "record": 20,
}
# The record's earlier life has four files, and each that is kept is an update.
KEEPING = {**PLAIN, "replacement": 28, "deletion": 26, "record": 29}


def costs(app: Any) -> dict[str, int]:
    """Of each request, one after the other; the first ones of a process read more."""
    for request in REQUESTS.values():
        request(app)
    found = {}
    for name, request in REQUESTS.items():
        with counted(app) as statements:
            request(app)
        found[name] = sum(statements.values())
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PLAIN),
        ({"keep_old_files": "true"}, KEEPING),
        ({"keep_old_files": "true", "max_versions": "9"}, KEEPING),
    ],
    ids=["plain", "keeping", "limited"],
)
def test_of_requests_are_known(
    build: Build, settings: dict[str, str], expected: dict[str, int]
) -> None:
    assert costs(build(**settings)) == expected
