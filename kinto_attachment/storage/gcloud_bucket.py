"""A bucket of Google Cloud Storage: one client per process, with our errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import google.auth
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client
from google.cloud.storage.batch import Batch
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.service_account import Credentials
from pyramid.exceptions import ConfigurationError
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from kinto_attachment.errors import (
    AttachmentError,
    FileNotFound,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
)

from . import CHUNK_SIZE
from .patience import CONNECT_TIMEOUT, HASTE, HASTY_TIMEOUT, PATIENCE, READ_TIMEOUT, waiting
from .pieces import Block

CONNECTIONS = 50

FAILURES = (
    GoogleAPICallError,
    RetryError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    RequestException,
    HTTPError,
    OSError,
)
NO_BUCKET = "The bucket of kinto.attachment.gcloud.bucket_name does not exist."


class GoogleBucket:
    """Reaches Google from any thread, before and after a fork, and not before the first call.

    ``timeout`` (seconds) is for connecting and for each block sent, and for each answer and each
    block received; ``last_try``, how long after its beginning a failed call may be made again.
    """

    def __init__(
        self,
        name: str,
        *,
        credentials: str | None = None,
        project: str | None = None,
        timeout: tuple[float, float] = (CONNECT_TIMEOUT, READ_TIMEOUT),
        last_try: float | None = None,
    ) -> None:
        self.name = name
        if last_try is None:  # Short timeouts are not for waiting long.
            last_try = min(PATIENCE, max(HASTE, 1.2 * timeout[1]))
        self.retry = DEFAULT_RETRY.with_timeout(last_try)
        self._credentials = _read_credentials(credentials) if credentials else None
        self._project = project
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sessions: dict[int, BoundedSession] = {}
        self._clients: dict[int, Any] = {}
        self._seen = False

    def client(self) -> Any:
        """Google's client."""
        # By process: a connection that a child shares with its parent garbles both.
        process = os.getpid()
        with self._lock:
            if process not in self._clients:
                with translated():
                    self._build(process)
            return self._clients[process]

    def session(self) -> BoundedSession:
        """What the client sends its requests with."""
        self.client()
        return self._sessions[os.getpid()]

    def blob(self, key: str) -> Any:
        return self.client().bucket(self.name).blob(key)

    def find(self, key: str, *, hasty: bool = False) -> Any:
        """The blob with what Google knows of it.

        :raises FileNotFound: there is none.
        """
        blob = self.blob(key)
        bound = {"timeout": HASTY_TIMEOUT} if hasty else {}
        try:
            with translated():
                blob.reload(retry=self.retry, **bound)
        except FileNotFound:
            self.check()
            raise
        return blob

    def create(self, *, acl: str | None, uniform_access: bool) -> None:
        """Make the bucket, if there is none."""
        with translated():
            if self.client().lookup_bucket(self.name, retry=self.retry) is not None:
                return
            bucket = self.client().bucket(self.name)
            bucket.iam_configuration.uniform_bucket_level_access_enabled = uniform_access
            try:
                self.client().create_bucket(bucket, predefined_acl=acl, retry=self.retry)
            except GoogleAPICallError as error:
                if error.code != 409:  # Somebody else has just made it.
                    raise

    def check(self) -> None:
        """:raises StorageUnavailable: the bucket, rather than a file, is what was not found."""
        if self._seen:
            return
        try:
            with translated():
                self.client().get_bucket(self.name, retry=self.retry)
        except FileNotFound as error:
            raise StorageUnavailable(NO_BUCKET) from error
        except StorageUnavailable as error:
            # Who may use the objects may not be allowed to look at the bucket; then it exists.
            if status_of(error.__cause__) != 403:
                raise
        self._seen = True

    def close(self) -> None:
        """Close idle connections; later calls open new ones."""
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()
            self._clients.clear()

    def _build(self, process: int) -> None:
        credentials, project = self._credentials, self._project
        if credentials is not None:
            project = project or credentials.project_id
        elif os.environ.get("STORAGE_EMULATOR_HOST"):
            credentials = AnonymousCredentials()
        else:
            credentials, found = google.auth.default(scopes=Client.SCOPE)
            project = project or found
        session = BoundedSession(credentials, self._timeout)
        self._sessions[process] = session
        self._clients[process] = Client(project=project, credentials=credentials, _http=session)


class BoundedSession(AuthorizedSession):  # type: ignore[misc]
    """Google's session, that never waits longer than we do, nor for fewer connections."""

    def __init__(self, credentials: Any, timeout: tuple[float, float]) -> None:
        super().__init__(credentials)
        self._bound = timeout
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        self.hooks["response"].append(read_refusal)

    def request(self, method: str, url: str, data: Any = None, **kwargs: Any) -> Any:
        # The library asks for a minute, or two, or for ever, depending on the call.
        connect, read = self._bound
        hasty = kwargs.pop("timeout", None) == HASTY_TIMEOUT  # Ours, not the library's.
        timeout = (
            (min(connect, HASTY_TIMEOUT), min(read, HASTY_TIMEOUT)) if hasty else (connect, read)
        )
        # All at once, a block would have to be sent within one timeout.
        if isinstance(data, bytes) and len(data) > CHUNK_SIZE:
            data = Block(data)
        elif isinstance(data, Block):
            data.seek(0)  # It is sent again, with a new token.
        with waiting(data, hasty=hasty):
            return super().request(method, url, data=data, timeout=timeout, **kwargs)


def read_refusal(response: Any, *_: object, **__: object) -> None:
    # Google's session renews its token, asks again, and forgets this answer: whoever does not
    # read it has lost the connection.
    if response.status_code == 401:
        _ = response.content


class BatchOfAnswers(Batch):  # type: ignore[misc]
    """A batch that keeps the answer to each of its calls, rather than raise one of them."""

    def finish(self, raise_exception: bool = False) -> Any:
        self.answers = super().finish(raise_exception=False)
        return self.answers


@contextmanager
def translated(*others: type[Exception]) -> Iterator[None]:
    """Raise the errors of Google's libraries, and ``others``, as ours."""
    try:
        yield
    except (*FAILURES, *others) as error:
        raise _ours(error) from error


def status_of(error: BaseException | None) -> int:
    """The HTTP status that Google answered with, or 0."""
    if isinstance(error, RetryError):
        error = error.cause
    if isinstance(error, GoogleAPICallError):
        return int(error.code or 0)
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return 0


def _ours(error: Exception) -> AttachmentError:
    status = status_of(error)
    if status == 404:
        return FileNotFound()
    if status == 412:
        return KeyTaken()
    if status == 507:
        return StorageFull()
    return StorageUnavailable()


def _read_credentials(path: str) -> Any:
    try:
        return Credentials.from_service_account_file(path, scopes=Client.SCOPE)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"kinto.attachment.gcloud.credentials: no service account key in {path!r} ({error})."
        ) from error
