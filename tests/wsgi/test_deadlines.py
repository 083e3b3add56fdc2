"""How long the server waits for a body: the decision, and the thread that watches it."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kinto_attachment.errors import BodyTimeout
from kinto_attachment.wsgi.body_reader import BodyReader
from kinto_attachment.wsgi.deadlines import (
    BodyTimeouts,
    Limits,
    Pace,
    Watchdog,
    connection_of,
)
from tests.support import ROOT, forking, waiting
from tests.support.certificates import certified


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestPace:
    """1,024 bytes a second over a minute."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def pace(self, clock: Clock) -> Pace:
        pace = Pace(Limits(30, 1024), clock)
        pace.start_waiting()
        return pace

    @pytest.mark.parametrize(
        ("seconds", "received", "slow"),
        [
            (59.9, 0, False),
            (60, 60 * 1024 - 1, True),
            (60, 60 * 1024, False),
            (600, 600 * 1024 - 1, True),
            (600, 600 * 1024, False),
        ],
    )
    def test_of_the_first_window(
        self, pace: Pace, clock: Clock, seconds: float, received: int, slow: bool
    ) -> None:
        clock.now += seconds
        assert pace.too_slow(received) == slow

    def test_of_each_window_counts_for_itself(self, pace: Pace, clock: Clock) -> None:
        clock.now += 60
        assert not pace.too_slow(10**9)
        clock.now += 59
        assert not pace.too_slow(10**9)
        clock.now += 1
        assert pace.too_slow(10**9 + 1)

    def test_of_a_busy_server_is_not_the_client_s(self, pace: Pace, clock: Clock) -> None:
        clock.now += 50
        pace.stop_waiting()
        clock.now += 1000
        assert not pace.too_slow(0)
        pace.start_waiting()
        clock.now += 9
        assert not pace.too_slow(0)
        clock.now += 1
        assert pace.too_slow(0)

    def test_gives_the_benefit_of_the_doubt(self, pace: Pace, clock: Clock) -> None:
        clock.now += 60
        assert not pace.too_slow(30 * 1024, unknown=30 * 1024)
        # Bytes that were unknown then may have been received since.
        clock.now += 60
        assert not pace.too_slow(60 * 1024, unknown=30 * 1024)
        clock.now += 60
        assert pace.too_slow(60 * 1024, unknown=30 * 1024)

    def test_does_not_matter_when_it_is_switched_off(self, clock: Clock) -> None:
        pace = Pace(Limits(30, 0), clock)
        pace.start_waiting()
        clock.now += 10**6
        assert not pace.too_slow(0)


def test_the_window_is_a_minute_by_default() -> None:
    assert Limits(30, 1024).window == Limits(0, 1024).window == 60


class Wait:
    def __init__(self, answer: bool | Exception = True) -> None:
        self.answer = answer
        self.ended = threading.Event()

    def is_over(self) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def end(self) -> None:
        self.ended.set()


class TestWatchdog:
    @pytest.fixture
    def watchdog(self, monkeypatch: pytest.MonkeyPatch) -> Watchdog:
        monkeypatch.setattr(Watchdog, "INTERVAL", 0.01)
        return Watchdog()

    def test_ends_the_waits_that_are_over(self, watchdog: Watchdog) -> None:
        waits = [Wait() for _ in range(1000)]
        with contextlib.ExitStack() as stack:
            other = Wait(False)
            stack.enter_context(watchdog.watching(other))
            for wait in waits:
                stack.enter_context(watchdog.watching(wait))
            assert all(wait.ended.wait(waiting.SECONDS) for wait in waits)
            assert not other.ended.is_set()
        assert [thread.name for thread in threading.enumerate()].count("bodies") >= 1

    def test_has_one_thread_and_starts_it_late(self, watchdog: Watchdog) -> None:
        before = {*threading.enumerate()}
        assert watchdog._thread is None
        for _ in range(10):
            wait = Wait()
            with watchdog.watching(wait):
                assert wait.ended.wait(waiting.SECONDS)
        assert {*threading.enumerate()} - before == {watchdog._thread}

    def test_leaves_alone_what_is_no_wait_any_more(self, watchdog: Watchdog) -> None:
        left = Wait()
        watchdog.INTERVAL = waiting.SECONDS  # type: ignore[misc]
        with watchdog.watching(left):
            pass
        watchdog.look()
        assert not left.ended.is_set()

    def test_is_not_woken_by_each_short_wait(
        self, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watchdog.INTERVAL = 0.1  # type: ignore[misc]
        woken = looked = 0
        notify, look = watchdog._changed.notify, watchdog.look

        def note_notify() -> None:
            nonlocal woken
            woken += 1
            notify()

        def note_look() -> None:
            nonlocal looked
            looked += 1
            look()

        monkeypatch.setattr(watchdog._changed, "notify", note_notify)
        monkeypatch.setattr(watchdog, "look", note_look)
        started = time.monotonic()
        for _ in range(200):
            with watchdog.watching(Wait(False)):
                pass
            time.sleep(0.001)  # Other threads run, as between requests.
        # It is woken only when it sleeps, and sleeps only after it has looked.
        assert woken <= looked + 1
        # It looks once in an interval, however long these waits have taken.
        assert looked <= (time.monotonic() - started) / watchdog.INTERVAL + 1

    def test_survives_what_goes_wrong(
        self, watchdog: Watchdog, caplog: pytest.LogCaptureFixture
    ) -> None:
        wait = Wait()
        broken = Wait(RuntimeError("surprise"))
        with watchdog.watching(broken), watchdog.watching(wait):
            assert wait.ended.wait(waiting.SECONDS)
        assert "surprise" in caplog.text

    def test_works_after_a_fork(self) -> None:
        """gunicorn forks with ``preload``, and some servers fork while they serve."""
        program = """if True:
            import os, sys
            from tests.support import waiting
            from tests.wsgi.test_deadlines import Wait
            from kinto_attachment.wsgi.deadlines import WATCHDOG, Watchdog
            Watchdog.INTERVAL = 0.01
            with WATCHDOG.watching(Wait(False)):
                child = os.fork()
                if child:
                    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                assert WATCHDOG._thread is None
                wait = Wait()
                with WATCHDOG.watching(wait):
                    os._exit(0 if wait.ended.wait(waiting.SECONDS) else 1)
        """
        command = [sys.executable, "-W", "ignore", "-c", program]
        forking.run(command, check=True, timeout=waiting.SECONDS, cwd=ROOT)


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's socket and its client's."""
    if request.param == "unix":
        server, client = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), timeout=60)
            server, _ = listener.accept()
    with server, client:
        client.sendall(b"head")
        assert server.recv(10) == b"head"
        yield server, client


Reading = Callable[[Limits], BodyReader]


class TestBodyTimeouts:
    """With a socket whose bytes the kernel counts, and with one whose bytes are not counted.

    The rate is measured by a clock that advances as bytes are sent, so that it does not depend
    on how busy the machine is.
    """

    PATIENT = Limits(timeout=waiting.SECONDS, min_rate=1000)
    SIZE = 3_000_000

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def watchdog(self, monkeypatch: pytest.MonkeyPatch) -> Watchdog:
        monkeypatch.setattr(Watchdog, "INTERVAL", 0.01)
        return Watchdog()

    @pytest.fixture
    def reading(
        self, pair: tuple[socket.socket, socket.socket], watchdog: Watchdog, clock: Clock
    ) -> Iterator[Reading]:
        """A body whose stream, like those of servers, blocks until it has all requested bytes."""
        with pair[0].makefile("rb") as stream:
            yield lambda limits: BodyReader(
                stream, self.SIZE, BodyTimeouts(limits, pair[0], watchdog, clock)
            )

    def test_ends_with_a_client_that_stops(
        self, pair: tuple[socket.socket, socket.socket], reading: Reading
    ) -> None:
        body = reading(Limits(timeout=0.2, min_rate=1000))
        pair[1].sendall(bytes(10))
        for _ in range(2):  # Further reads also fail.
            with pytest.raises(BodyTimeout, match="stopped"):
                body.read()
        assert pair[0].gettimeout() is None

    def test_ends_with_a_client_that_drips(
        self, pair: tuple[socket.socket, socket.socket], reading: Reading, clock: Clock
    ) -> None:
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    pair[1].sendall(b"x")
                    clock.now += self.PATIENT.window / 10

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(BodyTimeout, match="slowly"):
                reading(self.PATIENT).read()
        finally:
            stop.set()
            waiting.join(thread)
        pair[0].sendall(b"answer")
        assert pair[1].recv(10) == b"answer"

    def test_does_not_end_with_a_client_that_is_fast_enough(
        self,
        pair: tuple[socket.socket, socket.socket],
        reading: Reading,
        watchdog: Watchdog,
        clock: Clock,
    ) -> None:
        """Reads may be of any size. It sends four times the rate, for more than two windows."""
        seconds = self.PATIENT.window / 200
        piece = bytes(int(4 * self.PATIENT.min_rate * seconds))
        assert len(piece) * 440 < self.SIZE
        # Bytes that are sent but not received would set the clock ahead.
        pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)

        def send() -> None:
            for _ in range(440):
                pair[1].sendall(piece)
                clock.now += seconds
                watchdog.look()
            pair[1].shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        body, received = reading(self.PATIENT), 0
        while received < 440 * len(piece):
            received += len(body.read(10**5))
        waiting.join(thread)
        assert received == 440 * len(piece)

    def test_asks_for_little_where_nobody_counts(self) -> None:
        server, client = socket.socketpair()
        with server, client:
            assert BodyTimeouts(Limits(30, 1024), server).step(2**20) == 30 * 1024
            assert BodyTimeouts(Limits(30, 1024), server).step(100) == 100
            assert BodyTimeouts(Limits(30, 0), server).step(2**20) == 2**20
        assert BodyTimeouts(Limits(30, 1024)).step(2**20) == 2**20

    def test_looks_between_reads_where_there_is_no_socket(self) -> None:
        clock = Clock()

        class Stream:
            def read(self, size: int) -> bytes:
                clock.now += 1
                return bytes(min(size, 1023))

        body = BodyReader(Stream(), 10**6, BodyTimeouts(Limits(30, 1024), clock=clock))
        with pytest.raises(BodyTimeout):
            body.read()
        assert clock.now == 1060


def test_requests_that_share_a_socket_have_none() -> None:
    environ = {"SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": "socket"}
    assert connection_of(environ) == "socket"
    assert connection_of({**environ, "SERVER_PROTOCOL": "HTTP/2.0"}) is None
    assert connection_of({"SERVER_PROTOCOL": "HTTP/1.1"}) is None


def test_a_client_of_tls_that_drips_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watchdog, "INTERVAL", 0.01)
    clock, limits = Clock(), Limits(timeout=waiting.SECONDS, min_rate=1000)
    server_context, client_context = certified(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw = socket.create_connection(listener.getsockname(), timeout=60)
        accepted, _ = listener.accept()
    answers: list[bytes] = []

    def drip() -> None:
        with client_context.wrap_socket(raw, server_hostname="localhost") as client:
            client.settimeout(0.05)
            while not answers:
                client.sendall(b"x")
                clock.now += limits.window / 10
                with contextlib.suppress(TimeoutError):
                    answers.append(client.recv(100))

    thread = threading.Thread(target=drip)
    thread.start()
    with server_context.wrap_socket(accepted, server_side=True) as server:
        with server.makefile("rb") as stream:
            timeouts = BodyTimeouts(limits, server, Watchdog(), clock)
            with pytest.raises(BodyTimeout, match="slowly"):
                BodyReader(stream, 10**6, timeouts).read()
        server.sendall(b"the answer")
        waiting.join(thread)
    assert answers == [b"the answer"]
