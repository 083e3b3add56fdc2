"""Overviews read in one statement equal those read from Kinto's backends one by one."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import pytest
import transaction
from psycopg2.extensions import STATUS_READY
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from kinto_attachment.index.overviews import EVERYBODY, Rights, SeparateOverviews
from kinto_attachment.index.postgresql_overviews import (
    PostgreSQLOverviews,
    overviews,
    without_transaction,
)
from kinto_attachment.uris import RecordURI
from tests.support.application import BUCKET, COLLECTION, MEMORY, RECORD, make_app
from tests.support.backends import ON_EACH_DATABASE, ON_MEMORY, ON_POSTGRESQL
from tests.support.statements import counted

URI = RecordURI.parse(RECORD)
ANN = "basicauth:ann"
EDITORS, ALL = f"{BUCKET}/groups/editors", f"{BUCKET}/groups/all"
PERMISSIONS = [
    (RECORD, "write"),
    (COLLECTION, "write"),
    (COLLECTION, "record:create"),
    (BUCKET, "write"),
]
PRINCIPALS = (ANN, "basicauth:bob", EDITORS, ALL, *EVERYBODY)


@pytest.fixture
def registry(app: Any) -> Any:
    registry = app.app.registry
    with transaction.manager:
        for uri, name in PERMISSIONS:
            registry.permission.replace_object_permissions(uri, {name: []})
        registry.permission.add_user_principal(ANN, EDITORS)
        registry.permission.add_user_principal("system.Authenticated", ALL)
    return registry


def put_record(registry: Any) -> None:
    registry.storage.update("record", COLLECTION, "r", {"title": "ü", "nested": {"a": [1]}})


def delete_record(registry: Any) -> None:
    put_record(registry)
    registry.storage.delete("record", COLLECTION, "r")


def delete_collection(registry: Any) -> None:
    put_record(registry)
    registry.storage.delete("collection", BUCKET, "c")


def put_namesakes(registry: Any) -> None:
    registry.storage.update("record", f"{BUCKET}/collections/d", "r", {})
    registry.storage.update("collection", "/buckets/other", "c", {})
    registry.storage.update("collection", COLLECTION, "r", {})


@ON_EACH_DATABASE
@pytest.mark.parametrize(
    "prepare", [lambda _: None, put_record, delete_record, delete_collection, put_namesakes]
)
def test_have_the_record_and_the_collection_as_kinto_returns_them(
    registry: Any, prepare: Any
) -> None:
    with transaction.manager:
        prepare(registry)
        separate = SeparateOverviews(registry.attachment_links.collections, in_memory=False)
        expected = separate.of(URI, ANN, PERMISSIONS)
        for user in (ANN, None):
            found = registry.attachment_overviews.of(URI, user, PERMISSIONS)
            assert (found.record, found.collection) == (expected.record, expected.collection)
        assert (found.record or {}).keys() == (expected.record or {}).keys()


@ON_POSTGRESQL
def test_decide_as_kinto_does(registry: Any) -> None:
    permission = registry.permission
    tried = 0
    for (uri, name), principal in itertools.product(PERMISSIONS, PRINCIPALS):
        with transaction.manager:
            permission.add_principal_to_ace(uri, name, principal)
            rights = {
                user: registry.attachment_overviews.of(URI, user, PERMISSIONS).rights
                for user in (ANN, None)
            }
            assert rights[ANN].groups == permission.get_user_principals(ANN)
            for asked in (PERMISSIONS, PERMISSIONS[:1], PERMISSIONS[2:], []):
                for user, principals in (
                    (ANN, [ANN, *EVERYBODY, EDITORS, ALL]),
                    (ANN, [ANN, *EVERYBODY]),
                    (None, ["system.Everyone"]),
                ):
                    expected = permission.check_permission(principals, asked)
                    assert rights[user].decide(principals, asked) == expected
                    tried += 1
            permission.remove_principal_from_ace(uri, name, principal)
    assert tried == 4 * 6 * 4 * 3


def test_do_not_decide_about_what_was_not_read() -> None:
    rights = Rights(ANN, frozenset([EDITORS]), frozenset(PERMISSIONS), frozenset())
    assert rights.decide([ANN, "10.0.0.1"], PERMISSIONS) is None
    assert rights.decide([ANN], [(RECORD, "read")]) is None
    assert rights.decide([ANN], PERMISSIONS) is False


@ON_POSTGRESQL
def test_take_one_statement(app: Any) -> None:
    registry = app.app.registry
    assert isinstance(registry.attachment_overviews, PostgreSQLOverviews)
    with counted(app) as statements, transaction.manager:
        registry.attachment_overviews.of(URI, ANN, PERMISSIONS)
    assert sum(statements.values()) == 1


@ON_MEMORY
def test_are_separate_on_other_backends(app: Any) -> None:
    assert isinstance(app.app.registry.attachment_overviews, SeparateOverviews)


@ON_POSTGRESQL
def test_are_separate_with_an_untested_version(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = app.app.registry
    backends = registry.storage, registry.permission, registry.attachment_links.collections
    assert isinstance(overviews(*backends), PostgreSQLOverviews)
    monkeypatch.setattr("kinto_attachment.index.tested_versions.TESTED", ("1.0",))
    assert isinstance(overviews(*backends), SeparateOverviews)


@ON_POSTGRESQL
def test_are_separate_if_the_permissions_are_elsewhere(app: Any, tmp_path: Any) -> None:
    registry, other = app.app.registry, make_app({"base_path": str(tmp_path)}, MEMORY)
    collections = registry.attachment_links.collections
    found = overviews(registry.storage, other.app.registry.permission, collections)
    assert isinstance(found, SeparateOverviews)


@ON_POSTGRESQL
def test_begin_no_transaction_for_one_statement(app: Any) -> None:
    registry = app.app.registry
    session = registry.storage.client.session_factory()
    with transaction.manager:
        registry.attachment_overviews.of(URI, ANN, PERMISSIONS, is_last=True)
        assert not session.in_transaction()
        registry.attachment_overviews.of(URI, ANN, PERMISSIONS)
        assert session.in_transaction()
        put_record(registry)
        found = registry.attachment_overviews.of(URI, ANN, PERMISSIONS, is_last=True)
        assert found.record["title"] == "ü"
        registry.storage.delete("record", COLLECTION, "r", with_deleted=False)


@ON_POSTGRESQL
def test_leave_connections_as_they_were(app: Any) -> None:
    registry = app.app.registry
    engine = registry.storage.client.session_factory().get_bind()
    failing = text("SELECT * FROM nowhere")
    for statement in (text("SELECT 1"), failing):
        with suppress(ProgrammingError), without_transaction(engine) as connection:
            connection.execute(statement)
        with engine.connect() as connection:
            driver = connection.connection.dbapi_connection
            assert not driver.autocommit
            assert driver.status == STATUS_READY
