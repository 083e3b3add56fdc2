"""``scripts/download.py``, as a process against live servers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.client import AttachmentClient
from tests.client.test_folder import HOSTILE
from tests.support import forking, live, waiting
from tests.support.faults import Answer, FaultProxy
from tests.support.scripts import AUTH, Press, Script
from tests.support.stubs import Request, listing, stub

LARGE = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def download(server: live.Server, collection: str, tmp_path: Path) -> Script:
    return Script.of("download.py", server, collection, tmp_path / "tmp")


@pytest.fixture
def local_download(embedded: live.Server, collection: str, tmp_path: Path) -> Script:
    """The script, on the embedded server only."""
    return Script.of("download.py", embedded, collection, tmp_path / "tmp")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The target folder, which does not exist yet."""
    return tmp_path / "some" / "where"


def put(client: AttachmentClient, record: str, content: bytes, filename: str, **data: Any) -> None:
    client.upload(record, io.BytesIO(content), data, filename=filename)


def stored(folder: Path) -> dict[str, bytes]:
    """The files except the script's own ones, and their content."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".last_sync"}


def attachment_of(content: bytes, filename: str = "f.txt") -> dict[str, Any]:
    return {
        "filename": filename,
        "hash": hashlib.sha256(content).hexdigest(),
        "location": "x",
        "mimetype": "text/plain",
        "size": len(content),
    }


def wait_for_a_part(folder: Path) -> None:
    """Wait until a part of a file has arrived."""
    waiting.until(lambda: any(part.stat().st_size for part in folder.glob("*")))


# Downloads.


@pytest.mark.parametrize("option", ["--verbose", "--debug", "--ignore-batch-4xx"])
def test_the_options_of_kinto_http_are_taken(
    local_download: Script, local: AttachmentClient, out: Path, option: str
) -> None:
    put(local, "r", b"content", "a.txt")
    done = local_download.call("--json", option, "-f", out)
    assert done.code == 0, done.err
    assert stored(out) == {"a.txt": b"content"}


def test_a_second_run_transfers_nothing(
    download: Script, client: AttachmentClient, out: Path
) -> None:
    contents = {f"f{number}.txt": f"{number}".encode() * 1000 for number in range(5)}
    for number, (name, content) in enumerate(contents.items()):
        put(client, f"r{number}", content, name)
    client.kinto.create_record(id="none", data={"title": "no attachment"})
    put(client, "null", b"x", "null.txt")
    client.remove("null")
    first = download.run("--json", "-f", out)
    assert first.code == 0, first.err
    assert first.summary["downloaded"] == 5
    assert stored(out) == contents
    second = download.call("--json", "-f", out)
    assert second.lines == []
    third = download.call("--json", "-f", out, "--since", 0)
    assert third.summary["skipped"] == 5
    assert third.summary["sent"] == 0


def test_only_changes_are_asked_for(download: Script, client: AttachmentClient, out: Path) -> None:
    put(client, "r1", b"one", "one.txt")
    put(client, "r2", b"two", "two.txt")
    download.call("-f", out)
    put(client, "r2", b"two, changed", "two.txt")
    put(client, "r3", b"three", "three.txt")
    client.kinto.delete_record(id="r1")
    done = download.call("--json", "-f", out)
    assert done.results() == {"two.txt": "downloaded", "three.txt": "downloaded"}
    # Files of deleted records stay.
    assert stored(out) == {"one.txt": b"one", "two.txt": b"two, changed", "three.txt": b"three"}


def test_what_is_not_as_it_should_be_is_replaced(
    local_download: Script, local: AttachmentClient, out: Path
) -> None:
    put(local, "r1", b"one", "one.txt")
    put(local, "r2", b"two", "two.txt")
    out.mkdir(parents=True)
    (out / "one.txt").write_bytes(b"one")
    (out / "two.txt").write_bytes(b"TWO")
    done = local_download.call("--json", "-f", out)
    assert done.results() == {"one.txt": "skipped", "two.txt": "downloaded"}
    assert stored(out) == {"one.txt": b"one", "two.txt": b"two"}


def test_here_is_the_default(local_download: Script, local: AttachmentClient, out: Path) -> None:
    put(local, "r1", b"one", "one.txt")
    out.mkdir(parents=True)
    forking.run(local_download.command(), cwd=out, check=True, capture_output=True, timeout=90)
    assert stored(out) == {"one.txt": b"one"}


@pytest.mark.parametrize(
    ("bucket", "options"),
    [("default", ["--gzip"]), ("gzipped", []), ("gzipped", ["--gzip"])],
    ids=["packed here", "packed there", "packed twice"],
)
def test_what_was_compressed_comes_as_it_was(
    server: live.Server, collection: str, tmp_path: Path, bucket: str, options: list[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    contents = {
        "text.txt": b"again " * 100_000,
        "random.bin": LARGE,
        "empty": b"",
        "a.gz": b"no gzip",
    }
    for name, content in contents.items():
        (source / name).write_bytes(content)
    up = Script.of("upload.py", server, collection, tmp_path / "tmp", bucket=bucket)
    assert up.call("-r", source, *options).code == 0
    down = Script.of("download.py", server, collection, tmp_path / "tmp", bucket=bucket)
    assert down.call("-f", tmp_path / "out").code == 0
    assert stored(tmp_path / "out") == contents
    again = down.call("--json", "-f", tmp_path / "out", "--since", 0)
    assert again.summary["skipped"] == 4


def test_an_original_that_was_left_behind_does_no_harm(
    local_download: Script, local: AttachmentClient, out: Path
) -> None:
    original = {"filename": "old.txt", "hash": "0" * 64, "mimetype": "text/plain", "size": 3}
    put(local, "r", b"plain", "new.txt", original=original)
    assert local_download.call("-f", out).code == 0
    assert stored(out) == {"new.txt": b"plain"}


def test_an_original_that_is_none_fails_and_leaves_nothing(
    local_download: Script, local: AttachmentClient, out: Path
) -> None:
    text = b"x" * 1000
    right = {
        "filename": "f.txt",
        "hash": hashlib.sha256(text).hexdigest(),
        "mimetype": "t/p",
        "size": 1000,
    }
    packed = gzip.compress(text)
    for number, (content, change) in enumerate(
        [
            (b"no gzip at all", {}),
            (packed[:-1], {}),
            (packed, {"size": 999}),
            (packed, {"size": 1001}),
            (packed, {"hash": "0" * 64}),
            (packed + b"rest", {}),
        ]
    ):
        put(local, f"r{number}", content, "f.txt.gz", original={**right, **change})
    done = local_download.call("--json", "-f", out)
    assert done.code == 1
    assert done.summary["failed"] == 6
    assert stored(out) == {}
    put(local, "r0", packed, "f.txt.gz", original=right)
    members = gzip.compress(text[:500]) + gzip.compress(text[500:])
    put(local, "r1", members, "g.txt.gz", original={**right, "filename": "g.txt"})
    done = local_download.call("--json", "-f", out)
    assert done.summary["downloaded"] == 2
    assert stored(out)["g.txt"] == text


def test_names_of_a_hostile_server(tmp_path: Path) -> None:
    content = b"hostile"
    names = [name for name in HOSTILE if name.isascii() or name.isprintable()]
    records: list[dict[str, object]] = [
        {"id": f"r{n}", "last_modified": n, "attachment": attachment_of(content, name)}
        for n, name in enumerate(names)
    ]

    def answer(request: Request) -> Answer:
        return Answer(200, content) if request.path.endswith("/attachment") else listing(records)

    out = tmp_path / "a" / "b" / "c"
    with stub(answer) as server:
        script = Script("download.py", server.url, "b", "c", tmp_path)
        done = script.call("--json", "-f", out)
    assert done.code == 0, done.err
    assert len(stored(out)) == len(names)
    assert set(stored(out).values()) == {content}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [*stored(out), ".last_sync"]
    )
    json.loads((out / ".last_sync").read_text())


def test_ids_of_a_hostile_server(tmp_path: Path) -> None:
    """An id is added to the name if several records have one filename."""
    ids = ["r", "/../../escaped", "..", "a/b", "c\\d", "\x1b[31m"]
    records: list[dict[str, object]] = [
        {"id": record_id, "last_modified": n, "attachment": attachment_of(b"hostile")}
        for n, record_id in enumerate(ids)
    ]

    def answer(request: Request) -> Answer:
        is_file = request.path.endswith("/attachment")
        return Answer(200, b"hostile") if is_file else listing(records)

    out = tmp_path / "a" / "b" / "c"
    with stub(answer) as server:
        script = Script("download.py", server.url, "b", "c", tmp_path)
        done = script.call("--json", "-f", out)
    assert (done.code, done.summary["downloaded"]) == (0, len(ids))
    assert len(stored(out)) == len(ids)
    assert all(re.fullmatch(r"f(-[0-9a-f]{32})?\.txt", name) for name in stored(out))
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*stored(out), ".last_sync"}


def test_what_a_hostile_server_says_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    said = json.dumps({"error": "No\x1b[2J", "message": "\x1b]0;title\x07\r\x9b31m\u202e"})

    def answer(request: Request) -> Answer:
        return Answer(400, said.encode())

    with stub(answer) as server:
        done = Script("download.py", server.url, "b", "c", tmp_path).call("-f", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.isprintable()
    assert line.startswith("400 No\N{REPLACEMENT CHARACTER}[2J: ")


def test_records_of_one_filename_have_a_file_each(
    download: Script, client: AttachmentClient, out: Path
) -> None:
    for record in ("r1", "r2", "r3"):
        put(client, record, record.encode(), "same.txt")
    put(client, "other", b"other", "SAME.txt")
    assert download.call("-f", out, "--jobs", 3).code == 0
    first = stored(out)
    assert len(first) == 4
    assert len({name.casefold() for name in first}) == 4
    assert set(first.values()) == {b"r1", b"r2", b"r3", b"other"}
    # Each keeps its name when it changes, whichever is requested first.
    for record in ("r3", "r1"):
        put(client, record, f"{record} changed".encode(), "same.txt")
        assert download.call("-f", out).code == 0
    names = {content: name for name, content in first.items()}
    assert stored(out) == {
        names[b"r1"]: b"r1 changed",
        names[b"r2"]: b"r2",
        names[b"r3"]: b"r3 changed",
        names[b"other"]: b"other",
    }


def test_a_file_keeps_its_name_when_a_better_one_gets_free(
    local_download: Script, local: AttachmentClient, out: Path
) -> None:
    put(local, "r1", b"one", "same.txt")
    assert local_download.call("-f", out).code == 0
    put(local, "r2", b"two", "same.txt")
    assert local_download.call("-f", out).code == 0
    put(local, "r1", b"one, renamed", "new.txt")
    assert local_download.call("-f", out).code == 0
    put(local, "r2", b"two, changed", "same.txt")
    assert local_download.call("-f", out).code == 0
    assert stored(out) == {
        "same.txt": b"one",  # A file without a record stays.
        "same-r2.txt": b"two, changed",
        "new.txt": b"one, renamed",
    }


def test_two_collections_in_one_folder(
    embedded: live.Server,
    local: AttachmentClient,
    local_download: Script,
    collection: str,
    out: Path,
) -> None:
    other = AttachmentClient(embedded.url, "default", f"{collection}b", AUTH)
    put(local, "r", b"here", "same.txt")
    put(other, "r2", b"there", "same.txt")
    second = Script.of("download.py", embedded, f"{collection}b", local_download.temporary)
    for script in (local_download, second):
        assert script.call("-f", out).code == 0
    assert sorted(stored(out).values()) == [b"here", b"there"]
    assert local_download.call("--json", "-f", out).lines == []
    put(local, "r", b"here, changed", "same.txt")
    assert local_download.call("-f", out).code == 0
    assert sorted(stored(out).values()) == [b"here, changed", b"there"]


def test_a_timestamp_alone_will_do_as_last_sync(
    local_download: Script, local: AttachmentClient, out: Path
) -> None:
    put(local, "r1", b"one", "one.txt")
    modified = local.kinto.get_record(id="r1")["data"]["last_modified"]
    put(local, "r2", b"two", "two.txt")
    out.mkdir(parents=True)
    (out / ".last_sync").write_text(str(modified))
    assert local_download.call("--json", "-f", out).results() == {"two.txt": "downloaded"}
    assert local_download.call("--json", "-f", out, "--since", f'"{modified}"').results() == {
        "two.txt": "skipped"
    }
    (out / ".last_sync").write_text("{]")
    done = local_download.call("-f", out)
    assert done.code == 2
    assert ".last_sync cannot be read" in done.err


def test_a_collection_that_was_restored_is_looked_at_anew(
    local_download: Script, local: AttachmentClient, out: Path
) -> None:
    put(local, "r1", b"one", "one.txt")
    out.mkdir(parents=True)
    (out / ".last_sync").write_text(str(int((time.time() + 3600) * 1000)))
    done = local_download.call("-f", out)
    assert done.code == 0
    assert "recreated or restored" in done.err
    assert stored(out) == {"one.txt": b"one"}


def test_what_failed_is_asked_for_again(
    local_download: Script, local: AttachmentClient, out: Path, files: Path
) -> None:
    for number in range(4):
        put(local, f"r{number}", f"{number}".encode(), f"{number}.txt")
    attachment = local.stat("r1")
    (file,) = files.glob(f"**/{attachment.location.rpartition('/')[2]}")
    file.write_bytes(b"!")
    first = local_download.call("--json", "-f", out)
    assert first.code == 1
    assert first.summary["downloaded"] == 3
    assert set(stored(out)) == {"0.txt", "2.txt", "3.txt"}
    second = local_download.call("--json", "-f", out)
    assert second.results() == {"1.txt": "failed"}
    assert second.code == 1
    file.write_bytes(b"1")
    third = local_download.call("--json", "-f", out)
    assert third.results() == {"1.txt": "downloaded"}
    assert local_download.call("--json", "-f", out).lines == []
    assert local_download.call("--json", "-f", out).code == 0


def test_what_fails_from_its_start_leaves_nothing(
    local_download: Script, local: AttachmentClient, out: Path, files: Path
) -> None:
    put(local, "r", b"x", "f.txt")
    (file,) = files.glob(f"**/{local.stat('r').location.rpartition('/')[2]}")
    file.unlink()
    done = local_download.call("-f", out)
    assert done.code == 1
    assert "404" in done.err
    assert os.listdir(out) == [".last_sync"]
    (out / "f.txt").mkdir()
    file.write_bytes(b"x")
    done = local_download.call("-f", out)
    assert done.code == 1
    assert "is a folder" in done.err


def test_what_failed_and_is_gone_is_forgotten(
    local_download: Script, local: AttachmentClient, out: Path, files: Path
) -> None:
    put(local, "r", b"x", "f.txt")
    (file,) = files.glob(f"**/{local.stat('r').location.rpartition('/')[2]}")
    file.write_bytes(b"!")
    assert local_download.call("-f", out).code == 1
    local.kinto.delete_record(id="r")
    assert local_download.call("-f", out).code == 0


def test_a_file_that_was_replaced_since_the_records_were_asked_for(tmp_path: Path) -> None:
    old, new = ({"id": "r", "attachment": attachment_of(content)} for content in (b"old", b"new"))

    def answer(request: Request) -> Answer:
        if request.path.endswith("/records/r"):
            return Answer(200, json.dumps({"data": new}).encode())
        if not request.path.endswith("/attachment"):
            return listing([old])
        expected = request.headers["If-Match"] == f'"{new["attachment"]["hash"]}"'
        return Answer(200, b"new") if expected else Answer(412, b"{}")

    with stub(answer) as server:
        script = Script("download.py", server.url, "b", "c", tmp_path)
        done = script.call("--json", "-f", tmp_path / "out")
    assert done.code == 0, done.err
    assert stored(tmp_path / "out") == {"f.txt": b"new"}
    assert done.lines[0]["hash"] == hashlib.sha256(b"new").hexdigest()


def test_metadata_that_is_none_fails_that_file_only(tmp_path: Path) -> None:
    good, bad = ({"id": id, "attachment": attachment_of(b"good")} for id in ("good", "bad"))
    del bad["attachment"]["size"]

    def answer(request: Request) -> Answer:
        if request.path.endswith("/attachment"):
            return Answer(200, b"good")
        return listing([bad, good, {"id": "none", "attachment": None}])

    with stub(answer) as server:
        script = Script("download.py", server.url, "b", "c", tmp_path)
        done = script.call("--json", "-f", tmp_path / "out")
    assert done.code == 1
    assert {line["record"]: line["result"] for line in done.lines} == {
        "good": "downloaded",
        "bad": "failed",
    }


def test_nobody_is_told_what_he_may_not_read(
    embedded: live.Server, collection: str, tmp_path: Path
) -> None:
    bucket = f"b-{collection}"
    client = AttachmentClient(embedded.url, bucket, "c", AUTH)
    client.kinto.create_bucket()
    client.kinto.create_collection()
    put(client, "r", b"x", "f.txt")
    script = Script.of("download.py", embedded, "c", tmp_path / "tmp", bucket=bucket)
    done = script.call("--auth", "bob:secret", "-f", tmp_path / "out")
    assert done.code == 2
    assert "403" in done.err


# Interruptions.


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_what_was_cut_off_goes_on_where_it_stopped(
    embedded: live.Server,
    local: AttachmentClient,
    local_download: Script,
    collection: str,
    out: Path,
    end: signal.Signals,
) -> None:
    put(local, "r1", LARGE[:1000], "small.bin")
    put(local, "r2", LARGE, "large.bin")
    with FaultProxy(embedded.address) as proxy:
        script = Script.of("download.py", proxy, collection, local_download.temporary)
        proxy.hang(received=2_000_000)
        with script.started("-f", out) as process:
            assert proxy.broken.wait(waiting.SECONDS), "the proxy saw too little"
            wait_for_a_part(out / ".partial")
            process.send_signal(end)
            _, err = process.communicate(timeout=90)
        assert process.returncode == (130 if end == signal.SIGINT else -end)
        assert "Traceback" not in err
        assert "large.bin" not in os.listdir(out)
        (part,) = (out / ".partial").iterdir()
        assert LARGE.startswith(part.read_bytes())
        left = len(LARGE) - part.stat().st_size
        assert left < len(LARGE)
        # Only the missing bytes are transferred.
        proxy.cut(received=left + 20_000)
        done = script.call("--json", "--retry", 0, "-f", out)
    assert done.code == 0, done.err
    assert stored(out) == {"small.bin": LARGE[:1000], "large.bin": LARGE}


def test_killed_on_the_way_through_many_files(
    server: live.Server, client: AttachmentClient, download: Script, collection: str, out: Path
) -> None:
    contents = {f"{n:02}.bin": LARGE[n : n + 50_000] for n in range(40)}
    for name, content in contents.items():
        put(client, name[:2], content, name)
    with FaultProxy(server.address) as proxy:
        script = Script.of("download.py", proxy, collection, download.temporary)
        # Redirects to S3 bypass the proxy: the records alone are about 20 kB.
        proxy.hang(sent=12_000)
        with script.started("--jobs", 3, "-f", out) as process:
            assert proxy.broken.wait(waiting.SECONDS), "the proxy saw too little"
            process.kill()
    there = {path.name: path.read_bytes() for path in out.glob("*.bin")}
    assert 0 < len(there) < 40
    assert there.items() <= contents.items()
    done = download.call("--json", "--jobs", 3, "-f", out)
    assert done.code == 0, done.err
    assert done.summary["skipped"] == len(there)
    assert stored(out) == contents


def test_a_connection_that_breaks_is_made_anew(
    server: live.Server, client: AttachmentClient, download: Script, collection: str, out: Path
) -> None:
    put(client, "r", LARGE, "large.bin")
    with FaultProxy(server.address) as proxy:
        script = Script.of("download.py", proxy, collection, download.temporary)
        proxy.cut(received=1000, once=True)
        done = script.call("--retry-after", 0, "-f", out)
    assert done.code == 0, done.err
    assert stored(out) == {"large.bin": LARGE}


def test_bars_on_a_terminal(local_download: Script, local: AttachmentClient, out: Path) -> None:
    for number in range(3):
        put(local, f"r{number}", LARGE[number:], f"{number}.bin")
    done = local_download.in_terminal("-f", out)
    assert done.code == 0, done.out
    for number in range(3):
        assert f"downloaded: {number}.bin (3.0 MB)" in done.out
    assert "9.0 MB" in done.out
    assert "all files" in done.out
    assert done.out.rindex("\x1b[?25h") > done.out.rindex("\x1b[?25l")


def test_ctrl_c_in_a_terminal(
    embedded: live.Server, local: AttachmentClient, collection: str, out: Path, tmp_path: Path
) -> None:
    for number in range(3):
        put(local, f"r{number}", LARGE[number:], f"{number}.bin")
    with FaultProxy(embedded.address) as proxy:
        script = Script.of("download.py", proxy, collection, tmp_path / "tmp")
        proxy.hang(received=1_500_000)
        press = Press(b"\x03", proxy, ".bin")
        done = script.in_terminal("--jobs", 2, "-f", out, press=press)
    assert press.pressed
    assert done.code == 130
    assert "Traceback" not in done.out
    assert list(out.glob("*.bin")) == []


def test_what_was_sent_from_folders_comes_into_folders(
    embedded: live.Server, collection: str, local: AttachmentClient, tmp_path: Path
) -> None:
    paths = ["x.txt", "a/x.txt", "a/b/x.txt", "c/é.txt"]
    for path in paths:
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_text(path)
    up = Script.of("upload.py", embedded, collection, tmp_path / "tmp")
    down = Script.of("download.py", embedded, collection, tmp_path / "tmp")
    assert up.call("-r", "--gzip", tmp_path / "in").code == 0
    assert down.call("-f", tmp_path / "out").code == 0
    arrived = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_text()
        for path in (tmp_path / "out").rglob("*.txt")
    }
    assert arrived == {path: path for path in paths}
    assert up.call("-r", "--json", tmp_path / "in").summary["skipped"] == 4
    again = down.call("--json", "-f", tmp_path / "out", "--since", 0)
    assert again.summary["skipped"] == 4
    # A file with the same name outside of folders has its own record.
    (tmp_path / "é.txt").write_text("another")
    assert up.call("--json", tmp_path / "é.txt").summary["uploaded"] == 1
    assert len(list(local.records())) == 5


@pytest.mark.parametrize(
    "path",
    ["../f.txt", "/f.txt", "a/../../f.txt", "a//f.txt", "a/./f.txt", "a/g.txt", 5, "a/f.txt/"],
)
def test_a_path_that_is_none_leads_nowhere(tmp_path: Path, path: object) -> None:
    record = {"id": "r", "attachment": attachment_of(b"content"), "path": path}

    def answer(request: Request) -> Answer:
        is_file = request.path.endswith("/attachment")
        return Answer(200, b"content") if is_file else listing([record])

    with stub(answer) as server:
        script = Script("download.py", server.url, "b", "c", tmp_path)
        assert script.call("-f", tmp_path / "out" / "in").code == 0
    found = {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert found == {"f.txt", ".last_sync"}
    assert (tmp_path / "out" / "in" / "f.txt").read_bytes() == b"content"


def test_folders_are_not_hidden(tmp_path: Path) -> None:
    record = {"id": "r", "attachment": attachment_of(b"content"), "path": ".ssh/\x1b[31m/f.txt"}

    def answer(request: Request) -> Answer:
        is_file = request.path.endswith("/attachment")
        return Answer(200, b"content") if is_file else listing([record])

    with stub(answer) as server:
        script = Script("download.py", server.url, "b", "c", tmp_path)
        assert script.call("-f", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "_.ssh" / "[31m" / "f.txt").read_bytes() == b"content"
