"""Access to a bucket of Google Cloud Storage: one client per process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import google.auth
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client
from google.cloud.storage.batch import Batch
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.service_account import Credentials
from pyramid.exceptions import ConfigurationError
from requests.adapters import HTTPAdapter

from kinto_attachment.errors import FileNotFound, StorageUnavailable

from . import CHUNK_SIZE
from .gcloud_errors import NO_BUCKET, status_of, translated
from .pieces import Block
from .wait_budget import (
    BUDGET,
    CLEANUP_BUDGET,
    CLEANUP_TIMEOUT,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    within_budget,
)

CONNECTIONS = 50
LISTED = "items(name,size,timeCreated,contentType),nextPageToken"


class GoogleBucket:
    """Can be used from any thread, before and after a fork; connects with the first call.

    ``timeout`` is a pair of seconds: for connecting and for each block sent; for each response
    and each block received. ``last_try`` is the number of seconds after the start of a call
    during which it may be retried.
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
        if last_try is None:  # With short timeouts, do not retry for long.
            last_try = min(BUDGET, max(CLEANUP_BUDGET, 1.2 * timeout[1]))
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
        # Per process: a child must not use the connections of its parent.
        process = os.getpid()
        with self._lock:
            if process not in self._clients:
                with translated():
                    self._build(process)
            return self._clients[process]

    def session(self) -> BoundedSession:
        """The HTTP session that the client uses."""
        self.client()
        return self._sessions[os.getpid()]

    def blob(self, key: str, **options: Any) -> Any:
        return self.client().bucket(self.name).blob(key, **options)

    def find(self, key: str, *, cleanup: bool = False) -> Any:
        """The blob with its metadata.

        :raises FileNotFound: there is no such object.
        """
        blob = self.blob(key)
        bound = {"timeout": CLEANUP_TIMEOUT} if cleanup else {}
        try:
            with translated():
                blob.reload(retry=self.retry, **bound)
        except FileNotFound:
            self.check()
            raise
        return blob

    def list(self, prefix: str) -> Iterator[Any]:
        """The blobs, with what a listing needs of their metadata."""
        with translated():
            blobs = iter(
                self.client().list_blobs(self.name, prefix=prefix, fields=LISTED, retry=self.retry)
            )
        while True:
            try:
                with translated():
                    blob = next(blobs, None)
            except FileNotFound as error:
                raise StorageUnavailable(NO_BUCKET) from error
            if blob is None:
                return
            yield blob

    def create(self, *, acl: str | None, uniform_access: bool) -> None:
        """Create the bucket if it does not exist."""
        with translated():
            if self.client().lookup_bucket(self.name, retry=self.retry) is not None:
                return
            bucket = self.client().bucket(self.name)
            bucket.iam_configuration.uniform_bucket_level_access_enabled = uniform_access
            try:
                self.client().create_bucket(bucket, predefined_acl=acl, retry=self.retry)
            except GoogleAPICallError as error:
                if error.code != 409:  # Another process has just created it.
                    raise

    def check(self) -> None:
        """Make sure that a 404 was about an object, and not about the bucket.

        :raises StorageUnavailable: the bucket does not exist.
        """
        if self._seen:
            return
        try:
            with translated():
                self.client().get_bucket(self.name, retry=self.retry)
        except FileNotFound as error:
            raise StorageUnavailable(NO_BUCKET) from error
        except StorageUnavailable as error:
            # 403: the bucket exists, but these credentials may only access its objects.
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
    """Google's session with our timeouts, and a larger pool of connections."""

    def __init__(self, credentials: Any, timeout: tuple[float, float]) -> None:
        super().__init__(credentials)
        self._bound = timeout
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        self.hooks["response"].append(read_refusal)

    def request(self, method: str, url: str, data: Any = None, **kwargs: Any) -> Any:
        # Depending on the call, the library sets a timeout of minutes, or none.
        connect, read = self._bound
        cleanup = kwargs.pop("timeout", None) == CLEANUP_TIMEOUT  # Set by us, not by the library.
        if cleanup:
            connect, read = min(connect, CLEANUP_TIMEOUT), min(read, CLEANUP_TIMEOUT)
        # The timeout is for each send: bytes would be sent with a single one.
        if isinstance(data, bytes) and len(data) > CHUNK_SIZE:
            data = Block(data)
        elif isinstance(data, Block):
            data.seek(0)  # A retry with a new token starts at the beginning.
        with within_budget(data, cleanup=cleanup):
            return super().request(method, url, data=data, timeout=(connect, read), **kwargs)


def read_refusal(response: Any, *_: object, **__: object) -> None:
    # Google's session renews its token, retries, and drops this response. Unless it is read, its
    # connection does not go back to the pool.
    if response.status_code == 401:
        _ = response.content


class BatchOfAnswers(Batch):  # type: ignore[misc]
    """A batch that keeps all responses instead of raising the first error."""

    def finish(self, raise_exception: bool = False) -> Any:
        self.answers = super().finish(raise_exception=False)
        return self.answers


def _read_credentials(path: str) -> Any:
    try:
        return Credentials.from_service_account_file(path, scopes=Client.SCOPE)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"kinto.attachment.gcloud.credentials: no service account key in {path!r} ({error})."
        ) from error
