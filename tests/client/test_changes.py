"""``client.changes(since)``: changes after a timestamp."""

from __future__ import annotations

import io

import pytest

from kinto_attachment.client import AttachmentClient, Change, lists


def changes(client: AttachmentClient, since: int = 0) -> list[tuple[str, int | None, bool]]:
    """The id, the size of the file and whether the record is deleted."""
    return [
        (change.id, change.attachment and change.attachment.size, change.deleted)
        for change in client.changes(since)
    ]


def upload(client: AttachmentClient, record: str, size: int = 1) -> None:
    client.upload(record, io.BytesIO(b"x" * size), filename="a.txt")


def test_in_the_order_of_the_changes(client: AttachmentClient) -> None:
    for size, record in enumerate(("a", "b", "c"), 1):
        upload(client, record, size)
    upload(client, "a", 10)
    client.remove("b")
    client.kinto.delete_record(id="c")
    assert changes(client) == [("a", 10, False), ("b", None, False), ("c", None, True)]
    upload(client, "d")
    everything = list(client.changes())
    assert [change.last_modified for change in everything] == sorted(
        change.last_modified for change in everything
    )
    for number, change in enumerate(everything, 1):
        assert list(client.changes(change.last_modified)) == everything[number:]


def test_what_was_deleted_long_ago_is_told_from_the_start(client: AttachmentClient) -> None:
    upload(client, "a")
    client.kinto.delete_record(id="a")
    (change,) = client.changes()
    assert change == Change("a", change.last_modified, None, deleted=True)
    upload(client, "a")
    assert changes(client) == [("a", 1, False)]


def test_page_by_page(local: AttachmentClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE", 2)
    for number in range(5):
        upload(local, f"r{number}", number + 1)
    assert changes(local) == [(f"r{number}", number + 1, False) for number in range(5)]
