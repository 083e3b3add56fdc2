"""The files to upload, and their request bodies, which are built on disk beforehand."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
BOUNDARY = "benchmark-boundary-9a1c5e"
SMALL = MIB  # Bodies up to this size are sent from memory, with their head, in one write.
CHUNK = MIB


@dataclass(frozen=True)
class Body:
    """The request of one upload."""

    method: str
    headers: Mapping[str, str]
    content: bytes | Path


@dataclass(frozen=True)
class Payload:
    """One file, and the two ways of uploading it."""

    file: Path
    size: int
    sha256: str
    multipart: Body
    raw: Body


class Payloads:
    """Creates each size once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[int, Payload] = {}

    def __getitem__(self, size: int) -> Payload:
        if size not in self._made:
            self._made[size] = self._make(size)
        return self._made[size]

    def _make(self, size: int) -> Payload:
        file = self._folder / f"{size}.jpg"
        digest = hashlib.sha256()
        with file.open("wb") as target:
            for start in range(0, size, CHUNK):
                # Incompressible, and different each time.
                chunk = os.urandom(min(CHUNK, size - start))
                digest.update(chunk)
                target.write(chunk)
        multipart = Body(
            "POST",
            {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
            _content(self._multipart(file)),
        )
        raw = Body(
            "PUT",
            {
                "Content-Type": "image/jpeg",
                "Content-Disposition": 'attachment; filename="picture.jpg"',
            },
            _content(file),
        )
        os.sync()
        return Payload(file, size, digest.hexdigest(), multipart, raw)

    def _multipart(self, file: Path) -> Path:
        body = file.with_suffix(".multipart")
        head = (
            f"--{BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="attachment"; filename="picture.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        with body.open("wb") as target, file.open("rb") as source:
            target.write(head.encode())
            shutil.copyfileobj(source, target, CHUNK)
            target.write(f"\r\n--{BOUNDARY}--\r\n".encode())
        return body


def _content(path: Path) -> bytes | Path:
    return path.read_bytes() if path.stat().st_size <= SMALL else path
