"""The keys of stored files, and the extensions that they may have."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support import waiting
from tests.support.application import (
    COLLECTION,
    CONTENT,
    OTHER,
    attach,
    attachment_of,
    key_of,
    put,
    read,
    stored_files,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build

pytestmark = EVERYWHERE


class TestNames:
    def test_are_random(self, app: Any) -> None:
        key = key_of(attach(app, filename="Notes.TXT").json)
        name, dot, extension = key.partition(".")
        assert (len(name), dot + extension) == (36, ".txt")

    def test_go_into_the_folder(self, build: Build) -> None:
        app = build(
            **{
                "folder": "/{bucket_id}/of/{collection_id}/",
                "resources.b.d.folder": "elsewhere",
            }
        )
        put(app, "/buckets/b/collections/d")
        attachment = attach(app).json
        assert key_of(attachment).startswith("b/of/c/")
        assert read(app, attachment["location"]) == CONTENT
        other = attach(app, "/buckets/b/collections/d/records/r").json
        assert key_of(other).startswith("elsewhere/")

    @pytest.mark.parametrize(
        ("filename", "key"),
        [
            ("notes.txt", "notes.txt"),
            ("тест.jpg", "тест.jpg"),
            ("C:\\dir\\b.txt", "b.txt"),
            ("/dir/b.txt", "b.txt"),
            ("a b (1).txt", "a_b_1.txt"),
        ],
    )
    def test_are_kept(self, build: Build, filename: str, key: str) -> None:
        app = build(randomize="false")
        attachment = attach(app, filename=filename, status=201).json
        assert stored_files(app) == {key}
        assert key_of(attachment) == key
        assert read(app, attachment["location"]) == CONTENT

    def test_that_are_kept_and_taken_get_a_number(self, build: Build) -> None:
        app = build(randomize="false")
        records = [f"{COLLECTION}/records/r{number}" for number in range(3)]
        for number, record in enumerate(records):
            attach(app, record, content=b"%d" % number, filename="same.txt", status=201)
        assert stored_files(app) == {"same.txt", "same-1.txt", "same-2.txt"}
        for number, record in enumerate(records):
            assert read(app, f"{record}/attachment") == b"%d" % number

    @ON_DATABASES
    def test_that_are_taken_while_they_are_looked_for_get_a_number(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before the name is reserved, another upload has taken it and is finished."""
        app = build(randomize="false")
        exists = app.app.registry.attachment_storages.default.files.exists

        def look_and_be_overtaken(key: str) -> bool:
            found = exists(key)
            if not overtaken:
                overtaken.append(key)
                waiting.elsewhere(attach, app, OTHER, b"other", status=201)
            return bool(found)

        overtaken: list[str] = []
        monkeypatch.setattr(
            app.app.registry.attachment_storages.default.files, "exists", look_and_be_overtaken
        )
        attach(app, status=201)
        assert stored_files(app) == {"notes.txt", "notes-1.txt"}
        assert read(app) == CONTENT
        assert read(app, f"{OTHER}/attachment") == b"other"

    def test_that_are_kept_and_replaced(self, build: Build) -> None:
        app = build(randomize="false")
        for number in range(4):
            attach(app, content=b"%d" % number, filename="same.txt")
            assert read(app) == b"%d" % number
            assert len(stored_files(app)) == 1

    @ON_MEMORY
    def test_follow_a_pattern(self, build: Build) -> None:
        app = build(randomize="false", filename_pattern="{rid}_{datetime}_{filename}")
        key = key_of(attach(app, filename="a.txt").json)
        rid, moment, name = key.split("_")
        assert (rid, name) == ("r", "a.txt")
        assert moment.isdigit()
        assert len(moment) == 14

    @ON_MEMORY
    def test_that_are_random_follow_a_pattern_too(self, build: Build) -> None:
        app = build(filename_pattern="{datetime}-{id}-{filename}", folder="of/{id}")
        key = key_of(attach(app, filename="Notes.TXT", status=201).json)
        assert re.fullmatch(r"of/r/20\d{12}-r-[0-9a-f-]{36}\.txt", key)
        assert read(app) == CONTENT

    def test_of_one_collection_are_kept(self, build: Build) -> None:
        app = build(**{"resources.b.c.randomize": "false"})
        put(app, "/buckets/b/collections/d")
        assert key_of(attach(app).json) == "notes.txt"
        assert key_of(attach(app, "/buckets/b/collections/d/records/r").json) != "notes-1.txt"


@ON_MEMORY
class TestExtensions:
    @pytest.mark.parametrize("filename", ["a.txt", "a.PNG", "a.json", "a.tar.txt"])
    def test_of_the_default(self, app: Any, filename: str) -> None:
        attach(app, filename=filename, status=201)

    @pytest.mark.parametrize(
        ("extensions", "good", "bad"),
        [
            ("images", "a.jpg", "a.txt"),
            ("images+svg", "a.svg", "a.txt"),
            ("txt", "a.txt", "a.jpg"),
            ("any", "a.exe", None),
            ("any", "name", None),
        ],
    )
    def test_of_the_setting(
        self, build: Build, extensions: str, good: str, bad: str | None
    ) -> None:
        app = build(extensions=extensions)
        attach(app, filename=good, status=201)
        if bad is not None:
            attach(app, filename=bad, status=400)
        assert attachment_of(app)["filename"] == good

    def test_of_one_collection(self, build: Build) -> None:
        app = build(**{"resources.b.c.extensions": "exe"})
        put(app, "/buckets/b/collections/d")
        attach(app, filename="a.exe", status=201)
        attach(app, filename="a.txt", status=400)
        attach(app, "/buckets/b/collections/d/records/r", filename="a.txt", status=201)
