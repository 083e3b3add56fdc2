"""Large files of the JavaScript module in Node are sent in several requests, and resumed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import ROOT, live
from tests.support.application import sha256
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.javascript import COLLECTION, CONTENT, RECORD, content, javascript, stored

TUS = ROOT / "node_modules" / "tus-js-client" / "lib.esm" / "node" / "index.js"
LARGE = bytes(range(256)) * 2560  # In ten chunks.
CHUNK = 64 * 1024
WAYS = ["own", "tus-js-client"]

# `seen` has the requests to the server: the method, and where a chunk begins.
PREPARE = f"""
const bytes = new Uint8Array(
  Buffer.alloc({len(LARGE)}, Uint8Array.from({{ length: 256 }}, (_, n) => n)));
const large = new File([bytes], "größe.bin", {{ type: "video/mp4", lastModified: 1 }});
const seen = [];
const real = fetch;
globalThis.fetch = (url, {{ method, headers, ...init }}) => {{
  const offset = headers.get("Upload-Offset");
  seen.push(offset === null ? method : `${{method}} ${{offset}}`);
  return real(url, {{ method, headers, ...init }});
}};
const chunkSize = {CHUNK};
const clientOf = async (way, options) => new AttachmentClient(server, {{
  headers, pause: 0.01, retries: 5, chunkSize,
  tus: way === "own" ? undefined : await import({json.dumps(TUS.as_uri())}), ...options,
}});
/** Upload until so many bytes have gone, and then pause. */
const paused = (client, file, bytes, options) => {{
  const controller = new AbortController();
  const onProgress = (sent) => sent >= bytes && controller.abort();
  return failure(client.upload(file, {{
    record, resumable: true, ...options, onProgress, signal: controller.signal }}));
}};
"""
PATCHES = [f"PATCH {offset}" for offset in range(0, len(LARGE), CHUNK)]


def run(url: str, code: str, way: str = "own") -> Any:
    return javascript(url, f"{PREPARE}const large_client = await clientOf('{way}');\n{code}")


@pytest.mark.parametrize("way", WAYS)
class TestEachWay:
    def test_arrives_with_its_attributes(self, server: live.Server, way: str) -> None:
        result, again = run(
            server.url,
            """
            const permissions = { read: ["system.Everyone"] };
            const options = { record, data: { title: "Ein Füm" }, permissions, resumable: true };
            return [await large_client.upload(large, options),
                    await large_client.upload(large, options)];
            """,
            way,
        )
        (made,) = stored(server)
        assert made["title"] == "Ein Füm"
        assert made["attachment"]["hash"] == sha256(LARGE)
        assert made["attachment"]["filename"] == "größe.bin"
        assert made["attachment"]["mimetype"] == "video/mp4"
        assert again == {
            "record": RECORD,
            "attachment": made["attachment"],
            "lastModified": made["last_modified"],
            "created": False,
        }
        assert (result["created"], result["record"]) == (True, RECORD)
        assert result["lastModified"] < again["lastModified"]
        with live.Client(server) as alice:
            permissions = alice.request("GET", RECORD)[2]["permissions"]
        assert permissions["read"] == ["system.Everyone"]

    @pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1])
    def test_any_size(self, server: live.Server, way: str, size: int) -> None:
        code = f"""
            const part = large.slice(0, {size});
            const options = {{ record, filename: "a.bin", resumable: true }};
            return large_client.upload(part, options);
            """
        result = run(server.url, code, way)
        assert result["attachment"] == stored(server)[0]["attachment"]
        assert result["created"] is True
        assert content(server) == LARGE[:size]

    @pytest.mark.parametrize("data", ["undefined", "{ title: 'A' }"], ids=["plain", "data"])
    def test_of_a_collection(self, server: live.Server, way: str, data: str) -> None:
        results = run(
            server.url,
            f"""
            const options = {{ collection, data: {data}, resumable: true }};
            return [await large_client.upload(large, options),
                    await large_client.upload(large, options)];
            """,
            way,
        )
        made = {f"{COLLECTION}/records/{each['id']}": each for each in stored(server)}
        assert len(made) == 2
        for result in results:
            record = made[result["record"]]
            assert result["created"] is True
            assert result["lastModified"] == record["last_modified"]
            assert result["attachment"] == record["attachment"]
            assert content(server, result["record"]) == LARGE

    def test_goes_on_after_the_connection_broke(
        self, server: live.Server, proxy: FaultProxy, way: str
    ) -> None:
        proxy.cut(sent=len(LARGE) // 2, once=True)
        told = run(
            f"{proxy.url}/v1",
            """
            const told = [];
            const onProgress = (sent) => told.push(sent);
            await large_client.upload(large, { record, resumable: true, onProgress });
            return told;
            """,
            way,
        )
        assert proxy.broken.is_set() or proxy.connections > 1
        assert content(server) == LARGE
        assert told[-1] == len(LARGE)
        half = next(n for n, sent in enumerate(told) if sent >= len(LARGE) // 2 - CHUNK)
        assert min(told[half:]) >= len(LARGE) // 2 - 3 * CHUNK, "it did not begin again"

    def test_goes_on_after_a_pause(self, server: live.Server, way: str) -> None:
        error, first, result = run(
            server.url,
            """
            const error = await paused(large_client, large, 5 * chunkSize);
            const told = [];
            const onProgress = (sent) => told.push(sent);
            const options = { record, resumable: true, onProgress };
            const { attachment } = await large_client.upload(large, options);
            return [error.name, told[0], attachment];
            """,
            way,
        )
        assert error == "AbortError"
        assert first > 4 * CHUNK
        assert result["hash"] == sha256(LARGE)
        assert content(server) == LARGE

    def test_is_refused(self, server: live.Server, way: str) -> None:
        first, last = run(
            server.url,
            """
            const options = { record, resumable: true };
            const first = await failure(
              large_client.upload(large, { ...options, filename: "a.exe" }));
            await paused(large_client, large, 5 * chunkSize, { ifNoneMatch: "*" });
            await client.upload(file, { record });
            const last = await failure(
              large_client.upload(large, { ...options, ifNoneMatch: "*" }));
            return [first, last];
            """,
            way,
        )
        assert (first["name"], first["status"], first["errno"]) == ("AttachmentError", 400, 109)
        assert (last["name"], last["status"], last["errno"]) == ("AttachmentError", 412, 114)
        assert content(server) == CONTENT

    def test_a_server_that_is_away_is_told(
        self, server: live.Server, proxy: FaultProxy, way: str
    ) -> None:
        proxy.cut(sent=len(LARGE) // 2)
        error = run(
            f"{proxy.url}/v1",
            "return failure(large_client.upload(large, { record, resumable: true }));",
            way,
        )
        assert (error["name"], error["status"]) == ("AttachmentError", 0)
        assert error["message"] == "The server cannot be reached"


def test_a_signal_does_not_keep_what_has_been_sent(server: live.Server) -> None:
    """fetch adds its own listeners, which keep nothing."""
    listening = run(
        server.url,
        """
        const { getEventListeners } = await import("node:events");
        const { signal } = new AbortController();
        await large_client.upload(large, { record, signal, resumable: true });
        return getEventListeners(signal, "abort").map(String);
        """,
        "tus-js-client",
    )
    assert not [listener for listener in listening if "transfer" in listener]


class TestWhatIsSent:
    def test_only_the_rest(self, server: live.Server) -> None:
        before, after = run(
            server.url,
            """
            await paused(large_client, large, 5 * chunkSize);
            const before = seen.splice(0);
            await large_client.upload(large, { record, resumable: true });
            return [before, seen];
            """,
        )
        assert before == ["GET", "PUT", *PATCHES[:5]]
        assert after == ["HEAD", *PATCHES[5:]]

    def test_everything_if_something_else_is_said(self, server: live.Server) -> None:
        code = """
            const offsets = [];
            const sent = async (...args) => {
              seen.length = 0;
              await large_client.upload(...args);
              offsets.push(seen.find((request) => request.startsWith("PATCH")));
            };
            const options = { record, resumable: true };
            const blob = new Blob([bytes]);
            await paused(large_client, large, 5 * chunkSize);
            await paused(large_client, blob, 5 * chunkSize, { filename: large.name });
            const { name, type } = large;
            await sent(new File([bytes], name, { type, lastModified: 2 }), options);
            await sent(large.slice(1), { ...options, filename: name });
            await sent(blob, { ...options, filename: name });
            await sent(large, { ...options, data: { title: "A" } });
            await sent(large, { ...options, record: `${record}2` });
            await sent(large, options);
            return offsets;
            """
        assert run(server.url, code) == [*["PATCH 0"] * 5, PATCHES[5]]

    def test_everything_if_the_server_has_forgotten(self, server: live.Server) -> None:
        code = """
            await paused(large_client, large, 5 * chunkSize);
            const uploads = `${server}${collection}/attachments/uploads`;
            const { data } = await (await real(uploads, { headers })).json();
            await real(`${server}${data[0].record}/attachment/uploads/${data[0].id}`,
                       { headers, method: "DELETE" });
            seen.length = 0;
            await large_client.upload(large, { record, resumable: true });
            return seen;
            """
        assert run(server.url, code) == ["HEAD", "PUT", *PATCHES]
        assert content(server) == LARGE

    @pytest.mark.parametrize("data", ["undefined", "{ title: 'A' }"], ids=["draft", "tus"])
    @pytest.mark.parametrize("paused", ["retries: 5", "retries: 0"], ids=["retry", "next call"])
    def test_nothing_again_if_the_last_answer_was_lost(
        self, server: live.Server, data: str, paused: str
    ) -> None:
        requests, result = run(
            server.url,
            f"""
            const through = fetch;
            let lost = 0;
            globalThis.fetch = async (...args) => {{
              const answer = await through(...args);
              if (seen.at(-1) === "{PATCHES[-1]}" && !lost++) throw new TypeError("lost");
              return answer;
            }};
            const impatient = await clientOf("own", {{ {paused} }});
            const options = {{ record, data: {data}, resumable: true }};
            const result = await impatient.upload(large, options)
              .catch(() => impatient.upload(large, options));
            return [seen, result];
            """,
        )
        end = requests.index(PATCHES[-1]) + 1
        assert requests[end : end + 2] == ["HEAD", f"PATCH {len(LARGE)}"]
        (made,) = stored(server)
        assert result == {
            "record": RECORD,
            "attachment": made["attachment"],
            "lastModified": made["last_modified"],
            "created": True,
        }

    def test_the_rest_after_another_request_has_taken_over(self, server: live.Server) -> None:
        """A request with a broken connection also takes over, if the server starts on it late."""
        taken, requests = run(
            server.url,
            """
            const inner = fetch;
            let taken;
            globalThis.fetch = (url, init) => {
              if (taken !== undefined || init.method !== "PATCH") return inner(url, init);
              taken = 0;
              const body = new ReadableStream({
                start: (controller) => controller.enqueue(bytes.slice(0, 1000)),
                pull: async (controller) => {
                  // 423 if the server has begun with this one before the one around it.
                  do taken = (await inner(url, { ...init, body: bytes.slice(0, 1) })).status;
                  while (taken === 423);
                  controller.enqueue(bytes.slice(1000, chunkSize));
                  controller.close();
                },
              });
              return inner(url, { ...init, body, duplex: "half" });
            };
            await large_client.upload(large, { record, resumable: true });
            return [taken, seen];
            """,
        )
        assert taken == 204
        assert requests.count("HEAD") == 1
        assert content(server) == LARGE

    def test_by_size_if_nothing_else_is_said(self, server: live.Server) -> None:
        small, large, form = run(
            server.url,
            """
            const usual = new AttachmentClient(server, { headers });
            const through = fetch;
            const sent = async (size, options) => {
              seen.length = 0;
              const zeros = new Uint8Array(size);
              const form = new AbortController();
              globalThis.fetch = (url, init) => {
                if (init.method === "POST") form.abort(); // It has all bytes, which takes long.
                return through(url, init);
              };
              const details = { record, filename: "a.bin", signal: form.signal, ...options };
              const error = await usual.upload(zeros, details).catch((error) => error.name);
              return error === "AbortError" || error.created !== undefined ? [...seen] : error;
            };
            const limit = 64 * 1024 * 1024;
            return [await sent(limit), await sent(limit + 1),
                    await sent(limit + 1, { resumable: false })];
            """,
        )
        assert small == form == ["POST"]
        mebibytes = 1024 * 1024
        offsets = [f"PATCH {n * 16 * mebibytes}" for n in range(5)]
        assert large == ["GET", "PUT", *offsets]


class TestUnfinished:
    def test_can_continue(self, server: live.Server) -> None:
        plain, told, other, left = run(
            server.url,
            """
            const details = { data: { title: "A" }, ifNoneMatch: "*" };
            await paused(large_client, large, 5 * chunkSize);
            await paused(large_client, large, 3 * chunkSize, details);
            const uploads = await large_client.unfinished();
            const sent = [];
            for (const { options } of uploads) {
              seen.length = 0;
              await large_client.upload(large, options).catch((error) => sent.push(error.status));
              sent.push(seen.find((request) => request.startsWith("PATCH")));
            }
            const elsewhere = new AttachmentClient(`${server}/other`, { headers });
            return [uploads, sent, await elsewhere.unfinished(), await large_client.unfinished()];
            """,
        )
        file = {"name": "größe.bin", "type": "video/mp4", "size": len(LARGE), "lastModified": 1}
        data = {"data": {"title": "A"}, "ifNoneMatch": "*"}
        assert plain == [
            {
                "file": file,
                "options": {"record": RECORD, "resumable": True},
                "sent": 5 * CHUNK,
            },
            {
                "file": file,
                "options": {"record": RECORD, "resumable": True, **data},
                "sent": 3 * CHUNK,
            },
        ]
        assert told == [PATCHES[5], 412, PATCHES[3]]
        assert other == left == []

    def test_of_a_collection(self, server: live.Server) -> None:
        options, created = run(
            server.url,
            """
            await paused(large_client, large, 5 * chunkSize, { record: undefined, collection });
            const [{ options }] = await large_client.unfinished();
            return [options, (await large_client.upload(large, options)).created];
            """,
        )
        assert (options, created) == ({"collection": COLLECTION, "resumable": True}, True)
        assert len(stored(server)) == 1

    def test_is_cancelled(self, server: live.Server) -> None:
        before, after, requests = run(
            server.url,
            """
            const unfinished = async () => {
              const answer = await real(`${server}${collection}/attachments/uploads`, { headers });
              return (await answer.json()).data.length;
            };
            await paused(large_client, large, 5 * chunkSize);
            const before = await unfinished();
            const [{ file, options }] = await large_client.unfinished();
            await large_client.cancel(file, options);
            const after = [await unfinished(), (await large_client.unfinished()).length];
            seen.length = 0;
            await large_client.cancel(file, options);
            await large_client.upload(large, options);
            return [before, after, seen];
            """,
        )
        assert after == [before - 1, 0]
        assert requests == ["PUT", *PATCHES]

    def test_is_forgotten_once_the_server_has_forgotten(self, server: live.Server) -> None:
        code = """
            await paused(large_client, large, 5 * chunkSize);
            const uploads = `${server}${collection}/attachments/uploads`;
            const { data } = await (await real(uploads, { headers })).json();
            for (const { record, id } of data) {
              const url = `${server}${record}/attachment/uploads/${id}`;
              await real(url, { headers, method: "DELETE" });
            }
            const first = await large_client.unfinished();
            seen.length = 0;
            return [first, await large_client.unfinished(), seen];
            """
        assert run(server.url, code) == [[], [], []]


class TestForms:
    """Files that cannot be sent in several requests are sent in one, unless it is forbidden."""

    @pytest.fixture
    def gzipped(self, server: live.Server) -> str:
        with live.Client(server) as alice:
            alice.put("/buckets/b/collections/gz")
        return "/buckets/b/collections/gz/records/r"

    def test_where_files_are_compressed(self, server: live.Server, gzipped: str) -> None:
        requests, error = run(
            server.url,
            f"""
            const zeros = new Uint8Array(65 * 1024 * 1024);
            const options = {{ record: "{gzipped}", filename: "a.bin" }};
            await large_client.upload(zeros, options);
            const requests = seen.splice(0);
            const forced = large_client.upload(zeros, {{ ...options, resumable: true }});
            return [requests, await failure(forced)];
            """,
        )
        assert requests == ["GET", "PUT", "POST"]
        assert error["status"] == 400
        assert "gzipped" in error["message"]

    def test_with_more_attributes_than_fit(self, server: live.Server) -> None:
        requests, error = run(
            server.url,
            """
            const zeros = new Uint8Array(65 * 1024 * 1024);
            const options = { record, filename: "a.bin", data: { text: "x".repeat(4000) } };
            await large_client.upload(zeros, options);
            const requests = seen.splice(0);
            const forced = large_client.upload(zeros, { ...options, resumable: true });
            return [requests, await failure(forced)];
            """,
        )
        assert requests == ["POST"]
        assert error["status"] == 400
        assert "Upload-Metadata" in error["message"]

    def test_of_other_servers(self) -> None:
        """They would mistake the request that begins an upload for an empty file."""
        with answering(Answer(200, b'{"capabilities": {"attachments": {}}}')) as (url, seen):
            error = run(
                url,
                """
                const zeros = new Uint8Array(65 * 1024 * 1024);
                const options = { record, filename: "a.bin" };
                await large_client.upload(zeros, options);
                return failure(large_client.upload(zeros, { ...options, resumable: true }));
                """,
            )
        assert seen == ["GET /", f"POST {RECORD}/attachment"]
        assert error["name"] == "AttachmentError"
        assert "several requests" in error["message"]


def test_fresh_headers_go_with_each_request(server: live.Server) -> None:
    asked = run(
        server.url,
        """
        const counted = async (way) => {
          let asked = 0;
          const fresh = async () => (asked++, headers);
          const other = await clientOf(way, { headers: fresh });
          await other.upload(large.slice(0, 3 * chunkSize), {
            record, filename: "a.bin", resumable: true });
          return asked;
        };
        return [await counted("own"), await counted("tus-js-client")];
        """,
    )
    # The capability, the creation, three chunks; with tus, the record twice and the offset.
    assert asked == [5, 8]
