"""adopt as a tired operator runs it: killed half-way, twice at once, with gc right after it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support import invariants, live
from tests.support.old_site import OldSite, contents, settings

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
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, Any]:
    out, _ = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out else None


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
