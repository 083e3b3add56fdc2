"""The contract of storages as tests, also for third-party backends; they need pytest.

:class:`StorageContract` has the tests for all storages. The contract of a capability is a subclass
of it. In the tests of a backend, subclass the contracts of its capabilities (or
``StorageContract`` if it has none), and define two fixtures::

    class TestMyStorage(ListsFilesContract, CopiesFilesContract):
        @pytest.fixture
        def storage(self):
            return MyStorage(...)

        @pytest.fixture
        def broken_storage(self):
            return MyStorage(...)  # With a failing disk, or a server that is down.

No test can be left out: the tests fail if the storage has a capability whose contract is not among
the base classes.
"""

import pytest

# So that a failing test shows the values that it compared.
_modules = (
    *("base", "writing", "reading", "keys", "core"),
    *("capabilities", "partial_upload", "takeovers", "partials", "direct", "hashes"),
)
for _module in _modules:
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from .capabilities import (  # noqa: E402
    CopiesFilesContract,
    HasPathsContract,
    KeepsSiteContract,
    ListsFilesContract,
    ListsUnfinishedContract,
    SignsUrlsContract,
)
from .core import StorageContract  # noqa: E402
from .direct import UploadsDirectlyContract  # noqa: E402
from .hashes import KnowsHashesContract  # noqa: E402
from .partials import ContinuesWritesContract  # noqa: E402

__all__ = [
    "ContinuesWritesContract",
    "CopiesFilesContract",
    "HasPathsContract",
    "KeepsSiteContract",
    "KnowsHashesContract",
    "ListsFilesContract",
    "ListsUnfinishedContract",
    "SignsUrlsContract",
    "StorageContract",
    "UploadsDirectlyContract",
]
