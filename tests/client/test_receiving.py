"""Decompressed gzip files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

import pytest

from kinto_attachment.client.errors import MismatchError
from kinto_attachment.client.receiving import gunzip
from kinto_attachment.client.sources import BLOCK


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("size", [1, 1000, BLOCK], ids=lambda size: f"in pieces of {size}")
@pytest.mark.parametrize(
    "content",
    [b"", b"x", os.urandom(5000), *(b"\0" * (BLOCK * n + m) for n in (1, 3) for m in (-1, 0, 1))],
    ids=len,
)
def test_gunzip(content: bytes, size: int) -> None:
    packed = gzip.compress(content)
    assert b"".join(gunzip(pieces(packed, size), "f")) == content
    assert b"".join(gunzip(pieces(packed + packed, size), "f")) == content * 2


def test_gunzip_gives_no_more_at_a_time_than_it_should() -> None:
    packed = gzip.compress(b"\0" * 50_000_000)
    assert len(packed) < BLOCK
    sizes = [len(piece) for piece in gunzip(iter([packed]), "f")]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= BLOCK


@pytest.mark.parametrize("size", [1, BLOCK])
def test_gunzip_refuses_what_is_no_gzip_file(size: int) -> None:
    packed = gzip.compress(b"content")
    for bad in (b"no gzip", packed[:-1], packed[:5], packed + b"rest", packed[:-1] + b"!"):
        with pytest.raises(MismatchError, match=r"f\.txt cannot be decompressed"):
            list(gunzip(pieces(bad, size), "f.txt"))
