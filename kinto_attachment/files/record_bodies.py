"""The bodies with which clients write records, and their effect on the ``attachment``.

Kinto computes the new record only while it writes it. Here, the resulting attachment is computed
before, and the body can be changed to get another one.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Protocol

from kinto.core.utils import apply_json_patch, recursive_update_dict

from kinto_attachment.kinto_types import KintoObject, Request
from kinto_attachment.metadata import ABSENT, FIELD

POINTER = f"/data/{FIELD}"
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"


# The exceptions of reading a body that Kinto does not accept.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def body_of(request: Request) -> RecordBody | None:
    """The body of a PUT, POST or PATCH; None if it contains no attributes.

    :raises MALFORMED: Kinto will refuse it.
    """
    json = request.json
    # Kinto compares the whole header, too.
    content_type = str(request.headers.get("Content-Type")).lower()
    if request.method == "PATCH" and content_type == JSON_PATCH:
        return JSONPatch(json)
    if "data" not in json:
        return None
    if request.method != "PATCH":
        return WholeRecord(json)
    return MergePatch(json) if content_type == MERGE_PATCH else PartOfRecord(json)


def stored(record: KintoObject | None) -> Any:
    """The attachment of a record, which may be None, or ABSENT."""
    return (record or {}).get(FIELD, ABSENT)


class RecordBody(Protocol):
    """One way to write a record; ``json`` is the body as a whole."""

    json: Any

    def outcome(self, old: KintoObject | None) -> Any:
        """The attachment that the record would have, or ABSENT."""

    def leaves_out(self) -> bool:
        """Whether the body drops the attachment by not mentioning it."""

    def store(self, attachment: Any) -> None:
        """Change the body so that the record has this attachment: the stored one, or ABSENT.

        Patches that only contain changes (RFC 7396 and Kinto's own) cannot drop a member that is
        stored as ``null``.
        """


class WholeRecord:
    """PUT and POST: the body is the whole record."""

    def __init__(self, json: Any) -> None:
        self.json = json
        self.data = json["data"]

    def outcome(self, old: KintoObject | None) -> Any:
        return self.data.get(FIELD, ABSENT)

    def leaves_out(self) -> bool:
        return FIELD not in self.data

    def store(self, attachment: Any) -> None:
        self.data.pop(FIELD, None)
        if attachment is not ABSENT:
            self.data[FIELD] = attachment


class PartOfRecord:
    """PATCH with ``application/json``: members replace the record's."""

    def __init__(self, json: Any) -> None:
        self.json = json
        self.data = json["data"]

    def outcome(self, old: KintoObject | None) -> Any:
        return self.data.get(FIELD, stored(old))

    def leaves_out(self) -> bool:
        return False

    def store(self, attachment: Any) -> None:
        if attachment is not ABSENT or self.data.get(FIELD) is not None:
            self.data.pop(FIELD, None)


class MergePatch(PartOfRecord):
    """PATCH with ``application/merge-patch+json`` (RFC 7396)."""

    def outcome(self, old: KintoObject | None) -> Any:
        if FIELD not in self.data:
            return stored(old)
        merged = {} if stored(old) is ABSENT else {FIELD: deepcopy(stored(old))}
        try:
            recursive_update_dict(merged, {FIELD: self.data[FIELD]}, ignores=(None,))
        except TypeError:  # Kinto cannot merge an object into null.
            return self.data[FIELD]
        return stored(merged)


class JSONPatch:
    """PATCH with ``application/json-patch+json`` (RFC 6902)."""

    def __init__(self, json: Any) -> None:
        self.json = json
        # Kinto's schema requires the paths to be texts that start with a slash.
        self.paths = [
            (operation["op"], operation.get("from"), operation["path"]) for operation in json
        ]

    def outcome(self, old: KintoObject | None) -> Any:
        if old is None or not any(
            self._concerns(path) for _, *both in self.paths for path in both
        ):
            return stored(old)
        return stored(apply_json_patch(old, self.json)["data"])

    def leaves_out(self) -> bool:
        removals = [(path if op == "remove" else origin) for op, origin, path in self.paths]
        return POINTER not in removals

    def store(self, attachment: Any) -> None:
        operation = {"op": "remove", "path": POINTER}
        if attachment is not ABSENT:
            operation = {"op": "add", "path": POINTER, "value": attachment}
        self.json.append(operation)

    @staticmethod
    def _concerns(path: Any) -> bool:
        return path == "/data" or f"{path}/".startswith(f"{POINTER}/")
