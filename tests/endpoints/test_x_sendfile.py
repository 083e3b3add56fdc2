"""The documents' configurations of Apache and lighttpd, which send files that Kinto names."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from kinto_attachment.endpoints.downloads import SECURITY_HEADERS
from tests.endpoints.test_nginx import AUTH, CONTENT, ORIGIN, SHA256, Site, link, upload
from tests.support import live
from tests.support.documents import code_blocks
from tests.support.faults import HOST
from tests.support.services import _folder, _free_port, _stopping, _wait

TAG = f'"{SHA256.hexdigest()}"'
FILES = "/var/lib/kinto/attachments"
LENGTH = str(len(CONTENT))


@dataclass(frozen=True)
class Fronted(Site):
    """A web server with Kinto behind it; ``behind`` is the URL of Kinto itself."""

    behind: str


APACHE = """\
ServerRoot {folder}
ServerName {host}
Listen {host}:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
Mutex file:{folder}
{modules}
{user}
{server}
"""
MODULES = "/usr/lib/apache2/modules"
# The configuration does not include the system's.
LOADED = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "xsendfile")
LIGHTTPD = """\
server.document-root = "{folder}"
server.bind = "{host}"
server.port = {port}
server.errorlog = "{folder}/error.log"
{server}
"""


def apache(folder: Path, server: str, port: int) -> list[str]:
    """The command that runs Apache, whose workers do not run as root."""
    modules = [f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED]
    user = "User nobody\nGroup nogroup" if os.geteuid() == 0 else ""
    values = {"folder": folder, "host": HOST, "port": port, "user": user}
    server = server.replace("*:80", f"{HOST}:{port}")
    config = folder / "apache.conf"
    config.write_text(APACHE.format(modules="\n".join(modules), server=server, **values))
    return [program("apache2"), "-D", "FOREGROUND", "-f", str(config)]


def lighttpd(folder: Path, server: str, port: int) -> list[str]:
    config = folder / "lighttpd.conf"
    config.write_text(LIGHTTPD.format(folder=folder, host=HOST, port=port, server=server))
    return [program("lighttpd"), "-D", "-f", str(config)]


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert found, f"These tests need {name}."
    return found


@contextlib.contextmanager
def site(language: str, command: Callable[[Path, str, int], list[str]]) -> Iterator[Fronted]:
    """Run a web server with the configuration in the documents, and Kinto behind it."""
    (server,) = code_blocks("docs/production.rst", language)
    with _folder(language) as folder:
        files, port = folder / "files", _free_port()
        files.mkdir()
        for each in (folder, files):
            each.chmod(0o755)
        url = f"http://{HOST}:{port}"
        # Filenames are kept, so that they occur in the paths that the web server gets.
        settings = {
            **{"downloads": "x-sendfile", "base_path": str(files)},
            **{"file_mode": "0644", "randomize": "false"},
        }
        with live.kinto(settings) as kinto:
            server = server.replace(FILES, str(files)).replace("8000", str(kinto.port))
            process = subprocess.Popen(command(folder, server, port))
            with _stopping(process):
                assert _wait(process, f"{url}/v1/"), (folder / "error.log").read_text()
                try:
                    yield Fronted(url, upload(url), files, f"http://{HOST}:{kinto.port}")
                finally:
                    process.terminate()  # Apache stops its workers then.
                    process.wait(30)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("apache", apache), marks=pytest.mark.apache, id="Apache"),
        pytest.param(("lighttpd", lighttpd), marks=pytest.mark.lighttpd, id="lighttpd"),
    ],
)
def served(request: pytest.FixtureRequest) -> Iterator[Fronted]:
    with site(*request.param) as running:
        yield running


def test_a_file_is_sent_with_what_kinto_says_of_it(served: Fronted) -> None:
    answer = served.get(**ORIGIN)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    headers = answer.headers
    assert (headers["ETag"], headers["Content-Length"]) == (TAG, LENGTH)
    assert headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
    assert headers["Content-Type"] == "text/html"
    assert headers["Content-Disposition"] == 'attachment; filename="a.html"'
    assert SECURITY_HEADERS.items() <= headers.items()
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "X-Sendfile" not in headers
    own = served.get(f"{served.behind}/v1/buckets/default/collections/docs/records/a/attachment")
    assert own.content == b"", "not Kinto, but the web server has sent it"
    assert Path(own.headers["X-Sendfile"]).read_bytes() == CONTENT


def test_a_link_works_without_credentials(served: Fronted) -> None:
    url = link(served, disposition="attachment", filename="b c.txt", expires_in="1h")
    for method in ("GET", "HEAD"):
        answer = requests.request(method, url, headers=ORIGIN, timeout=90)
        assert answer.status_code == 200
        assert answer.content == (CONTENT if method == "GET" else b"")
        assert answer.headers["Content-Length"] == LENGTH
        assert answer.headers["Content-Disposition"] == 'attachment; filename="b c.txt"'
        assert re.fullmatch(r"private, max-age=\d+, immutable", answer.headers["Cache-Control"])
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert SECURITY_HEADERS.items() <= answer.headers.items()
        assert "X-Sendfile" not in answer.headers


@pytest.mark.parametrize("by", ["link", "record"])
def test_ranges_and_conditions(served: Fronted, by: str) -> None:
    url = link(served) if by == "link" else f"{served.record}/attachment"
    auth = None if by == "link" else AUTH

    def get(**headers: str) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = requests.get(url, headers=named, auth=auth, timeout=90)
        return answer.status_code, answer.content

    assert get(Range="bytes=10-19") == (206, CONTENT[10:20])
    assert get(Range="bytes=-5") == (206, CONTENT[-5:])
    assert get(Range=f"bytes={LENGTH}-")[0] == 416
    assert get(Range="bytes=0-1", If_Range=TAG) == (206, CONTENT[:2])
    assert get(Range="bytes=0-1", If_Range='"x"') == (200, CONTENT)
    assert get(If_None_Match=TAG) == (304, b"")
    assert get(If_Match=TAG) == (200, CONTENT)
    assert get(If_Match=TAG, Range="bytes=10-19") == (206, CONTENT[10:20])
    assert get(If_Match='"x"')[0] == 412


def test_tokens_that_are_none_open_nothing(served: Fronted) -> None:
    url = link(served)
    for wrong in (url[:-1], url.partition("?")[0], url.replace("token=", "token=x")):
        for headers in ({}, {"Range": "bytes=0-1"}):
            answer = requests.get(wrong, headers=headers, timeout=90)
            assert answer.status_code == 401
            assert CONTENT[:2] not in answer.content


@pytest.mark.parametrize("name", ["Grüße тест.txt", "a+b & c.txt"])
def test_names_that_are_not_ascii(served: Fronted, name: str) -> None:
    record = f"{served.url}/v1/buckets/default/collections/docs/records/named"
    sent = requests.put(
        f"{record}/attachment", params={"filename": name}, data=b"x", auth=AUTH, timeout=90
    )
    assert sent.status_code in (200, 201), sent.text
    url = requests.get(f"{record}/attachment/url", auth=AUTH, timeout=90).json()["data"]["url"]
    assert requests.get(url, timeout=90).content == b"x"
