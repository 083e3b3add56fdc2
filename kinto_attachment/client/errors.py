"""What can go wrong with a client's request."""

from __future__ import annotations

from typing import Any

from kinto_http.exceptions import KintoException


class ClientError(KintoException):  # type: ignore[misc]
    """Base of all errors of the client: one of kinto-http's, whose text is for people.

    ``response`` is the server's answer, None when there was none. ``attempts`` is how many
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
    """There is no such record, the record has no attachment, or no file has this key."""


class NotAllowedError(ClientError):
    """The user may not do this, or the server does not know who it is (403, 401)."""


class ConflictError(ClientError):
    """The record, or its file, is not what it was expected to be (412)."""


class RejectedError(ClientError):
    """The server does not take what was sent (any other 4xx)."""


class UnavailableError(ClientError):
    """The server cannot be reached, or fails, and did so on every attempt."""


class MismatchError(ClientError):
    """The bytes do not have the size and the hash that they should have; nothing is kept."""


KINDS = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 412: ConflictError}


def refusal(response: Any, attempts: int = 1) -> ClientError:
    """The error for an answer that is none of 2xx."""
    status = response.status_code
    if status < 400:
        where = response.headers.get("Location")
        message = f"{status} {response.reason}: the server is at {where}; is `/v1` missing?"
        return RejectedError(message, response=response, attempts=attempts)
    kind = KINDS.get(status, UnavailableError if status >= 500 else RejectedError)
    return kind(f"{status} {_reason(response)}", response=response, attempts=attempts)


def _reason(response: Any) -> str:
    try:
        answer = response.json()
        return (
            f"{answer['error']}: {answer['message']}" if "error" in answer else answer["message"]
        )
    except (ValueError, KeyError, TypeError):  # Not Kinto: a proxy, a storage, a load balancer.
        return str(response.reason)
