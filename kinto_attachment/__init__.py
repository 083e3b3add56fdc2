"""Attach files to Kinto records: ``kinto.includes = kinto_attachment``.

The names are imported on first use, because clients need neither them nor Kinto.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinto_attachment.files.events import (
        AttachmentAdded,
        AttachmentEvent,
        AttachmentRead,
        AttachmentReceiving,
        AttachmentRemoved,
        AttachmentReplaced,
    )
    from kinto_attachment.files.guard import allow_metadata_changes
    from kinto_attachment.files.server_code import (
        attach,
        copy_attachment,
        open_attachment,
        signed_url,
    )
    from kinto_attachment.kinto_types import Configurator

    __version__: str

__all__ = [
    "AttachmentAdded",
    "AttachmentEvent",
    "AttachmentRead",
    "AttachmentReceiving",
    "AttachmentRemoved",
    "AttachmentReplaced",
    "allow_metadata_changes",
    "attach",
    "copy_attachment",
    "includeme",
    "open_attachment",
    "signed_url",
]

# Where the names are defined.
HOMES = {
    "AttachmentAdded": "files.events",
    "AttachmentEvent": "files.events",
    "AttachmentRead": "files.events",
    "AttachmentReceiving": "files.events",
    "AttachmentRemoved": "files.events",
    "AttachmentReplaced": "files.events",
    "allow_metadata_changes": "files.guard",
    "attach": "files.server_code",
    "copy_attachment": "files.server_code",
    "open_attachment": "files.server_code",
    "signed_url": "files.server_code",
}


def includeme(config: Configurator) -> None:
    """Set the plugin up in Kinto's Pyramid application."""
    from kinto_attachment.plugin import set_up

    set_up(config)


if not TYPE_CHECKING:  # Otherwise a type checker would accept any name.

    def __getattr__(name: str) -> Any:
        """A name that is used for the first time (PEP 562)."""
        if name == "__version__":
            from importlib.metadata import version

            found = version("kinto-attachment")
        elif name in HOMES:
            # Modules of Kinto import each other. Threads that import different modules first would
            # deadlock.
            import_module("kinto.core")
            found = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, found)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
