"""Files in a dictionary; clients send their parts to URLs of a small server of the tests."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from kinto_attachment.errors import FileNotFound, KeyTaken, UploadIncomplete, WrongLength
from kinto_attachment.storage import ArrivedPart, Partial, PartRequest
from kinto_attachment.storage.memory import MemoryStorage


class DirectMemory(MemoryStorage):
    """``asked`` has the requests by the paths of their URLs below ``server``."""

    server: str
    asked: dict[str, tuple[DirectMemory, Partial, PartRequest]]

    largest_direct = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # By the id of the Partial and the number of the part.
        self.parts: dict[str, dict[int, bytes]] = {}
        self.finished: set[str] = set()

    def begin_direct(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int,
        part_size: int,
        sha256: str = "",
    ) -> Partial:
        self._reach(key)
        if key in self._files:
            raise KeyTaken()
        self.parts[id] = {}
        details = {"type": content_type, "length": length, "part_size": part_size, "hash": sha256}
        return Partial(id, key, 0, details)

    def part_requests(self, partial: Partial, expires: int) -> list[PartRequest]:
        found = []
        for number, size in sizes_of(partial).items():
            offset = (number - 1) * partial.details["part_size"]
            path = f"/{uuid4().hex}"
            found.append(PartRequest(number, offset, size, self.server + path, {}))
            self.asked[path] = (self, partial, found[-1])
        return found

    def take_part(self, partial: Partial, part: PartRequest, content: bytes) -> bool:
        """Handle a PUT to the server; False if it is refused."""
        wanted = partial.details["hash"] if len(sizes_of(partial)) == 1 else ""
        is_wanted = not wanted or wanted == hashlib.sha256(content).hexdigest()
        if partial.id not in self.parts or len(content) != part.size or not is_wanted:
            return False
        self.parts[partial.id][part.number] = content
        return True

    def arrived_parts(self, partial: Partial) -> dict[int, ArrivedPart]:
        self._reach(partial.key)
        if partial.id not in self.parts:
            raise FileNotFound()
        now = datetime.now(timezone.utc)
        parts = self.parts[partial.id]
        return {number: ArrivedPart(len(parts[number]), now) for number in sorted(parts)}

    def check_parts(self, partial: Partial) -> None:
        found = {number: part.size for number, part in self.arrived_parts(partial).items()}
        wanted = sizes_of(partial)
        if wanted.keys() - found.keys():
            raise UploadIncomplete()
        if wanted != found:
            raise WrongLength()

    def finish_direct(self, partial: Partial) -> str:
        self._reach(partial.key)
        if partial.id in self.finished:
            return ""
        self.check_parts(partial)
        parts = self.parts[partial.id]
        content = b"".join(parts[number] for number in sorted(parts))
        self._publish(partial.key, content, partial.details["type"])
        self.finished.add(partial.id)
        del self.parts[partial.id]
        return hashlib.sha256(content).hexdigest()

    def discard(self, partial: Partial) -> None:
        super().discard(partial)
        self.parts.pop(partial.id, None)


def sizes_of(partial: Partial) -> dict[int, int]:
    length, part_size = partial.details["length"], partial.details["part_size"]
    offsets = range(0, length or 1, part_size)
    return {n: min(part_size, length - offset) for n, offset in enumerate(offsets, 1)}
