"""The contract of storages at a smaller scale, for storages on which its tests are slow.

``--every-case`` runs it at full scale.
"""

from __future__ import annotations

import pytest

from kinto_attachment.storage import gcloud, partials, s3
from kinto_attachment.storage.samples import MIB
from kinto_attachment.storage.testing import core, partials as partials_contract
from tests.support.sampling import every_case

AT_ONCE = core.AT_ONCE if every_case() else 40


class SmallScale:
    """Storages list and delete fewer files at once, and report checkpoints earlier.

    A subclass has to make a page of a listing have :data:`AT_ONCE` files. The real numbers are
    tested on the local disk and in memory, and in tests of the requests.
    """

    @pytest.fixture(autouse=True)
    def smaller_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if every_case():
            return
        monkeypatch.setattr(core, "AT_ONCE", AT_ONCE)
        for module in (s3, gcloud):
            monkeypatch.setattr(module, "DELETED_AT_ONCE", AT_ONCE)

    @pytest.fixture(autouse=True)
    def earlier_checkpoints(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_long = request.function.__name__ == "test_checkpoints_come_from_time_to_time"
        if is_long and not every_case():
            monkeypatch.setattr(partials, "CHECKPOINT_BYTES", 8 * MIB)
            monkeypatch.setattr(partials_contract, "LONG", 20)
