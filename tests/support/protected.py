"""Every way to remove or replace a record's file, to try on protected records.

Each is a function of the application and of the place, which says where the record is. It returns
the response, or an object in place of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kinto.core.events import ResourceChanged
from pyramid.httpexceptions import HTTPException

from kinto_attachment import allow_metadata_changes, attach as attach_by_code
from kinto_attachment.errors import AttachmentError
from kinto_attachment.settings import Settings
from tests.support import direct, tus
from tests.support.application import ALICE, attach, on_event, put_raw


@dataclass(frozen=True)
class Place:
    """Where the record is; ``real`` is its bucket by id, also if it is a default bucket."""

    bucket: str
    real: str

    @property
    def collection(self) -> str:
        return f"{self.bucket}/collections/c"

    @property
    def record(self) -> str:
        return f"{self.collection}/records/r"

    @property
    def other(self) -> str:
        return f"{self.collection}/records/other"

    @property
    def real_record(self) -> str:
        return f"{self.real}/collections/c/records/r"


Way = Callable[[Any, Place], Any]
"""Returns something with ``status_int``."""


@dataclass(frozen=True)
class Request:
    """A way that is one JSON request, so that it can also be part of a batch."""

    method: str
    path: Callable[[Place], str]
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None

    def __call__(self, app: Any, place: Place) -> Any:
        headers = {**ALICE, **(self.headers or {})}
        if self.body is None:
            return app.request(self.path(place), method=self.method, headers=headers, status="*")
        body = self.filled(place)
        send = getattr(app, f"{self.method.lower()}_json")
        return send(self.path(place), body, headers=headers, status="*")

    def as_part(self, place: Place) -> dict[str, Any]:
        part: dict[str, Any] = {"method": self.method, "path": f"/v1{self.path(place)}"}
        if self.body is not None:
            part["body"] = self.filled(place)
        if self.headers:
            part["headers"] = dict(self.headers)
        return part

    def filled(self, place: Place) -> dict[str, Any]:
        body = dict(self.body or {})
        if "copy_from" in body:
            body["copy_from"] = place.other.replace("/buckets/default", place.real)
        return body


MERGE = {"Content-Type": "application/merge-patch+json"}

IN_BATCHES: dict[str, Request] = {
    "copy": Request("POST", lambda at: f"{at.record}/attachment", {"copy_from": ""}),
    "put without": Request("PUT", lambda at: at.record, {"data": {"title": "x"}}),
    "put null": Request("PUT", lambda at: at.record, {"data": {"attachment": None}}),
    "patch null": Request("PATCH", lambda at: at.record, {"data": {"attachment": None}}),
    "merge patch": Request("PATCH", lambda at: at.record, {"data": {"attachment": None}}, MERGE),
    "detach": Request("DELETE", lambda at: f"{at.record}/attachment"),
    "delete record": Request("DELETE", lambda at: at.record),
    "delete records": Request("DELETE", lambda at: f"{at.collection}/records"),
    "delete some": Request("DELETE", lambda at: f"{at.collection}/records?in_id=r,x"),
}
WHOLE: dict[str, Request] = {
    "delete collection": Request("DELETE", lambda at: at.collection),
    "delete collections": Request("DELETE", lambda at: f"{at.bucket}/collections"),
    "delete bucket": Request("DELETE", lambda at: at.bucket),
    "delete buckets": Request("DELETE", lambda at: "/buckets"),
}


def form(app: Any, place: Place) -> Any:
    return attach(app, place.record, b"new", status="*")


def raw(app: Any, place: Place) -> Any:
    return put_raw(app, place.record, b"new", status="*")


def json_patch(app: Any, place: Place) -> Any:
    headers = {**ALICE, "Content-Type": "application/json-patch+json"}
    operations = [{"op": "remove", "path": "/data/attachment"}]
    return app.patch_json(place.record, operations, headers=headers, status="*")


def resumable(app: Any, place: Place) -> Any:
    return tus.create(app, 3, place.record, status="*")


def directly(app: Any, place: Place) -> Any:
    return direct.create(app, 3, place.record, via="kinto", status="*")


def draft(app: Any, place: Place) -> Any:
    headers = {**ALICE, "Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"}
    return put_raw(app, place.record, b"new", headers=headers, status="*")


def flush(app: Any, place: Place) -> Any:
    return app.post("/__flush__", headers=ALICE, status="*")


def publish(app: Any, place: Place) -> Any:
    """Another plugin copies another record to this one."""
    copies = {f"{place.real}/collections/c/records/other": place.real_record}
    return app.post_json("/publish", {"copies": copies}, status="*")


def withdraw(app: Any, place: Place) -> Any:
    """Another plugin deletes the record."""
    return app.post_json("/withdraw", {"uris": [place.real_record]}, status="*")


def withdraw_collection(app: Any, place: Place) -> Any:
    uri = f"{place.real}/collections/c"
    return app.post_json("/withdraw", {"uris": [uri]}, status="*")


def withdraw_bucket(app: Any, place: Place) -> Any:
    return app.post_json("/withdraw", {"uris": [place.real]}, status="*")


@contextmanager
def changed_setting(app: Any, name: str, value: object) -> Iterator[None]:
    """Change a setting of the server for a while, as if it had been restarted."""
    settings = app.app.registry.attachment_settings
    before = settings.values[name]
    change_setting(settings, name, value)
    try:
        yield
    finally:
        change_setting(settings, name, before)


def change_setting(settings: Settings, name: str, value: object) -> None:
    settings.values[name] = value
    vars(settings).pop("_of_server", None)  # A process derives this from its settings only once.


class Answer:
    """The result of code on the server, in place of a response."""

    def __init__(self, status: int, details: Any = None) -> None:
        self.status_int = status
        self.json = {"details": details}


def by_code(app: Any, place: Place, *, allowed: bool = False) -> Any:
    """Code on the server attaches a file when another record is written."""
    answers: list[Answer] = []

    def act(event: Any) -> None:
        if event.payload["resource_name"] != "record" or answers:
            return
        answers.append(Answer(0))
        try:
            if allowed:
                with allow_metadata_changes(event.request):
                    attach_by_code(event.request, place.real_record, b"new", "new.txt")
            else:
                attach_by_code(event.request, place.real_record, b"new", "new.txt")
            answers.append(Answer(200))
        except AttachmentError as error:
            answers.append(Answer(error.status, error.details))
        except HTTPException as error:
            answers.append(Answer(error.status_code, error.json["details"]))

    on_event(app, ResourceChanged, act)
    url = f"{place.collection}/records/trigger"
    response = app.put_json(url, {"data": {}}, headers=ALICE, status="*")
    app.app.registry.on_event = None
    # Errors when the links are written fail the whole request.
    return answers[-1] if response.status_int < 400 else response


def by_allowed_code(app: Any, place: Place) -> Any:
    return by_code(app, place, allowed=True)


UPLOADS: dict[str, Way] = {
    "form": form,
    "raw": raw,
    "draft": draft,
    "resumable": resumable,
    "direct": directly,
    "code": by_code,
}
WAYS: dict[str, Way] = {
    **UPLOADS,
    **IN_BATCHES,
    **WHOLE,
    "json patch": json_patch,
    "allowed code": by_allowed_code,
    "publish": publish,
    "withdraw": withdraw,
    "withdraw collection": withdraw_collection,
    "withdraw bucket": withdraw_bucket,
    "flush": flush,
}
# The ways that a lock allows: deletions of the whole, and server code that asks for it.
UNLOCKED = {
    *WHOLE,
    *("allowed code", "publish", "withdraw", "withdraw collection", "withdraw bucket", "flush"),
}
