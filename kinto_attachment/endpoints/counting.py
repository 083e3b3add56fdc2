"""The metric of uploads, by result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps

from kinto.core.storage.exceptions import BackendError
from pyramid.httpexceptions import HTTPException
from pyramid.response import Response

from kinto_attachment.errors import AttachmentError, QuotaExceeded
from kinto_attachment.kinto_types import Request

View = Callable[[Request], Response]


@dataclass
class Outcome:
    """The status of the response; 201 is for a new record.

    ``is_own`` is False if another request has attached the file, which is then counted instead.
    """

    status: int = 0
    is_own: bool = True


@contextmanager
def counting(request: Request) -> Iterator[Outcome]:
    """Count the block as one upload; the result of an error follows from its class."""
    outcome, result = Outcome(), "failed"
    try:
        yield outcome
        result = "created" if outcome.status == 201 else "updated"
    except AttachmentError as error:
        is_refusal = error.status < 500 or isinstance(error, QuotaExceeded)
        result = "refused" if is_refusal else "failed"
        raise
    except HTTPException:
        result = "refused"
        raise
    except BackendError:
        result = "repeated"  # Or failed, when Kinto's storage does.
        raise
    finally:
        if outcome.is_own:
            metrics = request.registry.metrics
            metrics.count("attachments.uploads", unique=[("result", result)])


def counted(view: View) -> View:
    """Count the requests of a view as uploads."""

    @wraps(view)
    def counting_view(request: Request) -> Response:
        with counting(request) as outcome:
            response = view(request)
            outcome.status = response.status_code
            return response

    return counting_view
