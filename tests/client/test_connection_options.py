"""The server, the credentials and the proxy: options and environment."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from kinto_attachment import cli
from kinto_attachment.client import AttachmentClient, Retries, UnavailableError
from tests.support import ROOT, forking, live, pasted, waiting
from tests.support.certificates import certified
from tests.support.documents import code_blocks
from tests.support.faults import Answer
from tests.support.scripts import AUTH, MAINS
from tests.support.stubs import Request, Stub, listing, stub

BASIC = "Basic " + base64.b64encode(":".join(AUTH).encode()).decode()
SCRIPTS = {name: name.removesuffix(".py").replace("_", "-") for name in MAINS}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("KINTO_SERVER", "KINTO_AUTH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    for name in [*names, *map(str.lower, names), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]:
        monkeypatch.delenv(name, raising=False)


def nothing(request: Request) -> Answer:
    return Answer(200, b"{}") if request.path == "/v1/" else listing([])


def download(server: str | None, folder: Path, *arguments: str) -> int:
    options = ["--collection", "c", "--folder", str(folder), "--retry", "0", *arguments]
    return MAINS["download.py"]([*(["--server", server] if server else []), *options])


def credentials_of(stub: Stub) -> set[str | None]:
    assert stub.seen
    return {request.headers.get("Authorization") for request in stub.seen}


class TestCredentials:
    def test_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with stub(nothing) as server:
            monkeypatch.setenv("KINTO_SERVER", server.url)
            monkeypatch.setenv("KINTO_AUTH", ":".join(AUTH))
            assert download(None, tmp_path) == 0
        assert credentials_of(server) == {BASIC}

    def test_a_token(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with stub(nothing) as server:
            monkeypatch.setenv("KINTO_AUTH", "Bearer 3fa8")
            assert download(server.url, tmp_path) == 0
        assert credentials_of(server) == {"Bearer 3fa8"}

    def test_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_AUTH", "someone:else")
        (tmp_path / "auth").write_text("alice:secret\n# Not this line.\n")
        with stub(nothing) as server:
            file = str(tmp_path / "auth")
            assert download(server.url, tmp_path / "out", "--auth-file", file) == 0
        assert credentials_of(server) == {BASIC}

    def test_the_command_line_comes_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KINTO_AUTH", "someone:else")
        monkeypatch.setenv("KINTO_SERVER", "http://127.0.0.1:9/v1")
        (tmp_path / "auth").write_text("some:body")
        with stub(nothing) as server:
            options = ["--auth", "alice:secret", "--auth-file", str(tmp_path / "auth")]
            assert download(server.url, tmp_path / "out", *options) == 0
        assert credentials_of(server) == {BASIC}

    @pytest.mark.parametrize("text", ["", "\n", None])
    def test_a_file_without_them(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
    ) -> None:
        file = tmp_path / "auth"
        if text is not None:
            file.write_text(text)
        assert download("http://127.0.0.1:9/v1", tmp_path, "--auth-file", str(file)) == 2
        message = capsys.readouterr().err
        assert "No such file" in message if text is None else "first line" in message

    def test_help_does_not_print_them(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("KINTO_AUTH", "alice:very-secret")
        for main in MAINS.values():
            with pytest.raises(SystemExit):
                main(["--help"])
        assert "very-secret" not in capsys.readouterr().out

    def test_the_python_client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ValueError, match="KINTO_SERVER is not set"):
            AttachmentClient.from_env("default", "docs")
        with stub(nothing) as server:
            monkeypatch.setenv("KINTO_SERVER", server.url)
            assert list(AttachmentClient.from_env("b", "c", retries=0).records()) == []
            monkeypatch.setenv("KINTO_AUTH", ":".join(AUTH))
            assert list(AttachmentClient.from_env("b", "c", timeout=5).records()) == []
        assert credentials_of(server) == {None, BASIC}


class TestProxies:
    @pytest.mark.parametrize("proxy", ["http://me:secret@127.0.0.1:9", "127.0.0.1:9"])
    def test_a_dead_one_is_named(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        proxy: str,
    ) -> None:
        monkeypatch.setenv("http_proxy", proxy)
        assert download("http://kinto.example.com/v1", tmp_path) == 2
        message = capsys.readouterr().err
        assert "http://kinto.example.com/v1, by the proxy http://127.0.0.1:9" in message
        assert "secret" not in message

    def test_a_server_that_needs_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with stub(nothing) as server:
            assert download(server.url, tmp_path) == 0


class TestCertificates:
    def test_of_a_private_authority(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        context, _ = certified(tmp_path)
        bundle = tmp_path / "server.pem"
        with stub(nothing, context) as server:
            url = server.url.replace("http://127.0.0.1", "https://localhost")
            assert download(url, tmp_path / "out") == 2
            assert "certificate" in capsys.readouterr().err
            assert download(url, tmp_path / "out", "--ca-bundle", str(bundle)) == 0
            client = AttachmentClient(url, "b", "c", ca_bundle=str(bundle))
            assert list(client.records()) == []
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
            assert download(url, tmp_path / "out") == 0
        assert download(url, tmp_path / "out", "--ca-bundle", "nowhere.pem") == 2
        assert "nowhere.pem" in capsys.readouterr().err


class TestNames:
    @pytest.mark.parametrize("option", ["--collection", "--bucket"])
    @pytest.mark.parametrize("name", ["my docs", "", "-x", "a/b", "é", "a.b"])
    def test_that_kinto_would_refuse(
        self, capsys: pytest.CaptureFixture[str], option: str, name: str
    ) -> None:
        for command in ("upload", "download", "delete"):
            with pytest.raises(SystemExit) as stopped:
                cli.main([command, "--collection", "c", f"{option}={name}", "x"])
            assert stopped.value.code == 2
            assert f"{name!r} should have letters, digits" in capsys.readouterr().err


class TestRetries:
    @pytest.mark.parametrize("value", [urllib3.Retry(3), None, "5", 2.5])
    def test_another_kind_is_refused_at_once(self, value: object) -> None:
        message = r"retries should be a number or a kinto_attachment.client.Retries, not \w+"
        with pytest.raises(TypeError, match=message):
            AttachmentClient("http://127.0.0.1:9/v1", "b", "c", retries=value)  # type: ignore[arg-type]

    def test_both_kinds_are_taken(self) -> None:
        for value in (0, Retries(0)):
            client = AttachmentClient("http://127.0.0.1:9/v1", "b", "c", retries=value)
            with pytest.raises(UnavailableError):
                client.stat("r")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_and_the_commands_have_the_same_help_with_defaults(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main([SCRIPTS[script], "--help"])
    text = capsys.readouterr().out
    assert "(default: http://127.0.0.1:8888/v1)" in text
    assert "when a request fails (default: 5)" in text
    assert "KINTO_AUTH" in text
    assert "(default: None)" not in text
    assert "(default: False)" not in text
    command = [str(ROOT / "scripts" / script), "--help"]
    # One of them by its first line, which all of them share.
    assert os.access(command[0], os.X_OK)
    with open(command[0]) as file:
        assert file.readline() == "#!/usr/bin/env python3\n"
    done = forking.run(
        command if script == "upload.py" else [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=True,
        timeout=waiting.SECONDS,
    )
    of_command = text.replace(f"kinto-attachment {SCRIPTS[script]}", "")
    assert done.stdout.replace(script, "").split() == of_command.split()
    assert f" {script}" in done.stdout.partition("Examples:")[2]


def test_create_account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {
        "multiauth.policies": "account",
        "multiauth.policy.account.use": "kinto.plugins.accounts.AccountsPolicy",
        "kinto.account_create_principals": "system.Everyone",
        "kinto.account_write_principals": "account:admin",
    }
    create = MAINS["create_account.py"]
    with live.kinto(
        {"base_path": str(tmp_path)}, includes=["kinto.plugins.accounts"], settings=settings
    ) as server:
        (documented,) = [
            text for text in code_blocks("docs/client.rst", "shell") if "create-account" in text
        ]
        with pasted.environ(KINTO_SERVER=server.url) as environ:
            done = subprocess.run(
                ["sh", "-c", documented],
                env=environ,
                capture_output=True,
                text=True,
                timeout=waiting.SECONDS,
            )
        assert (done.returncode, json.loads(done.stdout)) == (0, {"account": "carol"})
        options = ["--server", server.url, "--retry", "0", "--auth"]
        client = AttachmentClient(server.url, "b", "c", ("carol", "secret"))
        root, _ = client.session.request("get", "/")
        assert root["user"]["id"] == "account:carol"
        assert create([*options, "carol:other"]) == 2
        assert "The account carol already exists" in capsys.readouterr().err
    assert create([*options, "Bearer token"]) == 2
    assert "user:password" in capsys.readouterr().err


def test_create_account_on_a_server_without_accounts(
    embedded: live.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--server", embedded.url, "--retry", "0", "--auth", "carol:secret"]
    assert MAINS["create_account.py"](options) == 2
    assert "kinto.plugins.accounts" in capsys.readouterr().err
