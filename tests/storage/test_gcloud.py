"""Google Cloud Storage, on its emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kinto_attachment.storage.gcloud import GoogleStorage
from kinto_attachment.storage.testing import StorageContract
from tests.faults import FaultProxy
from tests.services import GoogleEmulator


@pytest.fixture(scope="module")
def shared_storage(gcs: GoogleEmulator) -> Iterator[GoogleStorage]:
    storage = GoogleStorage(gcs.create_bucket(), credentials=gcs.credentials)
    yield storage
    storage.close()


class TestGoogleStorage(StorageContract):
    @pytest.fixture
    def storage(self, shared_storage: GoogleStorage) -> GoogleStorage:
        return shared_storage

    @pytest.fixture
    def broken_storage(self, gcs, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleStorage]:
        with FaultProxy() as proxy:
            proxy.refuse()
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
            storage = GoogleStorage("bucket")
            storage._bucket.retry = storage._bucket.retry.with_timeout(0.1)
            yield storage
            storage.close()
