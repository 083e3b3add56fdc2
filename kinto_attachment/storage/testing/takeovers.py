"""The tests for writers that others take over while they hang or still write."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from kinto_attachment.storage import Partial
from kinto_attachment.storage.samples import MIB, TIMEOUT, Source, assert_contents, in_threads

from .core import StorageContract
from .partial_upload import LATE, TakenOver, Upload


class TakeoversContract(StorageContract):
    """Part of the contract of storages that continue writes."""

    @pytest.mark.parametrize("wakes", ["before the end", "after the end", "after the finish"])
    @pytest.mark.parametrize("hangs_at", range(4))
    @pytest.mark.parametrize("size", [3, 3 * MIB])
    def test_a_writer_that_was_taken_over_changes_nothing(
        self, storage: Any, folder: str, size: int, hangs_at: int, wakes: str
    ) -> None:
        """The writer hangs before one of its reads or in a checkpoint, and continues after others
        have written, or even finished the file.
        """
        others = b"def" * size + b"ghi" * size

        def hang(_: int = 0) -> None:
            moments.append(upload.partial.size)
            if len(moments) == hangs_at + 1:
                upload.append(others[: 3 * size])
                if wakes != "before the end":
                    upload.append(others[3 * size :])
                if wakes == "after the finish":
                    upload.finish()

        moments: list[int] = []
        upload = Upload(storage, f"{folder}/a")
        upload.append(b"abc" * size)
        with pytest.raises(LATE):
            upload.append(Source(b"x" * 4 * size, size, on_read=hang), lambda: hang())
        if wakes == "before the end":
            upload.append(others[3 * size :])
        upload.finish()
        upload.discard_what_is_left()
        kept = moments[hangs_at] - 3 * size
        assert_contents(storage, f"{folder}/a", b"abc" * size + b"x" * kept + others)

    @pytest.mark.parametrize("begins", ["after another", "after the finish"])
    @pytest.mark.parametrize("size", [3, 6 * MIB])
    def test_a_writer_that_begins_late_changes_nothing(
        self, storage: Any, folder: str, size: int, begins: str
    ) -> None:
        """The writer hung after it got its Partial and before it did anything."""

        def refuse(_: Partial) -> None:
            raise TakenOver

        upload = Upload(storage, f"{folder}/a")
        upload.append(b"abc" * size)
        late = upload.partial
        upload.take_over()
        upload.append(b"def" * size)
        if begins == "after the finish":
            upload.finish()
        with suppress(*LATE):
            storage.append(late, Source(b"x" * size), refuse)
        upload.finish()
        upload.discard_what_is_left()
        assert_contents(storage, f"{folder}/a", b"abc" * size + b"def" * size)

    def test_two_writers_at_once_are_not_mixed(self, storage: Any, folder: str) -> None:
        """The first writer still writes while the one that has taken over does."""
        upload, expected = Upload(storage, f"{folder}/a"), b""
        for _ in range(5):
            both = threading.Barrier(2, timeout=TIMEOUT)

            def meet(_: int, both: threading.Barrier = both) -> None:
                with suppress(threading.BrokenBarrierError):
                    both.wait()

            def write(letter: bytes, both: threading.Barrier = both) -> bytes:
                try:
                    upload.append(Source(letter * 4000, 1000, on_read=meet))
                except LATE:
                    return b""
                finally:
                    both.abort()
                return letter

            written = b"".join(in_threads(2, write, [b"x", b"y"]))
            assert len(written) == 1
            expected += written * 4000
        upload.finish()
        upload.discard_what_is_left()
        assert_contents(storage, f"{folder}/a", expected)

    def test_a_writer_may_be_taken_over_again_and_again(self, storage: Any, folder: str) -> None:
        upload = Upload(storage, f"{folder}/a")
        for letter in (b"a", b"b", b"c"):
            for _ in range(20):
                upload.take_over()
            upload.append(letter * MIB)
        upload.finish()
        assert_contents(storage, f"{folder}/a", b"a" * MIB + b"b" * MIB + b"c" * MIB)
