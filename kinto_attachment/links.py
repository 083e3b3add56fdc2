"""The index: which stored file belongs to which record.

It lives in Kinto's own storage backend, in the transaction of the record it speaks of, as three
kinds of Kinto objects:

- a **link** for each pair of a record and a file, ``{key, record, filename, hash, mimetype,
  size, state}`` under ``attachments:{record URI}``. Its id is made of the object key alone. So
  *record -> files* is one look-up by parent, *file -> records* one by id (PostgreSQL's primary
  key starts with the id), and *all below a bucket or collection* one by prefix. One parent per
  record means that two uploads never meet on the unique index on (parent, timestamp);
- the **outbox**: keys of files that lost their last link, to be deleted after the commit;
- **reservations** of names, for files that are not stored under random ones.

The prefixes keep Kinto's own cascades, which delete all objects under a bucket's URI, away from
here.

Nearly every file has one link. Such a link is *sole*: whoever deletes it knows, without looking
any further, that the file is garbage. A second link makes both *shared* (another id), and from
then on whoever adds or drops a link of that file locks it first. Since it is a deletion that
tells whether the sole link was still there, a transaction that drops it and one that shares it
meet on that row: one of them waits, and then sees what the other did.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, TypeVar

from kinto.core.storage import Filter, Sort
from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError
from kinto.core.utils import COMPARISON, msec_time

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.storage import FileStorage

LINK = "attachment"
LOCK = "attachment-lock"
OUTBOX = "attachment-garbage"
RESERVATION = "attachment-name"

BATCH = 1000  # Ids in one query, and keys in one entry of the outbox (one bulk delete of S3).
DIGEST_LENGTH = 64
FEW_RECORDS = 50  # Up to so many are looked up one by one.

T = TypeVar("T")


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass(frozen=True)
class Link:
    """A record and one of its files: the current one, or one kept from before."""

    record: str
    key: str
    filename: str
    hash: str
    mimetype: str
    size: int
    state: Literal["current", "kept"] = "current"
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
        fields = ("record", "key", "filename", "hash", "mimetype", "size", "state")
        shared = str(row["id"]).endswith("-shared")
        return cls(**{name: row[name] for name in fields}, shared=shared)

    def dump(self) -> dict[str, Any]:
        fields = ("record", "key", "filename", "hash", "mimetype", "size", "state")
        return {name: getattr(self, name) for name in fields}


@dataclass(frozen=True)
class Garbage:
    """An entry of the outbox: files to delete, and since when (ms since the epoch)."""

    id: str
    keys: list[str]
    since: int

    @property
    def parent(self) -> str:
        return f"attachments-garbage:{self.id}"


class Links:
    """The index over a Kinto storage backend; every method runs in the caller's transaction."""

    def __init__(self, backend: Any, storage: FileStorage, page_size: int) -> None:
        self.backend = backend
        self.storage = storage
        self.page_size = page_size  # Kinto's ``storage_max_fetch_size``.

    # Questions.

    def of_record(self, record: str) -> list[Link]:
        """The files of a record: the current one and kept ones."""
        rows = self.backend.list_all(resource_name=LINK, parent_id=f"attachments:{record}")
        return [Link.load(row) for row in rows]

    def of_records(self, collection: str, ids: list[str]) -> list[Link]:
        """The same for several records of a collection (its URI)."""
        records = [f"{collection}/records/{object_id}" for object_id in ids]
        if len(records) <= FEW_RECORDS:
            return [link for record in records for link in self.of_record(record)]
        rows = []
        for batch in batches(records):
            rows += self.backend.list_all(
                resource_name=LINK,
                parent_id=f"attachments:{collection}/records/*",
                filters=[Filter("record", batch, COMPARISON.IN)],
            )
        return [Link.load(row) for row in rows]

    def of_key(self, key: str) -> list[Link]:
        """The records that a file belongs to."""
        digest = digest_of(key)
        rows = self.backend.list_all(
            resource_name=LINK,
            parent_id="attachments:*",
            filters=[Filter("id", [digest, f"{digest}-shared"], COMPARISON.IN)],
        )
        return [link for link in map(Link.load, rows) if link.key == key]

    def under(self, prefix: str = "", within: str = "") -> Iterator[list[Link]]:
        """All links of records whose URI starts with ``prefix``, a page at a time.

        Kinto's storage returns a limited number of objects. A page that is full is asked for
        again in sixteen parts, by the next hexadecimal digit of the ids, so links may be dropped
        on the way. ``within`` is the digits to start with (to share the work).
        """
        filters = [Filter("id", within, COMPARISON.MIN), Filter("id", f"{within}g", COMPARISON.LT)]
        rows = self.backend.list_all(
            resource_name=LINK, parent_id=f"attachments:{prefix}*", filters=filters
        )
        if len(rows) >= self.page_size and len(within) == DIGEST_LENGTH:
            yield from self._under_of_one_file(prefix, within)
        elif len(rows) >= self.page_size:
            for digit in "0123456789abcdef":
                yield from self.under(prefix, within + digit)
        elif rows:
            # PostgreSQL's LIKE takes the ``_`` of a bucket's name for any character.
            yield [link for link in map(Link.load, rows) if link.record.startswith(prefix)]

    def _under_of_one_file(self, prefix: str, digest: str) -> Iterator[list[Link]]:
        """The same, for a file that so many records share that its links alone fill a page."""
        last = ""
        while rows := self.backend.list_all(
            resource_name=LINK,
            parent_id=f"attachments:{prefix}*",
            filters=[
                Filter("id", [digest, f"{digest}-shared"], COMPARISON.IN),
                Filter("record", last, COMPARISON.GT),
            ],
            sorting=[Sort("record", 1)],
            limit=self.page_size,
        ):
            last = rows[-1]["record"]
            yield [link for link in map(Link.load, rows) if link.record.startswith(prefix)]

    def without_links(self, keys: list[str]) -> set[str]:
        """Those of the keys that no record points at."""
        ids = {key: digest_of(key) for key in keys}
        linked: set[str] = set()
        for batch in batches(ids.values()):
            both = {*batch, *(f"{digest}-shared" for digest in batch)}
            rows = self.backend.list_all(
                resource_name=LINK,
                parent_id="attachments:*",
                filters=[Filter("id", both, COMPARISON.IN)],
            )
            linked.update(row["key"] for row in rows)
        return set(keys) - linked

    def is_unlinked(self, record: str, key: str) -> bool:
        """Whether a file that was stored for a record is, and stays, of no record.

        When the connection breaks at the commit, the database may still be about to commit. So
        look where that transaction has written: who writes there waits for its end.
        """
        link = Link.to(record, key, {})
        try:
            self.backend.create(
                resource_name=LINK, parent_id=link.parent, obj={"id": link.id, **link.dump()}
            )
        except UnicityError:
            return False
        self._delete(LINK, link.parent, link.id)
        return not self.of_key(key)

    # Changes.

    def add(self, link: Link) -> None:
        """Link a file that this very request stored: nobody else can know of it yet."""
        self._put(link)

    def share(self, link: Link) -> None:
        """Link a file that was there before, because its metadata was copied to a record.

        :raises AttachmentGone: the file has lost its last link, and was deleted, meanwhile.
        """
        self._lock(link.key)
        links = [self._make_shared(other) for other in self.of_key(link.key)]
        if any(other is not None for other in links):
            self._put(replace(link, shared=True))
        elif self._rescue(link.key):
            self._put(link)
        else:
            raise AttachmentGone()

    def keep(self, link: Link) -> None:
        """The record has another file now, or none, but this one is kept."""
        # The link is not there for a moment: who shares the file must not look just then.
        self._lock(link.key)
        if not link.shared and not self._delete_sole([link]):
            link = replace(link, shared=True)
        self._put(replace(link, state="kept"))
        self._unlock(link.key)

    def drop(self, links: list[Link]) -> list[str]:
        """Remove links; returns the keys that have none any more."""
        orphans = []
        for batch in batches(link for link in links if not link.shared):
            gone = self._delete_sole(batch)
            orphans += [link.key for link in batch if link.id in gone]
            # Not there as a sole link any more: somebody shared it since we read it.
            links = links + [replace(link, shared=True) for link in batch if link.id not in gone]
        for link in links:
            if link.shared and self._drop_shared(link):
                orphans.append(link.key)
        return orphans

    def bury(self, keys: Iterable[str]) -> tuple[list[Garbage], set[str]]:
        """Put files in the outbox that seem to have no link, and have none indeed.

        Unlike files that lose their last link here, others may be about to be linked. A name
        that is claimed may by now be that of another file, newer than the one that was seen.
        """
        orphans = set()
        for key in sorted(keys):  # In one order, or two of us might wait for each other.
            if not self.reserve(key):
                continue
            self._lock(key)
            if not self.of_key(key) and not self.outbox(key):
                orphans.add(key)
            self._unlock(key)
            self.unreserve(key)
        return self.discard(sorted(orphans)), orphans

    # The outbox.

    def discard(self, keys: Iterable[str]) -> list[Garbage]:
        """Put files that have no link any more in the outbox."""
        entries = [Garbage(str(uuid.uuid4()), batch, msec_time()) for batch in batches(keys)]
        for entry in entries:
            self.put_back(entry)
        return entries

    def outbox(self, key: str | None = None) -> list[Garbage]:
        """What waits to be deleted (a page of it), or the entries that hold a certain key."""
        filters = [Filter("keys", [key], COMPARISON.CONTAINS)] if key is not None else []
        rows = self.backend.list_all(
            resource_name=OUTBOX, parent_id="attachments-garbage:*", filters=filters
        )
        return [Garbage(row["id"], row["keys"], row["since"]) for row in rows]

    def take(self, entry: Garbage) -> bool:
        """Remove an entry; False when somebody else has: until the commit, it is ours alone."""
        return self._delete(OUTBOX, entry.parent, entry.id)

    def put_back(self, entry: Garbage) -> None:
        """Have an entry (again) in the outbox."""
        self.backend.update(
            resource_name=OUTBOX,
            parent_id=entry.parent,
            object_id=entry.id,
            obj={"keys": entry.keys, "since": entry.since},
        )

    def reserve(self, key: str) -> bool:
        """Claim a name for a file that will be stored under it; False when it is claimed."""
        claim = {"id": "claim", "key": key, "since": msec_time()}
        try:
            self.backend.create(
                resource_name=RESERVATION,
                parent_id=f"attachments-name:{digest_of(key)}",
                obj=claim,
            )
        except UnicityError:
            return False
        return True

    def reserved_before(self, timestamp: int) -> list[str]:
        """Keys whose claim is older than that (ms since the epoch): their request has died."""
        rows = self.backend.list_all(resource_name=RESERVATION, parent_id="attachments-name:*")
        return [row["key"] for row in rows if row["since"] < timestamp]

    def unreserve(self, key: str) -> None:
        self._delete(RESERVATION, f"attachments-name:{digest_of(key)}", "claim")

    # How.

    def _put(self, link: Link) -> None:
        self.backend.update(
            resource_name=LINK, parent_id=link.parent, object_id=link.id, obj=link.dump()
        )

    def _delete(self, resource_name: str, parent_id: str, object_id: str) -> bool:
        try:
            self.backend.delete(
                resource_name=resource_name,
                parent_id=parent_id,
                object_id=object_id,
                with_deleted=False,
            )
        except ObjectNotFoundError:
            return False
        return True

    def _delete_sole(self, links: list[Link]) -> set[str]:
        """Delete sole links, many in one query; returns the ids of those that were there."""
        if len(links) == 1:
            return {link.id for link in links if self._delete(LINK, link.parent, link.id)}
        deleted = self.backend.delete_all(
            resource_name=LINK,
            parent_id="attachments:*",
            filters=[Filter("id", {link.id for link in links}, COMPARISON.IN)],
            with_deleted=False,
        )
        return {row["id"] for row in deleted}

    def _lock(self, key: str) -> None:
        """Wait for other transactions that share or unshare this file, then hold them off."""
        parent = f"attachments-lock:{digest_of(key)}"
        self.backend.update(resource_name=LOCK, parent_id=parent, object_id="lock", obj={})

    def _unlock(self, key: str) -> None:
        """Leave no lock behind; others are held off until the commit all the same."""
        self._delete(LOCK, f"attachments-lock:{digest_of(key)}", "lock")

    def _make_shared(self, link: Link) -> Link | None:
        """Give a link the id of a shared one; None when it was dropped meanwhile."""
        if not link.shared:
            if not self._delete(LINK, link.parent, link.id):
                return None
            link = replace(link, shared=True)
            self._put(link)
        return link

    def _drop_shared(self, link: Link) -> bool:
        """Drop one of several links; True when it was the last."""
        self._lock(link.key)
        if not self._delete(LINK, link.parent, link.id) or self.of_key(link.key):
            return False
        self._unlock(link.key)
        return True

    def _rescue(self, key: str) -> bool:
        """Take a file without links out of the outbox; False when it is too late for that."""
        for entry in self.outbox(key):
            if not self.take(entry):
                return False
            rest = [other for other in entry.keys if other != key]
            if rest:
                # Under another id: whoever read the old entry must not find it again.
                self.put_back(replace(entry, id=str(uuid.uuid4()), keys=rest))
        return self.storage.exists(key)
