"""The download of an object of Google Cloud Storage."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from google.api_core.exceptions import from_http_response

from .gcloud_bucket import GoogleBucket
from .gcloud_errors import translated


class Download:
    """The body of a download, as a reader."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._response.raw.enforce_content_length = (
            True  # Otherwise a broken connection looks like the end.
        )

    def read(self, size: int = -1, /) -> bytes:
        with translated():
            content: bytes = self._response.raw.read(None if size < 0 else size)
        return content

    def close(self) -> None:
        self._response.close()


def get(bucket: GoogleBucket, key: str, headers: dict[str, str]) -> Any:
    """The response to a GET; None if the range starts at the end of the file or after it."""
    path = f"{quote(bucket.name)}/o/{quote(key, safe='')}"
    url = f"{bucket.client().api_endpoint}/download/storage/v1/b/{path}?alt=media"
    response = bucket.session().get(url, headers=headers, stream=True)
    if response.ok:
        return response
    with response:
        if response.status_code == 416:
            return None
        raise from_http_response(response)
