"""S3, on moto's server and on SeaweedFS."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from pyramid.exceptions import ConfigurationError

from kinto_attachment.errors import FileNotFound, KeyTaken, StorageUnavailable, TooLarge
from kinto_attachment.options import PIECE_SIZE
from kinto_attachment.storage import s3_upload
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.samples import BINARY, MIB, Source, contents, keys
from kinto_attachment.storage.testing import (
    ContinuesWritesContract,
    CopiesFilesContract,
    KeepsSiteContract,
    KnowsHashesContract,
    ListsFilesContract,
    ListsUnfinishedContract,
    SignsUrlsContract,
    UploadsDirectlyContract,
)
from tests.support import forking
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.objects import PART, THREE_PARTS, answer, calls, hooked, recorded, s3_storage
from tests.support.sampling import sampled
from tests.support.services import S3
from tests.support.small_scale import AT_ONCE, SmallScale

ON_BOTH = pytest.mark.parametrize(
    "server",
    [
        pytest.param("moto", marks=pytest.mark.moto),
        pytest.param("seaweedfs", marks=pytest.mark.seaweedfs),
    ],
    indirect=True,
)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def storage(server: S3) -> Iterator[S3Storage]:
    with s3_storage(server) as storage:
        yield storage


@pytest.fixture(scope="module")
def default_storage(server: S3) -> Iterator[S3Storage]:
    """A storage with the default size of parts."""
    with s3_storage(server, part_size=PIECE_SIZE) as storage:
        yield storage


@pytest.fixture
def folder() -> str:
    return uuid4().hex


def small_page(params: dict[str, Any], **_: Any) -> None:
    params["MaxKeys"] = AT_ONCE


def unfinished(storage: S3Storage, folder: str) -> list[str]:
    """Unfinished uploads below a name, since other tests also leave some."""
    keys = [each.key for each in storage.list_unfinished()]
    return [key for key in keys if key.startswith(folder)]


@ON_BOTH
@sampled(2)
class TestS3Storage(
    SmallScale,
    ListsFilesContract,
    CopiesFilesContract,
    ListsUnfinishedContract,
    ContinuesWritesContract,
    KeepsSiteContract,
    KnowsHashesContract,
    SignsUrlsContract,
    UploadsDirectlyContract,
):
    @pytest.fixture
    def storage(self, default_storage: S3Storage) -> Iterator[S3Storage]:
        listing = "before-parameter-build.s3.ListObjectsV2"
        with hooked(default_storage, listing, small_page, early=False):
            yield default_storage

    @pytest.fixture
    def broken_storage(self, server: S3) -> Iterator[S3Storage]:
        with FaultProxy(server.address) as proxy:
            proxy.refuse()
            with s3_storage(server, endpoint_url=proxy.url, num_retries=1) as storage:
                yield storage


# Writing.


@ON_BOTH
@pytest.mark.parametrize("size", [10, THREE_PARTS])
def test_the_object_has_the_headers_it_is_served_with(server: S3, size: int) -> None:
    with s3_storage(server, cache_control="max-age=60") as storage:
        storage.write("a", Source(bytes(size)), "text/plain", disposition='inline; filename="e"')
        storage.copy("a", "b")
        for key in ("a", "b"):
            found = server.client().head_object(Bucket=storage.bucket_name, Key=key)
            assert found["ContentType"] == "text/plain"
            assert found["ContentDisposition"] == 'inline; filename="e"'
            assert found["CacheControl"] == "max-age=60"


@pytest.mark.parametrize("size", [10, THREE_PARTS])
@pytest.mark.parametrize(
    ("encryption", "key"), [("AES256", None), ("aws:kms", None), ("aws:kms", "alias/files")]
)
def test_each_way_to_create_an_object_has_its_class_and_encryption(
    moto: S3, monkeypatch: pytest.MonkeyPatch, size: int, encryption: str, key: str | None
) -> None:
    """In one call, in parts, and as a copy in one call or in parts.

    moto records the settings, and encrypts nothing. Only AWS shows whether a key may be used.
    """
    monkeypatch.setattr(s3_upload, "COPIED_AT_ONCE", PART)
    options = {"storage_class": "STANDARD_IA", "encryption": encryption, "kms_key_id": key}
    with s3_storage(moto, **options) as storage:
        with recorded(storage) as requests:
            storage.write("a", Source(bytes(size)), BINARY)
            storage.copy("a", "b")
        for name in ("a", "b"):
            found = moto.client().head_object(Bucket=storage.bucket_name, Key=name)
            assert found["ContentLength"] == size
            assert found["StorageClass"] == "STANDARD_IA"
            assert found["ServerSideEncryption"] == encryption
            assert key is None or found["SSEKMSKeyId"].endswith(key)
    creating = {"PutObject", "CopyObject", "CreateMultipartUpload"}
    created = [(operation, headers) for operation, headers in requests if operation in creating]
    # In parts, too: the empty object that claims a name on servers other than AWS's.
    one_call, parts = {"PutObject", "CopyObject"}, {"PutObject", "CreateMultipartUpload"}
    assert {operation for operation, _ in created} == (one_call if size == 10 else parts)
    for _, headers in created:
        assert headers["x-amz-storage-class"] == "STANDARD_IA"
        assert headers["x-amz-server-side-encryption"] == encryption
        assert headers.get("x-amz-server-side-encryption-aws-kms-key-id") == key


def test_a_compatible_server_may_have_classes_of_its_own(seaweedfs: S3) -> None:
    with s3_storage(seaweedfs, storage_class="STANDARD_IA") as storage:
        storage.write("a", Source(b"content"), BINARY)
        storage.copy("a", "b")
        assert contents(storage, "b") == b"content"
        found = seaweedfs.client().head_object(Bucket=storage.bucket_name, Key="b")
        assert found["StorageClass"] == "STANDARD_IA"
    # This one has not.
    with (
        s3_storage(seaweedfs, storage_class="FAST") as storage,
        pytest.raises(StorageUnavailable) as refused,
    ):
        storage.write("a", Source(b"content"), BINARY)
    assert "InvalidStorageClass" in str(refused.value.__cause__)
    with pytest.raises(ConfigurationError, match="storage_class: 'FAST' is not one of STANDARD"):
        S3Storage("bucket", storage_class="FAST", region="eu-central-1")


@ON_BOTH
def test_no_header_is_sent_that_is_not_set(storage: S3Storage, server: S3, folder: str) -> None:
    storage.write(folder, Source(b"x"), BINARY)
    found = server.client().head_object(Bucket=storage.bucket_name, Key=folder)
    assert "ContentDisposition" not in found
    assert "CacheControl" not in found
    with recorded(storage) as requests:
        storage.write(f"{folder}/large", Source(bytes(THREE_PARTS)), BINARY)
    names = {name for _, headers in requests for name in headers}
    assert not any("storage-class" in name or "encryption" in name for name in names)


@pytest.mark.parametrize(
    ("acl", "size", "public"),
    [(None, 10, False), ("public-read", 10, True), ("public-read", THREE_PARTS, True)],
)
def test_the_acl_is_the_one_that_is_set(moto: S3, acl: str, size: int, public: bool) -> None:
    with s3_storage(moto, acl=acl) as storage:
        storage.write("a", Source(bytes(size)), BINARY)
        storage.copy("a", "b")
        for key in ("a", "b"):
            found = moto.client().get_object_acl(Bucket=storage.bucket_name, Key=key)
            everybody = "http://acs.amazonaws.com/groups/global/AllUsers"
            grants = [grant["Grantee"].get("URI") for grant in found["Grants"]]
            assert (everybody in grants) == public


@ON_BOTH
@pytest.mark.parametrize("size", [10, THREE_PARTS])
def test_no_acl_is_sent_unless_it_is_set(storage: S3Storage, folder: str, size: int) -> None:
    # Buckets with disabled ACLs refuse requests with an ACL.
    with recorded(storage) as requests:
        storage.write(f"{folder}/a", Source(bytes(size)), BINARY)
        storage.copy(f"{folder}/a", f"{folder}/b")
    assert requests
    assert not any("x-amz-acl" in headers for _, headers in requests)


def test_the_server_checks_the_bytes(seaweedfs: S3) -> None:
    with FaultProxy(seaweedfs.address) as proxy:
        server = S3(proxy.url, seaweedfs.access_key, seaweedfs.secret_key)
        with s3_storage(server, seaweedfs.create_bucket()) as storage:
            proxy.corrupt(b"good", b"evil")
            for size in (10, 2 * MIB):
                with pytest.raises(StorageUnavailable):
                    storage.write("a", Source(b"good" * size), BINARY)
            proxy.work()
            assert keys(storage, "") == []
            assert list(storage.list_unfinished()) == []


@ON_BOTH
@pytest.mark.parametrize("size", [10, THREE_PARTS])
def test_every_byte_goes_with_a_checksum(storage: S3Storage, folder: str, size: int) -> None:
    storage.write(f"{folder}/a", Source(b"x"), BINARY)  # To learn the server's features.
    with recorded(storage) as requests:
        storage.write(f"{folder}/b", Source(bytes(size)), BINARY)
    bodies = [headers for name, headers in requests if name in ("PutObject", "UploadPart")]
    assert len(bodies) == (1 if size == 10 else 4), "three parts, and what claims the key"
    assert all(headers["x-amz-checksum-crc32"] for headers in bodies)


# Files are never overwritten, whatever the server supports.


@ON_BOTH
def test_what_a_server_heeds_is_found_out_once(server: S3, folder: str) -> None:
    with s3_storage(server) as storage, recorded(storage) as requests:
        for name in "ab":
            storage.write(f"{folder}/{name}", Source(b"x"), BINARY)
    assert [name for name, _ in requests] == [
        *("HeadObject", "HeadBucket", "PutObject", "PutObject"),
        "PutObject",
    ]
    assert all(
        headers["if-none-match"] == "*" for name, headers in requests if name == "PutObject"
    )


@ON_BOTH
@pytest.mark.parametrize("size", [10, THREE_PARTS])
def test_a_server_that_ignores_conditions_is_asked_first(server: S3, size: int) -> None:
    def ignore(request: Any, **_: Any) -> None:
        del request.headers["If-None-Match"]

    with s3_storage(server) as storage, hooked(storage, "before-sign.s3.PutObject", ignore):
        for key in ("a", "b"):
            storage.write(key, Source(b"first"), BINARY)
            with pytest.raises(KeyTaken):
                storage.write(key, Source(bytes(size)), BINARY)
            assert contents(storage, key) == b"first"
        assert list(storage.list_unfinished()) == []


@ON_BOTH
@pytest.mark.parametrize("size", [10, THREE_PARTS])
def test_a_server_without_conditions_will_do(server: S3, size: int) -> None:
    refuse = answer(501, "NotImplemented")

    def hook(request: Any, **kwargs: Any) -> Any:
        return refuse(request) if "If-None-Match" in request.headers else None

    with s3_storage(server) as storage, hooked(storage, "before-send.s3", hook):
        storage.write("a", Source(b"x" * size), BINARY)
        assert contents(storage, "a") == b"x" * size
        with pytest.raises(KeyTaken):
            storage.write("a", Source(bytes(size)), BINARY)
        assert contents(storage, "a") == b"x" * size


@pytest.fixture
def as_on_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinto_attachment.storage.s3_bucket.S3Bucket.is_aws", True)


@ON_BOTH
@pytest.mark.usefixtures("as_on_aws")
@pytest.mark.parametrize("size", [10, THREE_PARTS])
def test_on_aws_the_condition_is_enough(storage: S3Storage, folder: str, size: int) -> None:
    with recorded(storage) as requests:
        storage.write(folder, Source(b"x" * size), BINARY)
        with pytest.raises(KeyTaken):
            storage.write(folder, Source(bytes(size)), BINARY)
    names = [name for name, _ in requests]
    assert "HeadObject" not in names
    last = "PutObject" if size == 10 else "CompleteMultipartUpload"
    assert [headers.get("if-none-match") for name, headers in requests if name == last] == [
        "*"
    ] * 2
    assert contents(storage, folder) == b"x" * size
    assert unfinished(storage, folder) == []


def test_aws_is_known_by_its_host(moto: S3) -> None:
    for options, is_aws in [
        ({"endpoint_url": None}, True),
        ({"endpoint_url": None, "region": "eu-north-1"}, True),
        ({"endpoint_url": None, "region": "cn-north-1"}, True),
        ({"endpoint_url": "https://s3.eu-west-1.amazonaws.com"}, True),
        ({"endpoint_url": "https://amazonaws.com.example.org"}, False),
        ({}, False),
    ]:
        with s3_storage(moto, "bucket", **options) as storage:
            assert storage._bucket.is_aws == is_aws


@ON_BOTH
def test_a_conflict_is_a_taken_key_or_a_failure(storage: S3Storage, folder: str) -> None:
    storage.write(f"{folder}/taken", Source(b"x"), BINARY)
    conflict = answer(409, "ConditionalRequestConflict")
    with hooked(storage, "before-send.s3.PutObject", conflict):
        with pytest.raises(KeyTaken):
            storage.write(f"{folder}/taken", Source(b"y"), BINARY)
        with pytest.raises(StorageUnavailable):
            storage.write(f"{folder}/free", Source(b"y"), BINARY)
    assert contents(storage, f"{folder}/taken") == b"x"


@ON_BOTH
def test_a_large_file_is_copied_in_parts(
    storage: S3Storage, server: S3, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "COPIED_AT_ONCE", PART)
    content = bytes(range(256)) * (THREE_PARTS // 256)
    storage.write(f"{folder}/a", Source(content), "text/plain")
    with recorded(storage) as requests:
        copied = storage.copy(f"{folder}/a", f"{folder}/b")
    assert [name for name, _ in requests].count("UploadPartCopy") == 3
    with pytest.raises(KeyTaken):
        storage.copy(f"{folder}/a", f"{folder}/b")
    assert copied.size == THREE_PARTS
    assert contents(storage, f"{folder}/b") == content
    assert storage.stat(f"{folder}/b").content_type == "text/plain"
    assert unfinished(storage, folder) == []


@ON_BOTH
def test_a_file_of_too_many_parts_is_too_large(
    storage: S3Storage, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "MAX_PARTS", 2)
    storage.write(f"{folder}/a", Source(bytes(2 * PART)), BINARY)
    with pytest.raises(TooLarge):
        storage.write(f"{folder}/b", Source(bytes(2 * PART + 1)), BINARY)
    assert keys(storage, folder) == [f"{folder}/a"]
    assert unfinished(storage, folder) == []


@ON_BOTH
def test_parts_are_as_large_as_set(server: S3) -> None:
    content = bytes(range(256)) * (11 * MIB // 256)
    with s3_storage(server, part_size=5 * MIB) as storage, recorded(storage) as requests:
        storage.write("a", Source(content), BINARY)
        sizes = [int(sent["content-length"]) for name, sent in requests if name == "UploadPart"]
        assert sorted(sizes) == [1 * MIB, 5 * MIB, 5 * MIB]
        assert contents(storage, "a") == content


@ON_BOTH
def test_larger_parts_are_for_larger_files(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_upload, "MAX_PARTS", 2)
    with s3_storage(server, part_size=6 * MIB) as storage:
        storage.write("a", Source(bytes(12 * MIB)), BINARY)
        with pytest.raises(TooLarge, match="12582912 bytes"):
            storage.write("b", Source(bytes(12 * MIB + 1)), BINARY)
        assert keys(storage, "") == ["a"]


# Listing and deleting.


@ON_BOTH
def test_only_our_files_are_listed(storage: S3Storage, server: S3, folder: str) -> None:
    storage.write(f"{folder}/a", Source(b"x"), BINARY)
    for key in ("made-by-a-console/", ".hidden/file"):
        server.client().put_object(Bucket=storage.bucket_name, Key=f"{folder}/{key}", Body=b"")
    assert keys(storage, f"{folder}/") == [f"{folder}/a"]


@ON_BOTH
def test_unfinished_uploads_are_listed_and_discarded(server: S3) -> None:
    client = server.client()
    with s3_storage(server) as storage:
        target = {"Bucket": storage.bucket_name, "Key": "a/b"}
        upload = client.create_multipart_upload(**target)["UploadId"]
        for number in (1, 2):
            body = bytes(5 * MIB)
            client.upload_part(**target, UploadId=upload, PartNumber=number, Body=body)
        [unfinished] = storage.list_unfinished()
        assert (unfinished.id, unfinished.key, unfinished.size) == (upload, "a/b", 10 * MIB)
        assert unfinished.modified.tzname() == "UTC"
        storage.discard_unfinished(unfinished)
        assert list(storage.list_unfinished()) == []
        storage.discard_unfinished(unfinished)


def test_each_key_that_stays_is_told() -> None:
    body = b"""<DeleteResult>
        <Error><Key>b</Key><Code>AccessDenied</Code><Message>No.</Message></Error>
        <Error><Key>c</Key><Code>NoSuchKey</Code></Error>
    </DeleteResult>"""
    with (
        answering(Answer(200, body)) as (url, requests),
        s3_storage(S3(url, "key", "secret"), "bucket") as storage,
        pytest.raises(StorageUnavailable) as caught,
    ):
        storage.delete(*"abc", *map(str, range(1000)))
    assert caught.value.details == {"b": "AccessDenied"}
    assert "AccessDenied" in str(caught.value.__cause__)
    assert len(requests) == 2, "what is left does not keep the others from being deleted"


# Signed URLs.


def fetch(url: str) -> tuple[bytes, Any]:
    with urllib.request.urlopen(url, timeout=90) as response:
        return response.read(), response.headers


@ON_BOTH
def test_a_signed_url_serves_the_file_under_its_name(storage: S3Storage, folder: str) -> None:
    key = f"{folder}/a b+ü%.bin"
    storage.write(key, Source(b"content"), BINARY)
    url = storage.signed_url(key, 60, "résumé 1.txt", "attachment", "text/plain")
    content, headers = fetch(url)
    assert content == b"content"
    assert headers["Content-Type"] == "text/plain"
    disposition = headers["Content-Disposition"]
    assert disposition.startswith("attachment; ")
    assert disposition.endswith("filename*=UTF-8''r%C3%A9sum%C3%A9%201.txt")
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["60"]


def test_a_signed_url_opens_nothing_else(seaweedfs: S3) -> None:
    with s3_storage(seaweedfs) as storage:
        storage.write("a", Source(b"a"), BINARY)
        storage.write("b", Source(b"b"), BINARY)
        url = storage.signed_url("a", 60, "a", "inline", "text/plain")
        for forged in (
            url.replace("/a?", "/b?"),
            url.replace("text%2Fplain", "text%2Fhtml"),
            url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
            url.partition("?")[0],
        ):
            assert forged != url
            with pytest.raises(urllib.error.HTTPError) as caught:
                fetch(forged)
            caught.value.close()
            assert caught.value.code == 403


# The place of the bucket.


def test_the_server_can_be_named_by_host_and_port(seaweedfs: S3) -> None:
    host, port = seaweedfs.address
    options = {"host": host, "port": port, "is_secure": False, "endpoint_url": None}
    with s3_storage(seaweedfs, **options) as storage:
        storage.write("a", Source(b"x"), BINARY)
        assert contents(storage, "a") == b"x"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"host": "s3.example"}, "https://s3.example/bucket/a?"),
        ({"host": "s3.example", "is_secure": False}, "http://s3.example/bucket/a?"),
        (
            {"host": "s3.example", "port": 81, "use_path_style": True},
            "https://s3.example:81/bucket/a?",
        ),
        ({"endpoint_url": "http://s3.example:81/"}, "http://s3.example:81/bucket/a?"),
        ({"endpoint_url": "http://127.0.0.1:81"}, "http://127.0.0.1:81/bucket/a?"),
        ({"region": "eu-north-1"}, "https://bucket.s3.eu-north-1.amazonaws.com/a?"),
        (
            {"region": "eu-north-1", "use_path_style": True},
            "https://s3.eu-north-1.amazonaws.com/bucket/a?",
        ),
    ],
)
def test_the_address_is_made_of_the_settings(options: dict[str, Any], start: str) -> None:
    storage = S3Storage("bucket", access_key="key", secret_key="secret", **options)
    assert storage.signed_url("a", 60, "a", "inline", BINARY).startswith(start)
    storage.close()


def test_the_address_may_come_from_where_aws_keeps_it(
    seaweedfs: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs.endpoint_url)
    with s3_storage(seaweedfs, endpoint_url=None) as storage:
        storage.write("a", Source(b"x"), BINARY)
        assert contents(storage, "a") == b"x"
        assert not storage._bucket.is_aws


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "s3.example"},
        {"endpoint_url": "ftp://s3.example"},
        {"endpoint_url": "http://"},
        {"endpoint_url": "http://s3.example", "host": "s3.example"},
        {"port": 81},
    ],
)
def test_an_address_that_is_none_stops_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"S3 server|kinto\.attachment\.aws"):
        S3Storage("bucket", **options)


def test_credentials_may_come_from_where_aws_keeps_them(
    seaweedfs: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = seaweedfs.create_bucket()
    options = {"access_key": None, "secret_key": None, "region": None}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    with s3_storage(seaweedfs, bucket, **options) as storage:
        storage.write("a", Source(b"x"), BINARY)
        assert contents(storage, "a") == b"x"


def test_signed_urls_end_with_temporary_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    given = {"AccessKeyId": "key", "SecretAccessKey": "secret", "SessionToken": "token"}
    answer = json.dumps({"Version": 1, **given, "Expiration": end.isoformat()})
    (tmp_path / "credentials.json").write_text(answer)
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {tmp_path / 'credentials.json'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert S3Storage("bucket", region="eu-central-1").signs_until() == end
    own = S3Storage("bucket", region="eu-central-1", access_key="key", secret_key="secret")
    assert own.signs_until() is None


def test_wrong_credentials_are_an_outage(seaweedfs: S3) -> None:
    with s3_storage(seaweedfs, secret_key="wrong") as storage:
        for name, call in calls(storage).items():
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert caught.value.__cause__ is not None, name


def test_no_credentials_are_an_outage(moto: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with (
        s3_storage(moto, access_key=None, secret_key=None) as storage,
        pytest.raises(StorageUnavailable),
    ):
        storage.stat("a")


@ON_BOTH
def test_a_missing_bucket_is_an_outage_that_names_the_setting(server: S3) -> None:
    with s3_storage(server, "no-such-bucket") as storage:
        for name, call in calls(storage).items():
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert "kinto.attachment.aws.bucket_name" in str(caught.value), name


@ON_BOTH
def test_a_bucket_may_be_made_later(server: S3) -> None:
    with s3_storage(server, f"later-{uuid4().hex}") as storage:
        with pytest.raises(StorageUnavailable):
            storage.stat("a")
        server.client().create_bucket(Bucket=storage.bucket_name)
        with pytest.raises(FileNotFound):
            storage.stat("a")
        storage.write("a", Source(b"x"), BINARY)


def test_nothing_is_sent_at_the_start() -> None:
    with FaultProxy() as proxy:
        proxy.hang()
        S3Storage("bucket", endpoint_url=proxy.url)
        assert proxy.connections == 0


# Processes.


def run(script: str, *arguments: str, fork: bool = True) -> str:
    """Run Python in a separate process and return its output."""
    command = [sys.executable, "-c", script, *arguments]
    done = forking.run(command, fork=fork, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_boto3_the_start_says_what_to_install() -> None:
    script = """
import sys
for name in [*sys.modules]:
    if name.startswith(("boto", "kinto_attachment.storage.s3")):
        del sys.modules[name]
sys.modules["boto3"] = None
from pyramid.exceptions import ConfigurationError
try:
    import kinto_attachment.storage.s3
except ConfigurationError as error:
    print(error)
"""
    assert "pip install boto3" in run(script)


def test_a_client_survives_a_fork(seaweedfs: S3) -> None:
    script = """
import os, sys
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.samples import Source, contents
_, bucket, url, access_key, secret_key = sys.argv
storage = S3Storage(bucket, endpoint_url=url, access_key=access_key, secret_key=secret_key)
storage.write("a", Source(b"parent"), "text/plain")
before = storage.s3_client
child = os.fork()
name = "b" if child else "c"
for turn in range(20):
    storage.write(f"{name}/{turn}", Source(name.encode() * 1000), "text/plain")
    assert contents(storage, f"{name}/{turn}") == name.encode() * 1000
    assert contents(storage, "a") == b"parent"
assert (storage.s3_client is before) == bool(child), "no connection is shared"
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""
    bucket = seaweedfs.create_bucket()
    keys = (seaweedfs.access_key, seaweedfs.secret_key)
    assert run(script, bucket, seaweedfs.endpoint_url, *keys) == "both\n"


def test_memory_stays_flat(seaweedfs: S3) -> None:
    script = """
import sys
from contextlib import closing
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.samples import MIB, Source, read_all
_, bucket, url, access_key, secret_key = sys.argv
PART = 5 * MIB
keys = {"access_key": access_key, "secret_key": secret_key}
storage = S3Storage(bucket, endpoint_url=url, part_size=PART, **keys)

class Zeros:
    left = 0
    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

for key, size in [("small", MIB), ("large", 72 * MIB)]:
    zeros = Zeros()
    zeros.left = size
    storage.write(key, zeros, "text/plain")
    with closing(storage.open(key)) as reader:
        assert sum(map(len, iter(lambda: reader.read(MIB), b""))) == size
    # Not ru_maxrss, which begins with what the process had that started this one.
    with open("/proc/self/status") as status:
        print(int(status.read().split("VmHWM:")[1].split()[0]) // 1024)
"""
    bucket = seaweedfs.create_bucket()
    keys = (seaweedfs.access_key, seaweedfs.secret_key)
    printed = run(script, bucket, seaweedfs.endpoint_url, *keys, fork=False)
    small, large = map(int, printed.split())
    # Four parts being sent and one being read, each in a buffer with room to grow: about 40.
    assert large - small < 52, f"{small} MiB for a small file, {large} MiB for a large one"
