"""``kinto-attachment import`` of malicious exports: nothing is imported."""

from __future__ import annotations

import gzip
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.maintenance import import_sources
from kinto_attachment.maintenance.application import CommandError
from kinto_attachment.maintenance.exported_records import MAX_LINE
from kinto_attachment.maintenance.importing import import_
from tests.support import exports
from tests.support.application import COLLECTION, records, sha256, stored_files, stored_links
from tests.support.backends import ON_MEMORY

CONTENT = b"what is in the file"
DIGEST = sha256(CONTENT)
SECRET = b"a secret of the server"

Change = Callable[[Path], object]


def everything(app: Any) -> Any:
    parents = {}
    storage = app.app.registry.storage
    for kind, parent in (("bucket", ""), ("collection", "/buckets/*")):
        parents[kind] = storage.list_all(resource_name=kind, parent_id=parent)
    return records(app), stored_files(app), stored_links(app), parents


def refusal(app: Any, path: Path, **options: Any) -> str:
    """The message of a refused import, which must change nothing."""
    before = everything(app)
    try:
        report = import_(
            app.app.registry, str(path), server="http://localhost", replace=True, **options
        )
    except CommandError as error:
        told = str(error)
    else:
        assert not report.refused
        told = "\n".join(report.invalid)
    assert told
    assert everything(app) == before
    assert SECRET.decode() not in told
    assert told.isprintable() or "\n" in told
    return told


def good(folder: Path) -> None:
    """A valid export, which a test then makes invalid."""
    first = exports.line("first", b"good")
    exports.write(folder, first, exports.line("r", CONTENT), exports.line("plain"))


def record(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the line of a record."""

    def act(folder: Path) -> None:
        path = folder / "records.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        change(lines[1])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return act


def described(**changes: Any) -> Change:
    """Change the attachment of a record."""
    return record(lambda line: line["data"]["attachment"].update(changes))


def data(**changes: Any) -> Change:
    return record(lambda line: line["data"].update(changes))


def raw(line: bytes) -> Change:
    """Replace the line of a record."""

    def act(folder: Path) -> None:
        path = folder / "records.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + line + b"\n" + lines[2])

    return act


def head(**changes: Any) -> Change:
    def act(folder: Path) -> None:
        path = folder / "collection.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return act


def bucket(**changes: Any) -> Change:
    return head(bucket={"data": {"id": "b", "last_modified": 1, **changes}})


def file(change: Callable[[Path], object]) -> Change:
    """Change the file of a record."""
    return lambda folder: change(folder / "files" / DIGEST)


def linked(to: str) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.parent.parent.parent / to)

    return act


def exchanged(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


def folder_link(folder: Path) -> None:
    (folder / "files").rename(folder.parent / "elsewhere")
    (folder / "files").symlink_to(folder.parent / "elsewhere")


def permissions(value: Any) -> Change:
    return record(lambda line: line.update(permissions=value))


HOSTILE: dict[str, tuple[Change, str]] = {
    # Files.
    "a link to a file": (file(linked("secret")), "symbolic link"),
    "a link that leads nowhere": (file(linked("nowhere")), "symbolic link"),
    "a link to a folder of files": (folder_link, "symbolic link"),
    "a hard link": (file(lambda path: os.link(path, path.parent / "x")), "hard link"),
    "a pipe": (file(exchanged(os.mkfifo)), "no regular file"),
    "a folder": (file(exchanged(Path.mkdir)), "no regular file"),
    "a socket": (
        file(exchanged(lambda path: os.mknod(path, 0o600 | stat.S_IFSOCK))),
        "no regular file",
    ),
    "no file": (file(Path.unlink), "does not exist"),
    "other content": (file(lambda path: path.write_bytes(CONTENT[::-1])), "another SHA-256"),
    "too long": (file(lambda path: path.write_bytes(CONTENT * 2)), "more than 19 bytes"),
    "too short": (file(lambda path: path.write_bytes(b"")), "0 bytes instead of 19"),
    "another size": (described(size=20), "19 bytes instead of 20"),
    # Attachments.
    "a path as hash": (described(hash="../../secret"), "SHA-256"),
    "an absolute path as hash": (described(hash="/etc/passwd"), "SHA-256"),
    "a hash in upper case": (described(hash=DIGEST.upper()), "SHA-256"),
    "a hash and a new line": (described(hash=DIGEST + "\n"), "SHA-256"),
    "no hash": (described(hash=None), "SHA-256"),
    "a negative size": (described(size=-1), "size"),
    "a size that is true": (described(size=True), "size"),
    "a size beyond everything": (described(size=2**64), "size"),
    "folders in the filename": (described(filename="../../x"), "filename"),
    "a header in the filename": (described(filename="x\r\nSet-Cookie: a=b"), "filename"),
    "a header in the media type": (described(mimetype="text/plain\r\nX: y"), "mimetype"),
    "a header in the encoding": (described(encoding="gzip\r\nX: y"), "encoding"),
    "an original that is not there": (
        described(original=exports.attachment(b"other")),
        "not compressed",
    ),
    "an attachment that is a list": (data(attachment=[]), "object"),
    # Records.
    "an id with a path": (data(id="../x"), "id"),
    "an id of all": (data(id="*"), "id"),
    "an id that is no text": (data(id=5), "id"),
    "no id": (data(id=None), "id"),
    "an id with a new line": (data(id="r\n"), "id"),
    "a long id": (data(id="r" * 1000), "id"),
    "a record twice": (data(id="first"), "twice"),
    "a time in the future": (data(last_modified=10**15), "last_modified"),
    "a time before everything": (data(last_modified=-1), "last_modified"),
    "a time that is a text": (data(last_modified="now"), "last_modified"),
    "data that are none": (record(lambda line: line.update(data=None)), "data"),
    "members of others": (record(lambda line: line.update(key="x")), "data"),
    # Permissions.
    "permissions that there are not": (permissions({"own": ["system.Everyone"]}), "permissions"),
    "permissions for nobody": (permissions({"write": "system.Everyone"}), "permissions"),
    "a principal that is a number": (permissions({"write": [1]}), "permissions"),
    "a principal with a new line": (permissions({"write": ["a\nb"]}), "permissions"),
    "an empty principal": (permissions({"write": [""]}), "permissions"),
    # JSON.
    "no JSON": (raw(b"{secret"), "no JSON"),
    "no JSON at all": (raw(b"\0\xff"), "not UTF-8"),
    "NaN": (raw(b'{"data": {"id": "r", "last_modified": 1, "n": NaN}}'), "NaN"),
    "infinity": (raw(b'{"data": {"id": "r", "last_modified": 1, "n": 1e999}}'), "too large"),
    "a number of a million digits": (raw(b'{"data": ' + b"9" * 10**6 + b"}"), "no JSON"),
    "deep": (raw(b"[" * 100_000), "deeply"),
    "deep and right": (
        raw(b'{"data": {"id": "r", "last_modified": 1, "n": ' + b"[" * 500 + b"]" * 500 + b"}}"),
        "deeply",
    ),
    "two members of one name": (
        raw(b'{"data": {"id": "r", "last_modified": 1, "id": "q"}}'),
        "same name",
    ),
    "NUL": (data(title="a\0b"), "cannot be stored"),
    "half a character": (data(title="\ud800"), "cannot be stored"),
    "a long line": (raw(b" " * (MAX_LINE + 1)), "longer than"),
    "a line of nothing": (raw(b""), "no JSON"),
    "fewer records": (head(records=5), "3 records, and should have 5"),
    "no records": (lambda folder: (folder / "records.jsonl").unlink(), "does not exist"),
    # The collection.
    "not complete": (lambda folder: (folder / "collection.json").unlink(), "no export"),
    "another format": (head(format="tar"), "format"),
    "a bucket with a path": (bucket(id="../b"), "id"),
    "all buckets": (bucket(id="*"), "id"),
    "a schema that is none": (
        head(collection={"data": {"id": "c", "last_modified": 1, "schema": {"type": 5}}}),
        "Kinto refuses",
    ),
    "permissions of a bucket": (
        head(bucket={"data": {"id": "b", "last_modified": 1}, "permissions": {"fly": []}}),
        "permissions",
    ),
    "a link to the collection": (
        lambda folder: linked("secret")(folder / "collection.json"),
        "symbolic link",
    ),
    "an index with paths": (
        lambda folder: (folder / "export.json").write_text(
            json.dumps(
                {"format": exports.FORMAT, "collections": [{"bucket": "..", "collection": "c"}]}
            )
        ),
        "id",
    ),
    "an index of another collection": (
        lambda folder: (folder / "export.json").write_text(
            json.dumps(
                {"format": exports.FORMAT, "collections": [{"bucket": "b", "collection": "x"}]}
            )
        ),
        "does not exist",
    ),
}


@ON_MEMORY
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders(app: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    good(tmp_path / "export")
    change, expected = HOSTILE[name]
    change(tmp_path / "export")
    assert expected in refusal(app, tmp_path / "export")


@ON_MEMORY
def test_a_location_and_a_key_of_others_are_ignored(app: Any, tmp_path: Path) -> None:
    good(tmp_path / "export")
    claims = {"location": "http://localhost/v1/attachments/stolen", "key": "stolen"}
    described(**claims, storage="cold")(tmp_path / "export")
    report = import_(app.app.registry, str(tmp_path / "export"), server="http://localhost")
    assert report.created == 3
    attachment = records(app)[f"{COLLECTION}/records/r"]["attachment"]
    assert "stolen" not in attachment["location"]
    assert "stolen" not in stored_files(app)


def zipped(tmp_path: Path) -> Path:
    good(tmp_path / "export")
    return exports.packed(tmp_path / "export", tmp_path / "export.zip")


def with_entry(name: str, content: bytes = b"x", mode: int = 0, **more: Any) -> Change:
    def act(path: Path) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = more.get("method", zipfile.ZIP_STORED)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, content)

    return act


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(CONTENT, CONTENT[::-1], 1))


def renamed(name: bytes) -> Change:
    return lambda path: path.write_bytes(path.read_bytes().replace(b"collection.json", name))


def comment(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"hello"


def flag(path: Path) -> None:
    """Mark the first entry as encrypted."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def newer(path: Path) -> None:
    """Mark the first entry as needing a later version of the format."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)


def without_name(path: Path) -> None:
    """Make the name of the last entry begin with NUL, where it ends for Python."""
    content = path.read_bytes()
    before, name, after = content.rpartition(b"collection.json")
    path.write_bytes(before + b"\0" + name[1:] + after)


def other_local_name(path: Path) -> None:
    """Make the name before an entry's bytes invalid UTF-8, although it is marked as UTF-8."""
    content = bytearray(path.read_bytes())
    name = content.index(b"collection.json")
    content[name] = 0xFF
    content[name - 30 + 7] |= 0x08  # The flag for a name in UTF-8.
    content[content.rindex(b"collection.json") - 46 + 9] |= 0x08
    path.write_bytes(content)


ARCHIVES: dict[str, tuple[Change, str]] = {
    "a path above": (with_entry("../evil"), "no file of an export"),
    "a path above in a folder": (with_entry("files/../../evil"), "no file of an export"),
    "an absolute path": (with_entry("/etc/passwd"), "no file of an export"),
    "a drive": (with_entry("C:\\evil"), "no file of an export"),
    "another file": (with_entry("run.sh"), "no file of an export"),
    "a name with NUL": (renamed(b"collection.js\0n"), "no file of an export"),
    "a link": (with_entry(f"files/{'0' * 64}", b"/etc/passwd", 0o120777), "no regular file"),
    "a device": (with_entry(f"files/{'0' * 64}", b"", 0o020600), "no regular file"),
    "the same name twice": (with_entry("records.jsonl"), "twice"),
    "a bomb": (
        with_entry(f"files/{'0' * 64}", bytes(10**7), method=zipfile.ZIP_DEFLATED),
        "1/200",
    ),
    "another compression": (
        with_entry(f"files/{'0' * 64}", bytes(100), method=zipfile.ZIP_LZMA),
        "another way",
    ),
    "encrypted": (flag, "encrypted"),
    "a later version": (newer, "export.zip: zip file version 25.5"),
    "no name": (without_name, "no file of an export"),
    "another name before the bytes": (other_local_name, "collection.json: 'utf-8' codec"),
    "damaged": (damage, "CRC"),
    "cut off": (lambda path: os.truncate(path, path.stat().st_size - 30), "no ZIP"),
    "empty": (lambda path: os.truncate(path, 0), "no ZIP"),
    "a comment": (comment, "no ZIP"),
}


@ON_MEMORY
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives(app: Any, tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path)
    change, expected = ARCHIVES[name]
    change(archive)
    assert expected in refusal(app, archive)


@ON_MEMORY
def test_many_entries(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_sources, "MAX_DIRECTORY", 100)
    assert "unpack it" in refusal(app, zipped(tmp_path))


@ON_MEMORY
def test_entries_that_overlap(app: Any, tmp_path: Path) -> None:
    archive = zipped(tmp_path)
    with zipfile.ZipFile(archive, "a") as file:
        inner = next(each for each in file.infolist() if each.filename.startswith("files/"))
        for number in range(100):
            again = zipfile.ZipInfo(f"files/{number:064x}")
            again.header_offset, again.CRC = inner.header_offset, inner.CRC
            again.file_size = again.compress_size = 100
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again
        file._didModify = True
    assert "overlap" in refusal(app, archive)


@ON_MEMORY
def test_a_bomb_as_an_original(app: Any, tmp_path: Path) -> None:
    """Only as many bytes are decompressed as the record says."""
    packed = gzip.compress(bytes(10**7), 9)
    line, _ = exports.line("r", packed)
    line["data"]["attachment"]["original"] = exports.attachment(b"12345")
    exports.write(tmp_path / "export", (line, packed))
    assert "`original`: its file has more than 5 bytes" in refusal(app, tmp_path / "export")
