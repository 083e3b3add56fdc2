"""A test that crashes its process, or hangs until the process is ended, is not run again."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)  # From pytest-xdist.
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        """pytest-xdist would continue the file in another process, beginning with that test."""

        def remove_node(self, node: Any) -> str | None:
            workload = self.assigned_work.pop(node)
            left = [
                (tests, name) for tests in workload.values() for name in tests if not tests[name]
            ]
            if not left:
                return None
            tests, crashed = left[0]
            tests[crashed] = True
            for scope, tests in workload.items():
                if not all(tests.values()):
                    self.workqueue[scope] = tests
            for other in self.assigned_work:
                self._reschedule(other)
            return str(crashed)

    return Scheduling(config, log)
