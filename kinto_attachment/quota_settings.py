"""The settings of quotas of buckets and collections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinto_attachment.setting_values import full_name

NAMES = ("quota_bytes", "quota_files")
DEFAULT = "default"  # The other name of each user's own bucket, whose id is a UUID.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SCOPE = re.compile(r"/buckets/([^/]+)(?:/collections/([^/]+))?")


@dataclass(frozen=True)
class Quota:
    """The limits of a bucket or a collection, its ``scope`` (a URI); 0: no limit.

    ``settings`` are the full names of the settings that provide the limits.
    """

    scope: str
    bytes: int = 0
    files: int = 0
    settings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.bytes or self.files)

    @property
    def tag(self) -> str:
        """The identity of a pair of limits."""
        return f"{self.bytes}/{self.files}"


class Quotas:
    """The quotas of all buckets and collections, from the settings.

    A quota for a collection does not replace that of its bucket: both apply.
    """

    def __init__(
        self, values: Mapping[str, Any], overrides: Mapping[tuple[str, ...], Mapping[str, Any]]
    ) -> None:
        self._plain = {name: values[name] for name in NAMES}
        self._own = {
            resource: {name: options[name] for name in NAMES if name in options}
            for resource, options in overrides.items()
        }
        self._is_any = any(self._plain.values()) or any(
            value for own in self._own.values() for value in own.values()
        )

    def __bool__(self) -> bool:
        return self._is_any

    def of(self, scope: str, *, is_default: bool) -> Quota:
        """The quota of a bucket or a collection, which is, or is in, a default bucket or not."""
        bucket_id, collection_id = parts_of(scope)
        return self._quota(scope, bucket_id, collection_id, is_default=is_default)

    def counted(self, bucket_id: str, collection_id: str) -> tuple[str, ...]:
        """The bucket and the collection, if they may have a quota.

        Any bucket whose id has the right form is treated as a default bucket.
        """
        if not self._is_any:
            return ()
        bucket = f"/buckets/{bucket_id}"
        scopes = (bucket, f"{bucket}/collections/{collection_id}")
        return tuple(scope for scope in scopes if self.is_counted(scope))

    def is_counted(self, scope: str) -> bool:
        bucket_id, collection_id = parts_of(scope)
        may_be_default = UUID.fullmatch(bucket_id) is not None
        return any(
            self._quota(scope, bucket_id, collection_id, is_default=is_default)
            for is_default in {False, may_be_default}
        )

    def collections(self) -> list[tuple[str, str]]:
        """The ids of buckets and collections with a quota for the collection."""
        return [(each[0], each[1]) for each in self._own if len(each) == 2]

    def _quota(
        self, scope: str, bucket_id: str, collection_id: str | None, *, is_default: bool
    ) -> Quota:
        names = [DEFAULT, bucket_id] if is_default else [bucket_id]
        limits: dict[str, int] = {}
        settings: dict[str, str] = {}
        if collection_id is None:
            limits |= self._plain
            settings |= {name: full_name(name) for name in NAMES}
            resources = [(name,) for name in names]
        else:
            resources = [(name, collection_id) for name in names]  # type: ignore[misc]
        for resource in resources:
            own = self._own.get(resource, {})
            limits |= own
            prefix = ".".join(("resources", *resource))
            settings |= {name: full_name(f"{prefix}.{name}") for name in own}
        bytes_, files = (limits.get(name, 0) for name in NAMES)
        return Quota(scope, bytes_, files, tuple(settings.get(name, "") for name in NAMES))


def parts_of(scope: str) -> tuple[str, str | None]:
    """The ids of the bucket, and of the collection if the scope is one."""
    match = SCOPE.fullmatch(scope)
    if match is None:
        raise ValueError(f"{scope!r} is the URI of neither a bucket nor a collection")
    return match[1], match[2]
