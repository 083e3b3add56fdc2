"""boto3's clients: one per process, with timeouts, and without retries that take too long."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

from .s3_errors import translated
from .wait_budget import (
    CLEANUP_TIMEOUT,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    is_too_late_to_retry,
    seconds_of_silence,
)

TRIES = 3
# For calls that clean up after a failure while a client waits: gc removes what they leave.
CLEANUP_TRIES = 2
# Keys in boto3's context of a call: when its last try began, and the seconds lost before it.
BEGUN, LOST = "kinto_attachment.begun", "kinto_attachment.lost"
CONNECTIONS = 50


class S3Clients:
    """Can be used from any thread, before and after a fork; connects with the first call.

    ``timeout`` is in seconds, for connecting, for each block sent and for each response.
    ``tries`` is the maximum number of tries of a call; there are fewer if each try fails slowly.
    """

    def __init__(
        self,
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        use_path_style: bool = False,
        timeout: float | None = None,
        tries: int | None = None,
    ) -> None:
        self._credentials = {
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
        }
        self._region = region
        self._endpoint_url = endpoint_url
        self._use_path_style = use_path_style
        self._timeout = timeout
        self._tries = tries
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[int, bool, bool], Any] = {}

    def get(self, *, cleanup: bool = False, early: bool = False) -> Any:
        """boto3's client.

        The one for ``cleanup`` gives up sooner. The one for bodies that are sent ``early``, before
        all of their bytes are known, does not sign them, and tries once.
        """
        # Per process: a child must not use the connections of its parent.
        name = (os.getpid(), cleanup, early)
        with self._lock:
            if name not in self._clients:
                self._clients[name] = self._build(cleanup, early)
            return self._clients[name]

    def credentials_expire(self) -> datetime | None:
        """When the credentials that currently sign URLs end; None if they do not."""
        with translated():
            credentials = self.get()._get_credentials()
            if credentials is not None:
                credentials.get_frozen_credentials()  # This renews them if they end soon.
        return getattr(credentials, "_expiry_time", None)

    @property
    def server(self) -> str:
        """The server's host and port as configured; ``aws`` is Amazon S3 in any region."""
        if not self._endpoint_url or is_of_aws(self._endpoint_url):
            return "aws"
        parts = urlsplit(self._endpoint_url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    def close(self) -> None:
        """Close idle connections; later calls open new ones."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    @property
    def _addressing_style(self) -> str:
        if self._use_path_style:
            return "path"
        # By default, boto3 signs URLs of AWS for a host that redirects to the region's host, where
        # the signature is not valid. Other servers often have no host names for their buckets.
        return "auto" if self._endpoint_url else "virtual"

    def _build(self, cleanup: bool, early: bool) -> Any:
        connect, read = self._timeout or CONNECT_TIMEOUT, self._timeout or READ_TIMEOUT
        tries = self._tries or TRIES
        if cleanup:
            connect, read = min(connect, CLEANUP_TIMEOUT), min(read, CLEANUP_TIMEOUT)
            tries = min(tries, CLEANUP_TRIES)
        s3: dict[str, Any] = {"addressing_style": self._addressing_style}
        if early:
            tries = 1
            s3["payload_signing_enabled"] = False
        config = Config(
            connect_timeout=connect,
            read_timeout=read,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=CONNECTIONS,
            signature_version="s3v4",
            s3=s3,
            # Every piece is sent with a checksum in a header. By default, boto3 would send it in a
            # transfer encoding that many S3-compatible servers do not support.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # Not boto3's default session, which other code may use in another thread.
        self._session = self._session or Session()
        region = self._region or self._session.region_name
        if self._endpoint_url and not region:
            region = "us-east-1"  # Signatures contain a region; only AWS checks it.
        with translated():
            client = self._session.client(
                "s3",
                **self._credentials,
                region_name=region,
                endpoint_url=self._endpoint_url,
                config=config,
            )
        stop = partial(stop_trying, cleanup=cleanup)
        client.meta.events.register("before-call.s3", start_clock)
        client.meta.events.register_first("needs-retry.s3", stop)
        return client


def start_clock(params: dict[str, Any], **_: Any) -> None:
    params["context"].update({BEGUN: time.monotonic(), LOST: 0.0})


def stop_trying(
    operation: Any,
    request_dict: dict[str, Any],
    response: tuple[Any, dict[str, Any]] | None,
    caught_exception: Exception | None,
    cleanup: bool,
    **_: Any,
) -> None:
    """Raise an error that boto3 would retry, if too much time was lost in silence."""
    context = request_dict["context"]
    context[LOST] += seconds_of_silence(context[BEGUN], request_dict["body"])
    context[BEGUN] = time.monotonic()
    if not is_too_late_to_retry(context[LOST], cleanup=cleanup):
        return
    if caught_exception is not None:
        raise caught_exception
    if response is not None and response[0].status_code >= 500:
        raise ClientError(response[1], operation.name)


def is_of_aws(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
