"""The time and memory of operators' commands, by the number of files.

Run it with ``python -m benchmarks.maintenance``. Rows are made by SQL. The files, of 16 KiB in a
local folder, are hard links to a few files. ``sha256sum`` reads the same folder.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2

import kinto_attachment
from benchmarks.bench import Bench, bench
from benchmarks.fill import CONTENT, OURS, PEER, Layout, fill, key

BUCKET, COLLECTION = "/buckets/b", "/buckets/b/collections/c"
CLAIMING = "reindex --claim"
DELETING = ("gc", "move")  # They refuse unless the files have been claimed.
COMMANDS = (
    (
        OURS,
        (
            CLAIMING,
            "usage",
            "verify",
            "verify --older-than 1d",
            "gc",
            "relocate",
            "move --to other --keep 0s",
        ),
    ),
    (PEER, ("adopt", "adopt")),
)
LINKS_OF_A_FILE = 30_000  # ext4 allows 65,000.


@dataclass(frozen=True)
class Row:
    """One run of a command, with the number of files."""

    command: str
    files: int
    seconds: float
    peak: int  # KiB.

    def __str__(self) -> str:
        rate = round(self.files / self.seconds)
        return (
            f"{self.command:26}{self.files:>10,}{self.seconds:>9.1f} s{rate:>9,}/s"
            f"{self.peak / 1024:>7.0f} MiB"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[30_000, 300_000])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument(
        "--commands", default="", metavar="PATTERN", help="only those that match this expression"
    )
    options = parser.parse_args()
    compileall.compile_dir(Path(kinto_attachment.__file__).parent, quiet=1)  # As pip does.
    wanted = re.compile(options.commands)
    with bench() as tools:
        for count in options.files:
            for _ in range(options.turns):
                for layout, commands in COMMANDS:
                    chosen = [command for command in commands if wanted.search(command)]
                    if chosen:
                        site(tools, layout, chosen, count)
    return 0


def site(tools: Bench, layout: Layout, commands: list[str], count: int) -> None:
    """Run the commands on a site with ``count`` files."""
    database, files = tools.postgresql.create_database(), tools.folder("files")
    make(database, files, layout, count)
    ini = configure(tools.folder("ini"), database, files)
    if CLAIMING not in commands and any(each.startswith(DELETING) for each in commands):
        measure(CLAIMING, count, ini)
    for command in commands:
        if command == "relocate":
            relocations(count, tools.folder("ini"), database, files)
            continue
        print(measure(command, count, ini), flush=True)
        if command == "verify":
            print(sha256sum(count, files), flush=True)
    tools.postgresql.drop_database(database)


def make(database: str, files: Path, layout: Layout, count: int) -> None:
    """Create a site of this plugin or of the other one."""
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        for parent, resource, uri in (("", "bucket", BUCKET), (BUCKET, "collection", COLLECTION)):
            cursor.execute(
                "INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)"
                " VALUES (%s, %s, %s, now()::timestamp, '{}', FALSE)",
                (uri.rpartition("/")[2], parent, resource),
            )
    connection.close()
    fill(database, layout, BUCKET, COLLECTION, count)
    for number in range(1, count + 1):
        if number % LINKS_OF_A_FILE == 1:
            source = files / key(number)
            source.write_bytes(CONTENT)
        else:
            os.link(source, files / key(number))


def relocations(count: int, folder: Path, database: str, files: Path) -> None:
    """The first two runs write all records, since the address of the files has changed."""
    for number, command in enumerate(("relocate --quiet-writes", "relocate", "relocate")):
        base_url = f"http://127.0.0.1/{min(number, 1)}/"
        print(measure(command, count, configure(folder, database, files, base_url)), flush=True)


def configure(
    folder: Path, database: str, files: Path, base_url: str = "http://127.0.0.1/files/"
) -> Path:
    ini = folder / "kinto.ini"
    names = ("storage", "permission", "cache")
    settings = {
        **{f"{name}_backend": f"kinto.core.{name}.postgresql" for name in names},
        **{f"{name}_url": database for name in names},
        "includes": "kinto.plugins.history kinto_attachment",
        "userid_hmac_secret": "secret",
        "attachment.base_path": str(files),
        "attachment.base_url": base_url,
        "attachment.storages.other.base_path": f"{files}-other",
        "attachment.storages.other.base_url": base_url,
    }
    text = "\n".join(f"kinto.{name} = {value}" for name, value in settings.items())
    ini.write_text(f"[app:main]\nuse = egg:kinto\n{text}\n")
    return ini


def measure(command: str, count: int, ini: Path) -> Row:
    """Measure a command, including its start."""
    program = [sys.executable, "-m", "kinto_attachment.cli", *command.split()]
    return run(command, count, [*program, "--quiet", "--ini", str(ini)])


def sha256sum(count: int, files: Path) -> Row:
    script = 'find "$0" -type f -print0 | xargs -0 sha256sum > /dev/null'
    return run("sha256sum", count, ["bash", "-c", script, str(files)])


def run(name: str, count: int, command: list[str]) -> Row:
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Row(name, count, time.perf_counter() - start, usage.ru_maxrss)


if __name__ == "__main__":
    sys.exit(main())
