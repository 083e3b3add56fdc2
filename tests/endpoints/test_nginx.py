"""The nginx configurations in the documents, run in nginx."""

from __future__ import annotations

import base64
import contextlib
import grp
import hashlib
import os
import pwd
import re
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from kinto_attachment.client import AttachmentClient
from kinto_attachment.endpoints.downloads import SECURITY_HEADERS
from kinto_attachment.names import disposition_filename
from tests.support import live, nginx, waiting
from tests.support.connections import MIB
from tests.support.documents import code_blocks
from tests.support.faults import HOST
from tests.support.scripts import Script
from tests.support.services import S3, _free_port
from tests.support.tus import BYTES, TUS, metadata

pytestmark = pytest.mark.nginx

AUTH = ("alice", "secret")
ORIGIN = {"Origin": "https://app.example.com"}
CONTENT = os.urandom(3 * 1024 * 1024)  # By default, nginx accepts 1 MiB.
MAX_SIZE = 64 * 1024 * 1024
SHA256 = hashlib.sha256(CONTENT)


@dataclass(frozen=True)
class Site:
    """nginx with Kinto behind it, and one record with :data:`CONTENT` attached."""

    url: str
    attachment: dict
    files: Path

    @property
    def record(self) -> str:
        return f"{self.url}/v1/buckets/default/collections/docs/records/a"

    def get(self, url: str = "", **headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        url = url or f"{self.record}/attachment"
        return requests.get(url, auth=AUTH, headers=names, timeout=90)


def nginx_blocks() -> list[str]:
    """The configuration of the server, and the location for public files."""
    server, public_files = code_blocks("docs/production.rst", "nginx")
    return [server, public_files]


@contextlib.contextmanager
def site(
    folder: Path,
    server: str,
    settings: Mapping[str, str],
    kinto_settings: Mapping[str, str] | None = None,
    *,
    user: str = "root",
) -> Iterator[Site]:
    """Run nginx with Kinto behind it, under another user if root runs the tests."""
    files = folder / "files"
    port = _free_port()
    url = f"http://{HOST}:{port}"
    settings = {name: value.replace("@URL@", url) for name, value in settings.items()}
    if "aws.bucket_name" not in settings:
        settings["base_path"] = str(files)
    settings["max_size"] = str(MAX_SIZE)
    with live.kinto(settings, settings=kinto_settings or {}) as kinto:
        server = server.replace("listen 80;", f"listen {HOST}:{port};")
        server = server.replace("127.0.0.1:8000", f"{HOST}:{kinto.port}")
        server = server.replace("/var/lib/kinto/attachments/", f"{files}/")
        with nginx.running(folder, server, f"{url}/v1/", user):
            yield Site(url, upload(url), files)


def upload(url: str) -> dict:
    answer = requests.put(
        f"{url}/v1/buckets/default/collections/docs/records/a/attachment?filename=a.html",
        data=iter([CONTENT]),  # Chunked: of unknown length.
        auth=AUTH,
        headers={"Content-Type": "text/html"},
        timeout=90,
    )
    assert answer.status_code == 201, answer.text
    attachment = answer.json()
    assert attachment["hash"] == SHA256.hexdigest()
    return attachment


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("protected")
    server, _ = nginx_blocks()
    (downloads,) = re.findall(r"kinto\.attachment\.downloads = (\S+)", server)
    with site(folder, server, {"downloads": downloads}) as running:
        yield running


@pytest.fixture(scope="module")
def redirecting(moto: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("redirecting")
    settings = moto.options(moto.create_bucket())
    server, _ = nginx_blocks()
    with site(folder, server, settings) as running:
        yield running


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    server, extra = nginx_blocks()
    server = re.sub(r"\}\s*$", f"{extra}\n}}", server)
    folder = tmp_path_factory.mktemp("public")
    with site(folder, server, {"base_url": "@URL@/files/"}) as running:
        yield running


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("streaming")
    server, _ = nginx_blocks()
    with site(folder, server, {"downloads": "stream"}) as running:
        yield running


@pytest.fixture(scope="module")
def proxying(moto: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("proxying")
    settings = {**moto.options(moto.create_bucket()), "downloads": "proxy"}
    server, _ = nginx_blocks()
    with site(folder, server, settings) as running:
        yield running


MODES = ["protected", "streaming", "proxying", "redirecting"]


@pytest.mark.parametrize("how", MODES)
def test_the_commands_work_behind_nginx(
    request: pytest.FixtureRequest, how: str, tmp_path: Path
) -> None:
    served: Site = request.getfixturevalue(how)
    contents = {"a.txt": b"content", "empty.txt": b"", "large.txt": CONTENT}
    (tmp_path / "sent").mkdir()
    for name, content in contents.items():
        (tmp_path / "sent" / name).write_bytes(content)
    options = (f"{served.url}/v1", "default", "commands", tmp_path / "tmp")
    uploaded = Script("upload.py", *options).call("-r", "--json", tmp_path / "sent")
    assert (uploaded.code, uploaded.results()) == (0, dict.fromkeys(contents, "uploaded"))
    arrived = tmp_path / "arrived"
    done = Script("download.py", *options).call("--json", "--folder", arrived)
    assert (done.code, done.results()) == (0, dict.fromkeys(contents, "downloaded")), done.lines
    assert {path.name: path.read_bytes() for path in arrived.glob("*.txt")} == contents


@pytest.mark.parametrize("how", MODES)
def test_a_python_client_reads_parts_behind_nginx(
    request: pytest.FixtureRequest, how: str
) -> None:
    served: Site = request.getfixturevalue(how)
    client = AttachmentClient(f"{served.url}/v1", "default", "docs", AUTH)
    with client.open("a") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == CONTENT[-10:]
        file.seek(1_000_000)
        assert file.read(5) == CONTENT[1_000_000:1_000_005]


@pytest.mark.parametrize("how", ["protected", "streaming", "proxying"])
@pytest.mark.parametrize("where", ["record", "location"])
def test_a_client_gets_the_file_that_it_expects(
    request: pytest.FixtureRequest, how: str, where: str
) -> None:
    served: Site = request.getfixturevalue(how)
    url = "" if where == "record" else served.attachment["location"]
    tag = f'"{SHA256.hexdigest()}"'
    for expected in (tag, f'"other", {tag}', "*"):
        answer = served.get(url, If_Match=expected)
        assert (answer.status_code, answer.content) == (200, CONTENT)
        assert answer.headers["ETag"] == tag
        part = served.get(url, If_Match=expected, Range="bytes=10-19")
        assert (part.status_code, part.content) == (206, CONTENT[10:20])
        both = served.get(url, If_Match=expected, Range="bytes=-5", If_Range=tag)
        assert (both.status_code, both.content) == (206, CONTENT[-5:])
    assert served.get(url, If_Match=expected, If_None_Match=tag).status_code == 304
    assert served.get(url, If_Match='"another"').status_code == 412
    answer = requests.head(
        url or f"{served.record}/attachment",
        auth=AUTH,
        headers={"If-Match": tag},
        timeout=90,
    )
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(len(CONTENT)))
    modified = answer.headers["Last-Modified"]
    assert served.get(url, If_Unmodified_Since=modified).status_code == 200
    early = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert served.get(url, If_Unmodified_Since=early).status_code == 412


def test_a_download_is_sent_by_nginx_with_what_kinto_says_of_it(protected: Site) -> None:
    answer = protected.get(**ORIGIN)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    headers = answer.headers
    assert headers["Server"].startswith("nginx")
    assert headers["ETag"] == f'"{SHA256.hexdigest()}"'
    assert headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(SHA256.digest()).decode()}:"
    assert headers["Content-Type"] == "text/html"
    assert headers["Content-Disposition"] == 'attachment; filename="a.html"'
    assert SECURITY_HEADERS.items() <= headers.items()
    assert headers["Cache-Control"] == "private, no-cache"
    assert "bytes" in headers["Accept-Ranges"]
    assert "X-Accel-Redirect" not in headers


def test_a_link_is_not_told_to_other_sites(protected: Site) -> None:
    url = f"{protected.record}/attachment/url"
    link = requests.get(url, auth=AUTH, timeout=90).json()["data"]["url"]
    answer = requests.get(link, timeout=90)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "Referrer-Policy" not in protected.get().headers


def link(served: Site, **asked: str) -> str:
    url = f"{served.record}/attachment/url"
    made: str = requests.get(url, auth=AUTH, params=asked, timeout=90).json()["data"]["url"]
    return made


@pytest.mark.parametrize("how", MODES)
def test_links_work_in_each_mode(request: pytest.FixtureRequest, how: str) -> None:
    served: Site = request.getfixturevalue(how)
    url = link(served, disposition="attachment", filename="b c.txt", expires_in="1h")
    answer = requests.get(url, timeout=90)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="b c.txt"'
    assert answer.headers["Content-Type"].startswith("text/html")
    part = requests.get(url, headers={"Range": "bytes=10-19"}, timeout=90)
    assert (part.status_code, part.content) == (206, CONTENT[10:20])
    suffix = requests.get(url, headers={"Range": "bytes=-5"}, timeout=90)
    assert (suffix.status_code, suffix.content) == (206, CONTENT[-5:])
    beyond = requests.get(url, headers={"Range": f"bytes={len(CONTENT)}-"}, timeout=90)
    assert beyond.status_code == 416
    tag = answer.headers["ETag"]
    same = requests.get(url, headers={"If-None-Match": tag}, timeout=90)
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize("how", ["protected", "streaming", "proxying"])
def test_own_links_are_kept_by_browsers_until_they_end(
    request: pytest.FixtureRequest, how: str
) -> None:
    served: Site = request.getfixturevalue(how)
    url = link(served, expires_in="1h")
    tag = f'"{SHA256.hexdigest()}"'
    asked: tuple[dict[str, str], ...] = (
        *({}, {"Range": "bytes=0-1"}, {"If-None-Match": tag}),
        *({"If-Match": tag}, {"If-Match": tag, "Range": "bytes=0-1"}),
    )
    for method in ("GET", "HEAD"):
        for headers in asked:
            answer = requests.request(method, url, headers=headers, timeout=90)
            assert answer.status_code in (200, 206, 304), (method, headers)
            caching = answer.headers["Cache-Control"]
            (left,) = re.fullmatch(r"private, max-age=(\d+), immutable", caching).groups()
            assert 3590 <= int(left) <= 5400
            assert answer.headers["ETag"] == tag
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
    head = requests.head(url, timeout=90)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert requests.get(url, headers={"If-Match": '"x"'}, timeout=90).status_code == 412
    other = requests.get(url, headers={"Range": "bytes=0-1", "If-Range": '"x"'}, timeout=90)
    assert (other.status_code, other.content) == (200, CONTENT)


@pytest.mark.parametrize("how", ["protected", "streaming", "proxying"])
def test_tokens_that_are_none_open_nothing_behind_nginx(
    request: pytest.FixtureRequest, how: str
) -> None:
    served: Site = request.getfixturevalue(how)
    url = link(served)
    for wrong in (url[:-1], url.partition("?")[0], url.replace("token=", "token=x")):
        for headers in ({}, {"Range": "bytes=0-1"}):
            answer = requests.get(wrong, headers=headers, timeout=90)
            assert answer.status_code == 401
            assert "immutable" not in answer.headers.get("Cache-Control", "")
            assert CONTENT[:2] not in answer.content


def test_ranges_are_sent_by_nginx(protected: Site) -> None:
    answer = protected.get(Range="bytes=10-19")
    assert answer.status_code == 206
    assert answer.content == CONTENT[10:20]
    assert answer.headers["Content-Range"] == f"bytes 10-19/{len(CONTENT)}"
    suffix = protected.get(Range="bytes=-5")
    assert (suffix.status_code, suffix.content) == (206, CONTENT[-5:])
    assert protected.get(Range=f"bytes={len(CONTENT)}-").status_code == 416


ASKED = ({}, {"Range": "bytes=0-1"}, {"If-None-Match": f'"{SHA256.hexdigest()}"'})
UNUSUAL = ({"Range": "bytes=99999999-"}, {"If-Match": '"x"'})


@pytest.mark.parametrize("headers", [{}, ORIGIN], ids=["picture", "script"])
@pytest.mark.parametrize("wanted", [*ASKED, *UNUSUAL], ids=lambda asked: "".join(asked) or "all")
@pytest.mark.parametrize("how", ["protected", "redirecting", "public"])
def test_pages_of_other_origins_read_every_answer(
    request: pytest.FixtureRequest, how: str, wanted: dict[str, str], headers: dict[str, str]
) -> None:
    served: Site = request.getfixturevalue(how)
    for url in (served.attachment["location"], f"{served.record}/attachment"):
        answer = requests.get(
            url,
            auth=AUTH,
            headers={**wanted, **headers},
            allow_redirects=False,
            timeout=90,
        )
        assert answer.status_code in (200, 206, 302, 304, 412, 416)
        if (how, answer.status_code) == ("public", 412) and "/files/" in url:
            continue  # nginx's own answer, which the document calls unreadable.
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "Content-Range"} <= set(exposed)
        if answer.status_code in (200, 206, 302):
            assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


def test_answers_for_one_of_several_origins_are_kept_apart(tmp_path: Path) -> None:
    server, _ = nginx_blocks()
    (downloads,) = re.findall(r"kinto\.attachment\.downloads = (\S+)", server)
    origins = {"kinto.cors_origins": f"{ORIGIN['Origin']} https://other.example.com"}
    with site(tmp_path, server, {"downloads": downloads}, origins) as served:
        for wanted in (*ASKED, UNUSUAL[0]):
            for headers in ({}, ORIGIN):
                answer = requests.get(
                    served.attachment["location"],
                    auth=AUTH,
                    headers={**wanted, **headers},
                    timeout=90,
                )
                assert {"Authorization", "Origin"} <= set(answer.headers["Vary"].split(", "))
                allowed = answer.headers.get("Access-Control-Allow-Origin")
                assert allowed == headers.get("Origin")


def test_what_arrives_of_an_upload_that_breaks_off_is_kept(protected: Site) -> None:
    """This requires that nginx does not buffer, and accepts chunks of any size."""
    told = {"Upload-Length": str(len(CONTENT)), "Upload-Metadata": metadata(filename="a.html")}
    record = protected.record.removesuffix("a") + "several"
    url = f"{record}/attachment/uploads"
    created = requests.post(url, auth=AUTH, headers={**TUS, **told}, timeout=90)
    assert created.status_code == 201, created.text
    url = created.headers["Location"]
    assert url.startswith(protected.url)

    def stored() -> int:
        return sum(file.stat().st_size for file in (protected.files / ".unfinished").iterdir())

    def offset() -> int:
        return int(requests.get(url, auth=AUTH, timeout=90).json()["data"]["offset"])

    lines = {**TUS, **BYTES, "Upload-Offset": "0", "Content-Length": str(len(CONTENT))}
    lines["Authorization"] = f"Basic {base64.b64encode(':'.join(AUTH).encode()).decode()}"
    address = protected.url.removeprefix("http://")
    fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": address, **lines}.items())
    head = f"PATCH {url.removeprefix(protected.url)} HTTP/1.1\r\n{fields}\r\n"
    with socket.create_connection(tuple(address.split(":")), timeout=90) as connection:
        connection.sendall(head.encode() + CONTENT[: MIB * 3 // 2])
        waiting.until(lambda: stored() >= MIB)
    waiting.until(lambda: offset() >= MIB)
    start = int(requests.head(url, auth=AUTH, headers=TUS, timeout=90).headers["Upload-Offset"])
    headers = {**TUS, **BYTES, "Upload-Offset": str(start)}
    rest = requests.patch(url, data=CONTENT[start:], auth=AUTH, headers=headers, timeout=90)
    assert rest.status_code == 204, rest.text
    assert protected.get(f"{record}/attachment").content == CONTENT


def test_a_broken_download_goes_on_only_with_the_same_file(protected: Site) -> None:
    same = protected.get(Range="bytes=10-19", If_Range=f'"{SHA256.hexdigest()}"')
    assert (same.status_code, same.content) == (206, CONTENT[10:20])
    other = protected.get(Range="bytes=10-19", If_Range='"another"')
    assert (other.status_code, other.content) == (200, CONTENT)


def test_a_file_that_the_client_has_is_not_sent(protected: Site) -> None:
    answer = protected.get(If_None_Match=f'"{SHA256.hexdigest()}"')
    assert (answer.status_code, answer.content) == (304, b"")
    assert protected.get(If_None_Match='"another"').status_code == 200
    since = protected.get().headers["Last-Modified"]
    assert protected.get(If_Modified_Since=since).status_code == 304


def test_permissions_hold_whatever_sends_the_file(protected: Site) -> None:
    location = protected.attachment["location"]
    assert location.startswith(f"{protected.url}/v1/attachments/")
    assert protected.get(location).content == CONTENT
    for wanted in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": f'"{SHA256.hexdigest()}"'}):
        for url in (location, f"{protected.record}/attachment"):
            assert protected.get(url, **wanted).headers["Vary"] == "Authorization"
    for url in (location, f"{protected.record}/attachment"):
        assert requests.get(url, timeout=90).status_code == 401
    assert requests.get(location, auth=("mallory", "x"), timeout=90).status_code == 404
    key = location.rpartition("/")[2]
    assert protected.get(f"{protected.url}/protected/{key}").status_code == 404


def test_a_web_server_of_another_user_reads_the_files_by_their_group() -> None:
    """As described in docs/storage.rst: a group, its bit on the folder, and ``file_mode``."""
    (text,) = [text for text in code_blocks("docs/storage.rst", "ini") if "file_mode" in text]
    settings = dict(re.findall(r"kinto\.attachment\.(\w+) = (\S+)", text))
    server, _ = nginx_blocks()
    (settings["downloads"],) = re.findall(r"kinto\.attachment\.downloads = (\S+)", server)
    del settings["base_path"]  # ``site`` sets its own.
    settings["resources.default.docs.folder"] = "{bucket_id}/{collection_id}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "files").mkdir()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder / "files", 0, nobody.pw_gid)
            user = f"nobody {grp.getgrgid(nobody.pw_gid).gr_name}"
        else:
            user = ""
        (folder / "files").chmod(0o2750)
        with site(folder, server, settings, user=user) as served:
            answer = served.get()
            assert (answer.status_code, answer.content) == (200, CONTENT)
            (stored,) = (folder / "files").rglob("*.html")
            assert stored.parent.parent.parent == folder / "files", "in folders of the plugin's"
            for path, mode in ((stored, 0o640), (stored.parent, 0o2750)):
                assert stat.S_IMODE(path.stat().st_mode) == mode
            stored.chmod(0o600)
            broken = served.get()
            assert broken.status_code == (403 if os.geteuid() == 0 else 200)


@pytest.mark.parametrize(
    ("length", "credentials", "status"),
    [(1000, "", 401), (MAX_SIZE * 4, "Authorization: Basic YWxpY2U6c2VjcmV0\r\n", 413)],
)
def test_a_refusal_comes_before_the_body(
    protected: Site, length: int, credentials: str, status: int
) -> None:
    host, _, port = protected.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=90) as connection:
        connection.sendall(
            "PUT /v1/buckets/default/collections/docs/records/b/attachment?filename=b HTTP/1.1\r\n"
            f"Host: {host}\r\nContent-Length: {length}\r\n{credentials}\r\n".encode()
        )
        assert connection.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())


LONGEST = [
    "x" * 255,
    "é" * 127,
    "日" * 85,
    "🎉" * 63,
    "\ufdfa" * 85,  # Each decomposes to eighteen characters.
    ";" * 254 + "%",  # Eight characters each in the URL of a redirect.
    "=" * 254 + '"',
]


@pytest.mark.parametrize("name", LONGEST, ids=lambda name: name[0])
@pytest.mark.parametrize("how", ["protected", "redirecting", "public"])
def test_the_longest_names_fit_into_nginx_s_buffers(
    request: pytest.FixtureRequest, how: str, name: str
) -> None:
    served: Site = request.getfixturevalue(how)
    url = f"{served.url}/v1/buckets/default/collections/docs/records/long/attachment"
    params = {"filename": name}
    answer = requests.put(url, data=b"x", params=params, auth=AUTH, headers=ORIGIN, timeout=90)
    assert answer.status_code in (200, 201), answer.text
    assert answer.json()["filename"] == name
    for method in ("GET", "HEAD"):
        answer = requests.request(
            method, url, auth=AUTH, headers=ORIGIN, allow_redirects=False, timeout=90
        )
        assert answer.status_code == (302 if (how, method) == ("redirecting", "GET") else 200)
        if answer.status_code == 302:
            answer = requests.get(answer.headers["Location"], timeout=90)
            assert answer.content == b"x"
        assert disposition_filename(answer.headers["Content-Disposition"]) == name
    params = {"filename": f"{name}xxxx"}
    assert requests.put(url, data=b"x", params=params, auth=AUTH, timeout=90).status_code == 400


def test_public_files_are_sent_without_kinto(public: Site) -> None:
    location = public.attachment["location"]
    assert location.startswith(f"{public.url}/files/")
    answer = requests.get(location, headers=ORIGIN, timeout=90)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    headers = answer.headers
    assert SECURITY_HEADERS.items() <= headers.items()
    assert "immutable" in headers["Cache-Control"]
    assert requests.get(f"{public.url}/files/", timeout=90).status_code in (403, 404)
    assert requests.get(f"{public.url}/files/.hidden", timeout=90).status_code in (
        403,
        404,
    )


def test_public_files_are_deleted_with_their_records(public: Site) -> None:
    assert requests.delete(public.record, auth=AUTH, timeout=90).status_code == 200
    assert requests.get(public.attachment["location"], timeout=90).status_code == 404
