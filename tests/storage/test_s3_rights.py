"""The rights that an AWS account needs: all of these, and no others."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import boto3
import pytest

from kinto_attachment.errors import FileNotFound, StorageUnavailable
from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.samples import BINARY, MIB, Source, contents, keys
from tests.support import services
from tests.support.objects import THREE_PARTS, s3_storage
from tests.support.services import S3

ON_OBJECTS = [
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
]
ON_THE_BUCKET = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]

pytestmark = pytest.mark.moto


def policy(bucket: str, without: str = "") -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [action for action in actions if action != without],
                "Resource": resource,
            }
            for actions, resource in [
                (ON_OBJECTS, f"arn:aws:s3:::{bucket}/*"),
                (ON_THE_BUCKET, f"arn:aws:s3:::{bucket}"),
            ]
        ],
    }


class Account:
    """A user of a server that checks permissions from the first call of ``grant`` on."""

    def __init__(self, server: S3) -> None:
        self.server = server
        self.bucket = server.create_bucket()
        self.iam = boto3.client(
            "iam",
            endpoint_url=server.endpoint_url,
            aws_access_key_id="root",
            aws_secret_access_key="root",
            region_name="us-east-1",
        )
        self.iam.create_user(UserName="kinto")
        key = self.iam.create_access_key(UserName="kinto")["AccessKey"]
        self.keys = {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}

    def grant(self, policy: dict[str, Any]) -> None:
        self._allow("inf")
        self.iam.put_user_policy(
            UserName="kinto", PolicyName="policy", PolicyDocument=json.dumps(policy)
        )
        self._allow("0")

    def _allow(self, number: str) -> None:
        """Allow that many calls before permissions are checked."""
        url = f"{self.server.endpoint_url}/moto-api/reset-auth"
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, number.encode(), headers)
        urllib.request.urlopen(request, timeout=90).close()


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "inf")
        with services.moto() as server:
            account = Account(server)
            yield account
            account.iam.close()


@pytest.fixture
def storage(account: Account) -> Iterator[S3Storage]:
    with s3_storage(account.server, account.bucket, num_retries=1, **account.keys) as storage:
        yield storage


def break_off(storage: S3Storage) -> None:
    """Write until the client disconnects; fails if anything stays on the server."""

    def fail(position: int) -> None:
        if position >= 12 * MIB:
            raise ConnectionResetError

    with suppress(ConnectionResetError):
        storage.write("broken", Source(bytes(16 * MIB), on_read=fail), BINARY)
    if any(unfinished.key == "broken" for unfinished in storage.list_unfinished()):
        raise StorageUnavailable


# The purpose of each right. Deleting many files at once is missing: moto never allows it.
NEEDED: dict[str, Callable[[S3Storage], object]] = {
    "s3:PutObject": lambda storage: storage.write("a", Source(b"x"), BINARY),
    "s3:GetObject": lambda storage: contents(storage, "a"),
    "s3:ListBucket": lambda storage: keys(storage, ""),
    "s3:ListBucketMultipartUploads": lambda storage: list(storage.list_unfinished()),
    "s3:ListMultipartUploadParts": lambda storage: list(storage.list_unfinished()),
    "s3:AbortMultipartUpload": break_off,
    "s3:DeleteObject": lambda storage: storage.delete("a"),
}


def test_these_rights_are_enough(account: Account, storage: S3Storage) -> None:
    account.grant(policy(account.bucket))
    for call in NEEDED.values():
        call(storage)
    with pytest.raises(FileNotFound):
        storage.stat("a")
    storage.write("large", Source(bytes(THREE_PARTS)), "text/plain")
    storage.copy("large", "copy")
    assert contents(storage, "copy") == bytes(THREE_PARTS)
    storage.delete("large")
    storage.delete("copy")
    partial = storage.begin("0" * 32, "chunks", BINARY)
    for size in (3 * MIB, 4 * MIB):
        partial = storage.append(partial, Source(bytes(size)), lambda _: None)
    storage.finish(partial)
    assert contents(storage, "chunks") == bytes(7 * MIB)
    storage.delete("chunks")
    for left in storage.list_unfinished():  # One at a time: see NEEDED.
        storage.discard_unfinished(left)
    assert list(storage.list_unfinished()) == []


@pytest.mark.parametrize("action", [*ON_OBJECTS, *ON_THE_BUCKET])
def test_none_of_these_rights_can_be_left_out(
    account: Account, storage: S3Storage, action: str
) -> None:
    account.grant(policy(account.bucket))
    storage.delete("a")
    if action != "s3:PutObject":
        storage.write("a", Source(b"x"), BINARY)
    storage.s3_client.create_multipart_upload(Bucket=account.bucket, Key="unfinished")
    account.grant(policy(account.bucket, without=action))
    with pytest.raises(StorageUnavailable):
        NEEDED[action](storage)
    account.grant(policy(account.bucket))
    for unfinished in storage.list_unfinished():
        storage.discard_unfinished(unfinished)
