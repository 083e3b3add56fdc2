"""From the kinto-attachment that is in use today to this plugin and back: no file is lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psycopg2
import pytest

from kinto_attachment.errors import NotThisSite
from kinto_attachment.maintenance.adopt import adopt
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.maintenance.rollback import back
from kinto_attachment.storage import SITE_KEY
from tests.support import forking, invariants, live
from tests.support.environments import RELEASES
from tests.support.old_site import BASE_URL, BUCKET, OldSite, contents, record, settings
from tests.support.one_process import kinto_here
from tests.support.sampling import sampled
from tests.support.services import S3, PostgreSQL

DAY = timedelta(days=1)
# These tests are the slowest, and the releases differ only in the data that they store.
ONE_RELEASE = sampled(len(RELEASES), "_old_site")
PLUGINS = ("kinto.plugins.default_bucket", "tests.support.publishing")


def query(site: OldSite, statement: str) -> list[Any]:
    with (
        contextlib.closing(psycopg2.connect(site.database)) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchall()


def old_rows(site: OldSite) -> dict[str, str]:
    """The other plugin's rows: record and key."""
    rows = query(site, "SELECT data FROM objects WHERE parent_id = '__attachments__'")
    found = {row["record_uri"]: row["location"] for (row,) in rows}
    assert len(found) == len(rows)
    return found


def ours(site: OldSite) -> int:
    """The number of rows that this plugin has about files."""
    statement = "SELECT count(*) FROM objects WHERE parent_id LIKE 'attachments%'"
    of_site = "('attachment-site', 'attachment-mark')"
    ((count,),) = query(site, f"{statement} AND resource_name NOT IN {of_site}")
    return int(count)


def read_all(client: live.Client, site: OldSite) -> dict[str, bytes]:
    found = {}
    for uri in site.contents:
        status, _, content = client.request("GET", f"{uri}/attachment")
        assert status == 200, uri
        found[uri] = content
    return found


@pytest.fixture
def bucket(seaweedfs: S3, old_site: OldSite) -> str:
    """A bucket with the files of the site, as release 7 would have stored them."""
    name = seaweedfs.create_bucket()
    client = seaweedfs.client()
    for key, content in contents(old_site.files).items():
        client.put_object(Bucket=name, Key=key, Body=content, ContentType="text/plain")
    return name


def objects(s3: S3, bucket: str) -> dict[str, bytes]:
    """The objects in a bucket by key, except the one that says who owns them."""
    client, found = s3.client(), {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page["Contents"]:
            key = each["Key"]
            found[key] = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    found.pop(SITE_KEY)
    return found


@pytest.fixture(params=["local", "s3"])
def our_settings(request: pytest.FixtureRequest, old_site: OldSite) -> dict[str, str]:
    """Settings for the files where they are, or where release 7 would have stored them."""
    if request.param == "local":
        return settings(old_site)
    s3: S3 = request.getfixturevalue("seaweedfs")
    bucket: str = request.getfixturevalue("bucket")
    return settings(old_site, {**s3.options(bucket), "downloads": "proxy"})


def test_everything_is_taken_over(old_site: OldSite, our_settings: dict[str, str]) -> None:
    rows = old_rows(old_site)
    with kinto_here(our_settings, old_site.database) as (registry, client):
        expected = adopt(registry, dry_run=True)
        assert ours(old_site) == 0
        with pytest.raises(NotThisSite):
            registry.attachment_site.check(registry.attachment_storages)
        report = adopt(registry, verify=True)
        registry.attachment_site.check(registry.attachment_storages)
        assert report == expected
        assert not report.found
        assert (report.linked, report.kept) == (len(old_site.contents), len(old_site.stranded))
        strays = [invariants.content(registry, key) for key in report.unnamed]
        assert sorted(strays) == sorted(old_site.strays)
        assert read_all(client, old_site) == old_site.contents
        assert ours(old_site) == report.linked + report.kept, "a row for each file, and no other"
        again = adopt(registry)
        assert (again.linked, again.kept, again.unnamed) == (0, 0, report.unnamed)
        assert old_rows(old_site) == rows
        kept = {link.record: link for link in invariants.links(registry) if link.state == "kept"}
        assert kept.keys() == old_site.stranded.keys()
        for uri, link in kept.items():
            assert link.ended == ("record" if "/emptied/" in uri else "")
            assert link.hash == hashlib.sha256(old_site.stranded[uri]).hexdigest()
        for uri in old_site.contents:
            assert client.request("DELETE", uri)[0] == 200
        left = {file.key for file in registry.attachment_storages.default.files.list()}
        in_kept = {link.key for link in invariants.links(registry)}
        assert left == {*report.unnamed, *in_kept}, "where old files are kept, they are"


def change(client: live.Client, site: OldSite) -> None:
    """Make changes while this plugin runs."""
    for name in ("plain/r1", "names/r3", "kept/replaced", "plain/new", "names/new"):
        site.attach(client, record(name), f"{name}, new".encode(), "a b.txt")
    for name in ("plain/r2", "names/r2", "kept/r1"):
        assert client.request("DELETE", record(name))[0] == 200
        site.contents.pop(record(name), None)
    copies = json.dumps({"copies": {record("plain/r3"): record("names/copy")}})
    is_json = {"Content-Type": "application/json"}
    assert client.request("POST", "/publish", copies, is_json)[0] == 200
    site.contents[record("names/copy")] = site.contents[record("plain/r3")]


@ONE_RELEASE
def test_there_and_back(old_site: OldSite, postgresql: PostgreSQL) -> None:
    site, plain = old_site, f"{BUCKET}/collections/plain"
    with kinto_here(settings(site), site.database, PLUGINS) as (registry, client):
        adopt(registry)
        change(client, site)
        dry = back(registry, dry_run=True)
        rows = old_rows(site)
        report = back(registry)
        assert dry == report
        assert not report.found, report.unreachable
        assert sorted(report.without_row) == [record("names/copy"), record("plain/r3")]
        assert back(registry).written == back(registry).deleted == 0
    assert rows != old_rows(site)
    assert old_rows(site).keys() == site.contents.keys() - set(report.without_row)
    of_plain = {site.contents[uri] for uri in site.contents if f"{plain}/" in uri}
    with site.server() as server, live.Client(server) as client:
        assert_located(client, site)
        assert client.request("DELETE", record("names/new"))[0] == 200
        assert client.request("DELETE", plain)[0] == 200
        site.contents = {u: c for u, c in site.contents.items() if f"{plain}/" not in u}
        del site.contents[record("names/new")]
        assert_located(client, site)
        site.attach(client, record("names/r3"), b"replaced by the old one", "x.txt")
    left = set(contents(site.files).values())
    assert left & of_plain == {site.contents[record("names/copy")]}
    with kinto_here(settings(site), site.database) as (registry, client):
        assert not adopt(registry).found
        assert read_all(client, site) == site.contents
        report = gc(registry)
        assert (report.missing, report.errors) == ([], [])


def assert_located(client: live.Client, site: OldSite) -> None:
    """Check that each file is at its record's location, below the address at its upload."""
    for uri, content in site.contents.items():
        location = client.request("GET", uri)[2]["data"]["attachment"]["location"]
        for base in (BASE_URL, "https://old.example.org/"):
            location = location.removeprefix(base)
        assert (site.files / location.replace("%20", " ")).read_bytes() == content, uri


@ONE_RELEASE
def test_there_and_back_on_s3(old_site: OldSite, seaweedfs: S3, bucket: str) -> None:
    """Release 7 was the last one with S3: this test reads and deletes the files of its rows."""
    site = old_site
    ours = settings(site, {**seaweedfs.options(bucket), "downloads": "proxy"})
    with kinto_here(ours, site.database, PLUGINS) as (registry, client):
        assert not adopt(registry, verify=True).found
        change(client, site)
        report = back(registry)
        assert not report.found
        assert sorted(report.without_row) == [record("names/copy"), record("plain/r3")]
        located = {uri: client.request("GET", uri)[2]["data"] for uri in site.contents}
    found, rows = objects(seaweedfs, bucket), old_rows(site)
    assert rows.keys() == site.contents.keys() - set(report.without_row)
    for uri, content in site.contents.items():
        location = unquote(located[uri]["attachment"]["location"])
        for base in (BASE_URL, "https://old.example.org/"):
            location = location.removeprefix(base)
        assert found[location] == content
        assert rows.get(uri, location) == location
    plain = [uri for uri in site.contents if "/plain/" in uri]
    for uri in plain:
        del site.contents[uri]
        if uri in rows:
            seaweedfs.client().delete_object(Bucket=bucket, Key=rows[uri])
    of_plain = "data->>'collection_uri' LIKE '%/plain' OR data->>'record_uri' LIKE '%/plain/%'"
    query(
        site,
        f"DELETE FROM objects WHERE parent_id = '__attachments__' AND ({of_plain}) RETURNING 1",
    )
    in_plain = "resource_name = 'record' AND parent_id LIKE '%/plain'"
    query(site, f"DELETE FROM objects WHERE {in_plain} RETURNING 1")
    with kinto_here(ours, site.database) as (registry, client):
        report = adopt(registry, verify=True)
        assert not report.found
        assert read_all(client, site) == site.contents
        for _ in range(2):
            collected = gc(registry, grace=-DAY, orphan_age=-DAY, pause=0 * DAY, really=True)
            assert not collected.errors
        assert read_all(client, site) == site.contents
        linked = {link.key for link in invariants.links(registry)}
        left = objects(seaweedfs, bucket)
        assert left.keys() == linked | {*report.unnamed}, "nothing is lost, and nothing left"
        assert sorted(left[key] for key in report.unnamed) == sorted(site.strays)


# adopt with mistakes of operators: killed half-way, twice at once, with gc right after it. These
# tests are here because creating the site of the other plugin takes long.

KILLED = """
import os, signal, sys
from kinto_attachment import cli
from kinto_attachment.index.bulk import BulkLinks
from kinto_attachment.maintenance import rollback

rollback.ROWS_AT_ONCE = 5
add, calls = BulkLinks.add, []

def add_and_die(self, links):
    added = add(self, links)
    calls.append(added)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return added

BulkLinks.add = add_and_die
cli.main(sys.argv[1:])
"""


def start(ini: Path, command: str, *code: str) -> subprocess.Popen[str]:
    how = ("-c", *code) if code else ("-m", "kinto_attachment.cli")
    words = [sys.executable, *how, command, "--json", "--ini", str(ini)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return forking.Popen(words, **pipes)


def finish(process: subprocess.Popen[str]) -> tuple[int, Any]:
    out, _ = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out else None


@ONE_RELEASE
def test_killed_then_twice_at_once_then_gc(old_site: OldSite) -> None:
    before = contents(old_site.files)
    with (
        live.kinto(settings(old_site), database=old_site.database) as server,
        live.Client(server) as client,
    ):
        killed, _ = finish(start(server.ini, "adopt", KILLED))
        assert killed == -9
        code, report = finish(start(server.ini, "gc"))
        assert code == 2
        assert "site id" in report["errors"][0]
        both = [start(server.ini, "adopt") for _ in range(2)]
        codes, reports = zip(*map(finish, both), strict=True)
        assert codes == (0, 0)
        linked = sum(each["linked"] for each in reports)
        # Two pages of five rows each were committed.
        assert 0 < len(old_site.contents) - linked <= 10
        with invariants.inside(server) as registry:
            links = Counter((link.state, link.record) for link in invariants.links(registry))
        assert links == Counter(
            [("current", uri) for uri in old_site.contents]
            + [("kept", uri) for uri in old_site.stranded]
        )
        code, report = finish(start(server.ini, "gc"))
        found = {name: value for name, value in report.items() if name != "scanned" and value}
        assert (code, found) == (0, {})
        for uri, content in old_site.contents.items():
            assert client.request("GET", f"{uri}/attachment")[2] == content
    site = old_site.files / ".kinto-attachment/site"
    assert {**before, ".kinto-attachment/site": site.read_bytes()} == contents(old_site.files)
