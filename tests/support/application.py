"""Kinto with the plugin, in this process, and everything the tests do with it over HTTP.

``make_app`` builds Kinto's own application and wraps it so that only our reader of bodies can
read the body of an upload.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import sys
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import kinto
import requests
import transaction
import webtest
from kinto.core.cornice.service import SERVICES
from kinto.core.events import AfterResourceChanged, ResourceChanged
from kinto.core.storage.postgresql import client as postgresql_client
from kinto.core.utils import hmac_digest
from sqlalchemy import text

from kinto_attachment import (
    AttachmentAdded,
    AttachmentRead,
    AttachmentReceiving,
    AttachmentRemoved,
    AttachmentReplaced,
)
from kinto_attachment.files.settling import delete_garbage
from kinto_attachment.http.streams import CHUNK_SIZE, BaseReader
from kinto_attachment.index.used_storages import UsedStorages
from kinto_attachment.wsgi.bodies import UPLOADS
from tests.support import owned, quick_setup, transcripts, usage, ways

quick_setup.install()

Headers = dict[str, str]

# Kinto's tables on PostgreSQL. Its backends would empty them in three transactions.
FORGET = "; ".join(
    f"DELETE FROM {table}"
    for table in ("objects", "timestamps", "user_principals", "access_control_entries", "cache")
)

INVALID_PARAMETERS, INVALID_POSTED_DATA = 107, 109  # Kinto's.


def auth(user: str) -> Headers:
    return {"Authorization": "Basic " + b64encode(f"{user}:secret".encode()).decode()}


ALICE, BOB, CAROL = auth("alice"), auth("bob"), auth("carol")
ANONYMOUS: Headers = {}

BUCKET = "/buckets/b"
COLLECTION = f"{BUCKET}/collections/c"
RECORD = f"{COLLECTION}/records/r"
OTHER = f"{COLLECTION}/records/other"
DEFAULT = "/buckets/default/collections/c/records/r"

CONTENT = b"What is in the file.\n"

SETTINGS = {
    "includes": "kinto.plugins.history kinto.plugins.default_bucket kinto.plugins.flush "
    "kinto_attachment tests.support.application",
    "multiauth.policies": "basicauth",
    "userid_hmac_secret": "secret",
    "default_bucket_hmac_secret": "secret",
    "experimental_collection_schema_validation": "true",
    "experimental_permissions_endpoint": "true",
}
MEMORY = {
    f"{name}_backend": f"kinto.core.{name}.memory" for name in ("storage", "permission", "cache")
}


def postgresql_settings(url: str) -> dict[str, str]:
    names = ("storage", "permission", "cache")
    return {
        **{f"{name}_backend": f"kinto.core.{name}.postgresql" for name in names},
        **{f"{name}_url": url for name in names},
    }


def make_app(
    storage_settings: Mapping[str, Any], database_settings: Mapping[str, Any], **settings: Any
) -> webtest.TestApp:
    """Kinto with attachments.

    ``storage_settings`` are without ``kinto.attachment.``, all others without ``kinto.``;
    ``includes`` are added to the usual ones, after them, and ``included_first`` before them.
    """
    first = settings.pop("included_first", "")
    everything = {**SETTINGS, **database_settings, **settings}
    storage_settings = {**ways.settings(), **storage_settings}
    everything |= {f"attachment.{name}": value for name, value in storage_settings.items()}
    usual = SETTINGS["includes"]
    everything["includes"] = f"{first} {usual} {settings.get('includes', '')}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HTTPS is not enabled")
        warnings.filterwarnings("ignore", message="Reuse existing PostgreSQL connection")
        with without_collection():
            known = len(SERVICES)
            settings = {f"kinto.{name}": value for name, value in everything.items()}
            wsgi_app = kinto.main({}, **settings)
    app = webtest.TestApp(GuardedBodies(wsgi_app))
    app.RequestClass = VersionedRequest
    # Cornice would keep these, and with them every application, until the process ends.
    app.services = SERVICES[known:]
    del SERVICES[known:]
    return app


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Pause garbage collection, which takes half of the time to build Kinto and frees little.

    The objects that are built are used for long and are not collected later either:
    :func:`let_go` frees them. Only objects created since the last build are collected before.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def let_go(app: Any) -> None:
    """Free an application that is no longer used; its parts refer to each other."""
    guarded = app.app
    registry, inner = guarded.registry, guarded.app
    while hasattr(inner, "__dict__"):
        parts = vars(inner)
        inner = parts.get("app")
        parts.clear()
    for part in (registry.adapters, registry.utilities, registry, guarded, app):
        vars(part).clear()


def includeme(config: Any) -> None:
    """A plugin that records the events, and calls the functions that a test sets for them."""
    config.registry.seen = []
    config.registry.on_event = None

    def remember(event: Any) -> None:
        config.registry.seen.append(event)
        if transcripts.current is not None:
            transcripts.current.event(event)
        if config.registry.on_event is not None:
            config.registry.on_event(event)

    for kind in (ResourceChanged, AfterResourceChanged):
        config.add_subscriber(remember, kind)
    for kind in (
        AttachmentReceiving,
        AttachmentAdded,
        AttachmentReplaced,
        AttachmentRemoved,
        AttachmentRead,
    ):
        config.add_subscriber(remember, kind)


def forget_database(url: str) -> None:
    """Drop the connections that Kinto keeps per URL."""
    for clients in postgresql_client._CLIENTS.values():
        for known in [known for known in clients if database_name(known) == database_name(url)]:
            session_factory = clients.pop(known).session_factory
            session_factory.remove()
            session_factory.session_factory.kw["bind"].dispose()


def database_name(url: str) -> str:
    # What follows may be quoted or not.
    return url.partition("?")[0].rpartition("/")[2]


def reconnect(app: Any) -> None:
    """Drop the connections of an application whose database has closed them."""
    registry = app.app.registry
    for backend in (registry.storage, registry.permission, registry.cache):
        backend.client.session_factory.remove()
        backend.client.session_factory.session_factory.kw["bind"].dispose()


class VersionedRequest(webtest.app.TestRequest):  # type: ignore[misc]
    """Tests use paths without the API's version, as in the URIs of records."""

    @classmethod
    def blank(cls, path: str, *args: Any, **kwargs: Any) -> Any:
        if path.startswith("/") and not path.startswith("/v1/"):
            path = f"/v1{path}"
        return super().blank(path, *args, **kwargs)


class GuardedBodies:
    """A WSGI application whose uploads only our BodyReader may read, in chunks.

    ``body`` is the body of the last request for an attachment.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.registry = app.registry
        self.body = GuardedBody(None)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if transcripts.current is not None:
            return transcripts.current.request(self.guarded, environ, start_response)
        return self.guarded(environ, start_response)

    def guarded(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not UPLOADS.search(environ["PATH_INFO"]):
            answer: Iterable[bytes] = self.app(environ, start_response)
            return answer
        body = self.body = environ["wsgi.input"] = GuardedBody(environ["wsgi.input"])
        answer = self.app(environ, start_response)
        assert environ["wsgi.input"] is body, "somebody put another body in place"
        assert not body.misread, body.misread
        return answer


@dataclass
class GuardedBody:
    """Gives short reads, as sockets do; ``taken`` counts the bytes read, except dropped ones."""

    body: Any
    taken: int = 0
    misread: list[str] = field(default_factory=list)

    def read(self, size: int = -1) -> bytes:
        callers = []
        frame = sys._getframe(1)
        while frame is not None and isinstance(frame.f_locals.get("self"), BaseReader):
            callers.append(frame.f_code.co_name)
            frame = frame.f_back
        if not callers or not 0 < size <= CHUNK_SIZE:
            self.misread.append(f"{sys._getframe(1).f_code} reads {size}")
        data: bytes = self.body.read(min(size, 10_000) if size > 0 else size)
        if "drain" not in callers:
            self.taken += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        self.misread.append(name)
        raise AttributeError(name)


# Objects that a test creates before it starts.


def put(app: Any, uri: str, headers: Headers = ALICE, **body: Any) -> dict[str, Any]:
    """Create or replace an object; ``body`` is ``data`` and ``permissions``."""
    answer: dict[str, Any] = app.put_json(uri, body or {"data": {}}, headers=headers).json
    return answer


def put_collection(app: Any, uri: str = COLLECTION, headers: Headers = ALICE, **body: Any) -> None:
    """Create a collection, and its bucket."""
    put(app, uri.partition("/collections/")[0], headers)
    put(app, uri, headers, **body)


def put_collection_behind(app: Any) -> None:
    """Do the same without requests, which take longer than most tests."""
    registry = app.app.registry
    secret = registry.settings["userid_hmac_secret"]
    alice = f"basicauth:{hmac_digest(secret, 'alice:secret')}"
    with transaction.manager:
        for kind, uri in (("bucket", BUCKET), ("collection", COLLECTION)):
            parent, _, object_id = uri.rpartition(f"/{kind}s/")
            registry.storage.update(kind, parent, object_id, {})
            registry.permission.add_principal_to_ace(uri, "write", alice)


def write_behind(app: Any, uri: str, data: dict[str, Any]) -> None:
    """Write a record without Kinto's views and listeners, as a careless plugin does."""
    parent, _, object_id = uri.rpartition("/records/")
    with transaction.manager:
        app.app.registry.storage.update("record", parent, object_id, data)


def describe_behind(app: Any, uri: str, **changes: Any) -> None:
    """Change a record's description of its file, in the record and index, as other code may."""
    write_behind(app, uri, {"attachment": {**attachment_of(app, uri), **changes}})
    links = app.app.registry.attachment_links
    with transaction.manager:
        (link,) = links.of_record(uri)
        links.update(replace(link, **changes))


def userid(app: Any, headers: Headers = ALICE) -> str:
    """The user id that permissions have for these credentials."""
    identity: str = app.get("/", headers=headers).json["user"]["id"]
    return identity


# Uploads.


@dataclass(frozen=True)
class Part:
    """A part of a form; with a filename, it is a file. ``lines`` are more headers."""

    name: str | None
    content: bytes | str
    filename: str | None = None
    content_type: str | None = None
    lines: tuple[str, ...] = ()

    def __bytes__(self) -> bytes:
        disposition = "Content-Disposition: form-data"
        if self.name is not None:
            disposition += f'; name="{self.name}"'
        if self.filename is not None:
            # Escaped as by browsers.
            escaped = self.filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
            disposition += f'; filename="{escaped}"'
        lines = [disposition, *self.lines]
        if self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        content = self.content.encode() if isinstance(self.content, str) else self.content
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def form(*parts: Part, boundary: str = "the-boundary") -> tuple[bytes, str]:
    """A multipart/form-data body and its Content-Type."""
    body = b"".join(f"--{boundary}\r\n".encode() + bytes(part) + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def attach(
    app: Any,
    record: str = RECORD,
    content: bytes = CONTENT,
    filename: str = "notes.txt",
    *,
    content_type: str | None = None,
    data: Any = None,
    permissions: Any = None,
    headers: Headers = ALICE,
    status: Any = None,
) -> Any:
    """POST a form with a file, and JSON in ``data`` and ``permissions`` if they are given."""
    parts = [Part("attachment", content, filename, content_type)]
    for name, value in (("data", data), ("permissions", permissions)):
        if value is not None:
            parts.append(Part(name, value if isinstance(value, str) else json.dumps(value)))
    return post_form(app, *parts, record=record, headers=headers, status=status)


def post_form(
    app: Any, *parts: Part, record: str = RECORD, headers: Headers = ALICE, status: Any = None
) -> Any:
    return post_form_to(app, f"{record}/attachment", *parts, headers=headers, status=status)


def post_form_to(
    app: Any, url: str, *parts: Part, headers: Headers = ALICE, status: Any = None
) -> Any:
    body, content_type = form(*parts)
    headers = {"Content-Type": content_type, **headers}
    return app.post(url, body, headers=headers, status=status)


def put_raw(
    app: Any,
    record: str = RECORD,
    content: bytes = CONTENT,
    filename: str | None = "notes.txt",
    *,
    content_type: str | None = "text/plain",
    headers: Headers = ALICE,
    status: Any = None,
) -> Any:
    """PUT the bytes of a file."""
    if content_type is not None:
        headers = {"Content-Type": content_type, **headers}
    query = "" if filename is None else f"?filename={quote(filename)}"
    return app.put(f"{record}/attachment{query}", content, headers=headers, status=status)


def send(
    app: Any,
    method: str,
    path: str,
    body: io.BytesIO,
    *,
    length: int | None = None,
    headers: Headers = ALICE,
    status: Any = None,
) -> Any:
    """Send a request that declares a length, or is sent in chunks if the length is None."""
    request = app.RequestClass.blank(path, method=method, headers=headers)
    request.environ["wsgi.input"] = body
    if length is None:
        request.environ.pop("CONTENT_LENGTH", None)
        request.environ["wsgi.input_terminated"] = True
    else:
        request.environ["CONTENT_LENGTH"] = str(length)
    return app.do_request(request, status=status)


def read(app: Any, url: str = f"{RECORD}/attachment", headers: Headers = ALICE) -> bytes:
    """Download a file, from the storage itself if the server redirects there."""
    response = app.get(url, headers=headers, status="*")
    if response.status_code == 302:
        return ask(response.location).content
    return bytes(response.body)


def ask(url: str, **headers: str) -> requests.Response:
    """GET from a storage server without credentials, as a redirected client does."""
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(url, headers=headers, timeout=90)
    answer.raise_for_status()
    return answer


def attachment_of(app: Any, record: str = RECORD, headers: Headers = ALICE) -> Any:
    """The attachment in the record; None if it has none."""
    return app.get(record, headers=headers).json["data"].get("attachment")


def error(response: Any) -> tuple[int, str]:
    """The errno and the message of a refusal, after a check that it has Kinto's format."""
    assert response.content_type == "application/json"
    assert response.json["code"] == response.status_code
    return response.json["errno"], response.json.get("message", "")


def digest(content: bytes, algorithm: str = "sha256") -> str:
    """A digest in base64, as in headers."""
    return b64encode(hashlib.new(algorithm, content).digest()).decode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# The stored data.


def stored_files(app: Any) -> set[str]:
    """The keys of all files in all storages."""
    return {key for _, key in placed_files(app)}


def placed_files(app: Any) -> set[tuple[str, str]]:
    """Storage and key of each file."""
    storages = app.app.registry.attachment_storages
    return {(storage.name, file.key) for storage in storages for file in storage.files.list()}


@dataclass(frozen=True)
class Stored:
    """The files in the storages of an application (``(storage, key)``), and unfinished ones."""

    files: set[tuple[str, str]]
    unfinished: list[tuple[str, Any]]


def stored(app: Any) -> Stored:
    unfinished = [
        (storage.name, each)
        for storage in app.app.registry.attachment_storages
        for each in getattr(storage.files, "list_unfinished", list)()
    ]
    return Stored(placed_files(app), unfinished)


def stored_content(app: Any, key: str, storage: str = "") -> bytes:
    return stored_in(app.app.registry, key, storage)


def stored_in(registry: Any, key: str, storage: str) -> bytes:
    reader = registry.attachment_storages[storage].files.open(key)
    try:
        return b"".join(iter(lambda: reader.read(CHUNK_SIZE), b""))
    finally:
        reader.close()


def key_of(attachment: Mapping[str, Any], base: str | None = None) -> str:
    """The key in an attachment's location: after ``base``, or in the server's own URL."""
    location = attachment["location"]
    if base is not None:
        assert location.startswith(base)
        return unquote(location[len(base) :])
    return unquote(urlsplit(location).path.removeprefix("/v1/attachments/"))


def stored_links(app: Any) -> set[tuple[str, str, str]]:
    """Record, key and state of each link."""
    return {(link.record, link.key, link.state) for link in links_of(app)}


def links_of(app: Any) -> list[Any]:
    with transaction.manager:
        return usage.linked(app.app.registry)


def outbox(app: Any) -> list[Any]:
    with transaction.manager:
        return list(app.app.registry.attachment_links.outbox.entries())


def empty_outbox(app: Any) -> None:
    """Delete the files that a failing storage could not delete, as gc does."""
    for entry in outbox(app):
        assert delete_garbage(app.app.registry, entry) is not None


def records(app: Any) -> dict[str, dict[str, Any]]:
    """All records of all buckets, by URI."""
    with transaction.manager:
        return records_in(app.app.registry.storage)


def records_in(storage: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for bucket in storage.list_all(resource_name="bucket", parent_id=""):
        bucket_uri = f"/buckets/{bucket['id']}"
        for collection in storage.list_all(resource_name="collection", parent_id=bucket_uri):
            uri = f"{bucket_uri}/collections/{collection['id']}"
            rows = storage.list_all(resource_name="record", parent_id=uri)
            found.update({f"{uri}/records/{row['id']}": row for row in rows})
    return found


def check_invariant(*apps: Any) -> Stored:
    """Check that every record's file exists and matches the record, and that no other exists.

    ``apps`` are servers with the same storage. Returns what is stored.
    """
    expected = set()
    for app in apps:
        registry = app.app.registry
        # One transaction each: on PostgreSQL, another one takes longer than its queries.
        with transaction.manager:
            links = usage.linked(registry)
            check_records(registry, links)
            if len(apps) == 1:  # The others may have no quota.
                assert not usage.miscounts(registry)
        expected |= {(link.storage, link.key) for link in links}
    there = stored(apps[0])
    assert there.files == expected
    assert not left_behind(apps, [unfinished for _, unfinished in there.unfinished])
    return there


def left_behind(apps: tuple[Any, ...], found: list[Any]) -> list[Any]:
    """The stored parts of unfinished files that belong to no upload in progress."""
    for app in apps if found else ():
        sessions = app.app.registry.attachment_sessions
        with transaction.manager:
            partials = sessions.owned_partials({each.partial_id for each in found})
            keys = sessions.owned_keys({each.key for each in found})
        found = [each for each in found if each.partial_id not in partials]
        found = [each for each in found if each.key not in keys]
    return found


def check_records(registry: Any, linked: list[Any]) -> None:
    """Check that every record's file exists and matches it, and that nothing is pending."""
    names = registry.storage.list_all(
        resource_name="attachment-name", parent_id="attachments-name:*"
    )
    kept = registry.attachment_sessions.owned_keys({name["key"] for name in names})
    names = [name for name in names if name["key"] not in kept]
    assert not names, f"names left reserved: {names}"
    waiting = [entry.keys for entry in registry.attachment_links.outbox.entries()]
    assert not waiting, f"left in the outbox: {waiting}"
    for uri, record in records_in(registry.storage).items():
        attachment = record.get("attachment")
        links = [link for link in linked if (link.record, link.state) == (uri, "current")]
        assert len(links) == (1 if attachment else 0), f"links of {uri}: {links}, {attachment}"
        if attachment:
            content = stored_in(registry, links[0].key, links[0].storage)
            assert sha256(content) == attachment["hash"], uri
            assert len(content) == attachment["size"], uri


def clear(app: Any, there: Stored | None = None) -> None:
    """Delete all records and files (``there``, if known), but not the owners of the storages."""
    registry = app.app.registry
    if transcripts.current is not None:
        transcripts.current.rows(registry)
    with transaction.manager:
        forget_rows(registry)
        owned.own_database(registry)
    registry.attachment_links.used_storages = UsedStorages(registry.storage)
    registry.attachment_holds.forget()
    there = there or stored(app)
    for name, key in there.files:
        registry.attachment_storages[name].files.delete(key)
    for name, unfinished in there.unfinished:
        registry.attachment_storages[name].files.discard_unfinished(unfinished)
    owned.own_storages(registry)
    app.is_owned = True
    registry.seen.clear()
    registry.on_event = None


def forget_rows(registry: Any) -> None:
    """Empty Kinto's tables, in the current transaction; on memory backends at once."""
    backends = registry.storage, registry.permission, registry.cache
    if all(hasattr(backend, "client") for backend in backends):
        with registry.storage.client.connect() as session:
            session.execute(text(FORGET))
    else:
        for backend in backends:
            backend.flush()


def move_behind(registry: Any, key: str, storage: str) -> None:
    """Move a file to another storage, as if that one had been set when it was uploaded."""
    links, storages = registry.attachment_links, registry.attachment_storages
    with transaction.manager:
        found = links.of_key(key)
        before = storages[found[0].storage].files
        with contextlib.closing(before.open(key)) as reader:
            storages[storage].files.write(key, reader, "text/plain")
        before.delete(key)
        for link in found:
            links._put(replace(link, storage=storage))


def replace_backend(registry: Any, files: Any, name: str = "") -> Any:
    """Replace the backend of a storage; returns the previous one."""
    storages = registry.attachment_storages
    before = storages[name]
    storages._storages[name] = replace(before, files=files)
    return before.files


def seen(app: Any, *kinds: type) -> list[Any]:
    """The events so far, of these kinds."""
    return [event for event in app.app.registry.seen if isinstance(event, kinds)]


def on_event(app: Any, kind: type, action: Callable[[Any], None]) -> None:
    """Call a function for each event of a kind, after the plugin's own listeners."""

    def act(event: Any) -> None:
        if isinstance(event, kind):
            action(event)

    app.app.registry.on_event = act
