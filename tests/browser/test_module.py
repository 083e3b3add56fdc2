"""The JavaScript module in Chromium: differences from Node, where tests/js tests it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import live, waiting
from tests.support.application import ALICE
from tests.support.browser import fetch, until
from tests.support.faults import FaultProxy

RECORD = "/buckets/default/collections/module/records"
MEBIBYTE = 1024 * 1024
PREPARE = """
async ([server, headers]) => {
  const module = await import("/kinto-attachment.js");
  Object.assign(window, module, { client: new module.AttachmentClient(server, { headers }) });
}
"""


@pytest.fixture
def proxy(server: live.Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.address) as proxy:
        yield proxy


@pytest.fixture
def ready(page: Any, proxy: FaultProxy) -> Any:
    """A page with a client, through a proxy."""
    page.evaluate(PREPARE, [f"{proxy.url}/v1", ALICE])
    return page


def test_tells_its_progress(ready: Any) -> None:
    told, size = ready.evaluate(
        """
        async (record) => {
          const told = [];
          const file = new File([new Uint8Array(20 * 1024 * 1024)], "тест.bin");
          const onProgress = (sent, total) => told.push([sent, total]);
          const { attachment } = await client.upload(file, { record, onProgress });
          return [told, attachment.size];
        }
        """,
        f"{RECORD}/progress",
    )
    assert size == 20 * MEBIBYTE
    assert len(told) >= 3
    assert {total for _, total in told} == {size}
    sent = [sent for sent, _ in told]
    assert sent == sorted(sent)
    assert 0 <= sent[0] < sent[-1] == size


@pytest.mark.parametrize("progress", ["undefined", "() => {}"], ids=["fetch", "XMLHttpRequest"])
class TestEachWay:
    def test_is_cancelled(self, ready: Any, proxy: FaultProxy, progress: str) -> None:
        proxy.hang(sent=MEBIBYTE)
        ready.evaluate(
            f"""
            (record) => {{
              window.controller = new AbortController();
              const {{ signal }} = controller;
              const file = new File([new Uint8Array(20 * 1024 * 1024)], "a.bin");
              const options = {{ record, signal, onProgress: {progress} }};
              client.upload(file, options).catch((error) => {{ window.failure = error.name; }});
            }}
            """,
            f"{RECORD}/cancelled",
        )
        assert proxy.broken.wait(waiting.SECONDS)
        ready.evaluate("controller.abort()")
        until(ready, "window.failure === 'AbortError'")

    def test_is_refused_before_the_body(
        self, ready: Any, server: live.Server, progress: str
    ) -> None:
        refused = ready.evaluate(
            f"""
            async (record) => {{
              const stranger = new AttachmentClient("{server.url}", {{ retries: 0 }});
              const file = new File([new Uint8Array(20 * 1024 * 1024)], "a.bin");
              const options = {{ record, onProgress: {progress} }};
              const error = await stranger.upload(file, options).catch((error) => error);
              return [error instanceof AttachmentError, error.status, error.errno];
            }}
            """,
            f"{RECORD}/refused",
        )
        assert refused == [True, 401, 104]

    def test_repeats_what_was_lost(
        self, ready: Any, server: live.Server, proxy: FaultProxy, progress: str
    ) -> None:
        record = f"{RECORD}/lost-{'xhr' if '=>' in progress else 'fetch'}"
        url = f"{proxy.url}/v1{record}/attachment"
        assert fetch(ready, url, method="POST", headers=ALICE)["status"] == 415  # The preflight.
        proxy.cut(received=0, once=True)
        made = ready.evaluate(
            f"""
            (record) => client.upload(new File(["Hello!"], "a.txt"), {{
              record, ifNoneMatch: "*", onProgress: {progress},
            }})
            """,
            record,
        )
        assert (made["created"], made["attachment"]["size"]) == (True, 6)
        with live.Client(server) as alice:
            stored = alice.request("GET", record)[2]["data"]
        assert stored["last_modified"] == made["lastModified"]
