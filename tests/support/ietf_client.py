"""A client for draft-ietf-httpbis-resumable-upload, interop version 8, over raw sockets.

It is written from the draft alone and uses nothing of this project, so that it can be pointed at
any server::

    client = Client(Target("localhost", 8888, "/files/1", {"Authorization": "…"}))
    upload = client.create()  # Careful: without content.
    client.append(upload.url, 0, b"…", complete=True)

``ietf_cases`` has the table of the required responses.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

INTEROP_VERSION = 8
MEDIA_TYPE = "application/partial-upload"
TIMEOUT = 60  # Seconds without a byte from the server, or with refusals only.
PAUSE = 0.05  # Seconds between two tries.

Headers = dict[str, str]


@dataclass(frozen=True)
class Target:
    """The resource that files are uploaded to, with the headers that every request gets."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "PUT"


@dataclass(frozen=True)
class Response:
    """A server's response; the names of headers are in lower case."""

    status: int
    headers: Headers
    content: bytes = b""
    interim: tuple[Response, ...] = ()
    url: str = ""  # The path of the upload, if there is a Location.

    @property
    def offset(self) -> int | None:
        return integer(self.headers.get("upload-offset"))

    @property
    def length(self) -> int | None:
        return integer(self.headers.get("upload-length"))

    @property
    def complete(self) -> bool | None:
        return {"?0": False, "?1": True}.get(self.headers.get("upload-complete", ""))

    @property
    def limits(self) -> dict[str, int] | None:
        """``Upload-Limit``; None if the server sends none, or one that must be ignored."""
        header = self.headers.get("upload-limit")
        members = [member.partition("=") for member in re.split(r"[ \t]*,[ \t]*", header or "")]
        limits = {key: integer(value) for key, _, value in members}
        if header is None or any(value is None for value in limits.values()):
            return None
        return {key: value for key, value in limits.items() if value is not None}


class Broken(Exception):
    """The connection ended before the whole response had arrived."""


class Exchange:
    """One request on its own connection. The caller chooses when its content is sent."""

    def __init__(self, target: Target, method: str, path: str, headers: Mapping[str, str]) -> None:
        self._method = method
        self._base = f"http://{target.host}:{target.port}{path}"
        self._socket = socket.create_connection((target.host, target.port), TIMEOUT)
        self._received = b""
        fields = {"Host": f"{target.host}:{target.port}", **headers, "Connection": "close"}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {v}" for name, v in fields.items())]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        # A server may answer, and close, before it has read everything.
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection: properly, or as if the network had failed."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def response(self) -> Response:
        """The final response, with the interim ones before it.

        :raises Broken: there is none, or it is incomplete.
        """
        interim: list[Response] = []
        while True:
            status, headers = self._head()
            if status >= 200:
                break
            interim.append(Response(status, headers))
        has_none = self._method == "HEAD" or status in (204, 304)
        content = b"" if has_none else b"".join(self._content(headers))
        location = urlsplit(urljoin(self._base, headers.get("location", "")))
        path = location.path + (f"?{location.query}" if location.query else "")
        url = path if "location" in headers else ""
        return Response(status, headers, content, tuple(interim), url)

    def _head(self) -> tuple[int, Headers]:
        lines = []
        while line := self._line():
            lines.append(line)
        match = re.match(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\Z)", lines[0] if lines else "")
        if not match:
            raise Broken(f"not a response: {lines!r}")
        headers: Headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            told = headers.get(name.lower())
            headers[name.lower()] = value.strip() if told is None else f"{told}, {value.strip()}"
        return int(match[1]), headers

    def _content(self, headers: Headers) -> Iterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line().partition(";")[0], 16):
                yield self._exactly(size)
                self._line()
        elif "content-length" in headers:
            yield self._exactly(int(headers["content-length"]))
        else:
            yield self._received
            while data := self._socket.recv(65536):
                yield data

    def _line(self) -> str:
        while b"\r\n" not in self._received:
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        return line.decode("latin-1")

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionError as error:
            raise Broken(str(error)) from error
        if not data:
            raise Broken("the server has closed the connection")
        self._received += data


class Client:
    """The steps of the draft. If ``version`` is None, the draft's version is not sent."""

    def __init__(self, target: Target, version: int | None = INTEROP_VERSION) -> None:
        self.target = target
        self._headers = dict(target.headers)
        if version is not None:
            self._headers["Upload-Draft-Interop-Version"] = str(version)

    def create(
        self,
        content: bytes = b"",
        *,
        complete: bool = False,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Create an upload (section 4.2); it begins with ``content``."""
        told = {"Upload-Complete": boolean(complete), **(headers or {})}
        if length is not None:
            told["Upload-Length"] = str(length)
        return self.ask(self.target.method, self.target.path, told, content)

    def retrieve_offset(self, url: str) -> Response:
        """Ask how many bytes the server has (section 4.3)."""
        return self.ask("HEAD", url)

    def append(
        self,
        url: str,
        offset: int,
        content: bytes = b"",
        *,
        complete: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Append bytes (section 4.4); with ``complete``, they are the end of the file."""
        told = {**append_headers(offset, complete=complete), **(headers or {})}
        return self.ask("PATCH", url, told, content)

    def go_on(self, url: str, content: bytes) -> Response:
        """Append the rest of a file after a request that broke off, and complete the file.

        The broken request was on another connection. The server may begin to process it after it
        returned the offset, or even after this append began. Then it refuses the append (409,
        423), and the offset has to be retrieved again, after a pause in which the server can
        finish that request.
        """
        until = time.monotonic() + TIMEOUT
        while True:
            offset = self.retrieve_offset(url).offset
            assert offset is not None
            answer = self.append(url, offset, content[offset:], complete=True)
            if answer.status not in (409, 423) or time.monotonic() > until:
                return answer
            time.sleep(PAUSE)

    def cancel(self, url: str) -> Response:
        """Cancel an upload, without a file (section 4.5)."""
        return self.ask("DELETE", url)

    def upload(
        self, content: bytes, piece: int, *, filename: str = "", tries: int = 5
    ) -> Response:
        """Upload a whole file: carefully, in pieces, resuming after each piece that breaks off."""
        named = {"Content-Disposition": f'attachment; filename="{filename}"'} if filename else {}
        created = self.create(length=len(content), headers=named)
        assert created.status == 201, created
        offset = 0
        while tries:
            end = min(offset + piece, len(content))
            last = end == len(content)
            with contextlib.suppress(OSError, Broken):
                answer = self.append(created.url, offset, content[offset:end], complete=last)
                if answer.complete or 400 <= answer.status < 500:
                    return answer
                if answer.status < 300:
                    offset = end
                    continue
            tries -= 1
            time.sleep(PAUSE)
            with contextlib.suppress(OSError, Broken):
                state = self.retrieve_offset(created.url)
                if state.complete or state.offset is None:
                    return state
                offset = state.offset
        raise Broken("too many tries")

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        *,
        chunked: bool = False,
    ) -> Response:
        """Send a whole request; its content is chunked, or has a length."""
        with self.begin(method, path, headers, None if chunked else len(content)) as exchange:
            if chunked:
                parts = [content[:1], content[1:]]
                content = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
                content += b"0\r\n\r\n"
            exchange.send(content)
            return exchange.response()

    def break_off(
        self, method: str, path: str, headers: Mapping[str, str], sent: bytes, size: int
    ) -> None:
        """Send only the beginning of a content of ``size`` bytes, and disconnect."""
        with self.begin(method, path, headers, size) as exchange:
            exchange.send(sent)

    def begin(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        size: int | None = 0,
    ) -> Exchange:
        """Send the head of a request whose content has ``size`` bytes; None for chunks."""
        told = {**self._headers, **(headers or {})}
        if size is None:
            told["Transfer-Encoding"] = "chunked"
        elif size or method not in ("HEAD", "DELETE", "OPTIONS", "GET"):
            told["Content-Length"] = str(size)
        return Exchange(self.target, method, path, told)


def append_headers(offset: int, *, complete: bool) -> Headers:
    return {
        "Upload-Complete": boolean(complete),
        "Upload-Offset": str(offset),
        "Content-Type": MEDIA_TYPE,
    }


def boolean(value: bool) -> str:
    return "?1" if value else "?0"


def integer(value: str | None) -> int | None:
    """A non-negative Integer of a structured field; None for values that must be ignored."""
    return int(value) if re.fullmatch("[0-9]{1,15}", value or "") else None
