"""Clients and ``--help`` import no server code; checked in a new Python process."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kinto_attachment
from kinto_attachment import cli, errors
from tests.support import waiting

# Packages that servers need, but not clients.
SERVER = (
    *("kinto", "pyramid", "pyramid_storage", "cornice", "colander", "webob", "zope"),
    *("transaction", "sqlalchemy", "psycopg2", "boto3", "botocore", "google"),
    *("itsdangerous", "multipart", "zipstream"),
)


def imported_by(code: str) -> set[str]:
    """The packages that a new Python process has imported after running some code."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=waiting.SECONDS,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import kinto_attachment",
        "from kinto_attachment.client import AttachmentClient, FileStore",
        "from kinto_attachment.client import upload_command, download_command",
    ],
)
def test_no_server_is_imported(code: str) -> None:
    assert imported_by(code).isdisjoint(SERVER)


def test_the_command_says_what_it_takes_without_a_server() -> None:
    """Its help, that of each command on a server's data, and errors in options."""
    told = [["--help"], ["--version"], ["gc"], ["gc", "--ini", "x", "--shard", "3/2"]]
    told += [[name, "--help"] for name in cli.SERVER_COMMANDS]
    packages = imported_by(
        f"""
from kinto_attachment import cli, errors
for arguments in {told}:
    try:
        cli.main(arguments)
    except SystemExit:
        continue
    raise AssertionError(arguments)
"""
    )
    assert packages.isdisjoint({*SERVER, "kinto_http", "requests"})


def test_without_kinto_a_server_s_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['kinto'] = None\nfrom kinto_attachment import cli\ncli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "gc", "--ini", "kinto.ini"],
        capture_output=True,
        text=True,
        check=False,
        timeout=waiting.SECONDS,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("pip install kinto\n")
    assert "Traceback" not in done.stderr


def test_a_name_that_needs_a_library_is_imported_when_it_is_used() -> None:
    """The other tests would detect a library if it were imported."""
    assert "pyramid_storage" in imported_by("from kinto_attachment.errors import FileNotAllowed")


@pytest.mark.parametrize("name", [*kinto_attachment.__all__, "__version__"])
def test_each_name_is_there(name: str) -> None:
    assert getattr(kinto_attachment, name)
    assert name in dir(kinto_attachment)


def test_each_error_is_there() -> None:
    assert {*errors.__all__} <= {*dir(errors)}, "the reference documentation looks there"


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'AttachmentAded'"):
        kinto_attachment.AttachmentAded  # noqa: B018
    with pytest.raises(ImportError):
        exec("from kinto_attachment import AttachmentAded")


def test_threads_may_use_the_names_for_the_first_time_at_once() -> None:
    program = """
import sys, threading
import kinto_attachment

def use(name):
    getattr(kinto_attachment, name)
    used.append(name)

used = []
sys.setswitchinterval(1e-6)
names = 2 * kinto_attachment.__all__
threads = [threading.Thread(target=use, args=(name,), daemon=True) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
assert sorted(used) == sorted(names)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=90
    )
    assert not done.returncode, done.stderr
