"""The errors of the client."""

from __future__ import annotations

from typing import Any

from kinto_http.exceptions import KintoException


class ClientError(KintoException):  # type: ignore[misc]
    """Base of all errors of the client, and itself a kinto-http error; the text is for users.

    ``response`` is the server's response, None if there was none. ``attempts`` is how many
    times the request was sent.
    """

    def __init__(self, message: str, *, response: Any = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.response = response
        self.request = getattr(response, "request", None)
        self.attempts = attempts

    def __str__(self) -> str:
        return str(self.message)


class NotFoundError(ClientError):
    """The record does not exist or has no attachment, or there is no file with this key."""


class NotAllowedError(ClientError):
    """The user is not allowed to do this (403) or not authenticated (401)."""


class ConflictError(ClientError):
    """The record or its file does not match a precondition (412)."""


class RejectedError(ClientError):
    """The server refuses the request (any other 4xx)."""


class QuotaError(ClientError):
    """The quota of the bucket or collection would be exceeded (507); see ``details``.

    ``details`` has ``limit`` (``quota_bytes`` or ``quota_files``), ``of`` (the URI of the bucket
    or collection), ``quota``, ``used`` and ``left``.
    """

    def __init__(self, message: str, *, response: Any = None, attempts: int = 1) -> None:
        super().__init__(message, response=response, attempts=attempts)
        self.details: dict[str, Any] = {} if response is None else response.json()["details"]


class UnavailableError(ClientError):
    """The server could not be reached, or failed, in all attempts."""


class MismatchError(ClientError):
    """The bytes do not have the expected size and hash; they are not kept."""


KINDS = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 412: ConflictError}


def refusal(response: Any, attempts: int = 1) -> ClientError:
    """The error for a response whose status is not 2xx."""
    status = response.status_code
    if status < 400:
        where = response.headers.get("Location")
        message = f"{status} {response.reason}: the server is at {where}; is `/v1` missing?"
        return RejectedError(message, response=response, attempts=attempts)
    kind = KINDS.get(status, UnavailableError if status >= 500 else RejectedError)
    if status == 507 and _is_of_quota(response):
        kind = QuotaError
    return kind(f"{status} {_reason(response)}", response=response, attempts=attempts)


def _reason(response: Any) -> str:
    try:
        answer = response.json()
        if "message" not in answer:
            return _missing(answer)
        return (
            f"{answer['error']}: {answer['message']}" if "error" in answer else answer["message"]
        )
    except (
        ValueError,
        KeyError,
        TypeError,
    ):  # The response is from a proxy, a storage or a load balancer.
        return str(response.reason)


def _is_of_quota(response: Any) -> bool:
    """Whether a 507 is about a quota and not about a full storage."""
    try:
        return bool(response.json()["details"]["reason"] == "quota")
    except (ValueError, KeyError, TypeError):
        return False


def _missing(answer: Any) -> str:
    """Kinto's 404 has no message, only the kind and the id of the missing object."""
    details = answer["details"]
    return f"{answer['error']}: there is no {details['resource_name']} {details['id']!r}"
