"""A site of the kinto-attachment that is in use today: made by it, over HTTP, on PostgreSQL.

Its settings change twice while it is filled, as on real sites.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import environments, live, sampling
from tests.support.services import PostgreSQL

BUCKET = "/buckets/b"
OLD_BASE_URL = "https://old.example.org/files"
BASE_URL = "https://cdn.example.org/files/"
SETTINGS = {
    "base_url": BASE_URL,
    "folder": "{bucket_id}/{collection_id}",
    "resources.b.names.randomize": "false",
    "resources.b.kept.keep_old_files": "true",
}
# The earlier settings, in order.
BEFORE = {
    "first": {"base_url": "", "folder": ""},
    "second": {"base_url": OLD_BASE_URL, "folder": "a b"},
}
COLLECTIONS = ("plain", "names", "kept", "gone", "emptied")


def record(name: str) -> str:
    """``names/r`` is short for the URI of a record in the bucket."""
    collection, _, object_id = name.partition("/")
    return f"{BUCKET}/collections/{collection}/records/{object_id}"


@dataclass
class OldSite:
    """Its database, its folder, and the content of each record's file, by URI.

    ``stranded`` are contents of files that only its rows name, ``strays`` of files that nothing
    names.
    """

    database: str
    files: Path
    release: str = environments.RELEASE
    contents: dict[str, bytes] = field(default_factory=dict)
    stranded: dict[str, bytes] = field(default_factory=dict)
    strays: list[bytes] = field(default_factory=list)

    def copy(self, postgresql: PostgreSQL, folder: Path) -> OldSite:
        """A copy to try something on."""
        database = postgresql.create_database(template=self.database)
        shutil.copytree(self.files, folder)
        return replace(self, database=database, files=folder, contents=dict(self.contents))

    def server(
        self, others: Mapping[str, Mapping[str, str]] | None = None
    ) -> AbstractContextManager[live.Server]:
        """The other plugin on this site; ``others`` are its settings below other paths."""
        usual = {"base_path": str(self.files), **SETTINGS}
        below = {path: {**usual, **settings} for path, settings in (others or {}).items()}
        return live.kinto(
            usual,
            others=below,
            engine="waitress",
            database=self.database,
            environment=environments.peer(self.release),
        )

    def attach(self, client: live.Client, uri: str, content: bytes, filename: str) -> None:
        status, _, answer = client.attach(uri, content, filename)
        assert status in (200, 201), answer
        if "/buckets/default/" in uri:
            _, _, hello = client.request("GET", "/")
            uri = uri.replace("/buckets/default/", f"/buckets/{hello['user']['bucket']}/")
        self.contents[uri] = content


def make(postgresql: PostgreSQL, folder: Path, release: str) -> OldSite:
    site = OldSite(postgresql.create_database(), folder, release)
    folder.mkdir()
    with site.server(BEFORE) as server:
        _fill_before(site, server)
        with live.Client(server) as client:
            _fill(site, client)
    site.strays += [b"before the first move", b"before the second move", b"kept for one deleted"]
    for path in ("index.html", "__files__/backup.tar"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(f"somebody's {path}".encode())
        site.strays.append(f"somebody's {path}".encode())
    return site


def _fill_before(site: OldSite, server: live.Server) -> None:
    """Create what a site has from before its current settings."""
    with live.Client(server, "/first") as client:
        assert client.put(BUCKET) == 201
        for collection in COLLECTIONS:
            assert client.put(f"{BUCKET}/collections/{collection}") == 201
            name = record(f"{collection}/relative")
            site.attach(client, name, f"relative in {collection}".encode(), "a b.txt")
        site.attach(client, record("kept/replaced"), b"before the first move", "a.txt")
    with live.Client(server, "/second") as client:
        for collection in COLLECTIONS:
            name = record(f"{collection}/former")
            site.attach(client, name, f"former in {collection}".encode(), "a b.txt")
        site.attach(client, record("kept/replaced"), b"before the second move", "a.txt")


def _fill(site: OldSite, client: live.Client) -> None:
    for collection in COLLECTIONS:
        for number, filename in enumerate(("a b.txt", "тест.txt", "100% & more?.pdf", "x.TAR.gz")):
            content = f"{filename} in {collection}".encode()
            site.attach(client, record(f"{collection}/r{number}"), content, filename)
    site.attach(client, "/buckets/default/collections/d/records/r", b"of the default", "d.png")
    site.attach(client, record("kept/replaced"), b"now", "a.txt")
    site.attach(client, record("plain/replaced"), b"before", "a.txt")
    site.attach(client, record("plain/replaced"), b"after", "b.txt")
    site.attach(client, record("kept/deleted"), b"kept for one deleted", "a.txt")
    for name in ("kept/deleted", "names/r0", "names/r1"):
        assert client.request("DELETE", record(name))[0] == 200
        del site.contents[record(name)]
    for name in ("plain/r0", "names/r2"):
        assert client.request("DELETE", f"{record(name)}/attachment")[0] == 204
        del site.contents[record(name)]
    assert client.request("DELETE", f"{BUCKET}/collections/gone")[0] == 200
    for uri in [uri for uri in site.contents if "/gone/" in uri]:
        del site.contents[uri]
    # This leaves the files and their rows.
    site.attach(client, record("plain/omitted"), b"of no record", "a.txt")
    assert client.put(record("plain/omitted"), {"title": "without"}) == 200
    assert client.request("DELETE", f"{BUCKET}/collections/emptied/records")[0] == 200
    for uri in [uri for uri in site.contents if "/emptied/" in uri or "omitted" in uri]:
        site.stranded[uri] = site.contents.pop(uri)


def releases() -> Iterator[Any]:
    """The first release in ``make tests``, all of them in ``make tests-all``."""
    first, *others = environments.RELEASES
    yield first
    in_all = sampling.sampled(len(environments.RELEASES), "_old_site")
    yield from (pytest.param(release, marks=in_all) for release in others)


@pytest.fixture(scope="session", params=releases())
def _old_site(
    request: pytest.FixtureRequest,
    postgresql: PostgreSQL,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OldSite]:
    site = make(postgresql, tmp_path_factory.mktemp("old") / "files", request.param)
    yield site
    postgresql.drop_database(site.database)


@pytest.fixture
def old_site(_old_site: OldSite, postgresql: PostgreSQL, tmp_path: Path) -> Iterator[OldSite]:
    """A copy of the site, which no server uses."""
    site = _old_site.copy(postgresql, tmp_path / "files")
    yield site
    postgresql.drop_database(site.database)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their keys."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def settings(site: OldSite, storage: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our settings for the site: its own ones, and the place of the files."""
    return {**(storage or {"base_path": str(site.files)}), **SETTINGS}
