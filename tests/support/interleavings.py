"""Requests interleaved at chosen moments: threads that run one step at a time, on PostgreSQL.

Each actor is a thread; its steps are its calls to Kinto's storage, to the file storage, and its
commits. One actor runs at a time, up to its next step, and a schedule chooses which. An actor
that waits for another's lock in PostgreSQL is detected, and skipped until it continues. So every
possible order of the transactions can be run, and repeated.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from unittest import mock

import psycopg2
import sqlalchemy
import transaction

Body = Callable[[], object]
# Its arguments: the actors that can run, the one that ran last or None, the step's number.
Decide = Callable[[list[int], "int | None", int], int]

PATIENCE = 120  # Seconds; the machine may be busy.
RECORD_CALLS = ("create", "update", "delete", "delete_all", "get", "list_all")
FILE_CALLS = ("write", "delete", "exists")
WATCHED = {
    "record",
    "attachment",
    "attachment-lock",
    "attachment-garbage",
    "attachment-name",
    None,  # Kinto's cascade, below a bucket or collection.
}


class Actor(threading.Thread):
    """One request, or other code in its place."""

    def __init__(self, index: int, body: Body, stage: Stage) -> None:
        super().__init__(daemon=True)
        self.index, self.body, self.stage = index, body, stage
        self.state = "running"  # Or "ready", before a step, or "done".
        self.label = "start"
        self.database_pid: int | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        self.stage.enter(self)
        try:
            self.pause("start")
            self.result = self.body()
        except Exception as error:  # noqa: BLE001 - the caller judges the outcome.
            self.error = error
        finally:
            transaction.abort()
            self.stage.leave(self)

    def pause(self, label: str) -> None:
        stage = self.stage
        with stage.changed:
            self.label, self.state = label, "ready"
            stage.changed.notify_all()
            if not stage.changed.wait_for(lambda: self.state == "running", PATIENCE):
                raise TimeoutError(label)

    @property
    def outcome(self) -> Any:
        return self.result if self.error is None else self.error


class Stage:
    """Lets actors take turns at the steps of one Kinto application on PostgreSQL."""

    def __init__(self, registry: Any, also: Collection[str] = ()) -> None:
        """Calls to Kinto's storage are steps if they are about ``WATCHED`` or ``also``."""
        self.registry = registry
        self.watched = {*WATCHED, *also}
        self.changed = threading.Condition()
        self.actors: list[Actor] = []
        self.trace: list[str] = []
        self._known: dict[int, Actor] = {}
        self._engine = registry.storage.client.session_factory.session_factory.kw["bind"]
        url = self._engine.url.set(drivername="postgresql")
        self._monitor = psycopg2.connect(url.render_as_string(hide_password=False))
        self._monitor.autocommit = True

    def close(self) -> None:
        self._monitor.close()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Stage]:
        """Within this context, the application's calls are steps."""
        with contextlib.ExitStack() as stack:
            for name in RECORD_CALLS:
                stack.enter_context(self._step(self.registry.storage, name, self._record_label))
            for storage in self.registry.attachment_storages:
                for name in FILE_CALLS:
                    stack.enter_context(self._step(storage.files, name, _file_label))
            links = self.registry.attachment_links
            stack.enter_context(self._step(links.collections, "put_link", _link_label))
            commit = transaction.Transaction._commitResources

            def committing(txn: Any) -> Any:
                self._pause("commit" if txn._resources else None)
                return commit(txn)

            stack.enter_context(
                mock.patch.object(transaction.Transaction, "_commitResources", committing)
            )
            listened = (self._engine, "before_cursor_execute", self._remember_backend)
            sqlalchemy.event.listen(*listened)
            stack.callback(sqlalchemy.event.remove, *listened)
            yield self

    def play(self, bodies: Sequence[Body], decide: Decide) -> list[Any]:
        """Run the actors until they end; what each returned or raised."""
        self.trace = []
        self.actors = [Actor(index, body, self) for index, body in enumerate(bodies)]
        for actor in self.actors:
            actor.start()
        self._settle()
        last, step, deadline = None, 0, time.monotonic() + PATIENCE
        while any(actor.state != "done" for actor in self.actors):
            ready = [actor.index for actor in self.actors if actor.state == "ready"]
            if not ready:  # A deadlock: PostgreSQL ends it after a second.
                if time.monotonic() > deadline:
                    raise TimeoutError("\n".join([*self.trace, *self._activity()]))
                time.sleep(0.01)
                self._settle()
                continue
            deadline = time.monotonic() + PATIENCE
            last = decide(ready, last, step)
            step += 1
            self._let_go(self.actors[last])
            self._settle()
        for actor in self.actors:
            actor.join(PATIENCE)
        return [actor.outcome for actor in self.actors]

    def enter(self, actor: Actor) -> None:
        self._known[threading.get_ident()] = actor

    def leave(self, actor: Actor) -> None:
        del self._known[threading.get_ident()]
        with self.changed:
            actor.state = "done"
            self.changed.notify_all()

    def _let_go(self, actor: Actor) -> None:
        with self.changed:
            self.trace.append(f"{'ABCDEF'[actor.index]} {actor.label}")
            actor.state = "running"
            self.changed.notify_all()

    def _settle(self) -> None:
        """Wait until every actor is before a step, waits for a lock, or has ended."""
        deadline = time.monotonic() + PATIENCE
        pause = 0.002  # Longer each time: the database and the actors need the processor.
        with self.changed:
            while running := [actor for actor in self.actors if actor.state == "running"]:
                if time.monotonic() > deadline:
                    raise TimeoutError("\n".join(self.trace))
                if not self.changed.wait(pause):
                    if self._wait_for_locks(running):
                        return
                    pause = min(2 * pause, 0.02)

    def _wait_for_locks(self, actors: list[Actor]) -> bool:
        pids = [actor.database_pid for actor in actors]
        if None in pids:
            return False
        with self._monitor.cursor() as cursor:
            cursor.execute(
                "SELECT bool_and(cardinality(pg_blocking_pids(pid)) > 0) FROM unnest(%s) AS pid",
                (pids,),
            )
            return bool(cursor.fetchone()[0])

    def _activity(self) -> list[str]:
        with self._monitor.cursor() as cursor:
            cursor.execute(
                "SELECT pid, pg_blocking_pids(pid), state, wait_event, query"
                " FROM pg_stat_activity WHERE datname = current_database()"
            )
            return [str(row) for row in cursor.fetchall()]

    def _remember_backend(self, connection: Any, *_: Any) -> None:
        actor = self._known.get(threading.get_ident())
        if actor is not None:
            driver = connection.connection.dbapi_connection
            actor.database_pid = driver.info.backend_pid

    def _pause(self, label: str | None) -> None:
        actor = self._known.get(threading.get_ident())
        if actor is not None and label is not None:
            actor.pause(label)

    def _record_label(
        self, name: str, resource_name: str | None = None, *args: Any, **kw: Any
    ) -> str | None:
        if resource_name not in self.watched:
            return None
        parent = args[0] if args else kw.get("parent_id", "")
        return f"{name} {resource_name} {parent[-40:]} {kw.get('object_id', '')[:12]}"

    def _step(self, target: Any, name: str, label: Callable[..., str | None]) -> Any:
        original = getattr(target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._pause(label(name, *args, **kwargs))
            return original(*args, **kwargs)

        return mock.patch.object(target, name, call)


def _link_label(name: str, link: Any, **kw: Any) -> str:
    return f"{name} {link.record[-40:]} {link.id[:12]}"


def _file_label(name: str, *args: Any, **kw: Any) -> str:
    return f"{name} file {args[0] if args else ''}"


# Schedules.


class Orders:
    """Every schedule, or every one with at most so many ``preemptions``: switches away from an
    actor that could continue.

    Each iteration gives a function that decides according to another schedule. Two actors rarely
    need more than one preemption to harm each other. With ``one_in`` above 1, an actor is
    preempted only at one in so many steps, from the ``first`` on: a sample, which still has
    schedules with each actor at the beginning.
    """

    def __init__(self, preemptions: int | None = None, one_in: int = 1, first: int = 0) -> None:
        self.preemptions = preemptions
        self.one_in = one_in
        self.count = 0
        self._seen = -1 - first  # Possible preemptions.
        self._choices: list[int] = []  # For each step: which of the ready actors.
        self._options: list[int] = []  # For each step: how many were ready.
        self._going_on: list[bool] = []  # For each step: whether the last one could continue.
        self._spent = 0
        self._strayed = False  # Whether fewer could run than the last time.

    def __iter__(self) -> Iterator[Decide]:
        while True:
            self._options, self._going_on, self._spent, self._strayed = [], [], 0, False
            yield self._decide
            self.count += 1
            # Two writes in one millisecond can have another result than two in a row.
            del self._choices[len(self._options) :]
            while self._next() and not self._is_chosen():
                pass
            if not self._choices:
                return

    def _next(self) -> bool:
        """Change the last step that has another choice, and begin again after it."""
        while self._choices and self._choices[-1] + 1 == self._options[len(self._choices) - 1]:
            self._choices.pop()
        if self._choices:
            self._choices[-1] += 1
        return bool(self._choices)

    def _is_chosen(self) -> bool:
        if not self._going_on[len(self._choices) - 1]:
            return True
        self._seen += 1
        return self._seen % self.one_in == 0

    def _decide(self, ready: list[int], last: int | None, step: int) -> int:
        order = sorted(ready, key=lambda actor: actor != last)
        going_on = order[0] == last
        if going_on and self._spent == self.preemptions:
            order = order[:1]
        if step == len(self._choices):
            self._choices.append(0)
        if self._choices[step] >= len(order):
            # The following steps were tried before. Repeating all of them each time that an actor
            # has to wait on a busy machine might never end.
            self._choices[step], self._strayed = len(order) - 1, True
        choice = order[self._choices[step]]
        self._options.append(self._choices[step] + 1 if self._strayed else len(order))
        self._going_on.append(going_on)
        self._spent += going_on and choice != last
        return choice


def at_random(seed: int) -> Decide:
    choices = random.Random(seed)
    return lambda ready, last, step: choices.choice(ready)
