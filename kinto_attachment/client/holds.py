"""Holds of files, in the client of a collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinto_attachment.client.errors import NotFoundError
from kinto_attachment.client.records import CollectionRecords


class FileHolds(CollectionRecords):
    """Protects files against deletion and replacement, even by users who may write the record."""

    def hold(
        self,
        record: str | Mapping[str, Any],
        *,
        until: int | None = None,
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Hold the file of a record until a time (ms since the epoch), or until it is released.

        Without ``until``, the hold is open-ended. A time can only be moved later. Returns the
        hold: ``until``, ``date``, ``reason``, ``by`` and ``since`` (docs/holds.rst). The user
        needs the ``write`` permission on the collection.

        >>> client.hold("hello", reason="An audit")["until"] is None
        True

        :raises RejectedError: the file is held until a later time.
        :raises NotFoundError: the record does not exist, or has no attachment.
        """
        data: dict[str, Any] = {"until": until}
        if reason is not None:
            data["reason"] = reason
        answer, _ = self.session.request("put", self._hold(record), payload={"data": data})
        held: dict[str, Any] = answer["data"]
        return held

    def get_hold(self, record: str | Mapping[str, Any]) -> dict[str, Any] | None:
        """The hold of a record's file; None if it is not held or does not exist.

        >>> client.get_hold("hello")["reason"]
        'An audit'
        """
        try:
            answer, _ = self.session.request("get", self._hold(record))
        except NotFoundError:
            return None
        held: dict[str, Any] = answer["data"]
        return held

    def release_hold(self, record: str | Mapping[str, Any]) -> None:
        """End an open-ended hold.

        >>> client.release_hold("hello")
        >>> client.get_hold("hello") is None
        True

        :raises RejectedError: the hold has a time in the future.
        :raises NotFoundError: the file is not held.
        """
        self.session.request("delete", self._hold(record))

    def _hold(self, record: str | Mapping[str, Any]) -> str:
        return f"{self._endpoint(record)}/hold"
