"""The examples in the documents work as pasted, against the server that ``make serve`` runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from kinto_attachment.client import RejectedError
from tests.support import ROOT, forking, pasted
from tests.support.application import ask
from tests.support.documents import code_blocks
from tests.support.faults import HOST
from tests.support.services import _free_port, _wait

ADDRESS = "127.0.0.1:8888"
AUTH = ("alice", "secret")
HELLO = b"Hello!\n"
START_TIMEOUT = 180
PRODUCTION = "docs/production.rst"


@contextlib.contextmanager
def running(command: list[str], url: str, log: Path, **options: Any) -> Iterator[None]:
    """A server, once it answers; it is stopped in the way of a service manager."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        assert _wait(process, url), log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)


@dataclass(frozen=True)
class Session:
    """A reader of the documents: a server, and a folder where commands are pasted."""

    address: str
    folder: Path
    log: Path
    environ: dict[str, str]

    def pasted(self, text: str) -> str:
        return text.replace(ADDRESS, self.address)

    def run(self, *command: str) -> str:
        """What a command prints. Its input is a terminal, which some programs check."""
        keyboard, terminal = pty.openpty()
        try:
            done = forking.run(
                command,
                cwd=self.folder,
                env=self.environ,
                stdin=terminal,
                capture_output=True,
                text=True,
                timeout=START_TIMEOUT,
            )
        finally:
            os.close(keyboard)
            os.close(terminal)
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def record(self, name: str) -> dict:
        url = f"http://{self.address}/v1/buckets/default/collections/docs/records/{name}"
        answer = requests.get(url, auth=AUTH, timeout=90)
        answer.raise_for_status()
        return answer.json()

    def attachment(self, name: str) -> dict:
        return self.record(name)["data"]["attachment"]

    def content(self, name: str) -> bytes:
        location = self.attachment(name)["location"]
        return requests.get(location, auth=AUTH, timeout=90).content


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("readme")
    plugin = python_with("docs/api.rst", "includeme")
    (folder / "readme_plugin.py").write_text(plugin)
    address = f"{HOST}:{_free_port()}"
    environ = {
        **os.environ,
        "KINTO_ATTACHMENT_BASE_PATH": str(folder / "stored"),
        "KINTO_INCLUDES": "kinto.plugins.default_bucket kinto_attachment readme_plugin",
        "PYTHONPATH": str(folder),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "config.serve", "--port", address.rpartition(":")[2]]
    url = f"http://{address}/v1/"
    log = folder / "log"
    with (
        running(command, url, log, cwd=ROOT, env=environ),
        pasted.environ(HOME=str(folder)) as own,
    ):
        (folder / "hello.txt").write_bytes(HELLO)
        yield Session(address, folder, log, own)
    with pytest.raises(requests.ConnectionError):  # Kinto stops with the command.
        requests.get(url, timeout=5)


def is_hello(attachment: dict, session: Session, name: str) -> None:
    assert attachment == session.attachment(name)
    assert attachment["filename"] == "hello.txt"
    assert attachment["hash"] == hashlib.sha256(HELLO).hexdigest()
    assert attachment["size"] == len(HELLO)
    assert session.content(name) == HELLO


def uploads_form(session: Session, output: str) -> None:
    is_hello(json.loads(output), session, "hello")
    assert session.record("hello")["data"]["title"] == "A greeting"
    assert session.record("hello")["permissions"]["read"] == ["system.Everyone"]


def uploads_bytes(session: Session, output: str) -> None:
    is_hello(json.loads(output), session, "raw")
    assert session.attachment("raw")["mimetype"] == "text/plain"


def copies(session: Session, output: str) -> None:
    is_hello(json.loads(output), session, "copy")


def lists_versions(session: Session, output: str) -> None:
    newest, oldest = json.loads(output)["data"]
    assert (newest["state"], oldest["state"]) == ("current", "kept")
    assert (newest["filename"], oldest["filename"]) == ("second.txt", "first.txt")


def restores(session: Session, output: str) -> None:
    assert json.loads(output)["filename"] == "first.txt"


def nothing(session: Session, output: str) -> None:
    """The commands that follow show its effect."""


def creates_a_record(session: Session, output: str) -> None:
    data = json.loads(output)["data"]
    is_hello(data["attachment"], session, data["id"])
    assert data["title"] == "Hello"


def uploads_packed(session: Session, output: str) -> None:
    attachment = json.loads(output)
    assert attachment == session.attachment("packed")
    assert (attachment["encoding"], attachment["filename"]) == ("gzip", "hello.txt")
    assert session.content("packed") == HELLO


def uploads_with_httpie(session: Session, output: str) -> None:
    is_hello(json.loads(output), session, "httpie")
    assert session.record("httpie")["data"]["title"] == "A greeting"


def shows_the_record_and_downloads(session: Session, output: str) -> None:
    """The JSON at the top of the README, with other ids and times."""
    (example,) = map(json.loads, code_blocks("README.rst", "json"))
    record = json.loads(output)
    for shown in (example, record):
        shown["data"].pop("last_modified")
        location = shown["data"]["attachment"].pop("location")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1/attachments/[0-9a-f-]{36}\.txt", location)
    assert record == example
    downloads(session, output)


def downloads(session: Session, output: str) -> None:
    assert (session.folder / "copy.txt").read_bytes() == HELLO


def is_refused(session: Session, output: str) -> None:
    assert json.loads(output)["code"] == 412


def renames(session: Session, output: str) -> None:
    assert json.loads(output) == session.attachment("raw")
    assert session.attachment("raw")["filename"] == "greeting.txt"
    assert session.content("raw") == HELLO


def deletes(session: Session, output: str) -> None:
    assert output == ""
    assert session.attachment("raw") is None


def makes_a_link(session: Session, output: str) -> None:
    data = json.loads(output)["data"]
    assert data["expires_at"] / 1000 > time.time() + 599
    assert ask(data["url"]).content == HELLO


def lists_links(session: Session, output: str) -> None:
    urls = [each["url"] for each in json.loads(output)["data"]]
    assert urls
    assert all(ask(url).content == HELLO for url in urls)


def uploads_with_tus(session: Session, output: str) -> None:
    is_hello_world(session, output, "tus")


def uploads_with_the_draft(session: Session, output: str) -> None:
    is_hello_world(session, output, "draft")


def is_hello_world(session: Session, output: str, record: str) -> None:
    offsets = re.findall(r"^Upload-Offset: (\d+)", output, re.M)
    assert offsets == ["6", "6", "11"]
    assert session.attachment(record)["filename"] == "a.txt"
    assert session.content(record) == b"hello world"


def uploads_directly(session: Session, output: str) -> None:
    assert "HTTP/1.1 201 " in output
    assert json.loads(output.splitlines()[-1]) == session.attachment("direct")
    assert session.content("direct") == b"hello world"


def uploads_in_three_steps(session: Session, output: str) -> None:
    assert json.loads(output)["size"] == len(b"hello world")


def cancels_an_upload(session: Session, output: str) -> None:
    states = [json.loads(line) for line in re.findall(r'\{"data":.*?(?:\}\]?\})', output)]
    ((upload, listed),) = [(one["data"], many["data"]) for one, many in [states]]
    assert upload["state"] == "open"
    assert upload["id"] in [each["id"] for each in listed]
    assert "HTTP/1.1 204 " in output


def locks(session: Session, output: str) -> None:
    assert json.loads(output)["data"]["attachment"] == {"locked": True}


def holds(session: Session, output: str) -> None:
    held = json.loads(output[output.index('{"data"') :])["data"]
    assert (held["until"], held["reason"]) == (None, "An audit")


def ends_a_hold(session: Session, output: str) -> None:
    refused = json.loads(output)
    assert (refused["code"], refused["details"]["reason"]) == (423, "An audit")


def has_a_quota(session: Session, output: str) -> None:
    """The server has no quota."""
    assert output.startswith("HTTP/1.1 200 OK")
    assert "\nTotal-" in output


def asks_for_a_bundle(session: Session, output: str) -> None:
    assert json.loads(output)["data"]["attachment"] == {"bundle": True}


def reads_the_archive(session: Session, output: str) -> None:
    assert "index.json" in output
    (session.folder / "docs.zip").unlink()


def makes_the_file(session: Session, output: str) -> None:
    assert (session.folder / "hello.txt").read_bytes() == HELLO


# In the order of each document, identified by a text in the command.
SHELL_COMMANDS: dict[str, dict[str, Callable[[Session, str], None]]] = {
    "README.rst": {
        "-F permissions=": uploads_form,
        "-o copy.txt": shows_the_record_and_downloads,
    },
    "docs/api.rst": {
        "echo 'Hello!' > hello.txt": makes_the_file,
        "-T hello.txt": uploads_bytes,
        "copy_from": copies,
        "/docs/attachments": creates_a_record,
        "gzip -c hello.txt": uploads_packed,
        "If-None-Match: *": is_refused,
        "-o copy.txt": downloads,
        "/attachment/url": makes_a_link,
        "_urls": lists_links,
        "-X PATCH": renames,
        "-X DELETE": deletes,
    },
    "docs/versions.rst": {
        "first.txt": nothing,
        "/versions": lists_versions,
        "/restore": restores,
    },
    "docs/holds.rst": {
        "/collections/done": locks,
        "An audit": holds,
        "-X DELETE": ends_a_hold,
    },
    "docs/client.rst": {
        "echo 'Hello!' > hello.txt": makes_the_file,
        "http -a alice:secret": uploads_with_httpie,
    },
    "docs/bundles.rst": {
        "-X PATCH": asks_for_a_bundle,
        "attachments.zip": reads_the_archive,
    },
    "docs/quotas.rst": {
        "-I http": has_a_quota,
    },
    "docs/resumable.rst": {
        "Tus-Resumable: 1.0.0": uploads_with_tus,
        "Content-Type: application/partial-upload": uploads_with_the_draft,
        "-X DELETE $UPLOAD": cancels_an_upload,
    },
    "docs/direct.rst": {
        "/complete": uploads_in_three_steps,
        '"via": "kinto"': uploads_directly,
    },
}
# Not run by this test; see test_documents.py and client/test_examples.py.
ELSEWHERE = (
    "make ",
    "pip install",
    "KINTO_ATTACHMENT_",
    "kinto-attachment ",
    "echo 'a,b' > report.csv\nkinto-attachment ",
    "export KINTO_SERVER=",
    "KINTO_AUTH=",
)


@pytest.mark.curl
@pytest.mark.parametrize("document", SHELL_COMMANDS)
def test_the_shell_commands_work_as_pasted(session: Session, document: str) -> None:
    for name in ("hello.txt", "copy.txt"):
        (session.folder / name).unlink(missing_ok=True)
    if document != "README.rst":  # Its uploads create the collection that other pages use.
        url = f"http://{session.address}/v1/buckets/default/collections/docs"
        requests.put(url, auth=AUTH, timeout=90).raise_for_status()
    blocks = [c for c in code_blocks(document, "shell") if not c.startswith(ELSEWHERE)]
    commands = SHELL_COMMANDS[document]
    assert len(blocks) == len(commands)
    for block, (part, check) in zip(blocks, commands.items(), strict=True):
        assert part in block
        check(session, session.run("bash", "-c", session.pasted(block)))


@pytest.mark.curl
def test_the_commands_that_make_serve_prints_work_as_pasted(session: Session) -> None:
    log = session.log.read_text()
    assert "Could not find config file" not in log
    commands = re.findall(r"^ +(curl .*)$", log, re.M)
    assert len(commands) == 3
    outputs = [session.run("bash", "-c", command) for command in commands]
    attachment = json.loads(outputs[0])
    assert json.loads(outputs[1])["data"]["attachment"] == attachment
    assert outputs[2] == (ROOT / "README.rst").read_text()


def test_the_kinto_http_example_works(session: Session) -> None:
    (session.folder / "hello.txt").write_bytes(HELLO)
    output = session.run(
        sys.executable, "-c", session.pasted(python_with("docs/client.rst", "kinto_http"))
    )
    assert output == hashlib.sha256(HELLO).hexdigest() + "\n"
    assert (session.folder / "copy.txt").read_bytes() == HELLO
    assert session.attachment("python") is None


def test_the_requests_example_works(session: Session) -> None:
    (session.folder / "hello.txt").write_bytes(HELLO)
    output = session.run(
        sys.executable, "-c", session.pasted(python_with("docs/client.rst", "requests.Session"))
    )
    assert hashlib.sha256(HELLO).hexdigest() in output
    is_hello(session.attachment("requests"), session, "requests")
    assert session.record("requests")["data"]["title"] == "Hi"


def python_with(document: str, part: str) -> str:
    (code,) = [code for code in code_blocks(document, "python") if part in code]
    return code


def test_the_javascript_example_works(session: Session) -> None:
    (code,) = code_blocks("README.rst", "javascript")
    output = session.run("node", "--input-type=module", "-e", session.pasted(code))
    assert output.startswith("201 ")
    is_hello(session.attachment("fetch"), session, "fetch")


def test_the_form_of_a_page_works(session: Session) -> None:
    (code,) = code_blocks("docs/api.rst", "javascript")
    url = f"http://{session.address}/v1/buckets/default/collections/docs/records/form/attachment"
    before = 'const file = new File(["Hello!\\n"], "hello.txt", { type: "text/plain" });\n'
    after = f"""
        const headers = {{ Authorization: "Basic " + btoa("alice:secret") }};
        const answer = await fetch("{url}", {{ method: "POST", headers, body: form }});
        console.log(answer.status);
    """
    assert session.run("node", "--input-type=module", "-e", before + code + after) == "201\n"
    is_hello(session.attachment("form"), session, "form")
    assert session.record("form")["data"]["title"] == "Hello"


def test_the_clients_hold_files(session: Session) -> None:
    url = f"http://{session.address}/v1/buckets/default/collections/docs/records/evidence"
    files = {"attachment": ("hello.txt", HELLO)}
    requests.post(f"{url}/attachment", files=files, auth=AUTH, timeout=90).raise_for_status()
    (command,) = [
        c for c in code_blocks("docs/holds.rst", "shell") if c.startswith("kinto-attachment hold")
    ]
    session.run("bash", "-c", session.pasted(command))
    held = requests.get(f"{url}/attachment/hold", auth=AUTH, timeout=90).json()["data"]
    assert (held["until"], held["reason"]) == (1893456000000, "An audit")
    with pytest.raises(RejectedError) as refused:
        exec(session.pasted(python_with("docs/holds.rst", "release_hold")), {})
    assert refused.value.response.status_code == 423


def test_the_event_example_works(session: Session) -> None:
    url = f"http://{session.address}/v1/buckets/default/collections/docs/records/event/attachment"
    files = {"attachment": ("hello.txt", HELLO)}
    requests.post(url, files=files, auth=AUTH, timeout=90).raise_for_status()
    assert re.search(
        r"/buckets/\S+/collections/docs/records/event hello\.txt", session.log.read_text()
    )


def test_a_browser_opens_what_is_printed(session: Session) -> None:
    (link,) = re.findall(r"In a browser: (\S+)", session.log.read_text())
    page = requests.get(link, headers={"Accept": "text/html"}, timeout=90, allow_redirects=False)
    assert page.status_code == 200
    url = f"http://{session.address}/v1/buckets/default/collections/docs/records/seen/attachment"
    files = {"attachment": ("hello.txt", HELLO)}
    answer = requests.post(url, files=files, auth=AUTH, timeout=90)
    assert "In a browser" in session.log.read_text()
    # A link or a picture in a page has no credentials.
    assert requests.get(answer.json()["location"], timeout=90).content == HELLO


def test_kinto_admin_gets_what_it_asks_for(session: Session) -> None:
    server = f"http://{session.address}/v1"
    origin = {"Origin": "http://localhost:3000"}
    capabilities = requests.get(f"{server}/", headers=origin, timeout=90).json()["capabilities"]
    assert {"attachments", "permissions_endpoint"} <= set(capabilities)
    asked = {"Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    url = f"{server}/permissions"
    assert requests.options(url, headers={**origin, **asked}, timeout=90).status_code == 200
    wanted = {"exclude_resource_name": "record,group"}
    answer = requests.get(url, params=wanted, headers=origin, auth=AUTH, timeout=90)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", origin["Origin"])


@pytest.mark.curl
def test_a_collection_says_that_it_has_files(session: Session) -> None:
    url = f"http://{session.address}/v1/buckets/default/collections/docs"
    requests.put(url, json={}, auth=AUTH, timeout=90).raise_for_status()
    (command,) = [c for c in code_blocks("docs/admin.rst", "shell") if c.startswith("curl")]
    answer = json.loads(session.run("bash", "-c", session.pasted(command)))
    assert answer["data"]["attachment"] == {"enabled": True, "required": False}


def test_make_serve_serves_a_build_of_kinto_admin(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>The built page.</p>")
    (tmp_path / "VERSION").write_text("1.0")
    port = _free_port()
    environ = {**os.environ, "KINTO_ATTACHMENT_BASE_PATH": str(tmp_path / "stored")}
    command = [sys.executable, "-m", "config.serve", "--port", str(port), "--admin", str(tmp_path)]
    log = tmp_path / "log"
    with running(command, f"http://{HOST}:{port}/v1/", log, cwd=ROOT, env=environ):
        (link,) = re.findall(r"In a browser: (\S+)", log.read_text())
        assert requests.get(link, timeout=90).text == "<p>The built page.</p>"


@pytest.fixture
def kinto_ini(tmp_path: Path) -> Path:
    """A configuration file with the name that the documents use."""
    ini = (ROOT / "config" / "serve.ini").read_text().replace("%(here)s/..", str(tmp_path))
    (tmp_path / "kinto.ini").write_text(ini)
    return tmp_path / "kinto.ini"


@pytest.mark.parametrize("part", ["--bind", "PROMETHEUS_MULTIPROC_DIR"])
def test_the_gunicorn_commands_work(kinto_ini: Path, part: str) -> None:
    (command,) = [c for c in code_blocks(PRODUCTION, "shell") if part in c]
    command = command.replace("/run/kinto", str(kinto_ini.parent))
    address = f"{HOST}:{_free_port()}"
    url = f"http://{address}/v1/__heartbeat__"
    command = re.sub(r" +\\\n +--bind \S+", "", command)
    program = f"exec gunicorn --bind {address}"
    shell = ["bash", "-c", re.sub(r"\bgunicorn(?= --)", program, command, count=1)]
    log = kinto_ini.with_name("log")
    with (
        pasted.environ() as environ,
        running(shell, url, log, cwd=kinto_ini.parent, env=environ),
    ):
        assert requests.get(url, timeout=90).json()["attachments"] is True
        text = log.read_text()
    assert re.search(r"GET .*/v1/__heartbeat__", text), "the logging of the file"
    assert "Could not find config file" not in text
    assert (kinto_ini.parent / "metrics").is_dir() == (part == "PROMETHEUS_MULTIPROC_DIR")
