"""Who signs the URLs of Google Cloud Storage."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from google.auth.credentials import Signing
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from kinto_attachment.errors import StorageUnavailable

# Google rotates the keys of its own service: what it signs is valid for so long at least.
SERVICE_AGE = timedelta(hours=12)


def signs_until(credentials: Any) -> datetime | None:
    """When signatures end, whatever they say; None if they are made with a key of their own."""
    if isinstance(credentials, service_account.Credentials):
        return None
    return datetime.now(timezone.utc) + SERVICE_AGE


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
