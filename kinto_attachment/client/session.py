"""kinto-http's session with retries, pauses that the server asks for, and streaming."""

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
from requests.exceptions import ChunkedEncodingError, ProxyError, SSLError

from kinto_attachment.client.errors import ClientError, UnavailableError, refusal
from kinto_attachment.client.proxies import proxy_of
from kinto_attachment.client.retries import Retries, has_retried_status

logger = logging.getLogger("kinto_attachment.client")

TIMEOUT = 60.0  # Seconds without a byte. A server may need long after the end of a large upload.
REDIRECTS = (302, 303, 307, 308)
CONNECTION_ERRORS = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)

T = TypeVar("T")


class Stream(Protocol):
    """A request's body: of known length, and iterated from the start for each attempt."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


Body = Stream | bytes


class Session(KintoSession):  # type: ignore[misc]
    """Requests to one server, from any number of threads.

    In addition to kinto-http's session, it retries after broken connections, with growing pauses;
    it waits for ``Backoff`` instead of raising an error; it retries uploads from their start; and
    it can stream responses. ``ca_bundle`` is a file of certificates to trust. Errors are those of
    :mod:`kinto_attachment.client.errors`.
    """

    def __init__(
        self,
        server_url: str,
        auth: Any = None,
        *,
        retries: Retries | None = None,
        timeout: float = TIMEOUT,
        headers: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        # kinto-http's client converts all forms of ``auth``.
        known = kinto_http.Client(server_url=server_url, auth=auth).session.auth
        super().__init__(server_url, auth=known, timeout=timeout, headers=dict(headers or {}))
        self.retries = retries or Retries()
        self.ca_bundle = ca_bundle
        self._threads = threading.local()  # Threads must not share sessions of requests.

    def request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Send a request with JSON; returns the response's JSON and headers."""

        kwargs.setdefault("verify", self.ca_bundle)

        def attempt() -> tuple[Any, Any]:
            answer: tuple[Any, Any] = super(Session, self).request(
                method, endpoint, *args, **kwargs
            )
            return answer

        # A second POST to a list would create a second object.
        return self.retry(attempt, repeatable=method.lower() != "post")

    def send(
        self,
        method: str,
        endpoint: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> requests.Response:
        """Send a request whose body is not JSON; ``endpoint`` may also be a whole URL."""
        return self.retry(lambda: self.send_once(method, endpoint, headers, body))

    def send_once(
        self, method: str, endpoint: str, headers: Mapping[str, str], body: Body = b""
    ) -> requests.Response:
        """Like :meth:`send`, without retries; for functions that are passed to :meth:`retry`."""
        is_url = endpoint.startswith(("http://", "https://"))
        url = endpoint if is_url else endpoint_url(self.server_url, endpoint)
        watched = _Body(body) if not isinstance(body, bytes) else None
        try:
            response = self._send(method, url, headers, body=watched or body)
        except requests.RequestException as error:
            raise (watched and watched.error) or error  # noqa: B904 - it is its context.
        # Kinto redirects URLs without a version. A redirect loses the body: an error.
        return response if response.status_code < 300 else _fail(response)

    def send_elsewhere(
        self, method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> requests.Response:
        """Send a request to a signed URL, without credentials; for :meth:`retry`, too."""
        watched = _Body(body) if not isinstance(body, bytes) else None
        try:
            response = self._requests().request(
                method,
                url,
                headers={"User-Agent": USER_AGENT, **headers},
                data=watched or body,
                auth=_no_credentials,
                timeout=self.timeout,
                allow_redirects=False,
                verify=self.ca_bundle,
            )
        except requests.RequestException as error:
            raise (watched and watched.error) or error  # noqa: B904 - it is its context.
        return response if response.status_code < 300 else _fail(response)

    def fetch(self, endpoint: str, headers: Mapping[str, str]) -> requests.Response:
        """Send a GET; read the response from its ``raw``, and close it.

        A redirect to a storage is followed without credentials and preconditions: the storage
        does not know them, and its URL is always the one of the same file.
        """
        url = endpoint_url(self.server_url, endpoint)

        def attempt() -> requests.Response:
            response = self._send("GET", url, headers, stream=True)
            location = response.headers.get("Location")
            if response.status_code in REDIRECTS and location:
                response.close()
                target = urljoin(response.url, location)
                kept = {k: v for k, v in headers.items() if not k.startswith("If-")}
                response = self._send("GET", target, kept, stream=True, offsite=True)
            return response if response.status_code in (200, 206) else _fail(response)

        return self.retry(attempt)

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        stream: bool = False,
        offsite: bool = False,
    ) -> requests.Response:
        response: requests.Response = self._requests().request(
            method,
            url,
            headers={"User-Agent": USER_AGENT, **self.headers, **headers},
            data=body,
            auth=_no_credentials if offsite else self.auth,
            timeout=self.timeout,
            allow_redirects=offsite,
            verify=self.ca_bundle,  # None: the bundle of the environment, or of requests.
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

    def retry(
        self,
        attempt: Callable[[], T],
        *,
        repeatable: bool = True,
        passes: Callable[[requests.Response], bool] = has_retried_status,
    ) -> T:
        """Repeat something until it succeeds, or fails for a permanent reason.

        ``passes`` says whether the reason of a response is temporary.

        :raises ClientError: the last failure.
        """
        number = 1
        while True:
            if self.backoff and (left := self.backoff - time.time()) > 0:
                self.pause(left, "The server asks for a pause")
            try:
                return attempt()
            except BackoffException:  # Another thread was told to wait in the meantime.
                continue
            except ClientError:  # It was raised by the body.
                raise
            except (KintoException, requests.RequestException) as error:
                failure, delay = self._classify(error, number, repeatable, passes)
                if delay is None:
                    raise failure from error
            self.pause(delay, str(failure))
            number += 1

    def _classify(
        self,
        error: Exception,
        number: int,
        repeatable: bool,
        passes: Callable[[requests.Response], bool],
    ) -> tuple[ClientError, float | None]:
        """The client's error, and the seconds to wait before a retry (None: no retry)."""
        response = getattr(error, "response", None)
        if response is not None and response.status_code >= 300:
            delay = self.retries.delay(number, response.headers) if passes(response) else None
            return refusal(response, number), delay
        # An invalid certificate stays invalid.
        again = isinstance(error, CONNECTION_ERRORS) and not isinstance(error, SSLError)
        delay = self.retries.delay(number) if again and repeatable else None
        where = str(self.server_url)
        if isinstance(error, ProxyError):
            where += f", by the proxy {proxy_of(where)}"
        return UnavailableError(f"{where}: {_innermost_reason(error)}", attempts=number), delay

    def pause(self, seconds: float, why: str) -> None:
        """Wait before a retry."""
        logger.warning("%s; retrying in %.1f s", why, seconds)
        self.retries.sleep(seconds)


class _Body:
    """Keeps the error of a body, which requests would report as a broken connection."""

    def __init__(self, body: Stream) -> None:
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
        _ = response.content  # Read the error: streams are not read yet.
    raise error


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials, not even those of a netrc file."""
    return request


def _innermost_reason(error: Exception) -> str:
    """The message of the innermost error, without the names of libraries."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, Exception):
            inner = next((a for a in error.args if isinstance(a, Exception)), None)
        if inner is None:
            break
        error = inner
    text = str(error) or type(error).__name__
    return re.sub(r"^<[^>]*>: |^[A-Za-z]+\(.*?\): ", "", text)
