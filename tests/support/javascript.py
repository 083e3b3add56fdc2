"""Programs in Node that use the JavaScript module."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from tests.support import ROOT, live
from tests.support.application import ALICE

MODULE = ROOT / "js" / "kinto-attachment.js"
COLLECTION = "/buckets/b/collections/c"
RECORD = f"{COLLECTION}/records/r"
CONTENT = b"Hello!\n"

# What each program begins with; it returns what it has to show.
PROGRAM = """
import {{ AttachmentClient, AttachmentError }} from {module};
const [server, headers] = JSON.parse(process.argv[1]);
const client = new AttachmentClient(server, {{ headers, pause: 0.01 }});
const file = new File(["Hello!\\n"], "hello.txt", {{ type: "text/plain" }});
const record = "{record}";
const collection = "{collection}";
const failure = (promise) => promise.then(
  (value) => {{ throw new Error(`No failure: ${{JSON.stringify(value)}}`); }},
  (error) => ({{ ...error, name: error.name, message: error.message }}),
);
console.log(JSON.stringify(await (async () => {{
{code}
}})() ?? null));
"""


def javascript(url: str, code: str) -> Any:
    program = PROGRAM.format(
        module=json.dumps(MODULE.as_uri()), record=RECORD, collection=COLLECTION, code=code
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program, json.dumps([url, ALICE])],
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stored(server: live.Server) -> list[Any]:
    with live.Client(server) as alice:
        return alice.request("GET", f"{COLLECTION}/records")[2]["data"]


def content(server: live.Server, record: str = RECORD) -> bytes:
    with live.Client(server) as alice:
        return alice.request("GET", f"{record}/attachment")[2]
