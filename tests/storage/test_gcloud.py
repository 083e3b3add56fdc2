"""Google Cloud Storage, on its emulator."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import partialmethod
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from google.auth import compute_engine
from google.cloud.storage import Client
from pyramid.exceptions import ConfigurationError

from kinto_attachment.errors import FileNotFound, StorageUnavailable
from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.gcloud_signing import signs_until
from kinto_attachment.storage.samples import BINARY, Source, in_threads, keys
from kinto_attachment.storage.testing import (
    ContinuesWritesContract,
    CopiesFilesContract,
    KeepsSiteContract,
    ListsFilesContract,
    ListsUnfinishedContract,
    SignsUrlsContract,
)
from tests.support import forking
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.objects import THREE_BLOCKS, calls, google_storage
from tests.support.services import GoogleEmulator
from tests.support.small_scale import AT_ONCE, SmallScale


@pytest.fixture(scope="module")
def shared_storage(gcs: GoogleEmulator) -> Iterator[GoogleStorage]:
    with google_storage(gcs) as storage:
        yield storage


@pytest.fixture
def storage(shared_storage: GoogleStorage) -> GoogleStorage:
    return shared_storage


@pytest.fixture(scope="module")
def signing_storage(gcs: GoogleEmulator) -> Iterator[GoogleStorage]:
    with google_storage(gcs, credentials=gcs.credentials) as storage:
        yield storage


@pytest.fixture
def folder() -> str:
    return uuid4().hex


class TestGoogleStorage(
    SmallScale,
    ListsFilesContract,
    CopiesFilesContract,
    ListsUnfinishedContract,
    ContinuesWritesContract,
    KeepsSiteContract,
    SignsUrlsContract,
):
    @pytest.fixture
    def storage(
        self, signing_storage: GoogleStorage, monkeypatch: pytest.MonkeyPatch
    ) -> GoogleStorage:
        small_pages = partialmethod(Client.list_blobs, page_size=AT_ONCE)
        monkeypatch.setattr(Client, "list_blobs", small_pages)
        return signing_storage

    @pytest.fixture
    def broken_storage(
        self, gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[GoogleStorage]:
        with FaultProxy(gcs.address) as proxy:
            proxy.refuse()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
            with google_storage(gcs, "bucket", last_try=0.1) as storage:
                yield storage


# Writing.


@pytest.mark.parametrize("size", [10, THREE_BLOCKS])
def test_the_object_has_the_headers_it_is_served_with(gcs: GoogleEmulator, size: int) -> None:
    with google_storage(gcs, cache_control="max-age=60") as storage:
        storage.write("a", Source(bytes(size)), "text/plain", disposition='inline; filename="e"')
        storage.copy("a", "b")
        for key in ("a", "b"):
            found = gcs.client().bucket(storage.bucket_name).get_blob(key)
            assert found.content_type == "text/plain"
            assert found.content_disposition == 'inline; filename="e"'
            assert found.cache_control == "max-age=60"


@pytest.mark.parametrize("size", [10, THREE_BLOCKS])
def test_each_way_to_create_an_object_has_its_class_and_key(
    gcs: GoogleEmulator, size: int
) -> None:
    """The emulator has neither classes nor keys, so the requests to it are checked."""
    key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    with google_storage(gcs, storage_class="COLDLINE", kms_key=key) as storage:
        sent: list[Any] = []

        def note(response: Any, *_: object, **__: object) -> None:
            sent.append(response.request)

        storage._bucket.session().hooks["response"].append(note)
        storage.write("a", Source(bytes(size)), BINARY)
        storage.copy("a", "b")
    created = [request for request in sent if request.method == "POST"]
    assert len(created) == 2
    for request, name in zip(created, ("kmsKeyName", "destinationKmsKeyName"), strict=True):
        assert parse_qs(urlsplit(request.url).query)[name] == [key]
        body = request.body if isinstance(request.body, bytes) else request.body.encode()
        assert b'"storageClass": "COLDLINE"' in body


def requests_of(storage: GoogleStorage) -> list[tuple[str, dict[str, list[str]]]]:
    """The method and query of each later request that changes something."""
    sent: list[tuple[str, dict[str, list[str]]]] = []

    def note(response: Any, *_: object, **__: object) -> None:
        if response.request.method != "GET":
            sent.append((response.request.method, parse_qs(urlsplit(response.request.url).query)))

    storage._bucket.session().hooks["response"].append(note)
    return sent


@pytest.mark.parametrize("size", [10, THREE_BLOCKS])
@pytest.mark.parametrize(
    ("acl", "sent"), [(None, []), ("publicRead", ["publicRead"]), ("public-read", ["publicRead"])]
)
def test_an_acl_is_sent_when_it_is_set(
    gcs: GoogleEmulator, size: int, acl: str | None, sent: list[str]
) -> None:
    with google_storage(gcs, acl=acl) as storage:
        requests = requests_of(storage)
        storage.write("a", Source(bytes(size)), BINARY)
    assert [query.get("predefinedAcl", []) for method, query in requests if method == "POST"] == [
        sent
    ]
    assert requests[0][1]["ifGenerationMatch"] == ["0"]


def test_a_copy_gets_the_acl_too(gcs: GoogleEmulator) -> None:
    with google_storage(gcs, acl="publicRead") as storage:
        storage.write("a", Source(b"x"), BINARY)
        requests = requests_of(storage)
        storage.copy("a", "b")
    assert ("PATCH", ["publicRead"]) in [
        (method, query.get("predefinedAcl")) for method, query in requests
    ]


@pytest.mark.parametrize("size", [10, THREE_BLOCKS])
def test_bytes_that_change_on_the_way_are_not_kept(
    gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    with FaultProxy(gcs.address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        with google_storage(gcs) as storage:
            proxy.corrupt(b"good", b"evil")
            with pytest.raises(StorageUnavailable):
                storage.write("a", Source(b"good" * (size // 4)), BINARY)
            proxy.work()
            assert keys(storage, "") == []


# The bucket.


def test_a_missing_bucket_is_an_outage_that_names_the_setting(gcs: GoogleEmulator) -> None:
    with google_storage(gcs, "no-such-bucket") as storage:
        for name, call in calls(storage).items():
            if name == "delete two":  # Google reports each missing file.
                continue
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert "kinto.attachment.gcloud.bucket_name" in str(caught.value), name


def test_a_bucket_may_be_made_later(gcs: GoogleEmulator) -> None:
    with google_storage(gcs, f"later-{uuid4().hex}") as storage:
        with pytest.raises(StorageUnavailable):
            storage.stat("a")
        gcs.client().create_bucket(storage.bucket_name)
        with pytest.raises(FileNotFound):
            storage.stat("a")
        storage.write("a", Source(b"x"), BINARY)


def test_the_first_write_makes_the_bucket_if_it_may(gcs: GoogleEmulator) -> None:
    bucket = f"made-{uuid4().hex}"
    options: dict[str, Any] = {"auto_create_bucket": True, "auto_create_acl": "private"}
    with google_storage(gcs, bucket, **options) as storage:
        requests = requests_of(storage)
        written = in_threads(
            8, lambda key: storage.write(key, Source(b"x"), BINARY).key, list("abcdefgh")
        )
        assert keys(storage, "") == written
    assert ("POST", ["private"]) in [
        (method, query.get("predefinedAcl")) for method, query in requests
    ]
    with google_storage(gcs, bucket, auto_create_bucket=True) as storage:
        storage.write("i", Source(b"x"), BINARY)


def test_the_bucket_is_made_in_the_project_that_is_set(gcs: GoogleEmulator) -> None:
    options: dict[str, Any] = {"project": "whose", "auto_create_bucket": True}
    with closing(GoogleStorage(f"made-{uuid4().hex}", **options)) as storage:
        requests = requests_of(storage)
        storage.write("a", Source(b"x"), BINARY)
    assert ["whose"] in [query.get("project") for method, query in requests if method == "POST"]


def test_a_bucket_without_acls_is_made_so(gcs: GoogleEmulator) -> None:
    options: dict[str, Any] = {"auto_create_bucket": True, "uniform_bucket_level_access": True}
    with google_storage(gcs, f"made-{uuid4().hex}", **options) as storage:
        requests = requests_of(storage)
        storage.write("a", Source(b"x"), BINARY)
        assert not any("predefinedAcl" in query for _, query in requests)


@pytest.mark.parametrize("option", ["acl", "auto_create_acl"])
def test_a_bucket_without_acls_takes_none(option: str) -> None:
    with pytest.raises(ConfigurationError, match="uniform_bucket_level_access"):
        GoogleStorage("bucket", uniform_bucket_level_access=True, **{option: "private"})


@pytest.mark.parametrize("option", ["acl", "auto_create_acl"])
def test_an_unknown_acl_stops_the_start(option: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"kinto\.attachment\.gcloud\.{option}.*nobody"):
        GoogleStorage("bucket", **{option: "nobody"})


def test_only_our_files_are_listed(storage: GoogleStorage, gcs: Any, folder: str) -> None:
    storage.write(f"{folder}/a", Source(b"x"), BINARY)
    bucket = gcs.client().bucket(storage.bucket_name)
    for key in ("made-by-a-console/", ".hidden/file"):
        bucket.blob(f"{folder}/{key}").upload_from_string(b"")
    assert keys(storage, f"{folder}/") == [f"{folder}/a"]


def test_each_key_that_stays_is_told(gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = {"a": "204 No Content", "b": "403 Forbidden", "c": "404 Not Found"}
    parts = [
        f"--limit\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n"
        "Content-Type: application/json\r\n\r\n{}\r\n"
        for status in statuses.values()
    ]
    body = ("".join(parts) + "--limit--").encode()
    answer = Answer(200, body, {"Content-Type": "multipart/mixed; boundary=limit"})
    with answering(answer) as (url, requests):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        with (
            google_storage(gcs) as storage,
            pytest.raises(StorageUnavailable) as caught,
        ):
            storage.delete(*statuses)
    assert caught.value.details == {"b": 403}
    assert caught.value.__cause__ is not None
    assert requests.count("POST /batch/storage/v1") == 1


# Credentials and signed URLs.


def test_a_signed_url_serves_the_file_under_its_name(gcs: GoogleEmulator) -> None:
    with google_storage(gcs, credentials=gcs.credentials) as storage:
        storage.write("a b+ü%.bin", Source(b"content"), BINARY)
        url = storage.signed_url("a b+ü%.bin", 60, "résumé 1.txt", "attachment", "text/plain")
    with urllib.request.urlopen(url, timeout=90) as response:
        assert response.read() == b"content"
        disposition = response.headers["Content-Disposition"]
    assert disposition.startswith("attachment; ")
    assert disposition.endswith("filename*=UTF-8''r%C3%A9sum%C3%A9%201.txt")
    query = parse_qs(urlsplit(url).query)
    assert query["response-content-type"] == ["text/plain"]
    assert query["X-Goog-Expires"] == ["60"]
    assert query["X-Goog-Algorithm"] == ["GOOG4-RSA-SHA256"]
    assert query["X-Goog-Credential"][0].startswith("kinto@test.iam.gserviceaccount.com/")


def test_signatures_end_with_the_keys_of_google_s_service(gcs: GoogleEmulator) -> None:
    """The service that signs for machines without a key file rotates its keys."""
    with google_storage(gcs, credentials=gcs.credentials) as storage:
        assert storage.signs_until() is None
    until = signs_until(compute_engine.Credentials())  # type: ignore[no-untyped-call]
    assert until is not None
    left = until - datetime.now(timezone.utc)
    assert timedelta(hours=11) < left <= timedelta(hours=12)


def test_credentials_may_come_from_where_google_keeps_them(
    gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", gcs.credentials)
    with google_storage(gcs, "bucket") as storage:
        url = storage.signed_url("a", 60, "a", "inline", "text/plain")
        assert storage.get_connection().project == "test"
        assert storage.get_bucket().name == "bucket"
    assert url.startswith("https://storage.googleapis.com/bucket/a?")
    assert "kinto%40test.iam.gserviceaccount.com" in url


def test_no_credentials_are_an_outage(
    gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with google_storage(gcs, "bucket") as storage:
        for name, call in calls(storage).items():
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert caught.value.__cause__ is not None, name


def test_credentials_that_cannot_sign_say_so(gcs: GoogleEmulator) -> None:
    with (
        google_storage(gcs) as storage,
        pytest.raises(StorageUnavailable, match="cannot sign"),
    ):
        storage.signed_url("a", 60, "a", "inline", "text/plain")


@pytest.mark.parametrize("content", [None, "", "{}", '{"type": "service_account"}'])
def test_a_key_file_that_is_none_stops_the_start(tmp_path: Any, content: str | None) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"kinto\.attachment\.gcloud\.credentials"):
        GoogleStorage("bucket", credentials=str(path))


def test_nothing_is_sent_at_the_start(
    gcs: GoogleEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy() as proxy:
        proxy.hang()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        GoogleStorage("bucket", credentials=gcs.credentials, auto_create_bucket=True)
        assert proxy.connections == 0


# Processes.


def run(script: str, *arguments: str, fork: bool = True) -> str:
    """Run Python in a separate process and return its output."""
    command = [sys.executable, "-c", script, *arguments]
    done = forking.run(command, fork=fork, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_the_library_the_start_says_what_to_install() -> None:
    script = """
import sys
sys.modules["google.cloud.storage"] = None
from pyramid.exceptions import ConfigurationError
try:
    import kinto_attachment.storage.gcloud
except ConfigurationError as error:
    print(error)
"""
    assert "pip install google-cloud-storage" in run(script)


def test_a_client_survives_a_fork(gcs: GoogleEmulator) -> None:
    script = """
import os, sys
from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.samples import Source, contents
storage = GoogleStorage(sys.argv[1])
storage.write("a", Source(b"parent"), "text/plain")
before = storage._bucket.session()
child = os.fork()
name = "b" if child else "c"
for turn in range(20):
    storage.write(f"{name}/{turn}", Source(name.encode() * 1000), "text/plain")
    assert contents(storage, f"{name}/{turn}") == name.encode() * 1000
    assert contents(storage, "a") == b"parent"
assert (storage._bucket.session() is before) == bool(child)
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""
    assert run(script, gcs.create_bucket()) == "both\n"


def test_memory_stays_flat(gcs: GoogleEmulator) -> None:
    script = """
import sys
from contextlib import closing
from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.samples import MIB
storage = GoogleStorage(sys.argv[1])

class Zeros:
    left = 0
    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

for key, size in [("small", MIB), ("large", 80 * MIB)]:
    zeros = Zeros()
    zeros.left = size
    storage.write(key, zeros, "text/plain")
    with closing(storage.open(key)) as reader:
        assert sum(map(len, iter(lambda: reader.read(MIB), b""))) == size
    # Not ru_maxrss, which begins with what the process had that started this one.
    with open("/proc/self/status") as status:
        print(int(status.read().split("VmHWM:")[1].split()[0]) // 1024)
"""
    small, large = map(int, run(script, gcs.create_bucket(), fork=False).split())
    # A block while it is read, complete, and while it is sent.
    assert large - small < 48, f"{small} MiB for a small file, {large} MiB for a large one"
