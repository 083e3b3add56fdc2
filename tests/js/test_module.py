"""The JavaScript module in Node, against a live server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, live, waiting
from tests.support.application import sha256
from tests.support.faults import Answer, FaultProxy, answering
from tests.support.javascript import COLLECTION, CONTENT, RECORD, content, javascript, stored


class TestUpload:
    def test_of_a_record(self, server: live.Server) -> None:
        result = javascript(
            server.url,
            """
            const permissions = { read: ["system.Everyone"] };
            return client.upload(file, { record, data: { title: "A" }, permissions });
            """,
        )
        (made,) = stored(server)
        assert result == {
            "record": RECORD,
            "attachment": made["attachment"],
            "lastModified": made["last_modified"],
            "created": True,
        }
        assert (made["title"], made["attachment"]["hash"]) == ("A", sha256(CONTENT))
        assert (made["attachment"]["filename"], made["attachment"]["mimetype"]) == (
            "hello.txt",
            "text/plain",
        )
        assert content(server) == CONTENT

    def test_again_replaces(self, server: live.Server) -> None:
        first, second = javascript(
            server.url,
            """
            const first = await client.upload(file, { record });
            const changed = new Blob(["new"], { type: "text/plain" });
            const { lastModified } = first;
            return [first, await client.upload(changed, { record, filename: "n.txt",
                                                          ifMatch: lastModified })];
            """,
        )
        assert (first["created"], second["created"]) == (True, False)
        assert second["lastModified"] > first["lastModified"]
        assert content(server) == b"new"

    def test_of_a_collection(self, server: live.Server) -> None:
        result = javascript(
            server.url,
            """
            const options = { collection, data: { title: "A" } };
            const made = await client.upload(file, options);
            await client.upload(file, options);
            return made;
            """,
        )
        records = {f"{COLLECTION}/records/{each['id']}": each for each in stored(server)}
        assert len(records) == 2
        made = records[result["record"]]
        assert made["title"] == "A"
        assert result == {
            "record": result["record"],
            "attachment": made["attachment"],
            "lastModified": made["last_modified"],
            "created": True,
        }
        assert content(server, result["record"]) == CONTENT

    def test_of_a_default_bucket(self, server: live.Server) -> None:
        """The real name is returned, whichever way the record was made."""
        uris = javascript(
            server.url,
            """
            const collection = "/buckets/default/collections/c";
            const made = await client.upload(file, { collection });
            const again = await client.upload(file, { record: `${collection}/records/r` });
            return [made.record, again.record];
            """,
        )
        for uri in uris:
            assert "/default/" not in uri
            assert content(server, uri) == CONTENT

    def test_names(self, server: live.Server) -> None:
        names = ["тест 日本.txt", "a'b&c=d+e.txt", 'say "hi".txt', "100%.txt", "🎉.txt"]
        code = f"""
            const made = [];
            for (const filename of {json.dumps(names)}) {{
              const {{ attachment }} = await client.upload(file, {{ record, filename }});
              made.push(attachment.filename);
            }}
            return made;
            """
        assert javascript(server.url, code) == names

    def test_kinds_of_files(self, server: live.Server) -> None:
        made = javascript(
            server.url,
            """
            const bytes = new Uint8Array([1, 2, 255]);
            const larger = new Uint8Array([0, 0, 1, 2, 255, 0]);
            const files = [new Blob([bytes]), bytes.buffer, larger.subarray(2, 5),
                           new DataView(bytes.buffer)];
            const options = { record, filename: "a.bin", type: "a/b" };
            const made = [];
            for (const each of files) made.push((await client.upload(each, options)).attachment);
            return made;
            """,
        )
        assert [(each["mimetype"], each["hash"]) for each in made] == [
            ("a/b", sha256(b"\x01\x02\xff"))
        ] * 4

    def test_tells_its_end(self, server: live.Server) -> None:
        code = """
            const told = [];
            await client.upload(file, { record, onProgress: (...sizes) => told.push(sizes) });
            return told;
            """
        assert javascript(server.url, code) == [[7, 7]]

    def test_asks_for_headers_each_time(self, server: live.Server) -> None:
        code = """
            let asked = 0;
            const fresh = async () => (asked++, headers);
            const other = new AttachmentClient(`${server}/`, { headers: fresh });
            await other.upload(file, { record });
            await other.remove(record);
            return asked;
            """
        assert javascript(server.url, code) == 2

    def test_calls_that_make_no_sense(self, server: live.Server) -> None:
        messages = {
            "client.upload(file, {})": "record or collection",
            "client.upload(file, { record, collection })": "record or collection",
            "client.upload(file, { record: 'r' })": (
                "record should be like /buckets/b/collections/c/records/r: r"
            ),
            "client.upload(file, { record: record + '?a' })": "record should be",
            "client.upload(file, { collection: record })": "collection should be",
            "client.upload(file, { collection, ifMatch: 1 })": "for a record",
            "client.upload(new Blob([]), { record })": "name",
            "client.upload('text', { record, filename: 'a' })": "should be a Blob",
            "client.remove(collection)": "record should be",
        }
        calls = ", ".join(f"await failure({call})" for call in messages)
        errors = javascript(server.url, f"return [{calls}];")
        for error, message in zip(errors, messages.values(), strict=True):
            assert error["name"] == "TypeError"
            assert message in error["message"]
        assert stored(server) == []


class TestRefusals:
    def test_are_kinto_s_errors(self, server: live.Server) -> None:
        code = "return failure(client.upload(file, { record, filename: 'a.exe' }));"
        error = javascript(server.url, code)
        assert (error["name"], error["status"], error["code"]) == ("AttachmentError", 400, 400)
        assert (error["errno"], error["error"]) == (109, "Bad Request")
        assert "extension" in error["message"]

    def test_of_preconditions_show_the_record(self, server: live.Server) -> None:
        first, *errors = javascript(
            server.url,
            """
            const first = await client.upload(file, { record });
            return [first,
                    await failure(client.upload(file, { record, ifNoneMatch: "*" })),
                    await failure(client.upload(file, { record, ifMatch: 42 })),
                    await failure(client.remove(record, { ifMatch: 42 }))];
            """,
        )
        assert [error["status"] for error in errors] == [412, 412, 412]
        for error in errors:
            assert error["details"]["existing"]["attachment"] == first["attachment"]
        assert content(server) == CONTENT

    def test_of_a_proxy(self) -> None:
        with answering(Answer(413, b"<html>")) as (url, seen):
            error = javascript(url, "return failure(client.upload(file, { record }));")
        assert (error["status"], error["message"]) == (413, "The server answered 413")
        assert "errno" not in error
        assert len(seen) == 1


class TestRemove:
    def test_keeps_the_record(self, server: live.Server) -> None:
        javascript(
            server.url,
            """
            const { lastModified } = await client.upload(file, { record, data: { title: "A" } });
            await client.remove(record, { ifMatch: lastModified });
            await client.remove(record);
            """,
        )
        (left,) = stored(server)
        assert (left["title"], left["attachment"]) == ("A", None)


class TestURL:
    def test_names_the_file(self, server: live.Server) -> None:
        plain, saved = javascript(
            server.url,
            """
            await client.upload(file, { record });
            const options = { disposition: "attachment", filename: "ä & b.txt" };
            const url = client.url(record, options);
            const response = await fetch(url, { headers });
            return [client.url(record), response.headers.get("Content-Disposition")];
            """,
        )
        assert plain == f"{server.url}{RECORD}/attachment"
        assert saved.startswith("attachment;")
        assert "%C3%A4%20&%20b.txt" in saved


class TestLink:
    def test_needs_no_credentials(self, server: live.Server) -> None:
        content, disposition, left, same = javascript(
            server.url,
            """
            await client.upload(file, { record });
            const options = { expiresIn: "1h", disposition: "attachment", filename: "b.txt" };
            const { url, expiresAt } = await client.link(record, options);
            const response = await fetch(url);
            const saved = response.headers.get("Content-Disposition");
            const again = await client.link(record, options);
            return [await response.text(), saved, expiresAt - Date.now(), again.url === url];
            """,
        )
        assert (content, disposition) == (CONTENT.decode(), 'attachment; filename="b.txt"')
        assert 3_590_000 < left < 5_400_000
        assert same

    def test_to_a_version_and_refusals(self, server: live.Server) -> None:
        content, statuses = javascript(
            server.url,
            """
            await client.upload(file, { record });
            const list = await fetch(`${server}${record}/attachment/versions`, { headers });
            const version = (await list.json()).data[0].id;
            const { url } = await client.link(record, { version });
            const response = await fetch(url);
            const statuses = [];
            for (const options of [{ version: "a/b" }, { expiresIn: 0 }, { disposition: "x" }]) {
              await client.link(record, options).catch(({ status }) => statuses.push(status));
            }
            await client.link("hello").catch((error) => statuses.push(error.name));
            return [await response.text(), statuses];
            """,
        )
        assert content == CONTENT.decode()
        assert statuses == [404, 400, 400, "TypeError"]


class TestCancelling:
    def test_before_and_while_it_is_sent(self, server: live.Server, proxy: FaultProxy) -> None:
        proxy.hang(sent=10_000)
        errors = javascript(
            f"{proxy.url}/v1",
            """
            const large = new Uint8Array(1_000_000);
            const options = { record, filename: "a.bin" };
            const signal = AbortSignal.timeout(200);
            return [
              await failure(client.upload(large, { ...options, signal: AbortSignal.abort() })),
              await failure(client.upload(large, { ...options, signal })),
            ];
            """,
        )
        assert [error["name"] for error in errors] == ["AbortError", "TimeoutError"]
        assert stored(server) == []

    def test_while_it_waits(self) -> None:
        busy = Answer(503, b'{"code": 503, "errno": 201}', {"Retry-After": "30"})
        with answering(busy) as (url, seen):
            error = javascript(
                url,
                """
                const stop = new AbortController();
                const end = () => stop.abort(new DOMException("", "TimeoutError"));
                const { fetch } = globalThis;
                globalThis.fetch = async (...given) => {
                  const answer = await fetch(...given);
                  setTimeout(end, 100);
                  return answer;
                };
                return failure(client.upload(file, { record, signal: stop.signal }));
                """,
            )
        assert error["name"] == "TimeoutError"
        assert len(seen) == 1


class TestRetries:
    """Attempts whose answer is lost: the server does its work, but the client is not told."""

    def lose_an_answer(self, proxy: FaultProxy, code: str) -> Any:
        proxy.cut(received=0, once=True)
        result = javascript(f"{proxy.url}/v1", code)
        assert proxy.connections >= 2
        return result

    def test_a_lost_answer_makes_no_second_file(
        self, server: live.Server, proxy: FaultProxy
    ) -> None:
        code = 'return client.upload(file, { record, ifNoneMatch: "*", data: { a: [1, {}] } });'
        result = self.lose_an_answer(proxy, code)
        (made,) = stored(server)
        assert result["created"] is True
        assert result["lastModified"] == made["last_modified"]
        assert result["attachment"] == made["attachment"]
        assert made["a"] == [1, {}]

    def test_a_lost_answer_of_a_replacement(self, server: live.Server, proxy: FaultProxy) -> None:
        setup = "return client.upload(file, { record });"
        before = javascript(server.url, setup)["lastModified"]
        code = f"""return client.upload(new Blob(["new"]), {{
                     record, filename: "n.txt", ifMatch: {before} }});"""
        result = self.lose_an_answer(proxy, code)
        (made,) = stored(server)
        assert result["lastModified"] == made["last_modified"] > before
        assert content(server) == b"new"

    def test_without_preconditions(self, server: live.Server, proxy: FaultProxy) -> None:
        result = self.lose_an_answer(proxy, "return client.upload(file, { record });")
        (made,) = stored(server)
        assert result["attachment"] == made["attachment"]

    def test_a_lost_answer_of_a_removal(self, server: live.Server, proxy: FaultProxy) -> None:
        setup = "return client.upload(file, { record });"
        before = javascript(server.url, setup)["lastModified"]
        self.lose_an_answer(proxy, f"return client.remove(record, {{ ifMatch: {before} }});")
        assert stored(server)[0]["attachment"] is None

    @pytest.mark.parametrize(
        "other",
        ['new Blob(["Other!\\n"])', 'new Blob(["longer"])'],
        ids=["of the same size", "of another"],
    )
    def test_what_somebody_else_wrote_is_not_ours(
        self, server: live.Server, proxy: FaultProxy, other: str
    ) -> None:
        proxy.cut(sent=0, once=True)  # The request never arrives, and another client is faster.
        error = javascript(
            f"{proxy.url}/v1",
            f"""
            const direct = new AttachmentClient({json.dumps(server.url)}, {{ headers }});
            let attempts = 0;
            const slow = async () => {{
              if (attempts++ === 1) await direct.upload({other}, {{ record, filename: "o.txt" }});
              return headers;
            }};
            const mine = new AttachmentClient(server, {{ headers: slow, pause: 0.01 }});
            return failure(mine.upload(file, {{ record, ifNoneMatch: "*" }}));
            """,
        )
        assert error["status"] == 412
        assert content(server) != CONTENT

    def test_an_upload_to_a_collection_is_not_sent_again(self) -> None:
        """If the first attempt has arrived, another one would create another record."""
        with answering(Answer(502, b"<html>")) as (url, seen):
            error = javascript(url, "return failure(client.upload(file, { collection }));")
        assert error["status"] == 502
        assert seen == [f"POST {COLLECTION}/attachments"]

    def test_a_refusal_that_stored_nothing_is_sent_again(self) -> None:
        busy = Answer(503, b'{"code": 503, "errno": 201}', {"Retry-After": "0"})
        with answering(busy) as (url, seen):
            error = javascript(url, "return failure(client.upload(file, { collection }));")
        assert (error["errno"], error["retryAfter"]) == (201, 0)
        assert len(seen) == 3

    def test_nobody_waits_for_hours(self) -> None:
        busy = Answer(503, b'{"code": 503, "errno": 201}', {"Retry-After": "3600"})
        with answering(busy) as (url, seen):
            error = javascript(url, "return failure(client.upload(file, { record }));")
        assert (error["retryAfter"], len(seen)) == (3600, 1)

    def test_a_server_that_is_not_there(self, proxy: FaultProxy) -> None:
        proxy.refuse()
        error = javascript(
            proxy.url,
            """
            const once = new AttachmentClient(server, { retries: 0 });
            return failure(once.upload(file, { record }));
            """,
        )
        assert (error["name"], error["status"]) == ("AttachmentError", 0)
        assert error["message"] == "The server cannot be reached"


class TestPackage:
    def test_installs_from_a_path(self, tmp_path: Path) -> None:
        (tmp_path / "package.json").write_text("{}")
        options = ("--offline", "--no-audit", "--no-fund", "--no-update-notifier")
        self.run("npm", "install", *options, str(ROOT / "js"), cwd=tmp_path)
        code = (
            'import("kinto-attachment").then((module) => console.log(Object.keys(module).join()))'
        )
        assert self.run("node", "-e", code, cwd=tmp_path) == "AttachmentClient,AttachmentError\n"

    def test_has_the_version_of_the_plugin(self) -> None:
        package = json.loads((ROOT / "js" / "package.json").read_text("utf-8"))
        assert f'version="{package["version"]}"' in (ROOT / "setup.py").read_text("utf-8")

    def test_the_types_are_those_of_the_module(self, tmp_path: Path) -> None:
        """The compiler must refuse each marked line of the program, and no other one."""
        (tmp_path / "node_modules").mkdir()
        (tmp_path / "node_modules" / "kinto-attachment").symlink_to(ROOT / "js")
        tus = ROOT / "node_modules" / "tus-js-client"
        (tmp_path / "node_modules" / "tus-js-client").symlink_to(tus)
        (tmp_path / "package.json").write_text('{"type": "module"}')
        program = (ROOT / "tests" / "support" / "kinto_attachment.ts").read_text("utf-8")
        (tmp_path / "program.ts").write_text(program)
        options = (
            "--strict",
            "--target",
            "es2022",
            "--module",
            "nodenext",
            "--outDir",
            "out",
            "--lib",
            "es2022,dom",
            "--skipDefaultLibCheck",  # Checking TypeScript's own takes longer than the rest.
        )
        compiler = ROOT / "node_modules" / ".bin" / "tsc"
        self.run(str(compiler), *options, "--lib", "es2022,dom", "program.ts", cwd=tmp_path)
        shown = self.run("node", "out/program.js", cwd=tmp_path)
        assert (
            json.loads(shown)
            == "https://kinto.example.com/v1/buckets/b/collections/c/records/r/attachment"
        )

    def run(self, *command: str, cwd: Path) -> str:
        environ = {**os.environ, "NODE_NO_WARNINGS": "1"}
        done = subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=waiting.SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
