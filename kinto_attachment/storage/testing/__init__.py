"""What a storage must do, as tests: for a backend of one's own, too (they need pytest).

:class:`StorageContract` is what every storage does. The contract of a capability is a subclass
of it. In the tests of a backend, subclass those of its capabilities (or, if it has none,
``StorageContract``), and give them two fixtures::

    class TestMyStorage(ListsFilesContract, CopiesFilesContract):
        @pytest.fixture
        def storage(self):
            return MyStorage(...)

        @pytest.fixture
        def broken_storage(self):
            return MyStorage(...)  # Its disk fails, or its server cannot be reached.

No rule can be left out: a capability that the storage has, and whose contract is not among the
base classes, fails the tests.
"""

import pytest

# So that a failing rule shows the values it compared.
pytest.register_assert_rewrite(f"{__name__}.core", f"{__name__}.capabilities")

from .capabilities import (  # noqa: E402
    CopiesFilesContract,
    HasPathsContract,
    ListsFilesContract,
    ListsUnfinishedContract,
    SignsUrlsContract,
)
from .core import StorageContract  # noqa: E402

__all__ = [
    "CopiesFilesContract",
    "HasPathsContract",
    "ListsFilesContract",
    "ListsUnfinishedContract",
    "SignsUrlsContract",
    "StorageContract",
]
