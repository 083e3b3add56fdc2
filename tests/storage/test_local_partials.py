"""Files that arrive in chunks in a local folder: disks that fail, processes that are killed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.errors import (
    InvalidKey,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
    UploadBusy,
)
from kinto_attachment.storage import CHUNK_SIZE, Partial, local_partials, partials
from kinto_attachment.storage.disk import LockedFile
from kinto_attachment.storage.local import LocalStorage
from kinto_attachment.storage.samples import BINARY, Source, contents, keys
from tests.support import ROOT, forking, sampling, waiting
from tests.support.special_files import SPECIAL, exchange, nobody_waits

ID = "0123456789abcdef" * 2
STEPS = (
    *("open", "mkdir", "write", "fsync", "ftruncate", "copy_file_range", "utime"),
    *("rename", "link", "unlink", "close"),
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def storage(base: Path) -> LocalStorage:
    return LocalStorage(str(base))


@pytest.fixture(autouse=True)
def many_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "CHECKPOINT_BYTES", CHUNK_SIZE)


class Kept:
    """The state that a caller keeps, in a file that outlives a process."""

    def __init__(self, storage: LocalStorage, path: Path) -> None:
        self.storage = storage
        self.path = path

    def keep(self, partial: Partial) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(partial)))
        draft.replace(self.path)

    @property
    def partial(self) -> Partial:
        return Partial(**json.loads(self.path.read_text()))

    def begin(self) -> None:
        self.keep(self.storage.begin(ID, "folder/a", BINARY))

    def append(self, content: bytes) -> None:
        self.keep(self.storage.append(self.partial, Source(content), self.keep))

    def take_over(self) -> None:
        self.keep(self.storage.take_over(self.partial))


@pytest.fixture
def kept(storage: LocalStorage, tmp_path: Path) -> Kept:
    kept = Kept(storage, tmp_path / "kept")
    kept.begin()
    return kept


@contextmanager
def hanging(kept: Kept) -> Iterator[None]:
    """Run a writer that has stored the first bytes, stores some more, and hangs."""
    kept.append(b"a")
    read = iter([b"b" * CHUNK_SIZE, b"x"])

    class Hanging:
        def read(self, _: int = -1) -> bytes:
            return next(read)

    appending = HungWriter(kept, Hanging())
    with closing(appending):
        kept.take_over()
        yield


class HungWriter:
    """A writer in the middle of an append, in a separate process."""

    def __init__(self, kept: Kept, reader: Any) -> None:
        ready, tell = os.pipe()
        self.pid = os.fork()
        if not self.pid:

            class Telling:
                def read(self, size: int = -1) -> bytes:
                    try:
                        return bytes(reader.read(size))
                    except StopIteration:
                        os.write(tell, b"!")
                        signal.pause()
                        raise

            try:
                kept.storage.append(kept.partial, Telling(), kept.keep)
            finally:
                os._exit(1)
        os.close(tell)
        waiting.wait_for_bytes(ready)
        assert os.read(ready, 1) == b"!"
        os.close(ready)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        waiting.status_of(self.pid)


@contextmanager
def at_step(number: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Call a function before the ``number``-th step on the disk; yields the steps."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            original = getattr(os, name)

            def step(*args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                if name == "open" and ".unfinished" not in str(args[0]):
                    return original(*args, **kwargs)
                seen.append(name)
                if len(seen) == number:
                    act()
                return original(*args, **kwargs)

            patch.setattr(os, name, step)
        yield seen


def killed_at(number: int, action: Callable[[], object]) -> bool:
    """Call a function in a process that is killed before a step; False if it has fewer."""
    child = os.fork()
    if not child:
        try:
            with at_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                action()
            os._exit(0)
        finally:
            os._exit(1)
    status = waiting.status_of(child)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def everything(base: Path) -> list[str]:
    return sorted(str(path.relative_to(base)) for path in base.rglob("*"))


def steps_until_done(attempt: Callable[[int], bool], name: str) -> int:
    """Interrupt an attempt at each of its steps in turn; returns the number of steps.

    ``make tests`` takes the even or the odd steps, depending on the ``name``.
    """
    one_in = sampling.one_in(2)
    return until_done(attempt, 1 + sampling.start(name, one_in), one_in)


def until_done(attempt: Callable[[int], bool], first: int, one_in: int) -> int:
    number = first
    while attempt(number):
        number += one_in
        assert number < 100
    return number - 1


# Processes that are killed. They are forked by a small process, to which the attempts are sent:
# each fork costs a tenth of a fork of the process that runs the tests.


class Attempts:
    """A folder with repeated actions by processes that are killed at each step."""

    def __init__(self, folder: str) -> None:
        self.base = Path(folder, "files")
        self.storage = LocalStorage(str(self.base))
        self.path = Path(folder, "kept")

    def begun(self) -> Kept:
        kept = Kept(self.storage, self.path)
        kept.begin()
        return kept

    def append(self, first: int, one_in: int) -> tuple[int, int]:
        """The number of steps, and the number of different sizes that are left."""
        head, tail = b"a" * (CHUNK_SIZE + 5), b"b" * (3 * CHUNK_SIZE)
        sizes: set[int] = set()

        def attempt(number: int) -> bool:
            kept = self.begun()
            kept.append(head)
            killed = killed_at(number, lambda: kept.append(tail))
            sizes.add(kept.partial.size)
            kept.take_over()
            kept.append((head + tail)[kept.partial.size :])
            assert kept.partial.details["chunks"][0][1] == kept.partial.size, "in one chunk"
            self.storage.finish(kept.partial)
            assert contents(self.storage, "folder/a") == head + tail
            self.storage.delete("folder/a")
            assert everything(self.base) == [".unfinished"]
            return killed

        return until_done(attempt, first, one_in), len(sizes)

    def finish(self, first: int, one_in: int, hard_links: bool, hangs: bool) -> int:
        """The number of steps."""

        def refuse(*_: Any) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        def attempt(number: int) -> bool:
            kept = self.begun()
            with hanging(kept):
                kept.append(b"end")
                expected = b"a" + b"b" * CHUNK_SIZE + b"end"
                if not hangs:
                    self.storage.discard(kept.partial)
                    kept.begin()
                    kept.append(expected)
                killed = killed_at(number, lambda: self.storage.finish(kept.partial))
                for _ in range(2):
                    assert self.storage.finish(kept.partial).size == len(expected)
                assert contents(self.storage, "folder/a") == expected
                assert everything(self.base) == [".unfinished", "folder", "folder/a"]
                self.storage.delete("folder/a")
            return killed

        with pytest.MonkeyPatch.context() as patch:
            if not hard_links:
                patch.setattr(os, "link", refuse)
            return until_done(attempt, first, one_in)

    def discard(self, first: int, one_in: int) -> int:
        """The number of steps."""

        def attempt(number: int) -> bool:
            kept = self.begun()
            with hanging(kept):
                kept.append(b"end")
                killed = killed_at(number, lambda: self.storage.discard(kept.partial))
                self.storage.discard(kept.partial)
            assert everything(self.base) == [".unfinished"]
            return killed

        return until_done(attempt, first, one_in)


def make_attempts() -> None:
    """The small process: for each line of input, it writes one of output."""
    os.fsync = lambda _: None  # No test simulates a power failure.
    partials.CHECKPOINT_BYTES = CHUNK_SIZE
    for line in sys.stdin:
        folder, action, *arguments = json.loads(line)
        try:
            done = {"done": getattr(Attempts(folder), action)(*arguments)}
        except Exception:  # noqa: BLE001 - Reported to the test.
            done = {"failed": traceback.format_exc()}
        print(json.dumps(done), flush=True)


Attempt = Callable[..., Any]


@pytest.fixture(scope="module")
def small_process() -> Iterator[Any]:
    code = f"from {__name__} import make_attempts; make_attempts()"
    with forking.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()
        process.wait(waiting.SECONDS)


@pytest.fixture
def attempt(small_process: Any, tmp_path: Path) -> Attempt:
    """Interrupt an action at every step, or at every other one depending on ``name``."""

    def told(action: str, name: str, *arguments: Any) -> Any:
        one_in = sampling.one_in(2)
        first = 1 + sampling.start(name, one_in)
        call = [str(tmp_path), action, first, one_in, *arguments]
        small_process.stdin.write(f"{json.dumps(call)}\n")
        small_process.stdin.flush()
        answer = json.loads(waiting.line_of(small_process))
        assert "failed" not in answer, answer["failed"]
        return answer["done"]

    return told


class TestKilledProcesses:
    def test_an_append_costs_what_no_checkpoint_has_told(self, attempt: Attempt) -> None:
        steps, sizes = attempt("append", "append")
        assert steps >= 8
        assert sizes >= 3

    @pytest.mark.parametrize("hangs", [False, True])
    @pytest.mark.parametrize("hard_links", [True, False])
    def test_a_finish_goes_on_where_it_was(
        self, attempt: Attempt, hard_links: bool, hangs: bool
    ) -> None:
        name = f"finish {hard_links} {hangs}"
        assert attempt("finish", name, hard_links, hangs) >= (10 if hangs else 8)

    def test_a_discard_goes_on_where_it_was(self, attempt: Attempt) -> None:
        assert attempt("discard", "discard") >= 3


class TestHungWriters:
    def test_nobody_waits_for_them(self, kept: Kept, storage: LocalStorage, base: Path) -> None:
        with hanging(kept):
            kept.append(b"second")
            kept.append(b" third")
            assert len(kept.partial.details["chunks"]) == 2
            storage.finish(kept.partial)
        assert contents(storage, "folder/a") == b"a" + b"b" * CHUNK_SIZE + b"second third"
        assert everything(base) == [".unfinished", "folder", "folder/a"]

    def test_their_chunk_is_gone_on_with_when_they_are_dead(self, kept: Kept) -> None:
        with hanging(kept):
            pass
        kept.append(b"second")
        ((number, size),) = kept.partial.details["chunks"]
        assert (number, size) == (0, CHUNK_SIZE + 7)

    def test_one_that_has_opened_a_chunk_does_not_write_to_the_file_that_it_became(
        self, kept: Kept, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It hangs between opening and locking, until the file is finished."""
        flock = fcntl.flock

        def finish_first(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", flock)
            storage.finish(kept.partial)
            flock(descriptor, operation)

        kept.append(b"abc")
        monkeypatch.setattr(fcntl, "flock", finish_first)
        with pytest.raises(StorageUnavailable):
            storage.append(kept.partial, Source(b"x"), kept.keep)
        assert contents(storage, "folder/a") == b"abc"

    def test_a_lock_is_of_the_file_that_has_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process may remove the file and create a new one before it is locked."""
        path, flock = tmp_path / "lock", fcntl.flock

        def replace_first(descriptor: int, operation: int) -> None:
            path.rename(tmp_path / "old")
            path.touch()
            flock(descriptor, operation)

        path.touch()
        monkeypatch.setattr(fcntl, "flock", replace_first)
        with pytest.raises(FileNotFoundError):
            LockedFile(str(path))

    def test_two_cannot_finish_at_once(
        self, kept: Kept, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def finish_too() -> None:
            with pytest.raises(UploadBusy):
                storage.finish(kept.partial)
            refused.append(1)

        monkeypatch.setattr(local_partials, "PATIENCE", 0.0)
        refused: list[int] = []
        kept.append(b"x")
        with at_step(3, finish_too):
            storage.finish(kept.partial)
        assert refused == [1]
        assert contents(storage, "folder/a") == b"x"

    def test_the_second_waits_for_the_first(self, kept: Kept, storage: LocalStorage) -> None:
        kept.append(b"x")
        with ThreadPoolExecutor(1) as pool:
            second: list[Future[Any]] = []

            def finish_too() -> None:
                if not second:
                    second.append(pool.submit(storage.finish, kept.partial))

            with at_step(3, finish_too):
                storage.finish(kept.partial)
            assert second[0].result(waiting.SECONDS).size == 1
        assert contents(storage, "folder/a") == b"x"

    def test_chunks_that_were_not_kept_go(
        self, kept: Kept, storage: LocalStorage, base: Path
    ) -> None:
        for _ in range(3):
            partial = storage.take_over(kept.partial)
            storage.append(partial, Source(b"not kept"), lambda partial: None)
            kept.keep(partial)
            assert len(os.listdir(base / ".unfinished")) == 1
        kept.append(b"x")
        assert len(os.listdir(base / ".unfinished")) == 1
        storage.finish(kept.partial)
        assert contents(storage, "folder/a") == b"x"


class TestDiskErrors:
    @pytest.mark.parametrize(
        ("error", "expected"), [(errno.EIO, StorageUnavailable), (errno.ENOSPC, StorageFull)]
    )
    def test_each_step_of_a_file_can_fail_and_be_done_again(
        self,
        storage: LocalStorage,
        base: Path,
        tmp_path: Path,
        error: int,
        expected: type[Exception],
    ) -> None:
        content = b"a" * (CHUNK_SIZE + 5) + b"b"

        def fail() -> None:
            raise OSError(error, os.strerror(error))

        def attempt(number: int) -> bool:
            kept = Kept(storage, tmp_path / "kept")
            kept.begin()
            failed = False
            with at_step(number, fail):
                for size in (CHUNK_SIZE + 5, len(content)):
                    while kept.partial.size < size:
                        try:
                            kept.append(content[kept.partial.size : size])
                        except expected:
                            kept.take_over()
                            failed = True
                for _ in range(2):
                    try:
                        storage.finish(kept.partial)
                    except expected:
                        failed = True
                        storage.finish(kept.partial)
            assert contents(storage, "folder/a") == content
            storage.delete("folder/a")
            assert everything(base) == [".unfinished"]
            return failed

        assert steps_until_done(attempt, f"errors {error}") >= 15

    def test_a_chunk_that_has_lost_bytes_is_an_outage(
        self, kept: Kept, storage: LocalStorage, base: Path
    ) -> None:
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        os.truncate(chunk, 2)
        for step in (lambda: kept.append(b"d"), lambda: storage.finish(kept.partial)):
            with pytest.raises(StorageUnavailable):
                step()
        chunk.unlink()
        for step in (lambda: kept.append(b"d"), lambda: storage.finish(kept.partial)):
            with pytest.raises(StorageUnavailable):
                step()
        assert keys(storage, "") == []

    def test_symbolic_links_are_not_followed(
        self, kept: Kept, storage: LocalStorage, base: Path, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        chunk.unlink()
        chunk.symlink_to(secret)
        for step in (lambda: kept.append(b"d"), lambda: storage.finish(kept.partial)):
            with pytest.raises(StorageUnavailable):
                step()
        assert secret.read_bytes() == b"secret"
        for hostile in ("../../secret", "/etc/passwd", ""):
            with pytest.raises((InvalidKey, ValueError)):
                storage.append(Partial(hostile, "a", 0, kept.partial.details), Source(b""), bool)


class TestSpecialFiles:
    """Special files in the hidden folder: nothing waits for them or writes to them."""

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_a_chunk(self, kept: Kept, storage: LocalStorage, base: Path, kind: str) -> None:
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        exchange(chunk, kind)
        with nobody_waits(chunk):
            for step in (lambda: kept.append(b"d"), lambda: storage.finish(kept.partial)):
                with pytest.raises(StorageUnavailable):
                    step()
        assert keys(storage, "") == []

    def test_a_pipe_with_a_reader(self, kept: Kept, storage: LocalStorage, base: Path) -> None:
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        exchange(chunk, "a pipe")
        reader = os.open(chunk, os.O_RDONLY | os.O_NONBLOCK)
        with nobody_waits(chunk):
            for step in (lambda: kept.append(b"d"), lambda: storage.finish(kept.partial)):
                with pytest.raises(StorageUnavailable):
                    step()
        assert os.read(reader, 1) == b""
        os.close(reader)

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_a_chunk_that_does_not_exist_yet(
        self, kept: Kept, storage: LocalStorage, base: Path, kind: str
    ) -> None:
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        chunk.unlink()
        kept.begin()
        SPECIAL[kind](chunk)
        with nobody_waits(chunk), pytest.raises(StorageUnavailable):
            kept.append(b"abc")

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_a_later_chunk(self, kept: Kept, storage: LocalStorage, base: Path, kind: str) -> None:
        with hanging(kept):
            kept.append(b"second")
        _, second = sorted((base / ".unfinished").iterdir())
        exchange(second, kind)
        with nobody_waits(second), pytest.raises(StorageUnavailable):
            storage.finish(kept.partial)
        assert keys(storage, "") == []

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_the_chunk_of_a_writer_that_hangs(
        self, kept: Kept, storage: LocalStorage, base: Path, kind: str
    ) -> None:
        """It is replaced between the attempt to lock it and the reading of its bytes."""
        with hanging(kept):
            kept.append(b"second")
            first, _ = sorted((base / ".unfinished").iterdir())
            flock = fcntl.flock

            def exchange_after(descriptor: int, operation: int) -> None:
                try:
                    flock(descriptor, operation)
                except BlockingIOError:
                    exchange(first, kind)
                    raise

            with pytest.MonkeyPatch.context() as patch, nobody_waits(first):
                patch.setattr(fcntl, "flock", exchange_after)
                with pytest.raises(StorageUnavailable):
                    storage.finish(kept.partial)
        assert keys(storage, "") == []

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_the_lock(self, kept: Kept, storage: LocalStorage, base: Path, kind: str) -> None:
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        lock = chunk.with_name(chunk.name.replace(".0:", ".lock:"))
        SPECIAL[kind](lock)
        with nobody_waits(lock), pytest.raises(StorageUnavailable):
            storage.finish(kept.partial)
        lock.rmdir() if kind == "a folder" else lock.unlink()
        assert storage.finish(kept.partial).size == 3

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_the_whole_file(
        self, kept: Kept, storage: LocalStorage, base: Path, kind: str
    ) -> None:
        kept.append(b"abc")
        (chunk,) = (base / ".unfinished").iterdir()
        whole = chunk.with_name(chunk.name.replace(".0:", ".whole:"))
        SPECIAL[kind](whole)
        with nobody_waits(whole):
            if kind == "a folder":
                with pytest.raises(StorageUnavailable):
                    storage.finish(kept.partial)
                whole.rmdir()
            storage.finish(kept.partial)
        assert contents(storage, "folder/a") == b"abc"

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_the_key_of_an_empty_file(
        self, kept: Kept, storage: LocalStorage, base: Path, kind: str
    ) -> None:
        """A pipe has no bytes either, but is not a file that an earlier call has finished."""
        (base / "folder").mkdir(parents=True)
        SPECIAL[kind](base / "folder" / "a")
        with nobody_waits(base / "folder" / "a"), pytest.raises(KeyTaken):
            storage.finish(kept.partial)


class TestDurability:
    @pytest.fixture
    def calls(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The synced and named files, in order."""
        calls: list[str] = []
        fsync, rename, link = os.fsync, os.rename, os.link

        def short(path: str) -> str:
            return os.path.relpath(path, base).replace(ID, "").partition(":")[0]

        def spy_fsync(descriptor: int) -> None:
            calls.append("sync " + short(os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        def spy_rename(source: str, target: str) -> None:
            calls.append("rename " + short(target))
            rename(source, target)

        def spy_link(source: str, target: str) -> None:
            calls.append("link " + short(target))
            link(source, target)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "rename", spy_rename)
        monkeypatch.setattr(os, "link", spy_link)
        return calls

    def test_bytes_are_synced_before_they_are_told(
        self, storage: LocalStorage, base: Path, tmp_path: Path, calls: list[str]
    ) -> None:
        (base / ".unfinished").mkdir(parents=True)
        (base / "folder").mkdir(parents=True)
        kept = Kept(storage, tmp_path / "kept")
        kept.begin()
        assert calls == []
        kept.append(b"x" * CHUNK_SIZE + b"y")
        # The name of a new chunk only once; the last byte came after a checkpoint.
        chunk = "sync .unfinished/.0"
        assert calls == [chunk, "sync .unfinished", chunk]
        calls.clear()
        kept.append(b"z")
        assert calls == [chunk]
        calls.clear()
        storage.finish(kept.partial)
        assert calls == [
            *(chunk, "rename .unfinished/.whole", "sync .unfinished"),
            *("link folder/a", "sync folder"),
        ]

    def test_nothing_is_synced_when_not_durable(
        self, base: Path, tmp_path: Path, calls: list[str]
    ) -> None:
        storage = LocalStorage(str(base), durable=False)
        kept = Kept(storage, tmp_path / "kept")
        kept.begin()
        kept.append(b"x")
        storage.finish(kept.partial)
        assert not [call for call in calls if call.startswith("sync")]


@pytest.mark.parametrize(("file_mode", "expected"), [(None, 0o640), (0o604, 0o604)])
@pytest.mark.parametrize("hangs", [False, True])
def test_the_mode_is_that_of_any_file(
    base: Path, tmp_path: Path, file_mode: int | None, expected: int, hangs: bool
) -> None:
    storage = LocalStorage(str(base), file_mode=file_mode)
    before = os.umask(0o027)
    try:
        kept = Kept(storage, tmp_path / "kept")
        kept.begin()
        if hangs:
            with hanging(kept):
                kept.append(b"x")
                storage.finish(kept.partial)
        else:
            kept.append(b"x")
            storage.finish(kept.partial)
    finally:
        os.umask(before)
    assert stat.S_IMODE((base / "folder/a").stat().st_mode) == expected
    assert stat.S_IMODE((base / ".unfinished").stat().st_mode) == 0o700
