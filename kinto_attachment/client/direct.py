"""Direct uploads: the bytes go to the server's storage by signed URLs, several parts at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from functools import partial
from typing import Any
from urllib.parse import urljoin

from kinto_http.exceptions import KintoException

from kinto_attachment.client import contents
from kinto_attachment.client.errors import ClientError
from kinto_attachment.client.forms import Progress
from kinto_attachment.client.jobs import Stop, run
from kinto_attachment.client.resumable import ENDED, FINAL, NewUpload
from kinto_attachment.client.retries import retry_after
from kinto_attachment.client.session import Session
from kinto_attachment.client.sources import BLOCK, Source
from kinto_attachment.client.unfinished import Unfinished
from kinto_attachment.metadata import Attachment

PARALLEL = 4  # Parts that are sent at the same time.
EXPIRED = 403  # What storages answer for a URL that has expired.
JSON = {"Content-Type": "application/json"}

State = dict[str, Any]


class DirectUpload:
    """The upload of one file to a record; ``endpoint`` is that of the record's attachment."""

    def __init__(
        self, session: Session, endpoint: str, new: NewUpload, progress: Progress | None = None
    ) -> None:
        self._session = session
        self._endpoint = f"{endpoint}/uploads"
        self._new = new
        self._bytes = SharedBytes(new.source, progress)
        self._body = {
            "attachment": {
                "filename": new.filename,
                "size": new.source.size,
                "mimetype": new.mimetype,
                "hash": new.source.sha256,
            },
            **new.fields,
        }
        said = ["direct", session.server_url, self._endpoint, json.dumps(self._body)]
        self._unfinished = Unfinished.of(*said, json.dumps(dict(new.conditions)))

    def send(self) -> Attachment:
        """Upload the file, or the rest of it, and attach it.

        :raises ConflictError: a precondition has failed, at the beginning or at the end.
        :raises RejectedError: the server or its storage refuses the file.
        """
        url = self._unfinished.load()
        state = self._known_state(url) if url else None
        if url is None or state is None:
            url, state = self._create()
            self._unfinished.save(url, expiry_of(state))
        try:
            self._send_parts(url, state)
            attachment = self._complete(url)
        except ClientError as error:
            # After other errors, the upload can continue.
            if error.response is not None and error.response.status_code in FINAL:
                self._unfinished.forget()
            raise
        self._unfinished.forget()
        return attachment

    def _create(self) -> tuple[str, State]:
        headers = {**JSON, **self._new.conditions}
        body = json.dumps(self._body).encode()
        response = self._session.send("POST", self._endpoint, headers, body)
        state: State = response.json()["data"]
        return urljoin(response.url, response.headers["Location"]), state

    def _known_state(self, url: str) -> State | None:
        """The upload of an earlier run; None if it cannot continue."""
        try:
            state = self._state(url)
        except ClientError as error:
            if error.response is None or error.response.status_code not in ENDED:
                raise
            return None
        return state if state["state"] in ("open", "finishing", "done") else None

    def _state(self, url: str) -> State:
        """The upload as it is now, with fresh URLs."""
        state: State = self._session.send("GET", url, {}, b"").json()["data"]
        return state

    def _send_parts(self, url: str, state: State) -> None:
        parts = {part["number"]: part for part in state.get("parts", ())}
        left = [part for part in parts.values() if not part.get("done")]
        self._bytes.begin(sum(part["size"] for part in left))
        fresh = FreshParts(lambda: self._state(url), parts)
        sending = (partial(self._send_part, fresh, part["number"]) for part in left)
        for error in run(sending, PARALLEL, self._bytes.stop):
            if error is not None:
                raise error

    def _send_part(self, fresh: FreshParts, number: int) -> BaseException | None:
        """Send a part, in one of several threads; the error if it fails for good."""
        try:
            self._session.retry(lambda: self._try_part(fresh, number))
        except BaseException as error:  # noqa: BLE001 - the other thread raises it.
            return error
        return None

    def _try_part(self, fresh: FreshParts, number: int) -> None:
        for is_last in (False, True):
            part = fresh.get(number)
            if part is None:
                return  # The answer was lost: it has arrived.
            try:
                self._send_once(part)
                return
            except KintoException as error:
                if is_last or getattr(error.response, "status_code", 0) != EXPIRED:
                    raise
            fresh.renew(part)

    def _send_once(self, part: Mapping[str, Any]) -> None:
        body = PartBody(self._bytes, part["offset"], part["size"])
        try:
            self._session.send_elsewhere(part["method"], part["url"], part["headers"], body)
        except BaseException:
            body.take_back()
            raise

    def _complete(self, url: str) -> Attachment:
        """Attach the file; the server may need several requests to read it."""
        while True:
            response = self._session.send("POST", f"{url}/complete", {}, b"")
            if response.status_code != 202:
                return contents.attachment(response.json())
            self._session.retries.sleep(retry_after(response.headers))


def expiry_of(state: State) -> dict[str, str]:
    """When an upload expires, in the form of the header that other uploads have."""
    return {"Upload-Expires": formatdate(state["expires_at"] / 1000, usegmt=True)}


class FreshParts:
    """The parts of an upload, with URLs that are renewed once they have expired."""

    def __init__(self, ask: Callable[[], State], parts: dict[int, State]) -> None:
        self._ask = ask
        self._parts = parts
        self._lock = threading.Lock()

    def get(self, number: int) -> State | None:
        """The part; None if it turned out to have arrived."""
        with self._lock:
            return self._parts.get(number)

    def renew(self, expired: State) -> None:
        """Get other URLs than this part's, unless another thread has."""
        with self._lock:
            known = self._parts.get(expired["number"])
            if known is not None and known["url"] == expired["url"]:
                found = self._ask().get("parts", ())
                self._parts = {each["number"]: each for each in found if not each.get("done")}


class SharedBytes:
    """A source that several threads read, each from its own position."""

    def __init__(self, source: Source, progress: Progress | None) -> None:
        self.stop = Stop()
        self._source = source
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0

    def begin(self, left: int) -> None:
        """``left`` is how many bytes of the file are to be sent."""
        self.add(self._source.size - left)

    def read(self, offset: int, size: int) -> bytes:
        self.stop.check()
        with self._lock:
            self._source.file.seek(self._source.start + offset)
            return self._source.read(size)

    def add(self, size: int) -> None:
        """Report that more (or, if negative, fewer) bytes have been sent."""
        with self._lock:
            self._done += size
            if self._progress:
                self._progress(self._done, self._source.size)


class PartBody:
    """The bytes of a part; each iteration starts over."""

    def __init__(self, shared: SharedBytes, offset: int, size: int) -> None:
        self._shared = shared
        self._offset = offset
        self._size = size
        self._told = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        while done < self._size:
            block = self._shared.read(self._offset + done, min(BLOCK, self._size - done))
            done += len(block)
            yield block
            # The block has been sent when the next one is requested.
            self._told += len(block)
            self._shared.add(len(block))

    def take_back(self) -> None:
        """The bytes that were sent do not count."""
        if self._told:
            self._shared.add(-self._told)
            self._told = 0
