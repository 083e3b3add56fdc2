"""Every error of the package becomes a response with its status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kinto.core.errors import ERRORS
from pyramid.httpexceptions import status_map

from kinto_attachment.endpoints.refusals import STATUSES
from kinto_attachment.errors import AttachmentError, WrongChecksum


def kinds(base: type[AttachmentError] = AttachmentError) -> Iterator[type[AttachmentError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str), ids=lambda kind: kind.__name__)
def test_status_and_errno(kind: type[AttachmentError]) -> None:
    assert STATUSES[kind.status]().status_code == kind.status
    assert ERRORS(kind.errno).name == kind.errno.name
    assert kind.message


def test_the_status_of_tus() -> None:
    assert WrongChecksum.status not in status_map
    assert STATUSES[460]().status == "460 Checksum Mismatch"
