"""Checking that the target accepts all records of an export, before any is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import transaction
from kinto.core.storage.exceptions import ObjectNotFoundError
from pyramid.httpexceptions import HTTPException

from kinto_attachment.errors import AttachmentError
from kinto_attachment.files import imports
from kinto_attachment.files.imports import Imported, Terms
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.locations import location_of
from kinto_attachment.files.record_schemas import check_whole
from kinto_attachment.files.uploads import rules_of
from kinto_attachment.index.totals import Totals
from kinto_attachment.index.usage_limits import check
from kinto_attachment.kinto_types import KintoObject, Registry, Request
from kinto_attachment.maintenance import records
from kinto_attachment.maintenance.exported_records import ExportedCollection, ExportedRecord
from kinto_attachment.maintenance.import_state import Seen
from kinto_attachment.maintenance.reports import RecordFinding
from kinto_attachment.metadata import FIELD, Attachment
from kinto_attachment.uris import CollectionURI, RecordURI

EXISTS = "it exists with other content; --replace replaces it"
EXAMPLE = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Parents:
    """A collection and its bucket, present or future; ``exists`` applies to the collection."""

    bucket: KintoObject
    collection: KintoObject
    exists: bool


def parents_of(registry: Registry, exported: ExportedCollection) -> Parents:
    """A record at the target, present or future."""
    uri = exported.uri
    with transaction.manager:
        bucket = _stored(registry, "bucket", "", uri.bucket_id)
        collection = _stored(registry, "collection", uri.bucket, uri.collection_id)
    return Parents(
        bucket or exported.bucket.data,
        collection or exported.collection.data,
        collection is not None,
    )


def imported(uri: CollectionURI, record: ExportedRecord, *, permissions: bool) -> Imported:
    """The write for a record of the export."""
    data = dict(record.data)
    if record.file is not None:
        del data[FIELD]
    wanted = (record.permissions or {}) if permissions else None
    record_uri = RecordURI(uri.bucket_id, uri.collection_id, record.id)
    return Imported(record_uri, data, record.file, record.extra, wanted)


def stored_records(
    registry: Registry, page: Mapping[str, Imported], *, permissions: bool
) -> dict[str, tuple[KintoObject | None, Mapping[str, Any]]]:
    """The current records, with their permissions if these are imported."""
    with transaction.manager:
        found = records.by_uri(registry, page)
        of_all: list[Mapping[str, Any]] = [{} for _ in page]
        if permissions and page:
            of_all = [*registry.permission.get_objects_permissions([*page])]
    return {uri: (found[uri], of_one) for uri, of_one in zip(page, of_all, strict=True)}


class Checks:
    """Refuses records for the same reasons as uploads, and counts them for quotas."""

    def __init__(self, registry: Registry, terms: Terms, seen: Seen) -> None:
        self._registry = registry
        self._terms = terms
        self._seen = seen
        # The future usage of buckets and collections with a quota.
        self._held: dict[str, Totals] = {}
        self._ledger = Ledger()

    def refusal(
        self, wanted: Imported, old: KintoObject | None, parents: Parents
    ) -> RecordFinding | None:
        """Why a record cannot be written; None if it can."""
        if old is not None and not self._terms.replaces:
            return RecordFinding(record=str(wanted.uri), reason=EXISTS)
        request = imports.request_for(self._registry, wanted, old, self._terms)
        request.bound_data["buckets"] = {wanted.uri.bucket: parents.bucket}
        try:
            with transaction.manager:
                imports.refuse(request, wanted, parents.collection if parents.exists else None)
                self._check_quota(wanted, old, request)
                self._check_schema(wanted, request, parents)
        except (AttachmentError, HTTPException) as error:
            return finding_of(wanted, error)
        return None

    def _check_quota(self, wanted: Imported, old: KintoObject | None, request: Request) -> None:
        """:raises QuotaExceeded: with the previous ones, this record exceeds the quota."""
        if wanted.has_file_of(old):
            return
        usage, uri = self._registry.attachment_usage, wanted.uri
        quota_of = partial(self._registry.attachment_collection_settings.quota, self._ledger)
        rules = rules_of(request)
        replaced = (old or {}).get(FIELD)
        for scope in usage.scopes_of(str(uri)):
            # Only once, because all links are summed up if there is no counter.
            if scope not in self._held:
                self._held[scope] = usage.peek([scope])[scope]
            held, more = self._held[scope], Totals()
            if wanted.file is not None and self._is_first(scope, wanted.file):
                more += Totals(1, wanted.file.size)
            if isinstance(replaced, dict) and not (rules.keep_old_files or rules.linger):
                more -= Totals(1, replaced.get("size") or 0)
            check(quota_of(scope), held, more)
            self._held[scope] = held + more

    def _is_first(self, scope: str, file: Attachment) -> bool:
        """Whether this is the first record with its file in the bucket or the collection."""
        return self._seen.add(f"counted {scope}", identity(file))

    def _check_schema(self, wanted: Imported, request: Request, parents: Parents) -> None:
        """:raises HTTPBadRequest: the schema of the collection or the bucket does not allow it."""
        record = {**wanted.data}
        if wanted.file is not None:
            storage = self._registry.attachment_storages[rules_of(request).storage]
            location = location_of(request, storage, EXAMPLE)
            record[FIELD] = wanted.attachment(Attachment.at(location, wanted.file.to_json()))
        check_whole(request, record, parents.collection)


def identity(file: Attachment) -> str:
    """The values that two records have to share to share a file."""
    return repr(sorted(file.to_json().items(), key=lambda member: member[0]))


def finding_of(wanted: Imported, error: AttachmentError | HTTPException) -> RecordFinding:
    """A refusal in the form for clients."""
    errno: int | None
    if isinstance(error, AttachmentError):
        code, errno, details = error.status, error.errno.value, error.details
        reason = str(error)
    else:
        told = error.json if error.content_type == "application/json" else {}
        code, errno = error.status_code, told.get("errno")
        details, reason = told.get("details"), told.get("message") or str(error)
    more = details.get("reason") if isinstance(details, dict) else None
    if more and more not in ("quota", reason):
        reason = f"{reason} {more}"
    return RecordFinding(
        record=str(wanted.uri), reason=reason, code=code, errno=errno, details=details
    )


def _stored(registry: Registry, kind: str, parent: str, object_id: str) -> KintoObject | None:
    try:
        return registry.storage.get(kind, parent, object_id)
    except ObjectNotFoundError:
        return None
