"""The storages of a server: the default one, and those with a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kinto_attachment.errors import StorageNotConfigured
from kinto_attachment.parsers import DEFAULT_STORAGE, DownloadMode

from . import FileStorage


@dataclass(frozen=True)
class Storage:
    """A configured storage: its backend, and how its files are found and sent.

    ``name`` is the name in the index: empty for the default storage. ``base_url`` is None if
    locations are URLs of the server; ``advertised_url`` is shown to clients.
    """

    name: str
    files: FileStorage
    downloads: DownloadMode
    base_url: str | None = None
    advertised_url: str = ""
    public: bool = False
    signed_url_ttl: int = 300  # Seconds.

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name or DEFAULT_STORAGE


def metric_of(storage: str, metric: str) -> str:
    """The name of a metric about one storage. The default storage has the plain name."""
    return metric.replace("attachments", f"attachments.{storage}", 1) if storage else metric


class Storages:
    """All storages of a server, by their names in the index; the default one comes first."""

    def __init__(self, storages: Mapping[str, Storage]) -> None:
        self._storages = dict(storages)

    @property
    def default(self) -> Storage:
        return self._storages[""]

    def __getitem__(self, name: str) -> Storage:
        """:raises StorageNotConfigured: no storage has this name."""
        try:
            return self._storages[name]
        except KeyError as error:
            raise StorageNotConfigured(name) from error

    def get(self, name: str) -> Storage | None:
        return self._storages.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._storages

    def __iter__(self) -> Iterator[Storage]:
        return iter(self._storages.values())

    def __len__(self) -> int:
        return len(self._storages)
