"""A link: a record and one of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kinto_attachment.index.objects import digest_of
from kinto_attachment.metadata import same_json

State = Literal["current", "kept", "lingering", "withdrawn"]
ENDING: tuple[State, ...] = ("lingering", "withdrawn")
FIELDS = ("record", "key", "filename", "hash", "mimetype", "size", "state")


@dataclass(frozen=True)
class Link:
    """A record and one of its files: its current one, or an earlier one.

    An earlier one is kept for good (``kept``), or ``until`` a time (ms since the epoch). Until
    then, either users who may read the record may read the file (``lingering``), or nobody may
    (``withdrawn``). In any of these states, the file can be linked again.
    """

    record: str
    key: str
    filename: str
    hash: str
    mimetype: str
    size: int
    state: State = "current"
    until: int = 0
    shared: bool = False

    @property
    def parent(self) -> str:
        return f"attachments:{self.record}"

    @property
    def id(self) -> str:
        return digest_of(self.key) + ("-shared" if self.shared else "")

    @classmethod
    def to(cls, record: str, key: str, attachment: dict[str, Any]) -> Link:
        """The link of a record to a file, from the attachment object in the record."""
        fields = ("filename", "hash", "mimetype", "size")
        return cls(record, key, **{name: attachment.get(name, "") for name in fields})

    @classmethod
    def load(cls, row: dict[str, Any]) -> Link:
        shared = str(row["id"]).endswith("-shared")
        until = row.get("until", 0)
        return cls(**{name: row[name] for name in FIELDS}, until=until, shared=shared)

    def dump(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in FIELDS}
        return {**row, "until": self.until} if self.until else row

    def is_readable(self, now: int) -> bool:
        """Whether users who may read the record may read the file; ``now`` is in ms."""
        if self.state == "lingering":
            return self.until > now
        return self.state != "withdrawn"

    def describes(self, attachment: object) -> bool:
        """Whether an attachment object has the hash and the size of this file."""
        return isinstance(attachment, Mapping) and same_json(
            [self.hash, self.size], [attachment.get("hash"), attachment.get("size")]
        )
