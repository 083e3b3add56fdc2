"""A process that forks for each run of ``kinto-attachment move``, so that a run can be killed.

It is started once with the configuration file of a server, and has no threads. Each line that it
reads is an order for the plugin of faults, or ``{}``; for each, a child moves all files there or
back. It answers with the child's exit status, as from :func:`os.waitpid`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from kinto_attachment.maintenance.application import open_application
from kinto_attachment.maintenance.move import move
from kinto_attachment.maintenance.selection import Selection
from tests.support import waiting
from tests.support.faults_plugin import VARIABLE, Faults, Order


def main(ini: str) -> None:
    registry = open_application(ini)
    faults = Faults(Path(os.environ[VARIABLE]))
    backends = (registry.storage, registry.permission, registry.cache)
    print("ready", flush=True)
    for line in sys.stdin:
        said = json.loads(line)
        for backend in backends:  # A child needs its own connections.
            backend.client.session_factory.session_factory.kw["bind"].dispose()
        if "order" in said:
            faults.give(Order(**said["order"]))
        child = os.fork()
        if not child:
            run(registry, said["to"])
        status = waiting.status_of(child)
        faults.take_back()
        print(status, flush=True)


def run(registry: Any, to: str) -> None:
    try:
        report = move(registry, to, Selection(), keep=timedelta(0))
        os._exit(0 if not (report.found or report.errors) else 1)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(2)


if __name__ == "__main__":
    main(sys.argv[1])
