"""How long ``adopt`` takes to take over the records of the plugin that people run today.

Run it by itself: ``python -m benchmarks.adopting``. The files are in a local folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psycopg2

from benchmarks.bench import bench
from benchmarks.fill import PEER, fill, key

SIZE = 16384  # Of the files, as fill says in the records.
BUCKET, COLLECTION = "/buckets/b", "/buckets/b/collections/c"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with bench() as tools:
        for _ in range(options.turns):
            database, files = tools.postgresql.create_database(), tools.folder("files")
            make(database, files, options.records)
            ini = configure(tools.folder("ini"), database, files)
            for again in ("", ", again"):
                seconds, linked = adopt(ini)
                print(f"{linked} of {options.records} records{again}: {seconds:.1f} s", flush=True)
            tools.postgresql.drop_database(database)
    return 0


def make(database: str, files: Path, count: int) -> None:
    """A site of the other plugin; its files have holes instead of bytes."""
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        for parent, resource, uri in (("", "bucket", BUCKET), (BUCKET, "collection", COLLECTION)):
            cursor.execute(
                "INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)"
                " VALUES (%s, %s, %s, now()::timestamp, '{}', FALSE)",
                (uri.rpartition("/")[2], parent, resource),
            )
    connection.close()
    fill(database, PEER, BUCKET, COLLECTION, count)
    for number in range(1, count + 1):
        with (files / key(number)).open("wb") as file:
            file.truncate(SIZE)


def configure(folder: Path, database: str, files: Path) -> Path:
    ini = folder / "kinto.ini"
    names = ("storage", "permission", "cache")
    settings = {
        **{f"{name}_backend": f"kinto.core.{name}.postgresql" for name in names},
        **{f"{name}_url": database for name in names},
        "includes": "kinto_attachment",
        "userid_hmac_secret": "secret",
        "attachment.base_path": str(files),
        "attachment.base_url": "http://127.0.0.1/files/",
    }
    text = "\n".join(f"kinto.{name} = {value}" for name, value in settings.items())
    ini.write_text(f"[app:main]\nuse = egg:kinto\n{text}\n")
    return ini


def adopt(ini: Path) -> tuple[float, int]:
    """Seconds, the start of the command included, and how many records were linked."""
    command = [sys.executable, "-m", "kinto_attachment.cli", "adopt", "--json", "--ini", str(ini)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start, json.loads(done.stdout)["linked"]


if __name__ == "__main__":
    sys.exit(main())
