"""``scripts/upload.py``, as a process against live servers."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.client import AttachmentClient
from kinto_attachment.client.outcomes import readable
from tests.client.conftest import PRODUCTION
from tests.support import forking, live, waiting
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.sampling import every_case, one_in, sampled
from tests.support.scripts import AUTH, ROOT, Press, Script

LARGE = random.Random(1).randbytes(3_000_000)
GIB = 1024**3
LARGEST_FORM = 64 * 1024**2  # Larger files are sent in several requests.
HUGE = GIB // 4 // one_in(5)
MANY = 120 if every_case() else 51  # More than the 50 that one request looks up.


@pytest.fixture
def upload(server: live.Server, collection: str, tmp_path: Path) -> Script:
    return Script.of("upload.py", server, collection, tmp_path / "tmp")


@pytest.fixture
def local_upload(embedded: live.Server, collection: str, tmp_path: Path) -> Script:
    """The script, on the embedded server only."""
    return Script.of("upload.py", embedded, collection, tmp_path / "tmp")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


def fill(folder: Path, count: int, size: int = 2000) -> list[Path]:
    chance = random.Random(count)
    paths = [folder / f"{number:03}.bin" for number in range(count)]
    for path in paths:
        path.write_bytes(chance.randbytes(size))
    return paths


def records(client: AttachmentClient) -> dict[str, dict[str, Any]]:
    """All records, by the filename of their attachment."""
    return {record["attachment"]["filename"]: record for record in client.records()}


def content(client: AttachmentClient, record: Any) -> bytes:
    file = io.BytesIO()
    client.download(record, file)
    return file.getvalue()


def wait(process: subprocess.Popen[str], proxy: FaultProxy) -> None:
    """Wait until the proxy has stopped the traffic."""
    assert proxy.broken.wait(waiting.SECONDS), process.poll()


# Uploads.


@pytest.mark.parametrize("options", [[], ["--gzip"]], ids=["plain", "gzip"])
def test_a_second_run_transfers_nothing(
    upload: Script, client: AttachmentClient, folder: Path, options: list[str]
) -> None:
    paths = fill(folder, 5)
    (folder / "ünï cödé.txt").write_text("x" * 100_000)
    # Compressed files are temporary files of the process.
    start = upload.run if options else upload.call
    first = start("--json", *options, *folder.iterdir())
    assert first.code == 0, first.err
    assert set(first.results().values()) == {"uploaded"}
    before = records(client)
    assert len(before) == 6
    for path in paths:
        assert content(client, str(uuid.UUID(hashlib.md5(path.name.encode()).hexdigest()))) == (
            path.read_bytes()
        )
    second = upload.call("--json", *options, *folder.iterdir())
    assert second.code == 0, second.err
    assert set(second.results().values()) == {"skipped"}
    assert second.summary["sent"] == 0
    assert records(client) == before
    assert os.listdir(upload.temporary) == []


def test_a_changed_file_replaces_the_one_that_is_there(
    upload: Script, client: AttachmentClient, folder: Path
) -> None:
    changed, same = fill(folder, 2)
    assert upload.call(changed, same).code == 0
    changed.write_bytes(b"changed")
    done = upload.call("--json", changed, same)
    assert done.results() == {"000.bin": "uploaded", "001.bin": "skipped"}
    assert content(client, records(client)["000.bin"]) == b"changed"
    assert len(records(client)) == 2


def test_force_uploads_what_is_there(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    (path,) = fill(folder, 1)
    local_upload.call(path)
    before = records(local)
    done = local_upload.call("--json", "--force", path)
    assert done.results() == {"000.bin": "uploaded"}
    after = records(local)
    assert after["000.bin"]["id"] == before["000.bin"]["id"]
    assert after["000.bin"]["last_modified"] > before["000.bin"]["last_modified"]


def test_gzip_says_what_was_compressed(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    text = b"The same again. " * 10_000
    (folder / "notes.txt").write_bytes(text)
    assert local_upload.call("--gzip", folder / "notes.txt").code == 0
    record = records(local)["notes.txt.gz"]
    assert record["original"] == {
        "filename": "notes.txt",
        "hash": hashlib.sha256(text).hexdigest(),
        "mimetype": "text/plain",
        "size": len(text),
    }
    attachment = record["attachment"]
    assert attachment["mimetype"] == "application/gzip"
    assert attachment["size"] < 5000
    stored = local.session.fetch(
        f"{local.kinto.get_endpoint('record', id=record['id'])}/attachment", {}
    )
    assert gzip.decompress(stored.content) == text
    # Plain again: no trace of the encoding is left to mislead a download.
    assert local_upload.call("--force", folder / "notes.txt").code == 0
    record = records(local)["notes.txt"]
    assert record["original"] is None
    assert content(local, record) == text


def test_gzip_on_both_sides(
    server: live.Server, collection: str, folder: Path, tmp_path: Path
) -> None:
    text = b"The same again. " * 10_000
    (folder / "notes.txt").write_bytes(text)
    script = Script.of("upload.py", server, collection, tmp_path / "tmp", bucket="gzipped")
    client = AttachmentClient(server.url, "gzipped", collection, AUTH)
    for options in ([], ["--gzip", "--force"]):
        assert script.call(*options, folder / "notes.txt").code == 0
        (record,) = client.records()
        assert "original" in record["attachment"]
        assert content(client, record) == text
        assert script.call("--json", *options[:1], folder / "notes.txt").summary["skipped"] == 1


def test_the_record_that_has_the_filename_is_used(
    upload: Script, client: AttachmentClient, folder: Path
) -> None:
    names = ["plain.txt", "com,ma.txt", 'quo"te.txt', "2024", "packed.txt", "ünï.txt"]
    for name in names:
        (folder / name).write_text(name)
        stored = f"{name}.gz" if name == "packed.txt" else name
        data = {"original": {"filename": name, "hash": "0", "mimetype": "t/p", "size": 1}}
        client.upload(
            str(uuid.uuid4()),
            io.BytesIO(b"old"),
            data if stored != name else None,
            filename=stored,
        )
    ids = {record["id"] for record in client.records()}
    done = upload.call("--json", *folder.iterdir())
    assert set(done.results().values()) == {"uploaded"}
    assert {record["id"] for record in client.records()} == ids
    for record in client.records():
        assert content(client, record).decode() == record["attachment"]["filename"]


def test_a_name_that_the_server_changes_is_found_again(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    path = folder / "\u202egnp.bin"
    path.write_bytes(b"content")
    local.upload("mine", path)
    assert records(local)["gnp.bin"]["id"] == "mine"
    assert set(local_upload.call("--json", path).results().values()) == {"skipped"}


def test_the_longest_name_can_be_compressed(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    path = folder / ("ü" * 125 + "x.txt")
    path.write_bytes(b"content")
    assert set(local_upload.call("--json", "--gzip", path).results().values()) == {"uploaded"}
    (record,) = records(local).values()
    assert record["attachment"]["filename"] == "ü" * 124 + ".txt.gz"
    assert record["original"]["filename"] == path.name
    assert set(local_upload.call("--json", "--gzip", path).results().values()) == {"skipped"}


def test_many_long_names_are_looked_up_in_urls_that_servers_take(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    names = [f"{number} {'ü' * 50}.txt" for number in range(30)]
    for number, name in enumerate(names):
        (folder / name).write_text("x")
        local.upload(f"r{number}", io.BytesIO(b"x"), filename=name)
    done = local_upload.call("--json", *folder.iterdir())
    assert done.summary["skipped"] == len(names)


def test_folders_and_their_folders(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    for path in ("x.txt", "a/x.txt", "a/b/x.txt", "a/b/.hidden"):
        (folder / path).write_text(path)
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    refused = local_upload.call(folder)
    assert refused.code == 1
    assert "--recursive" in refused.err
    done = local_upload.call("--json", "--recursive", folder)
    assert done.code == 1, "the dangling link"
    assert done.summary["uploaded"] == 4
    assert done.summary["failed"] == 1
    contents = {content(local, record).decode() for record in local.records()}
    assert contents == {"x.txt", "a/x.txt", "a/b/x.txt", "a/b/.hidden"}
    assert local_upload.call("--json", "-r", folder).summary["skipped"] == 4
    # From the folder itself, the names are the same.
    command = [sys.executable, str(ROOT / "scripts" / "upload.py"), *local_upload.command()[2:]]
    here = forking.run(
        [*command, "-r", "."], cwd=folder, capture_output=True, text=True, timeout=waiting.SECONDS
    )
    assert "4 skipped" in here.stdout


def test_what_download_keeps_for_itself_is_not_uploaded(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    (folder / "sub" / ".partial").mkdir(parents=True)
    for path in ("x.txt", "sub/.last_sync", "sub/y.txt", "sub/.partial/z.part"):
        (folder / path).write_text(path)
    assert local_upload.call("--json", "-r", folder).summary["uploaded"] == 2
    assert set(records(local)) == {"x.txt", "y.txt"}


def test_two_files_of_one_name_do_not_share_a_record(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "x.txt").write_text(name)
    paths = [folder / "a" / "x.txt", folder / "b" / "x.txt"]
    done = local_upload.call("--json", paths[0], *paths)
    assert done.code == 1
    assert sorted(line["result"] for line in done.lines) == ["failed", "uploaded"]
    (failed,) = (line for line in done.lines if line["result"] == "failed")
    assert failed["file"] == str(paths[1])
    assert "the same name" in failed["why"]
    assert content(local, records(local)["x.txt"]) == b"a"


def test_mimetypes(local_upload: Script, local: AttachmentClient, folder: Path) -> None:
    for name in ("a.png", "b.unknown"):
        (folder / name).write_text("x")
    local_upload.call(*folder.iterdir())
    found = records(local)
    assert found["a.png"]["attachment"]["mimetype"] == "image/png"
    assert found["b.unknown"]["attachment"]["mimetype"] == "application/octet-stream"
    local_upload.call("--force", "--mimetype", "text/x-notes", *folder.iterdir())
    assert {r["attachment"]["mimetype"] for r in local.records()} == {"text/x-notes"}


def test_keep_filenames_tells_whether_the_server_does(
    embedded: live.Server, collection: str, folder: Path, tmp_path: Path, local_upload: Script
) -> None:
    (folder / "notes.txt").write_text("x")
    done = local_upload.call("--keep-filenames", folder / "notes.txt")
    assert done.code == 0
    assert f"kinto.attachment.resources.default.{collection}.randomize = false" in done.err
    named = Script.of("upload.py", embedded, collection, tmp_path / "tmp", bucket="named")
    done = named.call("--keep-filenames", folder / "notes.txt")
    assert (done.code, done.err) == (0, "")
    client = AttachmentClient(embedded.url, "named", collection, AUTH)
    (record,) = client.records()
    assert record["attachment"]["location"].endswith("/notes.txt")


def test_bucket_and_collection_are_created_if_that_is_allowed(
    server: live.Server, folder: Path, tmp_path: Path, collection: str
) -> None:
    (path,) = fill(folder, 1)
    bucket = f"made-{collection}"
    script = Script.of("upload.py", server, collection, tmp_path / "tmp", bucket=bucket)
    assert script.call(path).code == 0
    assert script.call(path).code == 0
    # Bob may write records here, and nothing else.
    client = AttachmentClient(server.url, bucket, collection, AUTH)
    bob = AttachmentClient(server.url, bucket, collection, ("bob", "secret"))
    who = bob.session.request("get", "/")[0]["user"]["id"]
    client.kinto.patch_collection(id=collection, permissions={"record:create": [who]}, data={})
    bobs = folder / "bobs.txt"
    bobs.write_text("bob's")
    done = script.call("--auth", "bob:secret", bobs)
    assert done.code == 0, done.err
    assert set(records(client)) == {"000.bin", "bobs.txt"}
    # He may not overwrite alice's file either, and the message says so.
    path.write_bytes(b"bob's")
    done = script.call("--auth", "bob:secret", path)
    assert done.code == 1
    assert "403" in done.err


def test_one_failing_file_does_not_stop_the_others(
    embedded: live.Server, collection: str, folder: Path, tmp_path: Path
) -> None:
    paths = fill(folder, 6, size=500)
    paths[2].write_bytes(b"x" * 1001)
    script = Script.of("upload.py", embedded, collection, tmp_path / "tmp", bucket="small")
    missing = folder / "missing.txt"
    done = script.call("--jobs", 3, "--json", *paths, missing)
    assert done.code == 1
    assert done.summary["uploaded"] == 5
    failed = {os.path.basename(f["file"]): f["why"] for f in done.lines if f["result"] == "failed"}
    assert "413" in failed["002.bin"]
    assert failed["missing.txt"] == "No such file or directory"


# Output.


def test_plain_lines_in_a_pipe(local_upload: Script, folder: Path) -> None:
    (path,) = fill(folder, 1)
    done = local_upload.run(path, folder / "missing")
    assert done.out.splitlines()[0] == f"uploaded: {path} (2.0 kB)"
    summary = done.out.splitlines()[1]
    assert re.fullmatch(
        r"(1 failed, 1 uploaded|1 uploaded, 1 failed); 2\.0 kB in \d+\.\d s", summary
    )
    assert done.err == f"failed: {folder / 'missing'}: No such file or directory\n"
    assert "\x1b" not in done.out + done.err
    assert local_upload.call(path).out.splitlines()[0] == f"skipped: {path} (already there)"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (65536, "65.5 kB"),
        (3_000_000, "3.0 MB"),
        (GIB, "1.1 GB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert readable(size) == text


@pytest.mark.parametrize("option", ["--verbose", "--debug", "--ignore-batch-4xx"])
def test_the_options_of_kinto_http_are_taken(
    local_upload: Script, folder: Path, option: str
) -> None:
    done = local_upload.call("--json", option, *fill(folder, 1))
    assert done.code == 0, done.err
    assert done.summary["uploaded"] == 1


def test_quiet(local_upload: Script, folder: Path) -> None:
    (path,) = fill(folder, 1)
    done = local_upload.call("--quiet", path, folder / "missing")
    assert done.out == ""
    assert done.err == f"failed: {folder / 'missing'}: No such file or directory\n"


def test_a_name_does_not_reach_the_terminal_as_it_is(local_upload: Script, folder: Path) -> None:
    path = folder / "a\x1b[31mred\nline.txt"
    path.write_text("x")
    done = local_upload.call(path)
    assert done.code == 0
    assert "\x1b" not in done.out
    assert done.out.count("\n") == 2


def test_names_that_are_no_text(
    local_upload: Script, local: AttachmentClient, folder: Path
) -> None:
    path = os.path.join(os.fsencode(folder), b"not\xffutf8.txt")
    with open(path, "wb") as file:
        file.write(b"x")
    for start, arguments in (
        (local_upload.run, [os.fsdecode(path)]),
        (local_upload.call, ["-r", folder]),
    ):
        done = start("--json", *arguments)
        assert (done.code, done.summary["failed"]) == (1, 1)
        assert "not UTF-8" in done.lines[0]["why"]
    assert not list(local.records())


def test_bars_on_a_terminal(local_upload: Script, folder: Path) -> None:
    paths = fill(folder, 4, size=300_000)
    done = local_upload.in_terminal("--jobs", 2, *paths)
    assert done.code == 0, done.out
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in done.out
    assert "all files" in done.out
    assert "1.2 MB" in done.out, "the total"
    assert "/s" in done.out, "the rate"
    for path in paths:
        assert f"uploaded: {path} (300.0 kB)" in done.out
    assert "4 uploaded; 1.2 MB" in done.out
    assert done.out.rindex("\x1b[?25h") > done.out.rindex("\x1b[?25l"), "the cursor is back"


def test_bars_do_not_count_what_is_there_already(local_upload: Script, folder: Path) -> None:
    paths = fill(folder, 3, size=300_000)
    local_upload.call(paths[0])
    done = local_upload.in_terminal(*paths)
    assert "600.0/600.0 kB" in done.out
    assert "900.0/900.0 kB" not in done.out


def test_no_bars_when_quiet(local_upload: Script, folder: Path) -> None:
    done = local_upload.in_terminal("--quiet", *fill(folder, 2))
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["--jobs", "0", "x"], ["--jobs", "x", "x"], ["--what"]])
def test_options_that_make_no_sense(local_upload: Script, arguments: list[str]) -> None:
    done = local_upload.call(*arguments)
    assert done.code == 2
    assert "usage:" in done.err


# Interruptions.


def test_a_server_that_is_away_for_a_moment(
    upload: Script, server: live.Server, client: AttachmentClient, folder: Path, collection: str
) -> None:
    paths = fill(folder, 10, size=200_000)
    with FaultProxy(server.address) as proxy:
        script = Script.of("upload.py", proxy, collection, upload.temporary)
        proxy.cut(sent=700_000, once=True)
        done = script.call("--jobs", 2, "--retry-after", 0, *paths)
    assert done.code == 0, done.err
    assert "retrying in" in done.err
    assert len(records(client)) == 10


def test_a_busy_server_is_waited_for_as_it_asks(
    folder: Path, collection: str, tmp_path: Path
) -> None:
    (path,) = fill(folder, 1)
    for status in (503, 429):
        with answering(Answer(status, b"{}", {"Retry-After": "1"})) as (url, seen):
            script = Script("upload.py", f"{url}/v1", "b", collection, tmp_path)
            start = time.monotonic()
            done = script.call("--retry", 1, path)
        assert time.monotonic() - start > 1
        assert done.code == 2
        assert len(seen) == 2
        assert f"{status}" in done.err


def test_a_server_that_is_not_there(folder: Path, collection: str, tmp_path: Path) -> None:
    (path,) = fill(folder, 1)
    for url, why in (("http://127.0.0.1:9/v1", "Connection refused"), ("nonsense", "Invalid URL")):
        done = Script("upload.py", url, "b", collection, tmp_path).call("--retry", 0, path)
        assert done.code == 2
        assert why in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("end", "options"),
    [(signal.SIGKILL, ["--gzip"]), (signal.SIGINT, [])],
    ids=["killed", "Ctrl-C"],
)
def test_what_was_cut_off_is_not_there_and_the_next_run_completes(
    server: live.Server,
    upload: Script,
    client: AttachmentClient,
    folder: Path,
    collection: str,
    end: signal.Signals,
    options: list[str],
) -> None:
    paths = fill(folder, 3, size=3_000_000)
    with FaultProxy(server.address) as proxy:
        script = Script.of("upload.py", proxy, collection, upload.temporary)
        proxy.hang(sent=4_000_000)
        with script.started(*options, *paths) as process:
            wait(process, proxy)
            process.send_signal(end)
            _, err = process.communicate(timeout=120)
    assert process.returncode == (130 if end == signal.SIGINT else -end)
    assert "Traceback" not in err
    assert os.listdir(upload.temporary) == []
    whole = [
        path for path in paths if path.name in {n.removesuffix(".gz") for n in records(client)}
    ]
    assert whole == paths[:1]
    done = upload.call("--json", *options, *paths)
    assert done.code == 0, done.err
    assert done.results() == {"000.bin": "skipped", "001.bin": "uploaded", "002.bin": "uploaded"}
    for record in client.records():
        name = record["attachment"]["filename"].removesuffix(".gz")
        assert content(client, record) == (folder / name).read_bytes()


def test_a_large_file_goes_on_after_ctrl_c(
    embedded: live.Server, local: AttachmentClient, folder: Path, collection: str, tmp_path: Path
) -> None:
    path = folder / "film.bin"
    path.write_bytes(random.Random(2).randbytes(LARGEST_FORM + 1))
    with FaultProxy(embedded.address) as proxy:
        script = Script.of("upload.py", proxy, collection, tmp_path / "tmp")
        proxy.hang(sent=LARGEST_FORM * 3 // 4)
        with script.started(path) as process:
            wait(process, proxy)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        assert (process.returncode, "Traceback" in err) == (130, False)
        assert list(local.records()) == []
        # The complete file would not pass.
        proxy.cut(sent=LARGEST_FORM * 3 // 4)
        done = script.run("--json", "--retry", 0, path)
        assert (done.code, done.results()) == (0, {"film.bin": "uploaded"}), done.err
        assert not proxy.broken.is_set()
    assert content(local, records(local)["film.bin"]) == path.read_bytes()
    assert [each for each in (tmp_path / "cache").rglob("*") if each.is_file()] == []


def test_ctrl_c_in_a_terminal(
    embedded: live.Server, local: AttachmentClient, folder: Path, collection: str, tmp_path: Path
) -> None:
    paths = fill(folder, 3, size=3_000_000)
    with FaultProxy(embedded.address) as proxy:
        script = Script.of("upload.py", proxy, collection, tmp_path / "tmp")
        proxy.hang(sent=1_000_000)
        press = Press(b"\x03", proxy, "000.bin")
        start = time.monotonic()
        done = script.in_terminal("--jobs", 2, *paths, press=press)
    assert press.pressed
    assert done.code == 130
    assert time.monotonic() - start < waiting.SECONDS / 2
    assert "interrupted" in done.out
    assert "Traceback" not in done.out
    assert done.out.rindex("\x1b[?25h") > done.out.rindex("\x1b[?25l")
    assert records(local) == {}


# Costs.


@sampled(1, "options")  # On both servers.
@pytest.mark.parametrize(
    ("server", "options"),
    [
        pytest.param("embedded", [], id="embedded"),
        pytest.param("production", ["--gzip"], id="production-gzip", marks=PRODUCTION.marks),
    ],
    indirect=["server"],
)
def test_many_files(
    server: live.Server, folder: Path, collection: str, tmp_path: Path, options: list[str]
) -> None:
    paths = fill(folder, MANY)
    up = Script.of("upload.py", server, collection, tmp_path / "tmp")
    start = up.run if options else up.call
    first = start("--json", "--jobs", 4, "--recursive", *options, folder)
    assert first.code == 0, first.err
    assert first.summary["uploaded"] == MANY
    second = up.call("--json", "--jobs", 4, "--recursive", *options, folder)
    assert (second.summary["skipped"], second.summary["sent"]) == (MANY, 0)
    down = Script.of("download.py", server, collection, tmp_path / "tmp")
    start = down.run if options else down.call
    first = start("--json", "--jobs", 4, "-f", tmp_path / "out")
    assert first.code == 0, first.err
    assert first.summary["downloaded"] == MANY
    for path in paths:
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert down.call("--json", "--jobs", 4, "-f", tmp_path / "out").lines == []
    again = down.call("--json", "--jobs", 4, "-f", tmp_path / "out", "--since", 0)
    assert (again.summary["skipped"], again.summary["sent"]) == (MANY, 0)


def test_memory_does_not_depend_on_the_size_of_the_file(
    embedded: live.Server, local: AttachmentClient, folder: Path, collection: str, tmp_path: Path
) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(HUGE)
    (folder / "tiny").write_bytes(b"x")
    up = Script.of("upload.py", embedded, collection, tmp_path / "tmp")
    down = Script.of("download.py", embedded, collection, tmp_path / "tmp")
    tiny = up.measured(folder / "tiny"), down.measured("-f", tmp_path / "out")
    huge = up.measured(folder / "huge"), down.measured("-f", tmp_path / "out")
    for small, large in zip(tiny, huge, strict=True):
        assert (small.code, large.code) == (0, 0), large.err
        assert large.memory - small.memory < 16 * 1024**2
    assert (tmp_path / "out" / "huge").stat().st_size == HUGE
    local.session.request("delete", local.kinto.get_endpoint("records"))
