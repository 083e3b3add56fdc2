"""Choosing who signs the URLs of Google Cloud Storage."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from google.auth.credentials import Signing
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from kinto_attachment.errors import StorageUnavailable

# Google rotates the keys of its own service: its signatures are valid for at least this long.
SERVICE_AGE = timedelta(hours=12)


def signs_until(credentials: Any) -> datetime | None:
    """When all signatures end; None if they are made with a service account's key."""
    if isinstance(credentials, service_account.Credentials):
        return None
    return datetime.now(timezone.utc) + SERVICE_AGE


def signer(credentials: Any) -> dict[str, Any]:
    """The arguments for signing URLs: the key, or Google's service if there is no key.

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
