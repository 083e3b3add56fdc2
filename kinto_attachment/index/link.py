"""A link: a record and one of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from kinto_attachment.index.objects import digest_of
from kinto_attachment.metadata import DESCRIBED, same_json

State = Literal["current", "kept", "lingering", "withdrawn", "bundle"]
ENDING: tuple[State, ...] = ("lingering", "withdrawn")
# The states of files that are not versions.
NO_VERSIONS: tuple[State, ...] = (*ENDING, "bundle")
# What ended a life: the deletion of the record, or of its collection or bucket.
Ended = Literal["", "record", "collection"]


@dataclass(frozen=True)
class Link:
    """A record and one of its files: its current one, or an earlier one.

    An earlier one is kept for good (``kept``), or ``until`` a time (ms since the epoch). Until
    then, the file is readable for users who may read the record (``lingering``), or for nobody
    (``withdrawn``). In any of these states, the file can be linked again. The archive of a
    collection is a ``bundle``, of no record: see ``bundles.py``. ``as_of`` is the timestamp of the
    collection's records in it.

    ``encoding`` is the ``Content-Encoding`` of the stored bytes, empty if they have none.
    ``created`` is when the file was stored, ``attached`` when it became the record's current file,
    ``retired`` when it was replaced (ms since the epoch; 0: not known, in rows of earlier
    releases, and ``retired`` of a current file). ``life`` is the id of the life of the record that
    the link belongs to, ``ended`` what ended that life. ``storage`` is the name of the file's
    storage (empty: the default one), ``hold`` what holds the file: see ``holds.py``. A
    ``readonly`` file belongs to others and is never deleted.
    """

    record: str
    key: str
    filename: str
    hash: str
    mimetype: str
    size: int
    original: Mapping[str, Any] | None = None
    encoding: str = ""
    state: State = "current"
    until: int = 0
    created: int = 0
    attached: int = 0
    retired: int = 0
    life: str = ""
    ended: Ended = ""
    storage: str = ""
    hold: Mapping[str, Any] | None = None
    readonly: bool = False
    as_of: int = 0
    shared: bool = False  # Not in the row: the row's id shows it.

    @property
    def parent(self) -> str:
        return f"attachments:{self.record}"

    @property
    def version(self) -> str:
        """The id of the file among the versions of the record's attachment."""
        return digest_of(self.key)

    @property
    def id(self) -> str:
        return self.version + ("-shared" if self.shared else "")

    @classmethod
    def to(cls, record: str, key: str, attachment: Mapping[str, Any], **more: Any) -> Link:
        """The link of a record to a file, from the attachment object in the record.

        ``more`` are the other fields of the link.
        """
        described = {name: attachment.get(name, "") for name in DESCRIBED}
        described["encoding"] = attachment.get("encoding") or ""
        return cls(record, key, **described, original=original_of(attachment), **more)

    @classmethod
    def load(cls, row: Mapping[str, Any]) -> Link:
        """The link of a row; rows of earlier releases have fewer fields."""
        stored = {name: row[name] for name in STORED if name in row}
        return cls(**stored, shared=str(row["id"]).endswith("-shared"))

    def dump(self) -> dict[str, Any]:
        """The row: without optional fields that have their default."""
        row = {name: getattr(self, name) for name in STORED}
        return {
            name: value
            for name, value in row.items()
            if name not in OPTIONAL or value != OPTIONAL[name]
        }

    @property
    def is_current(self) -> bool:
        """Whether it is the record's file in its current life."""
        return self.state == "current" and not self.ended

    @property
    def attachment(self) -> dict[str, Any]:
        """The attachment object, without its location.

        The location follows from the key, the storage and the configuration.
        """
        described = {name: getattr(self, name) for name in DESCRIBED}
        optional = {"original": self.original, "encoding": self.encoding}
        return described | {name: value for name, value in optional.items() if value}

    @property
    def age(self) -> tuple[int, int, str]:
        """The sort key of a record's files: when each became the current one."""
        # Rows of earlier releases do not have the time: the current file is the newest.
        attached = self.attached or int(self.state == "current")
        return attached, self.created, self.version

    def is_readable(self, now: int) -> bool:
        """Whether users who may read the record may read the file; ``now`` is in ms."""
        if self.ended or self.state == "bundle":
            return False
        if self.state == "lingering":
            return self.until > now
        return self.state != "withdrawn"

    def describes(self, attachment: object) -> bool:
        """Whether an attachment object has the hash and the size of this file."""
        return isinstance(attachment, Mapping) and same_json(
            [self.hash, self.size], [attachment.get("hash"), attachment.get("size")]
        )


def original_of(attachment: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The description of the file before compression in an attachment object, if any."""
    original = attachment.get("original")
    return original if isinstance(original, Mapping) else None


STORED = [field.name for field in fields(Link) if field.name != "shared"]
# Fields that a row omits if they have their default. The first rows already had ``state``.
OPTIONAL = {
    field.name: field.default
    for field in fields(Link)
    if field.name not in ("state", "shared") and field.default is not MISSING
}
