"""``kinto.attachment.backend``: a storage from another package, by the name of its class."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyramid.exceptions import ConfigurationError

from kinto_attachment.errors import NotThisSite
from kinto_attachment.maintenance.gc import gc
from kinto_attachment.storage import FileStat, FileStorage, KeepsSite
from kinto_attachment.storage.local import LocalStorage
from kinto_attachment.storage.memory import MemoryStorage
from tests.support.application import (
    ALICE,
    BOB,
    COLLECTION,
    CONTENT,
    MEMORY,
    RECORD,
    attach,
    attachment_of,
    check_invariant,
    make_app,
    put_collection,
    read,
    stored_files,
)

MEMORY_STORAGE = "kinto_attachment.storage.memory.MemoryStorage"
URL = f"{RECORD}/attachment"


class CoreOnly(FileStorage):
    """Only the required methods of a storage."""

    def __init__(self, base_url: str = "") -> None:
        super().__init__(base_url)
        self.memory = MemoryStorage()

    def write(self, *args: Any, **kwargs: Any) -> FileStat:
        return self.memory.write(*args, **kwargs)

    def open(self, key: str, start: int = 0, end: int | None = None) -> io.BytesIO:
        return self.memory.open(key, start, end)

    def stat(self, key: str) -> FileStat:
        return self.memory.stat(key)

    def delete(self, *keys: str) -> bool:
        return self.memory.delete(*keys)


class Signing(CoreOnly):
    def signed_url(self, key: str, *args: Any) -> str:
        return f"https://files.example/{key}?signed"


class WithOptions(CoreOnly):
    def __init__(self, address: str, *, base_url: str, retries: str = "3") -> None:
        super().__init__(base_url)
        if not retries.isdigit():
            raise ValueError("retries should be a whole number")
        self.options = {"address": address, "retries": retries}


class WithAnyOptions(CoreOnly):
    def __init__(self, **options: str) -> None:
        super().__init__(options.pop("base_url"))
        self.options = options


class Half(FileStorage):
    def write(self, *args: Any, **kwargs: Any) -> FileStat:
        raise NotImplementedError

    def delete(self, *keys: str) -> bool:
        raise NotImplementedError


class Abstract(CoreOnly, ABC):
    @abstractmethod
    def connect(self) -> None: ...


class WithoutBaseUrl(CoreOnly):
    def __init__(self) -> None:
        super().__init__()


def here(storage: type) -> str:
    return f"{__name__}.{storage.__name__}"


def start(storage: type | str, **options: Any) -> Any:
    name = storage if isinstance(storage, str) else here(storage)
    app = make_app({"backend": name, **options}, MEMORY)
    put_collection(app)
    return app


def refusal(storage: type | str, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        start(storage, **options)
    return str(raised.value)


@pytest.fixture(scope="module", params=[MEMORY_STORAGE, here(CoreOnly)])
def loaded(request: pytest.FixtureRequest) -> Any:
    return start(request.param)


class TestAServerOnIt:
    @pytest.fixture
    def app(self, loaded: Any) -> Iterator[Any]:
        put_collection(loaded)
        yield loaded
        if loaded.app.registry.attachment_settings["backend"] == MEMORY_STORAGE:
            check_invariant(loaded)
        loaded.delete(COLLECTION, headers=ALICE)

    def test_stores_replaces_and_deletes(self, app: Any) -> None:
        first = attach(app).json
        assert read(app) == read(app, first["location"]) == CONTENT
        second = attach(app, content=b"new").json
        assert read(app) == b"new"
        app.get(first["location"], headers=ALICE, status=404)
        app.delete(URL, headers=ALICE, status=204)
        app.get(second["location"], headers=ALICE, status=404)
        assert attachment_of(app) is None

    def test_serves_ranges(self, app: Any) -> None:
        attach(app)
        part = app.get(URL, headers={**ALICE, "Range": "bytes=2-5"}, status=206)
        assert part.body == CONTENT[2:6]
        app.get(URL, headers={**ALICE, "Range": "bytes=99-"}, status=416)

    def test_lets_nobody_else_in(self, app: Any) -> None:
        location = attach(app).json["location"]
        app.get(URL, headers=BOB, status=403)
        app.get(location, headers=BOB, status=404)

    def test_keeps_names(self, app: Any, request: pytest.FixtureRequest) -> None:
        app = start(app.app.registry.attachment_settings["backend"], randomize="false")
        for record in ("a", "b"):
            attach(app, f"{RECORD}{record}", content=record.encode())
        assert [read(app, f"{RECORD}{record}/attachment") for record in ("a", "b")] == [b"a", b"b"]

    def test_leaves_nothing_of_a_refused_upload(self, app: Any) -> None:
        attach(app)
        attach(app, content=b"new", data="nope", status=400)
        assert read(app) == CONTENT

    def test_tells_its_heartbeat(self, app: Any) -> None:
        assert app.get("/__heartbeat__").json["attachments"] is True

    def test_collects_garbage(self, app: Any) -> None:
        attach(app)
        storage = app.app.registry.attachment_storages.default.files
        if not isinstance(storage, KeepsSite):
            with pytest.raises(NotThisSite, match="lacks the methods of KeepsSite"):
                gc(app.app.registry)
            return
        report = gc(app.app.registry)
        assert (report.unlinked, report.missing, report.errors) == ([], [], [])
        assert read(app) == CONTENT


def test_the_heartbeat_tells_of_an_outage() -> None:
    app = start(MEMORY_STORAGE)
    app.app.registry.attachment_storages.default.files.outage = ConnectionRefusedError("played")
    assert app.get("/__heartbeat__", status=503).json["attachments"] is False
    attach(app, status=503)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        (MEMORY_STORAGE, {"signed_urls": False, "lists_files": True, "copies_files": True}),
        (here(CoreOnly), {"signed_urls": False, "lists_files": False, "copies_files": False}),
        (here(Signing), {"signed_urls": True, "lists_files": False, "copies_files": False}),
    ],
)
def test_the_capability_says_what_it_can_do(storage: str, said: dict[str, bool]) -> None:
    found = start(storage).get("/").json["capabilities"]["attachments"]
    assert {name: found[name] for name in said} == said


def test_the_time_of_its_calls_is_measured() -> None:
    app = make_app({"backend": here(CoreOnly)}, MEMORY, includes="kinto.plugins.prometheus")
    put_collection(app)
    attach(app)
    assert 'attachments_coreonly_seconds_count{method="write"} 1.0' in app.get("/__metrics__").text


class TestDownloads:
    def test_are_redirected_if_it_signs(self) -> None:
        app = start(Signing)
        attach(app)
        answer = app.get(URL, headers=ALICE, status=302)
        assert answer.location.startswith("https://files.example/")

    def test_or_streamed_if_that_is_set(self) -> None:
        app = start(Signing, downloads="proxy")
        attach(app)
        assert read(app) == CONTENT

    @pytest.mark.parametrize("mode", ["redirect", "x-sendfile"])
    def test_cannot_be_what_it_has_no_way_for(self, mode: str) -> None:
        message = refusal(CoreOnly, downloads=mode)
        assert message.startswith(f"kinto.attachment.downloads: {mode} ")

    def test_by_path_if_it_has_paths(self, tmp_path: Path) -> None:
        name = f"{LocalStorage.__module__}.{LocalStorage.__name__}"
        app = start(name, downloads="x-sendfile", **{"backend.base_path": str(tmp_path)})
        attach(app, filename="a.txt")
        (key,) = stored_files(app)
        assert app.get(URL, headers=ALICE).headers["X-Sendfile"] == str(tmp_path / key)


def test_files_can_be_public() -> None:
    app = start(CoreOnly, base_url="https://cdn.example/files")
    assert attach(app).json["location"].startswith("https://cdn.example/files/")
    assert (
        app.app.registry.attachment_storages.default.files.url("a b")
        == "https://cdn.example/files/a%20b"
    )


class TestOptions:
    def options(self, storage: type, **options: Any) -> dict[str, str]:
        given = {f"backend.{name}": value for name, value in options.items()}
        found: dict[str, str] = start(
            storage, **given
        ).app.registry.attachment_storages.default.files.options
        return found

    def test_are_keyword_arguments(self) -> None:
        assert self.options(WithOptions, address="here") == {"address": "here", "retries": "3"}
        assert self.options(WithAnyOptions, x="y") == {"x": "y"}

    def test_are_texts(self) -> None:
        """Kinto parses values as JSON if it can."""
        given = {
            "number": "7",
            "truth": "true",
            "list": '["a"]',
            "text": '"1e3"',
            "words": " a b ",
        }
        found = self.options(WithAnyOptions, **given)
        assert found == {**given, "text": "1e3", "words": "a b"}

    def test_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_ATTACHMENT_BACKEND", here(WithOptions))
        monkeypatch.setenv("KINTO_ATTACHMENT_BACKEND_ADDRESS", "there")
        app = make_app({"backend.retries": "4"}, MEMORY)
        options = app.app.registry.attachment_storages.default.files.options
        assert options == {"address": "there", "retries": "4"}

    @pytest.mark.parametrize("given", [{}, {"backend.address": ""}, {"backend.address": " "}])
    def test_that_are_missing(self, given: dict[str, str]) -> None:
        message = refusal(WithOptions, **given)
        assert message == (
            f"kinto.attachment.backend.address has to be set for {here(WithOptions)}."
        )

    def test_that_it_does_not_know(self) -> None:
        message = refusal(WithOptions, **{"backend.address": "a", "backend.retrys": "2"})
        assert message == (
            f"kinto.attachment.backend.retrys is not an option of {here(WithOptions)}. "
            "Did you mean kinto.attachment.backend.retries?"
        )
        message = refusal(MEMORY_STORAGE, **{"backend.xyz": "1"})
        assert message == f"kinto.attachment.backend.xyz is not an option of {MEMORY_STORAGE}"

    @pytest.mark.parametrize("storage", [WithOptions, CoreOnly])
    def test_base_url_is_none_of_them(self, storage: type) -> None:
        options = {"backend.address": "a"} if storage is WithOptions else {}
        message = refusal(storage, **options, **{"backend.base_url": "https://a.example"})
        assert message.startswith("kinto.attachment.backend.base_url is not an option of ")

    def test_that_it_refuses(self) -> None:
        message = refusal(WithOptions, **{"backend.address": "a", "backend.retries": "many"})
        assert message == (
            f"kinto.attachment.backend: {here(WithOptions)}: retries should be a whole number"
        )

    def test_of_another_storage(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as raised:
            make_app({"base_path": str(tmp_path), "backend.address": "a"}, MEMORY)
        message = str(raised.value)
        assert message.startswith("kinto.attachment.backend.address is an option of the class ")


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("Storage", "dotted name"),
        ("a..Storage", "dotted name"),
        ("a.b:Storage", "dotted name"),
        ("nowhere.Storage", "No module named 'nowhere'"),
        (f"{__name__}.Ghost", "'Ghost'"),
        (f"{__name__}.here", "not a subclass of kinto_attachment.storage.FileStorage"),
        ("builtins.dict", "not a subclass of kinto_attachment.storage.FileStorage"),
        ("kinto_attachment.storage.FileStorage", "lacks write, open, stat, delete"),
        (here(Half), "lacks open, stat"),
        (here(Abstract), "lacks connect"),
        (here(WithoutBaseUrl), "takes no base_url"),
    ],
)
def test_what_is_no_storage_stops_the_start(storage: str, said: str) -> None:
    message = refusal(storage)
    assert message.startswith("kinto.attachment.backend: ")
    assert said in message


def test_a_module_that_fails_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_storage.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("failing_storage.Storage") == (
        "kinto.attachment.backend: cannot import failing_storage.Storage: "
        "ZeroDivisionError: division by zero."
    )


def test_it_is_the_only_storage(tmp_path: Path) -> None:
    message = refusal(MEMORY_STORAGE, base_path=str(tmp_path))
    assert "kinto.attachment.base_path and kinto.attachment.backend" in message
