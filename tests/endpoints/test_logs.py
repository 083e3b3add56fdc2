"""What the logs say about uploads and failures of a storage, in each of Kinto's formats."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kinto.core import JsonLogFormatter
from logging_color_formatter import ColorFormatter

from tests.support.application import (
    ALICE,
    MEMORY,
    RECORD,
    attach,
    key_of,
    make_app,
    put_collection,
)
from tests.support.backends import ON_MEMORY
from tests.support.services import S3

NOWHERE = {
    "aws.bucket_name": "b",
    "aws.access_key": "k",
    "aws.secret_key": "s",
    "aws.num_retries": "1",
    "aws.endpoint_url": "http://127.0.0.1:9",  # Nothing listens there.
}

Lines = Callable[[], list[str]]


class Plain(logging.Formatter):
    """A format that prints no traceback."""

    def formatException(self, error: Any) -> str:
        return ""


@pytest.fixture(params=["plain", "json"])
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    """The lines that the plugin has logged, in one of the formats."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.ERROR)
    handler.setFormatter(JsonLogFormatter() if request.param == "json" else Plain("%(message)s"))
    logger = logging.getLogger("kinto_attachment")
    logger.addHandler(handler)

    def lines() -> list[str]:
        found = [line for line in stream.getvalue().splitlines() if line]
        return [json.loads(line)["Fields"]["msg"] for line in found] if is_json else found

    is_json = request.param == "json"
    yield lines
    logger.removeHandler(handler)


def test_a_storage_that_nobody_answers_for(lines: Lines) -> None:
    app = make_app(NOWHERE, MEMORY)
    put_collection(app)
    answer = attach(app, status=503)
    (line,) = lines()
    assert "EndpointConnectionError" in line
    assert "http://127.0.0.1:9" in line
    assert "127.0.0.1" not in answer.text, "clients are not told"


@pytest.mark.seaweedfs
def test_the_code_of_s3(lines: Lines, seaweedfs: S3) -> None:
    options = {**seaweedfs.options(seaweedfs.create_bucket()), "aws.secret_key": "wrong"}
    app = make_app(options, MEMORY)
    put_collection(app)
    attach(app, status=503)
    assert any("ClientError: An error occurred (403)" in line for line in lines())


@pytest.mark.moto
def test_a_bucket_that_is_not_there(lines: Lines, moto: S3) -> None:
    options = {**moto.options(moto.create_bucket()), "aws.bucket_name": "not-there"}
    app = make_app(options, MEMORY)
    put_collection(app)
    attach(app, status=503)
    (line,) = lines()
    assert "kinto.attachment.aws.bucket_name" in line
    assert "(404)" in line


def test_a_folder_that_is_gone(lines: Lines, tmp_path: Path) -> None:
    app = make_app({"base_path": str(tmp_path / "files")}, MEMORY)
    put_collection(app)
    replace_by_a_file(tmp_path / "files")
    attach(app, status=503)
    (line,) = lines()
    assert "NotADirectoryError: [Errno 20] Not a directory" in line


def test_a_deletion_that_failed(
    lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app({"base_path": str(tmp_path / "files")}, MEMORY)
    put_collection(app)
    key = key_of(attach(app).json)
    monkeypatch.setattr(os, "unlink", refuse)  # Permissions do not stop root.
    app.delete(RECORD, headers=ALICE)
    monkeypatch.undo()
    (line,) = lines()
    assert key in line
    assert "PermissionError: [Errno 13] Permission denied" in line


def refuse(path: str, *, dir_fd: int | None = None) -> None:
    raise PermissionError(13, "Permission denied", path)


def test_a_heartbeat_that_failed(lines: Lines, tmp_path: Path) -> None:
    app = make_app({"base_path": str(tmp_path / "files")}, MEMORY)
    replace_by_a_file(tmp_path / "files")
    assert app.get("/__heartbeat__", status=503).json["attachments"] is False
    (line,) = lines()
    assert "Not a directory" in line


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("no folder")


@ON_MEMORY
@pytest.mark.parametrize("how", ["form", "body"])
def test_the_line_of_an_upload_has_its_key_and_bytes(
    app: Any, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(logging.INFO, "request.summary")
    if how == "form":
        attachment = attach(app, content=b"content").json
    else:
        url = f"{RECORD}/attachment?filename=a.txt"
        attachment = app.put(url, b"content", headers=ALICE).json
    (record,) = [record for record in caplog.records if hasattr(record, "attachment_key")]
    line = json.loads(JsonLogFormatter().format(record))["Fields"]
    assert (line["attachment_bytes"], line["code"]) == (len(b"content"), 201)
    assert line["attachment_key"] == key_of(attachment)
    text = re.sub(r"\x1b\[\d*m", "", ColorFormatter().format(record))
    assert key_of(attachment) in text
    assert "attachment_bytes=7" in text
    app.delete(RECORD, headers=ALICE)


@ON_MEMORY
def test_lines_of_other_requests_do_not(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "request.summary")
    attach(app, content=b"content", filename="x.exe", status=400)
    app.get("/")
    assert caplog.records
    assert not [record for record in caplog.records if hasattr(record, "attachment_key")]
