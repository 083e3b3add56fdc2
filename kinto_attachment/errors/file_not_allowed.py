"""The error for a file's extension, a subclass of pyramid_storage's: only for servers."""

from __future__ import annotations

from pyramid_storage.exceptions import FileNotAllowed as StorageFileNotAllowed

from kinto_attachment.errors.bodies import InvalidForm


class FileNotAllowed(InvalidForm, StorageFileNotAllowed):  # type: ignore[misc]
    """The file's extension is not among the allowed ones; also pyramid_storage's error."""

    message = "body: File extension is not allowed."
