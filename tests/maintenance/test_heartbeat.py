"""``/v1/__heartbeat__`` and uploads while the storage is unavailable."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.storage.drafts import Draft
from tests.support import waiting
from tests.support.application import (
    ALICE,
    CONTENT,
    MEMORY,
    OTHER,
    RECORD,
    attach,
    attachment_of,
    check_invariant,
    clear,
    empty_outbox,
    make_app,
    outbox,
    put,
    put_collection,
    put_raw,
    read,
    stored_files,
)
from tests.support.backends import EVERYWHERE, ON_DATABASES, ON_MEMORY, Build
from tests.support.faults import FaultProxy
from tests.support.services import S3

pytestmark = EVERYWHERE

URL = f"{RECORD}/attachment"


def heartbeat(app: Any, status: int = 200) -> Any:
    return app.get("/__heartbeat__", status=status).json["attachments"]


def test_says_that_the_storage_works(app: Any) -> None:
    assert heartbeat(app) is True
    assert not stored_files(app)


@ON_DATABASES
def test_of_a_readonly_server_touches_nothing(build: Build, tmp_path: Path) -> None:
    app = build({"readonly": "true"}, base_path=str(tmp_path / "missing"))
    # Kinto's own storage may report a failure while it is empty.
    assert app.get("/__heartbeat__", status="*").json["attachments"] is True
    assert not (tmp_path / "missing").exists()


class Local:
    """A folder whose disk can be removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "files"
        self.app = make_app({"base_path": str(self.folder)}, MEMORY)

    def unplug(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir()
        self.folder.rename(f"{self.folder}.away")
        self.folder.write_text("not a folder")

    def plug_in(self) -> None:
        self.folder.unlink()
        os.rename(f"{self.folder}.away", self.folder)


class Remote:
    """A server behind a network that can be down."""

    def __init__(self, proxy: FaultProxy, server: S3, timeout: float = 20) -> None:
        self.proxy = proxy
        options = server.options(server.create_bucket())
        options |= {"aws.endpoint_url": proxy.url, "aws.num_retries": "1"}
        options |= {"aws.timeout": str(timeout)}
        self.app = make_app(
            {**options, "downloads": "proxy"}, MEMORY, heartbeat_timeout_seconds="20"
        )

    def unplug(self) -> None:
        self.proxy.refuse()

    def plug_in(self) -> None:
        self.proxy.work()


@pytest.fixture(
    params=["local", pytest.param("seaweedfs", marks=pytest.mark.seaweedfs)], scope="module"
)
def shared_plug(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    if request.param == "local":
        yield Local(tmp_path_factory.mktemp("disk"))
        return
    server = request.getfixturevalue(request.param)
    with FaultProxy(server.address) as proxy:
        yield Remote(proxy, server)


@pytest.fixture
def plug(shared_plug: Any) -> Iterator[Any]:
    """A server whose storage can be unplugged."""
    put_collection(shared_plug.app)
    yield shared_plug
    check_invariant(shared_plug.app)
    clear(shared_plug.app)


class TestOutage:
    def test_is_told_by_the_heartbeat(self, plug: Any) -> None:
        plug.unplug()
        assert heartbeat(plug.app, status=503) is False
        plug.plug_in()
        assert heartbeat(plug.app) is True

    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_of_an_upload(self, plug: Any, upload: Any) -> None:
        plug.unplug()
        response = upload(plug.app, status=503)
        assert response.json["errno"] == 201
        assert int(response.headers["Retry-After"]) > 0
        plug.app.get(RECORD, headers=ALICE, status=404)
        plug.plug_in()
        upload(plug.app, status=201)

    @pytest.mark.parametrize("upload", [attach, put_raw])
    def test_of_a_replacement(self, plug: Any, upload: Any) -> None:
        attach(plug.app)
        before = plug.app.get(RECORD, headers=ALICE).json
        plug.unplug()
        upload(plug.app, content=b"new", status=503)
        assert plug.app.get(RECORD, headers=ALICE).json == before
        plug.plug_in()
        assert read(plug.app) == CONTENT

    def test_of_a_download(self, plug: Any) -> None:
        location = attach(plug.app).json["location"]
        plug.unplug()
        for url in (URL, location):
            for ask in (plug.app.get, plug.app.head):
                response = ask(url, headers=ALICE, status=(503, 404))
        plug.plug_in()
        assert response.content_type in ("application/json", None)
        assert read(plug.app) == CONTENT

    def test_of_what_needs_no_file(self, plug: Any) -> None:
        attach(plug.app)
        plug.unplug()
        plug.app.patch_json(RECORD, {"data": {"title": "A"}}, headers=ALICE)
        put(plug.app, OTHER, data={"title": "B"})
        assert attachment_of(plug.app)["size"] == len(CONTENT)
        plug.app.get("/", status=200)
        plug.plug_in()
        assert read(plug.app) == CONTENT


def test_a_delete_is_finished_once_the_storage_is_back(seaweedfs: S3) -> None:
    with FaultProxy(seaweedfs.address) as proxy:
        remote = Remote(proxy, seaweedfs)
        app = remote.app
        put_collection(app)
        attach(app)
        attach(app, OTHER)
        remote.unplug()
        app.delete(URL, headers=ALICE, status=204)
        app.delete(OTHER, headers=ALICE, status=200)
        assert len(outbox(app)) == 2
        remote.plug_in()
        empty_outbox(app)
        check_invariant(app)
        clear(app)


def test_a_storage_that_hangs_is_told_in_time(seaweedfs: S3) -> None:
    with FaultProxy(seaweedfs.address) as proxy:
        patient = Remote(proxy, seaweedfs, timeout=waiting.SECONDS).app
        patient.app.registry.settings["heartbeat_timeout_seconds"] = "0.5"
        app = Remote(proxy, seaweedfs, timeout=1).app
        put_collection(app)
        proxy.hang()
        started = time.monotonic()
        assert heartbeat(patient, status=503) is False
        assert time.monotonic() - started < waiting.SECONDS / 2
        started = time.monotonic()
        attach(app, status=503)
        assert time.monotonic() - started < waiting.SECONDS / 2
        proxy.work()


@ON_MEMORY
@pytest.mark.parametrize("upload", [attach, put_raw])
def test_a_full_disk_is_told(build: Build, monkeypatch: pytest.MonkeyPatch, upload: Any) -> None:
    app = build()
    attach(app)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # A disk cannot be filled without affecting other programs.
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "write", full)
        response = upload(app, content=b"new", status=507)
        assert heartbeat(app, status=503) is False
    assert response.json["errno"] == 201
    assert int(response.headers["Retry-After"]) > 0
    assert read(app) == CONTENT
    assert len(stored_files(app)) == 1
