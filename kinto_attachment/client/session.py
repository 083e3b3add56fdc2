"""kinto-http's session, made patient: it tries again, waits as told, and streams."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import urljoin

import kinto_http
import requests
from kinto_http.constants import USER_AGENT
from kinto_http.exceptions import BackoffException, KintoException
from kinto_http.session import Session as KintoSession
from kinto_http.utils import urljoin as endpoint_url
from requests.exceptions import ChunkedEncodingError, SSLError

from kinto_attachment.client.errors import ClientError, UnavailableError, refusal
from kinto_attachment.client.retries import AGAIN, Retries

logger = logging.getLogger("kinto_attachment.client")

TIMEOUT = 60.0  # Seconds without a byte. The end of a large upload may take a server a while.
REDIRECTS = (302, 303, 307, 308)
BROKEN = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)

T = TypeVar("T")


class Body(Protocol):
    """A request's body: iterated anew for each attempt, of a length known before."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class Session(KintoSession):  # type: ignore[misc]
    """Requests to one server, from any number of threads.

    What kinto-http's session lacks: connections that break are tried again too, pauses grow,
    ``Backoff`` is waited for instead of raised, bodies are sent anew from their start, and
    answers can be streams. Errors are those of :mod:`kinto_attachment.client.errors`.
    """

    def __init__(
        self,
        server_url: str,
        auth: Any = None,
        *,
        retries: Retries | None = None,
        timeout: float = TIMEOUT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # kinto-http's own client knows all forms of ``auth``, strings among them.
        known = kinto_http.Client(server_url=server_url, auth=auth).session.auth
        super().__init__(server_url, auth=known, timeout=timeout, headers=dict(headers or {}))
        self.retries = retries or Retries()
        self._threads = threading.local()  # Sessions of requests are not to be shared.

    def request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """A request with JSON in and out: the answer's body and its headers."""

        def attempt() -> tuple[Any, Any]:
            answer: tuple[Any, Any] = super(Session, self).request(
                method, endpoint, *args, **kwargs
            )
            return answer

        # A second POST to a list would create a second object.
        return self._patiently(attempt, repeatable=method.lower() != "post")

    def send(
        self,
        method: str,
        endpoint: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> requests.Response:
        """A request whose body is not JSON."""
        url = endpoint_url(self.server_url, endpoint)

        def attempt() -> requests.Response:
            watched = _Body(body)
            try:
                response = self._send(method, url, headers, body=watched)
            except requests.RequestException as error:
                raise watched.error or error  # noqa: B904 - it is the error's context.
            # Kinto sends those who leave out its version on to it; a body does not go along.
            return response if response.status_code < 300 else _fail(response)

        return self._patiently(attempt)

    def fetch(self, endpoint: str, headers: Mapping[str, str]) -> requests.Response:
        """A GET whose answer is left to be read from ``raw``, and has to be closed.

        Where the server sends the client on, to a storage, neither credentials nor conditions
        go along: a storage knows neither, and its URL is of one file for ever.
        """
        url = endpoint_url(self.server_url, endpoint)

        def attempt() -> requests.Response:
            response = self._send("GET", url, headers, stream=True)
            location = response.headers.get("Location")
            if response.status_code in REDIRECTS and location:
                response.close()
                target = urljoin(response.url, location)
                kept = {k: v for k, v in headers.items() if not k.startswith("If-")}
                response = self._send("GET", target, kept, stream=True, away=True)
            return response if response.status_code in (200, 206) else _fail(response)

        return self._patiently(attempt)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        stream: bool = False,
        away: bool = False,
    ) -> requests.Response:
        response: requests.Response = self._requests().request(
            method,
            url,
            headers={"User-Agent": USER_AGENT, **self.headers, **headers},
            data=body,
            auth=_nobody if away else self.auth,
            timeout=self.timeout,
            allow_redirects=away,
            stream=stream,
        )
        if re.fullmatch(r"[0-9]{1,5}", pause := response.headers.get("Backoff", "")):
            self.backoff = time.time() + int(pause)
        return response if response.status_code < 400 else _fail(response)

    def _requests(self) -> requests.Session:
        found: requests.Session | None = getattr(self._threads, "session", None)
        if found is None:
            found = self._threads.session = requests.Session()
        return found

    def _patiently(self, attempt: Callable[[], T], *, repeatable: bool = True) -> T:
        number = 1
        while True:
            if self.backoff and (left := self.backoff - time.time()) > 0:
                self.pause(left, "The server asks for a pause")
            try:
                return attempt()
            except BackoffException:  # Another thread was told to wait, between these two lines.
                continue
            except ClientError:  # From the body: no answer of the server's.
                raise
            except (KintoException, requests.RequestException) as error:
                failure, delay = self._judge(error, number, repeatable)
                if delay is None:
                    raise failure from error
            self.pause(delay, str(failure))
            number += 1

    def _judge(
        self, error: Exception, number: int, repeatable: bool
    ) -> tuple[ClientError, float | None]:
        """What the error means, and the seconds after which to try again (None: never)."""
        response = getattr(error, "response", None)
        if response is not None and response.status_code >= 300:
            again = response.status_code in AGAIN
            delay = self.retries.delay(number, response.headers) if again else None
            return refusal(response, number), delay
        # A certificate that is wrong stays wrong.
        again = isinstance(error, BROKEN) and not isinstance(error, SSLError)
        delay = self.retries.delay(number) if again and repeatable else None
        return UnavailableError(f"{self.server_url}: {_plain(error)}", attempts=number), delay

    def pause(self, seconds: float, why: str) -> None:
        """Wait before a request is sent again."""
        logger.warning("%s; again in %.1f s", why, seconds)
        self.retries.sleep(seconds)


class _Body:
    """Remembers what went wrong in a body, which requests takes for a broken connection."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.error: Exception | None = None

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception as error:
            self.error = error
            raise


def _fail(response: requests.Response) -> NoReturn:
    error = KintoException(response.reason)
    error.response = response
    with response:
        _ = response.content  # It says why; it is left unread where a stream was expected.
    raise error


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials, not even those that requests would find in a netrc file."""
    return request


def _plain(error: Exception) -> str:
    """The innermost reason, without the names of the libraries around it."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, Exception):
            inner = next((a for a in error.args if isinstance(a, Exception)), None)
        if inner is None:
            break
        error = inner
    text = str(error) or type(error).__name__
    return re.sub(r"^<[^>]*>: |^[A-Za-z]+\(.*?\): ", "", text)
