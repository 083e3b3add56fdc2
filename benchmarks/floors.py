"""The lowest cost of a job, measured with code that does nothing else."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import MSG_TRUNC, create_server, socket

from benchmarks.bodies import MIB
from tests.support.faults import HOST


def time_copy(file: Path, folder: Path) -> float:
    """Seconds to hash a file, copy it and sync it to the disk, as each upload must."""
    target = folder / "copy"
    script = 'sha256sum "$1" >/dev/null && cp "$1" "$2" && sync "$2"'
    started = time.perf_counter()
    subprocess.run(["sh", "-c", script, "sh", str(file), str(target)], check=True)
    elapsed = time.perf_counter() - started
    target.unlink()
    return elapsed


def time_synced(content: bytes, folder: Path, count: int) -> float:
    """Seconds to sync a small file and its name to the disk, as each durable upload must."""
    times = []
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        started = time.perf_counter()
        with (folder / str(number)).open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        os.fsync(descriptor)
        times.append(time.perf_counter() - started)
    os.close(descriptor)
    for number in range(count):
        (folder / str(number)).unlink()
    return statistics.median(times)


@contextmanager
def sink() -> Iterator[int]:
    """A server that drops what it receives and answers 201, to time the client itself."""
    with create_server((HOST, 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(2)


def _accept(listener: socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_drop, args=(connection,), daemon=True).start()


def _drop(connection: socket) -> None:
    buffer = bytearray(MIB)
    with connection:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            fields, _, body = head.partition(b"\r\n\r\n")
            length = next(f for f in fields.split(b"\r\n") if f.startswith(b"Content-Length:"))
            left = int(length.split(b":")[1]) - len(body)
            while left > 0:
                count = connection.recv_into(buffer, min(left, MIB), MSG_TRUNC)
                if not count:
                    return
                left -= count
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
