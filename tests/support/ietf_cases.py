"""What draft-ietf-httpbis-resumable-upload requires of servers, as a table.

Each case is a few requests, in order, with the required responses. :func:`run` sends them to any
server, with the client of ``ietf_client``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.ietf_client import MEDIA_TYPE, Client, Response, boolean

FILE = b"resumable uploads"
SIZE = len(FILE)
PROBLEMS = "https://iana.org/assignments/http-problem-types#"

Expected = Mapping[str, str | None]


@dataclass(frozen=True)
class Ask:
    """A request and its response.

    ``status`` and the headers in ``says`` are patterns; None is a header that must be absent.
    ``problem`` is the required type if the response is a problem.
    """

    method: str
    status: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    says: Expected = field(default_factory=dict)
    problem: str = ""
    chunked: bool = False
    sent: int | None = None  # Bytes that are sent before the connection breaks.
    to_target: bool = False


@dataclass(frozen=True)
class Case:
    """A rule of the draft, with its section. With ``whole``, the file must exist at the end."""

    section: str
    name: str
    asks: tuple[Ask, ...]
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


def create(content: bytes = b"", *, status: str = "2..", **headers: str) -> Ask:
    """A creation with ``Upload-Complete: ?0``; underscores in names stand for hyphens."""
    told = {"Upload-Complete": "?0", **named(headers)}
    says = {"Location": ".+"} if status == "2.." else {}
    return Ask("PUT", status, told, content, says, to_target=True)


def append(
    start: int,
    content: bytes,
    status: str = "2..",
    *,
    complete: bool = False,
    says: Expected | None = None,
    sent: int | None = None,
    problem: str = "",
    without: str = "",
    chunked: bool = False,
    **headers: str,
) -> Ask:
    told = {
        "Upload-Offset": str(start),
        "Upload-Complete": boolean(complete),
        "Content-Type": MEDIA_TYPE,
        **named(headers),
    }
    told.pop(without, None)
    if says is None and status == "2..":
        says = {"Upload-Complete": r"\?1" if complete else r"\?0"}
    return Ask("PATCH", status, told, content, says or {}, problem, chunked, sent)


def finish(start: int = 0) -> Ask:
    return append(start, FILE[start:], complete=True)


def offset(value: int | str, *, complete: bool = False, length: int | None = None) -> Ask:
    """A retrieval of the offset, with its expected values."""
    says = {
        "Upload-Offset": str(value),
        "Upload-Complete": r"\?1" if complete else r"\?0",
        "Cache-Control": "no-store",
    }
    if length is not None:
        says["Upload-Length"] = str(length)
    return Ask("HEAD", "2..", says=says)


def gone() -> tuple[Ask, ...]:
    return Ask("HEAD", "4..", says={"Upload-Offset": None}), append(0, FILE, "4..")


def named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


MISMATCH = f"{PROBLEMS}mismatching-upload-offset"
INCONSISTENT = f"{PROBLEMS}inconsistent-upload-length"
WHOLE = str(SIZE)

CASES = [
    Case(
        "4.1.4",
        "OPTIONS announces the media type of appends",
        (Ask("OPTIONS", "2..", says={"Accept-Patch": f".*{MEDIA_TYPE}.*"}, to_target=True),),
    ),
    Case("4.2", "careful creation", (create(), offset(0), finish()), whole=True),
    Case(
        "4.2",
        "careful creation of a known length",
        (create(Upload_Length=WHOLE), offset(0, length=SIZE), finish()),
        whole=True,
    ),
    Case("4.2", "creation with content", (create(FILE[:5]), offset(5), finish(5)), whole=True),
    Case(
        "4.2",
        "creation with content and length",
        (create(FILE[:5], Upload_Length=WHOLE), offset(5, length=SIZE), finish(5)),
        whole=True,
    ),
    Case(
        "4.2",
        "the whole file in one request",
        (Ask("PUT", "2..", {"Upload-Complete": "?1"}, FILE, to_target=True),),
        whole=True,
    ),
    Case(
        "4.2",
        "the whole file with its length",
        (
            Ask(
                "PUT",
                "2..",
                {"Upload-Complete": "?1", "Upload-Length": WHOLE},
                FILE,
                to_target=True,
            ),
        ),
        whole=True,
    ),
    Case(
        "4.3",
        "the state of a completed upload",
        (create(), finish(), offset(SIZE, complete=True, length=SIZE)),
        whole=True,
    ),
    Case(
        "4.4",
        "several appends",
        (create(), append(0, FILE[:3]), append(3, FILE[3:9]), offset(9), finish(9)),
        whole=True,
    ),
    Case(
        "4.4",
        "an append of an unknown length",
        (create(), append(0, FILE[:9], chunked=True), offset(9), finish(9)),
        whole=True,
    ),
    Case(
        "4.4",
        "an end of an unknown length",
        (
            create(),
            append(0, FILE, complete=True, chunked=True),
            offset(SIZE, complete=True, length=SIZE),
        ),
        whole=True,
    ),
    Case("4.4", "an empty append", (create(), append(0, b""), offset(0), finish()), whole=True),
    Case(
        "4.1.3",
        "all bytes are there, but the client has not said so",
        (
            create(Upload_Length=WHOLE),
            append(0, FILE),
            offset(SIZE, length=SIZE),
            append(SIZE, b"", complete=True),
            offset(SIZE, complete=True),
        ),
        whole=True,
    ),
    Case(
        "4.1.3",
        "the length is told by an append",
        (
            create(),
            append(0, FILE[:5], Upload_Length=WHOLE),
            offset(5, length=SIZE),
            finish(5),
        ),
        whole=True,
    ),
    Case(
        "4.1.3",
        "values that are no lengths are ignored",
        (create(Upload_Length="-5"), append(0, FILE[:5], Upload_Length="x"), finish(5)),
        whole=True,
    ),
    Case(
        "4.1.3",
        "a creation with lengths that contradict each other",
        (
            Ask(
                "PUT",
                "4..",
                {"Upload-Complete": "?1", "Upload-Length": str(SIZE + 1)},
                FILE,
                problem=INCONSISTENT,
                to_target=True,
            ),
        ),
    ),
    Case(
        "4.1.3",
        "an append with lengths that contradict each other",
        (
            create(),
            append(0, FILE, "4..", complete=True, Upload_Length="5", problem=INCONSISTENT),
        ),
    ),
    Case(
        "4.1.3",
        "an append with another length than the creation",
        (
            create(Upload_Length=WHOLE),
            append(0, FILE[:3], "4..", Upload_Length="5", problem=INCONSISTENT),
        ),
    ),
    Case(
        "4.1.3",
        "an end with another length than the creation",
        (
            create(Upload_Length=WHOLE),
            append(0, FILE[:3], "4..", complete=True, problem=INCONSISTENT),
        ),
    ),
    Case(
        "4.4",
        "more bytes than the length",
        (create(Upload_Length="5"), append(0, FILE, "4..")),
    ),
    Case(
        "4.4",
        "more bytes than the length, in chunks",
        (create(Upload_Length="5"), append(0, FILE, "4..", chunked=True)),
    ),
    *(
        Case(
            "4.4",
            f"a mismatching offset of {wrong}",
            (
                create(FILE[:5]),
                append(wrong, FILE[5:], "409", says={"Upload-Offset": "5"}, problem=MISMATCH),
                offset(5),
                finish(5),
            ),
            whole=True,
        )
        for wrong in (0, 4, 6, SIZE, 10**15 - 1)
    ),
    *(
        Case(
            "4.4",
            f"an append without {header}",
            (create(), append(0, FILE, "4..", without=header), offset(0), finish()),
            whole=True,
        )
        for header in ("Upload-Offset", "Upload-Complete", "Content-Type")
    ),
    *(
        Case(
            "4.1",
            f"an append with {header} of {value!r}",
            (create(), append(0, FILE, "4..", **{header: value}), offset(0), finish()),
            whole=True,
        )
        for header, value in (
            ("Upload_Offset", "-1"),
            ("Upload_Offset", "0.0"),
            ("Upload_Offset", "zero"),
            ("Upload_Offset", "0, 0"),
            ("Upload_Complete", "1"),
            ("Upload_Complete", "true"),
            ("Upload_Complete", "?2"),
            ("Upload_Complete", "?1, ?1"),
        )
    ),
    Case(
        "4.4",
        "an append of another media type",
        (
            create(),
            append(0, FILE, "4..", Content_Type="application/octet-stream"),
            offset(0),
            finish(),
        ),
        whole=True,
    ),
    Case(
        "4.4",
        "an append that breaks off",
        (create(), append(0, FILE, sent=5), offset("[0-5]"), finish()),
        whole=True,
    ),
    Case(
        "4.4",
        "an end that breaks off does not complete the upload",
        (create(), append(0, FILE, complete=True, sent=5), offset("[0-5]")),
    ),
    Case(
        "4.4",
        "bytes after a completed upload",
        (
            create(),
            finish(),
            append(SIZE, b"more", "4..", problem=INCONSISTENT),
            append(SIZE, b"more", "4..", complete=True, problem=INCONSISTENT),
            offset(SIZE, complete=True),
        ),
        whole=True,
    ),
    Case("4.5", "cancellation", (create(FILE[:5]), Ask("DELETE", "2.."), *gone())),
    Case("4.5", "cancellation of nothing", (create(), Ask("DELETE", "2.."), *gone())),
    Case(
        "8.1",
        "a digest of the whole file",
        (create(Repr_Digest=digest(FILE)), append(0, FILE[:5]), finish(5)),
        whole=True,
    ),
    Case(
        "8.1",
        "a wrong digest of the whole file",
        (create(Repr_Digest=digest(b"")), append(0, FILE, "4..", complete=True)),
    ),
    Case(
        "8.2",
        "digests of the content",
        (
            create(FILE[:5], Content_Digest=digest(FILE[:5])),
            append(5, FILE[5:9], Content_Digest=digest(FILE[5:9])),
            finish(9),
        ),
        whole=True,
    ),
    Case(
        "8.2",
        "a wrong digest of the content",
        (
            create(FILE[:5]),
            append(5, FILE[5:], "4..", Content_Digest=digest(b"")),
            offset(5),
            finish(5),
        ),
        whole=True,
    ),
    Case(
        "4.1.2",
        "parameters of the fields are ignored",
        (create(), append(0, FILE[:5], Upload_Complete="?0;x=1"), offset(5), finish(5)),
        whole=True,
    ),
    Case(
        "4.1.2",
        "an empty file",
        (create(Upload_Length="0"), append(0, b"", complete=True), offset(0, complete=True)),
    ),
]


def run(client: Client, case: Case) -> None:
    """Send the requests of a case.

    An append after a broken one begins where the server says, and completes the file.

    :raises AssertionError: a response is wrong.
    """
    url, broken = "", False
    for ask in case.asks:
        path = client.target.path if ask.to_target else url
        headers, content = dict(ask.headers), ask.content
        if broken and ask.method == "PATCH":
            check(ask, client.go_on(url, FILE))
            continue
        if ask.sent is not None:
            client.break_off(ask.method, path, headers, content[: ask.sent], len(content))
            broken = True
            continue
        method = client.target.method if ask.method == "PUT" else ask.method
        answer = client.ask(method, path, headers, content, chunked=ask.chunked)
        check(ask, answer)
        url = url or answer.url


def check(ask: Ask, answer: Response) -> None:
    seen = f"{ask}\n{answer}"
    assert re.fullmatch(ask.status, str(answer.status)), seen
    for name, wanted in ask.says.items():
        value = answer.headers.get(name.lower())
        if wanted is None:
            assert value is None, f"{name}: {seen}"
        else:
            assert re.fullmatch(wanted, value or "(none)"), f"{name}: {seen}"
    kind = answer.headers.get("content-type", "")
    if ask.problem and kind.startswith("application/problem+json"):
        problem: dict[str, Any] = json.loads(answer.content)
        assert problem["type"] == ask.problem, seen
