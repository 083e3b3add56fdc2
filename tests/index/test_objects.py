"""Our own objects in Kinto's storage, written by several transactions at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import transaction

from kinto_attachment.index.objects import Objects
from tests.support.application import forget_database, make_app, postgresql_settings
from tests.support.services import PostgreSQL

STOPPED = """
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz
    LANGUAGE sql AS $$ SELECT '2026-01-01'::timestamptz $$
"""


@pytest.fixture
def backend(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Any]:
    """A storage where all happens in the same millisecond."""
    url = postgresql.create_database()
    name = url.split("?")[0].rsplit("/", 1)[1]
    # The system's functions come first, unless the path says otherwise.
    path = f"ALTER DATABASE {name} SET search_path = public, pg_catalog"
    postgresql.execute(STOPPED, path, database=name)
    try:
        app = make_app({"base_path": str(tmp_path)}, postgresql_settings(url))
        yield app.app.registry.storage
    finally:
        forget_database(url)
        postgresql.drop_database(url)


@pytest.mark.parametrize("write", [Objects.put, Objects.create], ids=["put", "create"])
def test_transactions_of_one_millisecond_are_not_in_each_others_way(
    backend: Any, write: Any
) -> None:
    rows = Objects(backend, "attachment-lock")

    def other() -> None:
        with transaction.manager:
            write(rows, "attachments-lock:x", "b", {})

    with ThreadPoolExecutor(1) as thread, transaction.manager:
        write(rows, "attachments-lock:x", "a", {})
        future = thread.submit(other)
        # Unless it waits for this transaction, to fail when it is committed.
        future.result(timeout=60)
    with transaction.manager:
        assert {row["id"] for row in rows.list("attachments-lock:x")} == {"a", "b"}
