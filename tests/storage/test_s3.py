"""S3, on the server of moto and on SeaweedFS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kinto_attachment.storage.s3 import S3Storage
from kinto_attachment.storage.testing import StorageContract
from tests.faults import FaultProxy
from tests.services import S3


def options(server: S3, bucket: str, **changes: Any) -> dict[str, Any]:
    return {
        "bucket_name": bucket,
        "endpoint_url": server.endpoint_url,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        **changes,
    }


@pytest.fixture(scope="module")
def moto_storage(moto: S3) -> Iterator[S3Storage]:
    storage = S3Storage(**options(moto, moto.create_bucket()))
    yield storage
    storage.close()


@pytest.fixture(scope="module")
def seaweedfs_storage(seaweedfs: S3) -> Iterator[S3Storage]:
    storage = S3Storage(**options(seaweedfs, seaweedfs.create_bucket()))
    yield storage
    storage.close()


class S3Contract(StorageContract):
    @pytest.fixture
    def broken_storage(self, storage: S3Storage) -> Iterator[S3Storage]:
        with FaultProxy() as proxy:
            proxy.refuse()
            broken = S3Storage(
                "bucket", endpoint_url=proxy.url, access_key="a", secret_key="s", num_retries=1
            )
            yield broken
            broken.close()


class TestMoto(S3Contract):
    @pytest.fixture
    def storage(self, moto_storage: S3Storage) -> S3Storage:
        return moto_storage


class TestSeaweedFS(S3Contract):
    @pytest.fixture
    def storage(self, seaweedfs_storage: S3Storage) -> S3Storage:
        return seaweedfs_storage
