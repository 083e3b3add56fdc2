"""Transcripts of everything observable in a test, so that two runs can be compared.

While ``current`` is a transcript, the applications of the tests record in it each request with
its response, each event of Kinto and of this plugin when it is fired, and, before the records are
cleared, the stored data. :func:`difference` compares two transcripts.

Random names are replaced by numbers, in the order of their first appearance, unless both runs have
them. Timestamps of records are replaced by their rank: if two are equal in only one run, that is a
difference. PostgreSQL may write two objects in the same millisecond by chance, so that it takes
several runs to be sure: :func:`differ_in_times_alone`. Other times, such as when a file was
stored, or those of the history's entries, are left out.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.support.observed import UNTOLD, content_of, event_of, plain, rows_of

current: Transcript | None = None
"""The transcript of the test that runs, if it is to be compared."""

# UUIDs with the rest of their name; folders named by a name's first two digits.
RANDOM = re.compile(
    r"\b[0-9a-f]{2}/(?=[0-9a-f]{8}-)"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\b[0-9a-f]{16,64}(?:_[0-9a-f]{32})?\b"
    r"|(?<=sha-256=:)[A-Za-z0-9+/=]+(?=:)"
    r"|(?<![\w-])(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[A-Za-z0-9_-]{20,}"
)
TIMESTAMP = re.compile(r"(?<![\w.-])[12]\d{12}(?![\w.])")
# Other times, time left, signatures that depend on times, addresses, temporary folders.
OTHERS = re.compile(
    r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"
    r"|\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|(?<![\w.-])1[789]\d{8}(?![\w.])"
    r"|(?<=token=)[^&\"\s]+|(?<=-Date=)\w+|(?<=-Expires=)\d+|(?<=-Signature=)\w+"
    r"|\b0x[0-9a-f]{8,16}\b|(?<=max-age=)[1-9]\d*|(?<=pytest-of-)[^/]+/pytest-\d+/(?:popen-gw\d+/)?[^/\"]+"
)
# Fields of the index, in milliseconds: the current time, or a later one.
TIMES = (
    "created",
    "attached",
    "retired",
    "until",
    "busy_until",
    "expires",
    "expires_at",
    "url_expires_at",
    "due",
    "at",
    "since",
)
LINES = 80  # The longest difference.


@contextlib.contextmanager
def noting() -> Iterator[Transcript]:
    """Make the applications of the tests write a transcript."""
    global current
    current = Transcript()
    try:
        yield current
    finally:
        current = None


class Transcript:
    """The notes of one run, in the order in which their requests began."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def request(
        self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any], start_response: Any
    ) -> Iterable[bytes]:
        """Call a WSGI application, and note its response."""
        query = environ.get("QUERY_STRING")
        path = environ["PATH_INFO"] + (f"?{query}" if query else "")
        entry: dict[str, Any] = {"request": f"{environ['REQUEST_METHOD']} {path}"}
        self.entries.append(entry)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            entry["status"] = status
            # A header may occur more than once.
            told = [each for each in headers if each[0] not in UNTOLD]
            if path.partition("?")[0].endswith("/history"):
                told = [each for each in told if each[0] != "ETag"]
            entry["headers"] = sorted(f"{name}: {value}" for name, value in told)
            return start_response(status, headers, *exc_info)

        return NotedBody(app(environ, start), entry)

    def event(self, event: Any) -> None:
        self.entries.append({"event": plain(event_of(event))})

    def rows(self, registry: Any) -> None:
        self.entries.append({"rows": plain(rows_of(registry))})

    def text(self) -> str:
        return json.dumps([masked(entry) for entry in self.entries])


class NotedBody:
    """The body of a response; the part that was sent is noted when it is closed."""

    def __init__(self, body: Iterable[bytes], entry: dict[str, Any]) -> None:
        self.body = body
        self.entry = entry
        self.sent = b""

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.body:
            self.sent += chunk
            yield chunk

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()
        try:
            self.entry["body"] = json.loads(self.sent)
        except ValueError:
            self.entry["body"] = content_of(self.sent)


def difference(first: Transcript, second: Transcript) -> str:
    """The differences, as lines; empty if there are none."""
    told = compared(first, second)
    if told[0] == told[1]:
        return ""
    lines = compared(first, second, indent=1)  # Slower.
    found = difflib.unified_diff(*lines, "first", "second", n=12, lineterm="")
    return "\n".join([line for line, _ in zip(found, range(LINES), strict=False)])


def differ_in_times_alone(first: Transcript, second: Transcript) -> bool:
    times = re.compile(r"\btime-\d+")
    return len({times.sub("", "\n".join(lines)) for lines in compared(first, second)}) == 1


def compared(first: Transcript, second: Transcript, indent: int | None = None) -> list[list[str]]:
    texts = [first.text(), second.text()]
    common = set.intersection(*(set(RANDOM.findall(text)) for text in texts))
    return [Normal(text, common, indent).lines() for text in texts]


class Normal:
    """The text of a transcript, with numbers instead of random names and timestamps."""

    def __init__(self, text: str, common: set[str], indent: int | None) -> None:
        self.indent = indent
        self.entries = json.loads(text)
        times = sorted(set(TIMESTAMP.findall(text)))
        self.ranks = {time: f"time-{rank}" for rank, time in enumerate(times)}
        self.names = {name: name for name in common}

    def lines(self) -> list[str]:
        return [line for each in self.entries for line in self._named(self._in_order(each))]

    def _named(self, entry: Any) -> list[str]:
        def name(match: re.Match[str]) -> str:
            return self.names.setdefault(match[0], f"random-{len(self.names)}")

        return RANDOM.sub(name, self._ranked(entry, self.indent)).splitlines()

    def _in_order(self, entry: Any) -> Any:
        """Rows in an order that does not depend on random names not seen before."""
        if "rows" not in entry:
            return entry

        def key(row: Any) -> str:
            return RANDOM.sub(lambda match: self.names.get(match[0], ""), self._ranked(row))

        tables = {}
        for name, rows in entry["rows"].items():
            tables[name] = sorted(rows, key=key)
            self._named(tables[name])  # Other tables contain the same names.
        return {"rows": tables}

    def _ranked(self, value: Any, indent: int | None = None) -> str:
        text = json.dumps(value, indent=indent)
        return TIMESTAMP.sub(lambda match: self.ranks[match[0]], text)


def masked(value: Any, name: str = "") -> Any:
    """The value without times other than those of records, and without the order of sets."""
    if isinstance(value, dict):
        if name == "permissions":
            return {
                key: sorted(who, key=str) if isinstance(who, list) else who
                for key, who in sorted(value.items())  # PostgreSQL returns them in any order.
            }
        told = {key: masked(each, key) for key, each in value.items()}
        if "target" in value and "last_modified" in value:  # A history entry.
            told["last_modified"] = "a time"
        return told
    if isinstance(value, list | tuple):
        return [masked(each, name) for each in value]
    if name in TIMES and isinstance(value, int) and value:
        return "a time"
    if isinstance(value, str):
        return OTHERS.sub("…", value)
    return value
