"""The contract of storages at a smaller scale, for storages on which its tests take long.

``--every-case`` runs it as it is.
"""

from __future__ import annotations

import pytest

from kinto_attachment.storage import gcloud, partials, s3
from kinto_attachment.storage.samples import MIB
from kinto_attachment.storage.testing import core, partials as partials_contract
from tests.support.sampling import every_case

AT_ONCE = core.AT_ONCE if every_case() else 40


class SmallScale:
    """Storages list and delete less at once, and tell of checkpoints earlier.

    A subclass has to see to it that a page of a listing has :data:`AT_ONCE` files. How much it is
    otherwise shows on the local disk and in memory, and in tests of the requests.
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
