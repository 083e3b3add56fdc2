"""An upload session: a file whose bytes come in several requests, and their state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal

from kinto_attachment.uris import RecordURI

# The final states: attached, or failed. A session that is too old becomes ``expired``.
State = Literal["open", "finishing", "done", "failed", "expired"]
UNFINISHED: tuple[State, ...] = ("open", "finishing")
ANONYMOUS = "system.Everyone"
# The receiver of the bytes of a direct upload, and the name of its protocol.
STORAGE, KINTO = "storage", "kinto"
DIRECT = "direct"


def partial_id(upload: str) -> str:
    """The id of what is stored for an upload, which must not tell the upload's own id.

    The sessions of anonymous writers are guarded by that alone.
    """
    return hashlib.sha256(f"partial {upload}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Session:
    """A row: the data from the creation of an upload, and its progress.

    ``upload`` is the random id in its URL. ``partial`` is the storage's
    :class:`~kinto_attachment.storage.Partial` as JSON, None after it was removed;
    ``hash`` is the saved state of the SHA-256 of the same bytes, None if it cannot be continued.

    ``writer`` is the token of the request that may be writing. Replacing it prevents that request
    from committing. ``last`` is the offset at which the last one began. ``counted`` are the bytes
    that count for quotas until the file is attached: the durable ones, or all that the storage
    will accept from clients. Times are in ms since the epoch.
    """

    upload: str
    record: str
    owner: str
    protocol: str
    filename: str
    mimetype: str
    storage: str
    key: str
    created: int
    expires: int
    partial: Mapping[str, Any] | None = None
    counted: int = 0
    hash: str | None = ""
    length: int | None = None
    data: Mapping[str, Any] | None = None
    permissions: Mapping[str, Any] | None = None
    preconditions: Mapping[str, str] = field(default_factory=dict)
    # Digests of the whole file that the client claims: header, algorithm, digest in hex.
    claims: tuple[tuple[str, str, str], ...] = ()
    notes: str = ""  # Data that the protocol gets back.
    # Whether the bucket and the collection are created with the record (see files/target.py).
    implicit_parents: bool = False
    writer: str = ""
    last: int = 0
    state: State = "open"
    # For a direct upload: the receiver of its bytes, and the validity of its URLs in seconds.
    via: str = ""
    urls_age: int = 0
    # How much of a whole file that came directly was read again, and until when a request does so.
    read: int = 0
    busy_until: int = 0
    sha256: str = ""  # Of the whole file, in hex, once it is known.
    # Of a finished upload: status, etag, last_modified and attachment.
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None  # Kinto's JSON error, if it has failed.

    @property
    def id(self) -> str:
        return partial_id(self.upload)

    @property
    def parent(self) -> str:
        return parent_of(RecordURI.parse(self.record).collection)

    @property
    def size(self) -> int:
        """The number of durable bytes."""
        if self.state == "done":
            return int((self.result or {})["attachment"]["size"])
        return int(self.partial["size"]) if self.partial else 0

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED

    @property
    def is_whole(self) -> bool:
        """Whether all bytes of the file, whose length has to be known, are durable."""
        return self.length is not None and self.size == self.length

    @property
    def has_other_claims(self) -> bool:
        """Whether the client claims a digest that requires reading the file at the end."""
        return any(algorithm != "sha256" for _, algorithm, _ in self.claims)

    def seen_at(self, now: int) -> Session:
        """The session at a time: it has expired if it is too old."""
        is_over = self.is_unfinished and self.expires <= now
        return replace(self, state="expired") if is_over else self

    @classmethod
    def load(cls, row: Mapping[str, Any]) -> Session:
        stored = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        stored["claims"] = tuple((*claim,) for claim in stored.get("claims", ()))
        return cls(**stored)

    def dump(self) -> dict[str, Any]:
        """The row: without fields that have their default."""
        row = dict(vars(self))
        row["claims"] = [list(claim) for claim in self.claims]
        return {name: value for name, value in row.items() if value != DEFAULTS.get(name, ...)}


def parent_of(collection: str) -> str:
    """The parent id of the sessions in a collection, which is given by its URI."""
    return f"attachments-upload:{collection}"


# Fields that a row has only if they are not the default; others are also queried.
DEFAULTS: dict[str, Any] = {
    each.name: each.default
    for each in fields(Session)
    if each.name not in ("state", "writer") and each.default is not MISSING
} | {"preconditions": {}, "claims": []}
