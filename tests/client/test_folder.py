"""The assignment of files in a folder to records."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from kinto_attachment.client.folder import STALE, Folder, local_name

SOURCE = "http://127.0.0.1/v1/buckets/b/collections/c"

HOSTILE = {
    "../../escaped": "escaped",
    "/etc/passwd": "passwd",
    "..\\windows.txt": "windows.txt",
    "..": "file",
    ".": "file",
    "": "file",
    "///": "file",
    ".last_sync": "_.last_sync",
    ".partial": "_.partial",
    ".bashrc": "_.bashrc",
    "a\x00b\nc\x1b[31m": "abc[31m",
    "lone\ud800surrogate": "lonesurrogate",
    "x" * 300 + ".txt": "x" * 251 + ".txt",
    "x." + "y" * 300: "x." + "y" * 126,
    "ü" * 200: "ü" * 127,
    "\u202egnp.exe": "gnp.exe",
}


@pytest.mark.parametrize("filename", HOSTILE)
def test_a_name_never_leaves_the_folder(filename: str) -> None:
    name = local_name(filename)
    assert name == HOSTILE[filename]
    assert os.path.basename(name) == name
    assert len(name.encode()) <= 255


def test_a_place_is_found_for_every_record(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SOURCE)
    places = {
        (record, filename): folder.place(record, filename).name
        for record, filename in (
            ("r1", "x.txt"),
            ("r2", "x.txt"),
            ("r3", "x-r4.txt"),  # As if the later name had been known.
            ("r4", "x.txt"),
            ("key-" + "0" * 2048, "x.txt"),
            ("r5", "x" * 300 + ".txt"),
            ("r6", "x" * 300 + ".txt"),
        )
    }
    assert places["r1", "x.txt"] == "x.txt"
    assert places["r2", "x.txt"] == "x-r2.txt"
    assert places["r4", "x.txt"] == "x-r4-1.txt"
    assert len(set(places.values())) == len(places)
    assert max(len(name) for name in places.values()) <= 255
    folder.save()
    again = Folder(tmp_path, SOURCE)
    for (record, filename), name in reversed(places.items()):
        assert again.place(record, filename).name == name


def test_a_name_that_is_no_longer_used_is_free(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SOURCE)
    assert folder.place("r1", "x.txt").name == "x.txt"
    assert folder.place("r1", "new.txt").name == "new.txt"
    assert folder.place("r2", "x.txt").name == "x.txt"
    assert folder.place("r1", "x.txt").name == "x-r1.txt"


def test_names_stay_when_the_server_is_reached_by_another_url(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SOURCE)
    folder.sync.timestamp = 5
    assert folder.place("r", "x.txt").name == "x.txt"
    folder.save()
    moved = Folder(tmp_path, SOURCE.replace("http", "https"))
    assert moved.sync.timestamp is None
    assert moved.place("r", "x.txt").name == "x.txt"
    assert moved.place("r2", "x.txt").name == "x-r2.txt"


def test_a_hand_made_state_leads_nowhere_else(tmp_path: Path) -> None:
    state = {SOURCE: {"timestamp": 5, "failed": [], "files": {"r": "../../escaped"}}}
    (tmp_path / ".last_sync").write_text(json.dumps(state))
    assert Folder(tmp_path, SOURCE).place("r", "x.txt") == tmp_path / "x.txt"


@pytest.mark.parametrize("text", ["", "[]", '"x"', '{"a": 1}', '{"a": {"b": 1}}', "\ud800"])
def test_a_state_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".last_sync").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="cannot be read"):
        Folder(tmp_path, SOURCE)


def test_what_nobody_goes_on_with_is_swept(tmp_path: Path) -> None:
    folder = Folder(tmp_path, SOURCE)
    old, new = (folder.partial_file("r", sha256) for sha256 in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"x")
    then = time.time() - STALE - 60
    os.utime(old, (then, then))
    folder.save()
    assert (old.exists(), new.exists()) == (False, True)
    new.unlink()
    folder.save()
    assert os.listdir(tmp_path) == [".last_sync"]
