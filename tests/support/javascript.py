"""Programs in Node that use the JavaScript module."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support import ROOT, live, waiting
from tests.support.application import ALICE

MODULE = ROOT / "js" / "kinto-attachment.js"
COLLECTION = "/buckets/b/collections/c"
RECORD = f"{COLLECTION}/records/r"
CONTENT = b"Hello!\n"

PROGRAMS = Path(__file__).with_name("javascript_programs.mjs")

# The beginning of each program; the program returns its result.
PROGRAM = """
const client = new AttachmentClient(server, { headers, pause: 0.01 });
const file = new File(["Hello!\\n"], "hello.txt", { type: "text/plain" });
const failure = (promise) => promise.then(
  (value) => { throw new Error(`No failure: ${JSON.stringify(value)}`); },
  (error) => ({ ...error, name: error.name, message: error.message }),
);
"""


class Node:
    """One process for all programs, from the first one until the end of the tests."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.number = 0

    def run(self, **program: Any) -> Any:
        """The program's result. If Node ends or hangs, the next program gets a new process."""
        if self.process is None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        self.number += 1
        self.process.stdin.write(json.dumps({"number": self.number, **program}) + "\n")
        self.process.stdin.flush()
        try:
            answer = json.loads(waiting.line_of(self.process) or '{"failed": "Node has ended"}')
        except AssertionError:
            self.end()
            raise
        if "returned" in answer:
            return answer["returned"]
        self.log.seek(0)
        told = f"{answer['failed']}\n{self.log.read()}"
        self.end()
        raise AssertionError(told)

    def start(self) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - Open until the process has ended.
        self.process = subprocess.Popen(
            ["node", str(PROGRAMS)],
            env={**os.environ, "NODE_NO_WARNINGS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=waiting.SECONDS)
            self.log.close()
            self.process = None


node = Node()
atexit.register(node.end)


def javascript(url: str, code: str) -> Any:
    return node.run(
        module=MODULE.as_uri(),
        code=f"{PROGRAM}return (async () => {{\n{code}\n}})();",
        server=url,
        headers=ALICE,
        record=RECORD,
        collection=COLLECTION,
    )


def stored(server: live.Server) -> list[Any]:
    with live.Client(server) as alice:
        return alice.request("GET", f"{COLLECTION}/records")[2]["data"]


def content(server: live.Server, record: str = RECORD) -> bytes:
    with live.Client(server) as alice:
        return alice.request("GET", f"{record}/attachment")[2]
