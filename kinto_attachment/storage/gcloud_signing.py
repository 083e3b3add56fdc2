"""Who signs the URLs of Google Cloud Storage."""

from __future__ import annotations

from typing import Any

from google.auth.credentials import Signing
from google.auth.transport.requests import Request

from kinto_attachment.errors import StorageUnavailable


def signer(credentials: Any) -> dict[str, Any]:
    """The arguments that say who signs URLs: the key, or Google's service if there is none.

    :raises StorageUnavailable: these credentials cannot sign.
    """
    if isinstance(credentials, Signing):
        return {"credentials": credentials}
    if not hasattr(credentials, "service_account_email"):
        raise StorageUnavailable("The credentials for Google Cloud Storage cannot sign URLs.")
    if not credentials.valid:
        credentials.refresh(Request())
    return {
        "service_account_email": credentials.service_account_email,
        "access_token": credentials.token,
    }
