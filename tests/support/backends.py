"""The fixtures ``app`` and ``build``: a server on chosen storages and databases.

A test, class or module that uses one of them has a mark for what it runs on:

``ON_MEMORY``
    Once: files in a folder, records in memory. For tests that depend on neither.
``ON_POSTGRESQL``, ``ON_EACH_DATABASE``
    Files in a folder; records in PostgreSQL, or in memory and in PostgreSQL: for code of the
    index that exists once for each database.
``ON_DATABASES``
    The same two, for code above the index. ``make tests`` takes one of them for each case of a
    test, in turn, and for a test that is not parametrized one by its name; of six cases or more,
    every third one is on PostgreSQL. ``make tests-all`` takes both.
``ON_OBJECT_STORES``
    Files in both S3 servers and in Google Cloud Storage; records in memory.
``ON_DIRECT``
    Files in an S3 server that clients can upload to; records in memory and in PostgreSQL.
``EVERYWHERE``
    The five combinations of these. ``make tests`` takes the first and one of the others, which
    depends on the test's name, in turn for the cases of the test: each case runs on one of the
    two, and so does a test that is not parametrized; of six cases or more, two thirds are on the
    first. ``make tests-all`` takes them all.

The nearest mark applies. Tests share applications, which are emptied after each test.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transaction

from tests.support import application, owned, sampling, ways
from tests.support.services import S3, GoogleEmulator, PostgreSQL

# Storage and database: the names of the fixtures with their settings.
COMBINATIONS = {
    "local": ("local_storage", "memory_database"),
    "local-postgresql": ("local_storage", "postgresql_database"),
    "moto": ("moto_storage", "memory_database"),
    "seaweedfs": ("seaweedfs_storage", "memory_database"),
    "gcs": ("gcs_storage", "memory_database"),
}
# For tests of the database while clients send to the storage.
DIRECT = {
    "moto": COMBINATIONS["moto"],
    "moto-postgresql": ("moto_storage", "postgresql_database"),
}
ALL = COMBINATIONS | DIRECT
# The marks of tests for what they run on; ``services`` adds the marks for servers.
MARKS = {
    "local_storage": "on_local",
    "moto_storage": "moto",
    "seaweedfs_storage": "seaweedfs",
    "gcs_storage": "gcs",
    "memory_database": "on_memory",
    "postgresql_database": "postgresql",
}
COUNTED = {
    "a local folder": "on_local",
    "S3 (moto)": "moto",
    "S3 (SeaweedFS)": "seaweedfs",
    "Google Cloud Storage (emulator)": "gcs",
    "Kinto in memory": "on_memory",
    "Kinto on PostgreSQL": "postgresql",
}

Build = Callable[..., Any]

AT_ONCE = 80  # Applications, of 3 MB each.


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_local: stores files in a folder")
    config.addinivalue_line("markers", "on_memory: has Kinto's records in memory")
    config.addinivalue_line("markers", "runs_on: the storages and databases of `app` and `build`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/storage/test_local.py"):
            item.add_marker("on_local")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many tests passed on each storage and database."""
    passed = terminalreporter.getreports("passed")
    terminalreporter.section("passed on")
    for name, mark in COUNTED.items():
        count = sum(mark in report.keywords for report in passed)
        terminalreporter.write_line(f"{count:6}  {name}")


def runs_on(*names: str, **options: Any) -> pytest.MarkDecorator:
    return pytest.mark.runs_on(*names, **options)


ON_MEMORY = runs_on("local")
ON_POSTGRESQL = runs_on("local-postgresql")
ON_EACH_DATABASE = runs_on("local", "local-postgresql")
ON_DATABASES = runs_on("local", "local-postgresql", sampled=True)
ON_DIRECT = runs_on(*DIRECT)
ON_OBJECT_STORES = runs_on("moto", "seaweedfs", "gcs")
EVERYWHERE = runs_on(*COMBINATIONS, sampled=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backends" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("runs_on")
    if marker is None:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} needs a mark such as ON_MEMORY.")
    names, also = list(marker.args), []
    if marker.kwargs.get("sampled") and not sampling.every_case():
        first, *others = names
        name = metafunc.definition.nodeid
        names = [first, others[sampling.start(name, len(others))]]
        also = [sampling.one_value("backends", mostly_first=True)]
    params = [
        pytest.param(
            name, marks=[*also, *(getattr(pytest.mark, MARKS[part]) for part in ALL[name])]
        )
        for name in names
    ]
    metafunc.parametrize("backends", params, indirect=True, scope="module")


@pytest.fixture(scope="session")
def local_storage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"base_path": str(tmp_path_factory.mktemp("files"))}


@pytest.fixture(scope="session")
def moto_storage(moto: S3) -> dict[str, str]:
    return moto.options(moto.create_bucket())


@pytest.fixture(scope="session")
def seaweedfs_storage(seaweedfs: S3) -> dict[str, str]:
    return seaweedfs.options(seaweedfs.create_bucket())


@pytest.fixture(scope="session")
def gcs_storage(gcs: GoogleEmulator) -> dict[str, str]:
    return gcs.options(gcs.create_bucket())


@pytest.fixture(scope="session")
def memory_database() -> dict[str, str]:
    return application.MEMORY


@pytest.fixture(scope="session")
def postgresql_database(postgresql: PostgreSQL) -> Iterator[dict[str, str]]:
    url = postgresql.create_database()
    yield application.postgresql_settings(url)
    application.forget_database(url)
    postgresql.drop_database(url)


@pytest.fixture(scope="module")
def backends(request: pytest.FixtureRequest) -> list[dict[str, str]]:
    """The settings of a storage and of a database, for ``make_app``."""
    return [request.getfixturevalue(name) for name in ALL[request.param]]


class Applications:
    """The applications in use, by their settings: building one takes longer than most tests."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, Any] = OrderedDict()
        self.in_use: list[Any] = []

    def get(self, storage: dict[str, Any], database: dict[str, Any], settings: Any) -> Any:
        options = {"fast_records": "true", **ways.settings(), **storage}  # The default.
        key = repr((sorted(options.items()), database, sorted(settings.items())))
        if key not in self.known:
            if len(self.known) == AT_ONCE:
                self.let_go(self.known.popitem(last=False)[1])
            self.known[key] = application.make_app(storage, database, **settings)
        self.known.move_to_end(key)
        return self.known[key]

    def let_go(self, app: Any) -> None:
        self.close(app)
        if app not in self.in_use:
            application.let_go(app)

    def close(self, app: Any) -> None:
        for storage in app.app.registry.attachment_storages:
            with contextlib.suppress(AttributeError):
                storage.files.close()


@pytest.fixture(scope="session")
def applications() -> Iterator[Applications]:
    applications = Applications()
    yield applications
    for app in applications.known.values():
        applications.close(app)


@pytest.fixture
def build(backends: list[dict[str, str]], applications: Applications) -> Iterator[Build]:
    """``build(max_size=3)`` is a server with ``kinto.attachment.max_size = 3``.

    Settings of Kinto are a mapping as the first argument. The server has only an empty collection
    of alice's. After the test, each attachment must have a file, and no other file may exist.
    """
    used = applications.in_use = []

    def builder(settings: dict[str, Any] | None = None, /, **options: Any) -> Any:
        storage, database = backends
        app = applications.get({**storage, **options}, database, settings or {})
        if app not in used:
            used.append(app)
            if not (settings or {}).get("readonly"):
                if not vars(app).pop("is_owned", False):
                    owned.own(app.app.registry)
                # Other plugins and other ways to log in may need the requests.
                if settings:
                    application.put_collection(app)
                else:
                    application.put_collection_behind(app)
                if ways.current is not None:
                    # Kinto stores it at the first request. Until then, there is one way only.
                    with transaction.manager:
                        app.app.registry.storage.resource_timestamp(
                            "record", application.COLLECTION
                        )
        return app

    yield builder
    there = None
    try:
        if used:
            there = application.check_invariant(*used)
    finally:
        for app in used:
            application.clear(app, there)
            there = None  # Others may have more storages.


@pytest.fixture
def app(build: Build) -> Any:
    """A server with the default settings."""
    return build()
