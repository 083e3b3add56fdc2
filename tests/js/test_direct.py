"""Direct uploads of the JavaScript module in Node: the bytes go to the storage in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import live
from tests.support.application import sha256
from tests.support.javascript import COLLECTION, RECORD, content, javascript, stored
from tests.support.sampling import one_value, sampled
from tests.support.services import S3

# ``make tests`` tries each case on one of the storages, and on both where parts matter.
pytestmark = one_value("on_each")
ON_BOTH = sampled(1, "on_each")
MIB = 1024 * 1024
SIZE = 12 * MIB  # Three parts on S3.
LARGEST = 22 * MIB  # Five parts, of which four are sent at once.
OTHERS = {
    "extensions": "txt+bin",
    "resources.b.off.direct": "false",
    "direct.part_size": "5M",
}

# `seen` has the requests to the server and to the storage; `meddle` can intercept them.
PREPARE = """
const bytes = new Uint8Array(Buffer.alloc(size, Uint8Array.from({ length: 251 }, (_, n) => n)));
const large = new File([bytes], "größe.bin", { type: "video/mp4", lastModified: 1 });
const seen = [];
let meddle = (send) => send();
const real = fetch;
const whatOf = ({ pathname, searchParams }) => {
  if (searchParams.has("partNumber")) return `part ${searchParams.get("partNumber")}`;
  if (searchParams.has("token")) return "part 1";
  const last = pathname.split("/").pop();
  return ["uploads", "complete"].includes(last) ? last : "upload";
};
let running = 0;
let most = 0;
globalThis.fetch = async (url, init) => {
  const what = `${init.method} ${whatOf(new URL(url))}`;
  const isPart = what.startsWith("PUT part");
  const isKnown = new Headers(init.headers).has("Authorization");
  seen.push(isPart && isKnown ? `${what} with credentials` : what);
  if (isPart) most = Math.max(most, ++running);
  try {
    return await meddle((other = url) => real(other, init), what, url);
  } finally {
    if (isPart) running -= 1;
  }
};
const parts = () => seen.filter((each) => each.startsWith("PUT part")).sort();
/** Upload until so many bytes have gone, and then pause. */
const paused = (bytes, options) => {
  const controller = new AbortController();
  const onProgress = (sent) => sent >= bytes && controller.abort();
  return failure(client.upload(large, {
    record, direct: true, ...options, onProgress, signal: controller.signal }));
};
/** Begin an upload whose bytes do not arrive. */
const begun = async () => {
  const broken = () => Promise.reject(new TypeError("broken"));
  meddle = (send, what) => (what.startsWith("PUT") ? broken() : send());
  await failure(client.upload(large, { record, direct: true }));
  meddle = (send) => send();
};
"""
CONTENT = bytes(range(251)) * (LARGEST // 251 + 1)


@dataclass(frozen=True)
class Kind:
    """A server, and the parts of a large file that it wants."""

    server: live.Server
    in_parts: bool

    @property
    def parts(self) -> list[str]:
        return self.parts_of(SIZE)

    def parts_of(self, size: int) -> list[str]:
        count = -(-size // (5 * MIB)) if self.in_parts else 1
        return [f"PUT part {n}" for n in range(1, count + 1)]

    def run(self, code: str, size: int = SIZE) -> Any:
        return javascript(self.server.url, f"const size = {size};\n{PREPARE}\n{code}")


@pytest.fixture(
    scope="module", params=["local", pytest.param("seaweedfs", marks=pytest.mark.seaweedfs)]
)
def on_each(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kind]:
    if request.param == "seaweedfs":
        seaweedfs: S3 = request.getfixturevalue("seaweedfs")
        options = {**seaweedfs.options(seaweedfs.create_bucket()), "downloads": "proxy"}
    else:
        options = {"base_path": str(tmp_path_factory.mktemp("files"))}
    with live.kinto({**options, **OTHERS}, threads=16) as server:
        yield Kind(server, in_parts=request.param == "seaweedfs")


@pytest.fixture
def kind(on_each: Kind) -> Kind:
    """An empty collection."""
    with live.Client(on_each.server) as alice:
        alice.request("DELETE", "/buckets/b")
        alice.put("/buckets/b")
        alice.put(COLLECTION)
        alice.put("/buckets/b/collections/off")
    return on_each


class TestArrives:
    @ON_BOTH
    def test_with_its_attributes(self, kind: Kind) -> None:
        requests, most, result, again = kind.run(
            """
            const permissions = { read: ["system.Everyone"] };
            const options = { record, data: { title: "Ein Füm" }, permissions, direct: true };
            const result = await client.upload(large, options);
            const requests = [seen[0], ...parts(), seen.at(-1)];
            return [requests, most, result, await client.upload(large, options)];
            """,
            LARGEST,
        )
        parts = kind.parts_of(LARGEST)
        assert requests == ["POST uploads", *parts, "POST complete"]
        assert most == min(4, len(parts))
        (made,) = stored(kind.server)
        assert (made["title"], made["attachment"]["hash"]) == (
            "Ein Füm",
            sha256(CONTENT[:LARGEST]),
        )
        assert made["attachment"]["filename"] == "größe.bin"
        assert made["attachment"]["mimetype"] == "video/mp4"
        assert again == {
            "record": RECORD,
            "attachment": made["attachment"],
            "lastModified": made["last_modified"],
            "created": False,
        }
        assert (result["created"], result["record"]) == (True, RECORD)
        assert content(kind.server) == CONTENT[:LARGEST]
        with live.Client(kind.server) as alice:
            permissions = alice.request("GET", RECORD)[2]["permissions"]
        assert permissions["read"] == ["system.Everyone"]

    def test_in_a_new_record(self, kind: Kind) -> None:
        options = "{ collection: '/buckets/default/collections/c', direct: true }"
        result = kind.run(f"return client.upload(file, {options});")
        assert result["created"] is True
        assert "/default/" not in result["record"]
        assert content(kind.server, result["record"]) == b"Hello!\n"

    def test_empty(self, kind: Kind) -> None:
        code = "return client.upload(new Blob([]), { record, filename: 'a.bin', direct: true });"
        assert kind.run(code)["attachment"]["size"] == 0
        assert content(kind.server) == b""

    def test_with_its_progress(self, kind: Kind) -> None:
        told = kind.run(
            """
            const told = [];
            const onProgress = (...sizes) => told.push(sizes);
            await client.upload(large, { record, direct: true, onProgress });
            return told;
            """
        )
        assert len(told) >= len(kind.parts)
        assert {total for _, total in told} == {SIZE}
        sent = [sent for sent, _ in told]
        assert sent == sorted(sent)
        assert sent[-1] == SIZE


class TestContinues:
    @ON_BOTH
    def test_with_the_parts_that_are_missing(self, kind: Kind) -> None:
        error, before, first, after, result = kind.run(
            """
            const error = await paused(5 * 1024 * 1024);
            const before = parts();
            const told = [];
            seen.length = 0;
            const onProgress = (sent) => told.push(sent);
            const result = await client.upload(large, { record, direct: true, onProgress });
            return [error.name, before, told[0], [seen[0], ...parts()], result.created];
            """
        )
        assert error == "AbortError"
        assert before == kind.parts[: len(before)]
        assert content(kind.server) == CONTENT[:SIZE]
        assert result is True
        assert after[0] == "GET upload"
        if len(kind.parts) > 1:
            assert len(before) >= 1
            assert len(after) - 1 < len(kind.parts)
            assert first >= 5 * MIB

    @pytest.mark.parametrize("how", ["a URL that expired", "a broken connection", "a lost answer"])
    def test_after(self, kind: Kind, how: str) -> None:
        last = kind.parts[-1]
        requests = kind.run(
            f"""
            let broken = false;
            meddle = async (send, what, url) => {{
              if (what !== "{last}" || broken) return send();
              broken = true;
              if ("{how}" === "a URL that expired") {{
                return send(url.replace(/(Signature|token)=[^&]*/, "$1=x"));
              }}
              if ("{how}" === "a lost answer") await (await send()).text();
              throw new TypeError("broken");
            }};
            await client.upload(large, {{ record, direct: true }});
            return seen;
            """
        )
        assert requests.count("POST uploads") == 1
        assert requests.count("GET upload") == 1
        assert requests.count(last) == (1 if how == "a lost answer" else 2)
        assert [requests.count(part) for part in kind.parts[:-1]] == [1] * (len(kind.parts) - 1)
        assert content(kind.server) == CONTENT[:SIZE]

    def test_when_the_storage_works_again(self, kind: Kind) -> None:
        last = kind.parts[-1]
        error, missing, requests = kind.run(
            f"""
            meddle = (send, what, url) =>
              send(what === "{last}" ? url.replace(/(Signature|token)=[^&]*/, "$1=x") : url);
            const error = await failure(client.upload(large, {{ record, direct: true }}));
            meddle = (send) => send();
            const [{{ sent }}] = await client.unfinished();
            seen.length = 0;
            await client.upload(large, {{ record, direct: true }});
            return [error, {SIZE} - sent, seen];
            """
        )
        assert error["name"] == "AttachmentError"
        assert error["status"] in (403, 404)
        assert missing >= 2 * MIB
        assert last in requests
        assert requests[-1] == "POST complete"
        assert content(kind.server) == CONTENT[:SIZE]

    def test_after_the_last_answer_was_lost(self, kind: Kind) -> None:
        requests, result = kind.run(
            """
            let lost = false;
            meddle = async (send, what) => {
              const answer = await send();
              if (what === "POST complete" && !lost) {
                lost = true;
                throw new TypeError("lost");
              }
              return answer;
            };
            const result = await client.upload(large, { record, direct: true });
            return [seen, result];
            """
        )
        (made,) = stored(kind.server)
        assert requests[-2:] == ["POST complete", "POST complete"]
        assert result == {
            "record": RECORD,
            "attachment": made["attachment"],
            "lastModified": made["last_modified"],
            "created": True,
        }

    def test_with_a_new_upload_if_the_old_one_is_gone(self, kind: Kind) -> None:
        code = """
            await begun();
            const uploads = `${server}${collection}/attachments/uploads`;
            const { data } = await (await real(uploads, { headers })).json();
            for (const { record, id } of data) {
              const url = `${server}${record}/attachment/uploads/${id}`;
              await real(url, { headers, method: "DELETE" });
            }
            seen.length = 0;
            await client.upload(large, { record, direct: true });
            return [seen[0], seen[1], ...parts()];
            """
        assert kind.run(code) == ["GET upload", "POST uploads", *kind.parts]
        assert content(kind.server) == CONTENT[:SIZE]

    def test_only_if_it_is_not_cancelled(self, kind: Kind) -> None:
        told, left, requests = kind.run(
            """
            await begun();
            const [{ file, options }] = await client.unfinished();
            await client.cancel(file, options);
            const left = await client.unfinished();
            seen.length = 0;
            await client.upload(large, options);
            return [options, left, seen[0]];
            """
        )
        assert told == {"record": RECORD, "direct": True}
        assert left == []
        assert requests == "POST uploads"


class TestIsRefused:
    def test_before_the_bytes(self, kind: Kind) -> None:
        errors, requests = kind.run(
            """
            const off = "/buckets/b/collections/off/records/r";
            const errors = [
              await failure(client.upload(file, { record, filename: "a.exe", direct: true })),
              await failure(client.upload(file, { record: off, direct: true })),
            ];
            return [errors, seen];
            """
        )
        assert [error["status"] for error in errors] == [400, 400]
        assert "extension" in errors[0]["message"]
        assert "direct" in errors[1]["message"]
        assert requests == ["POST uploads", "POST uploads"]

    def test_at_the_end(self, kind: Kind) -> None:
        error, left = kind.run(
            f"""
            let others = 0;
            meddle = async (send, what) => {{
              const isLast = what === "{kind.parts[-1]}";
              if (isLast && !others++) await client.upload(file, {{ record }});
              return send();
            }};
            const options = {{ record, ifNoneMatch: "*", direct: true }};
            return [await failure(client.upload(large, options)), await client.unfinished()];
            """
        )
        assert (error["name"], error["status"]) == ("AttachmentError", 412)
        assert left == []
        assert content(kind.server) == b"Hello!\n"
