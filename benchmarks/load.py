"""Throughput and latency by the number of clients and servers: ``python -m benchmarks.load``.

Each plugin has sites with one and with two servers. The servers of a site share a PostgreSQL and a
folder. Each client uploads new files of 16 KiB one after the other, each on a separate connection.
The clients of a site are divided among its servers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.bench import Bench, bench
from benchmarks.bodies import KIB, Body
from benchmarks.client import BadAnswer
from benchmarks.servers import kinto
from benchmarks.site import STORED, Site
from tests.support.environments import Environment

SIZE = 16 * KIB
WORKERS, THREADS = 2, 8
PROCESSES = 2  # For all clients, since one interpreter cannot keep 64 clients busy.

HEAD = """\
| clients | servers | uploads/s | p50 | p99 | errors |
| ---: | --- | ---: | ---: | ---: | --- |"""


@dataclass(frozen=True)
class Result:
    """``times`` has the seconds of successful uploads. ``errors`` counts the others."""

    times: list[float]
    errors: int


@dataclass(frozen=True)
class Servers:
    """The servers of a site, which share a database and a folder."""

    name: str
    sites: list[Site]

    def uploads(self, body: Body, clients: int, seconds: float) -> Result:
        """Upload with several clients for a given time."""
        shares = [
            [self.sites[number % len(self.sites)] for number in range(first, clients, PROCESSES)]
            for first in range(min(PROCESSES, clients))
        ]
        context = multiprocessing.get_context("fork")
        pipes = []
        for share in shares:
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_upload, args=(sending, share, body, seconds))
            process.start()
            pipes.append((receiving, process))
        results = [receiving.recv() for receiving, _ in pipes]
        for _, process in pipes:
            process.join()
        times = [moment for result in results for moment in result.times]
        return Result(times, sum(result.errors for result in results))


def _upload(sending: Connection, share: list[Site], body: Body, seconds: float) -> None:
    results: list[Result] = []
    until = time.perf_counter() + seconds
    threads = [
        threading.Thread(target=lambda site=site: results.append(_client(site, body, until)))
        for site in share
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [moment for result in results for moment in result.times]
    sending.send(Result(times, sum(result.errors for result in results)))


def _client(site: Site, body: Body, until: float) -> Result:
    times: list[float] = []
    errors = 0
    while (started := time.perf_counter()) < until:
        target = f"{site.record()}/attachment"
        try:
            with site.server.client() as client:
                answer = client.request(body.method, target, body.headers, body.content)
        except (OSError, BadAnswer):
            errors += 1
            continue
        if answer.status in STORED:
            times.append(time.perf_counter() - started)
        else:
            errors += 1
    return Result(times, errors)


@contextmanager
def servers(bench: Bench, environment: Environment, name: str, count: int) -> Iterator[Servers]:
    database, files = bench.postgresql.create_database(), bench.folder("files")
    with ExitStack() as stack:
        sites = [
            Site(
                stack.enter_context(
                    kinto(
                        environment,
                        bench.folder(f"{name}-{number}"),
                        database=database,
                        workers=WORKERS,
                        threads=THREADS,
                        storage={"base_path": str(files)},
                    )
                )
            )
            for number in range(count)
        ]
        sites[0].create()
        yield Servers(f"{name}, {count}", sites)


def row(clients: int, name: str, result: Result, seconds: float) -> str:
    """A line of the table. p99 is the time that 1 % of the uploads exceed."""
    attempts = len(result.times) + result.errors
    errors = f"{result.errors} of {attempts}"
    if len(result.times) < 2:
        return f"| {clients} | {name} | 0 | | | {errors} |"
    hundredths = statistics.quantiles(result.times, n=100, method="inclusive")
    p50, p99 = (f"{1000 * hundredths[at - 1]:.0f} ms" for at in (50, 99))
    rate = len(result.times) / seconds
    return f"| {clients} | {name} | {rate:.0f} | {p50} | {p99} | {errors} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    options = parser.parse_args()
    with bench() as tools, ExitStack() as stack:
        body = tools.payloads[SIZE].multipart
        contenders = [
            stack.enter_context(servers(tools, environment, name, count))
            for name, environment in (("ours", tools.ours), ("peer", tools.peer))
            for count in (1, 2)
        ]
        for contender in contenders:  # To warm up.
            contender.uploads(body, 4, 1.0)
        print(f"Load average: {' '.join(f'{load:.2f}' for load in os.getloadavg())}\n\n{HEAD}")
        for clients in options.clients:
            for contender in contenders:
                result = contender.uploads(body, clients, options.seconds)
                print(row(clients, contender.name, result, options.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
