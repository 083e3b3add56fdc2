from __future__ import annotations

import errno
import io
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kinto_attachment.errors import (
    FileNotFound,
    InvalidKey,
    KeyTaken,
    StorageFull,
    StorageUnavailable,
)
from kinto_attachment.storage import (
    CHUNK_SIZE,
    SITE_KEY,
    CopiesFiles,
    HasPaths,
    ListsFiles,
    ListsUnfinished,
    disk,
    drafts,
)
from kinto_attachment.storage.drafts import SMALL
from kinto_attachment.storage.local import LocalStorage
from kinto_attachment.storage.samples import MIB, Source, contents, keys
from kinto_attachment.storage.testing import (
    ContinuesWritesContract,
    CopiesFilesContract,
    HasPathsContract,
    KeepsSiteContract,
    ListsFilesContract,
    ListsUnfinishedContract,
)
from tests.support import forking, waiting
from tests.support.small_scale import SmallScale
from tests.support.special_files import SPECIAL, exchange, nobody_waits

TEXT = "text/plain"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def storage(base: Path) -> LocalStorage:
    return LocalStorage(str(base), base_url="https://cdn.example/files/")


def refuse(error: int) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise OSError(error, os.strerror(error))

    return call


# Longer than a draft without a name may be.
LARGE = bytes(SMALL + 1)


def put(storage: LocalStorage, key: str, content: bytes = b"x") -> None:
    storage.write(key, io.BytesIO(content), TEXT)


def read_into(file: Any) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: file.readinto(buffer)])


def everything(base: Path) -> list[str]:
    return sorted(str(path.relative_to(base)) for path in base.rglob("*"))


class TestLocalStorage(
    ListsFilesContract,
    CopiesFilesContract,
    ListsUnfinishedContract,
    ContinuesWritesContract,
    KeepsSiteContract,
    HasPathsContract,
):
    @pytest.fixture
    def storage(self, storage: LocalStorage) -> LocalStorage:
        return storage

    @pytest.fixture
    def broken_storage(self, tmp_path: Path) -> LocalStorage:
        # A link to itself causes a disk error even for root.
        os.symlink(tmp_path / "loop", tmp_path / "loop")
        return LocalStorage(str(tmp_path / "loop"))


class TestWithoutHardLinks(
    SmallScale,
    ListsFilesContract,
    CopiesFilesContract,
    ListsUnfinishedContract,
    ContinuesWritesContract,
    KeepsSiteContract,
    HasPathsContract,
):
    """The contract with only the features of FAT and some network file systems."""

    @pytest.fixture
    def storage(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
        return LocalStorage(str(base), durable=False)

    @pytest.fixture
    def broken_storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(str(tmp_path / ("x" * 256)))


def test_capabilities(storage: LocalStorage) -> None:
    for capability in (ListsFiles, CopiesFiles, ListsUnfinished, HasPaths):
        assert isinstance(storage, capability)


class TestBaseFolder:
    def test_it_is_made_by_the_first_write(self, base: Path, storage: LocalStorage) -> None:
        assert not base.exists()
        assert keys(storage, "") == []
        assert list(storage.list_unfinished()) == []
        assert not storage.exists("a")
        storage.delete("a")
        assert not base.exists()
        put(storage, "a")
        assert (base / "a").read_bytes() == b"x"

    def test_it_stays_when_it_is_empty(self, base: Path, storage: LocalStorage) -> None:
        base.mkdir()
        storage.delete("a", "b/c")
        assert base.exists()

    def test_it_is_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        storage = LocalStorage("relative/../files/")
        monkeypatch.chdir("/")
        put(storage, "a")
        assert storage.path("a") == str(tmp_path / "files" / "a")
        assert (tmp_path / "files" / "a").exists()

    def test_settings_are_those_of_pyramid_storage(self, base: Path) -> None:
        settings = {"s.base_path": str(base), "s.base_url": "/f", "s.extensions": "images"}
        storage = LocalStorage.from_settings(settings, prefix="s.")
        put(storage, "a")
        assert (base / "a").exists()
        assert storage.url("a") == "/f/a"
        assert storage.filename_allowed("a.png")
        assert not storage.filename_allowed("a.txt")

    def test_a_file_in_its_place_is_an_outage(self, base: Path, storage: LocalStorage) -> None:
        base.write_bytes(b"")
        with pytest.raises(StorageUnavailable):
            put(storage, "a")


class TestSymbolicLinks:
    @pytest.fixture(params=["file", "folder", "missing"])
    def key(self, base: Path, storage: LocalStorage, request: pytest.FixtureRequest) -> str:
        """A key that leads out of the base folder."""
        put(storage, "folder/b")
        outside = base.parent / "files-outside"  # Its name begins with that of the base folder.
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        if request.param == "file":
            (base / "link").symlink_to(outside / "secret")
            return "link"
        if request.param == "folder":
            (base / "folder" / "link").symlink_to("../../files-outside")
            return "folder/link/secret"
        (base / "link").symlink_to(outside / "missing")
        return "link"

    def test_none_leads_out(self, base: Path, storage: LocalStorage, key: str) -> None:
        for method in (storage.path, storage.stat, storage.open):
            with pytest.raises(InvalidKey):
                method(key)
        with pytest.raises(InvalidKey):
            put(storage, key)
        with pytest.raises(InvalidKey):
            storage.copy("folder/b", key)
        with pytest.raises(InvalidKey):
            storage.copy(key, "c")
        assert keys(storage, "") == ["folder/b"]
        assert keys(storage, key) == []
        outside = base.parent / "files-outside"
        assert everything(outside) == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"

    def test_those_of_names_are_deleted_instead_of_their_targets(
        self, base: Path, storage: LocalStorage, key: str
    ) -> None:
        if "/" in key:
            with pytest.raises(InvalidKey):
                storage.delete("folder/b", key)
            assert keys(storage, "") == ["folder/b"], "all folders are checked before"
        else:
            assert storage.delete(key)
            assert not os.path.lexists(base / key)
        assert (base.parent / "files-outside" / "secret").read_bytes() == b"secret"

    def test_the_base_folder_may_be_one(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        put(LocalStorage(str(tmp_path / "link")), "a/b")
        assert (tmp_path / "real" / "a" / "b").read_bytes() == b"x"

    def test_those_that_stay_inside_are_followed(self, base: Path, storage: LocalStorage) -> None:
        put(storage, "2026/a")
        (base / "latest").symlink_to("2026")
        put(storage, "latest/b")
        assert contents(storage, "latest/a") == b"x"
        assert keys(storage, "") == ["2026/a", "2026/b"], "each file is listed once"

    def test_a_dangling_base_folder_is_an_outage(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("unmounted")
        with pytest.raises(StorageUnavailable):
            put(LocalStorage(str(tmp_path / "link")), "a")


def refuse_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def open_named(path: str, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            refuse(errno.EOPNOTSUPP)()
        return opened(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_named)


def refuse_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_named(source: str, target: str, **options: Any) -> None:
        if options:
            refuse(errno.EXDEV)()
        link(source, target)

    monkeypatch.setattr(os, "link", link_named)


def unmount_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "OPEN_FILES", "/nowhere")


class TestDrafts:
    @pytest.mark.parametrize(
        ("size", "expected"), [(0, 0), (SMALL, 0), (SMALL + 1, 1), (3 * CHUNK_SIZE, 1)]
    )
    def test_have_a_name_only_if_they_are_large(
        self, base: Path, storage: LocalStorage, size: int, expected: int
    ) -> None:
        found: list[int] = []
        content = os.urandom(size)
        source = Source(content, on_read=lambda _: found.append(len([*storage.list_unfinished()])))
        storage.write("folder/a", source, TEXT)
        assert found[-1] == expected
        assert contents(storage, "folder/a") == content
        assert everything(base) == [".unfinished", "folder", "folder/a"]
        assert os.stat(base / "folder/a").st_nlink == 1

    @pytest.mark.parametrize("lack", [refuse_unnamed, refuse_descriptors, unmount_proc])
    def test_have_a_name_where_they_need_it(
        self, base: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, lack: Any
    ) -> None:
        lack(monkeypatch)
        found: list[str] = []
        source = Source(b"x", on_read=lambda _: found.extend(everything(base / ".unfinished")))
        storage.write("a", source, TEXT)
        assert found
        assert contents(storage, "a") == b"x"
        assert everything(base) == [".unfinished", "a"]

    def test_without_a_name_end_with_their_process(
        self, base: Path, storage: LocalStorage
    ) -> None:
        process = forking.Popen(
            [sys.executable, "-W", "ignore", "-c", KILLED_WRITER, str(base), "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert waiting.line_of(process) == b"written\n"
            process.send_signal(signal.SIGKILL)
        assert everything(base) == [".unfinished"]

    def test_of_one_key_become_one_file(self, base: Path, storage: LocalStorage) -> None:
        def win(_: int) -> None:
            if not storage.exists("a"):
                put(storage, "a", b"first")

        with pytest.raises(KeyTaken):
            storage.write("a", Source(b"second", on_read=win), TEXT)
        assert contents(storage, "a") == b"first"
        assert everything(base) == [".unfinished", "a"]


class TestDurability:
    @pytest.fixture
    def calls(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The synced and published names, in order, relative to the base's parent."""
        calls: list[str] = []
        fsync, link = os.fsync, os.link

        def name(path: str) -> str:
            relative = os.path.relpath(path, base.parent)
            return "draft" if ".unfinished/" in relative else relative

        def spy_fsync(descriptor: int) -> None:
            calls.append("sync " + name(os.readlink(f"/proc/self/fd/{descriptor}")))
            fsync(descriptor)

        def spy_link(source: str, target: str, **options: Any) -> None:
            calls.append("link " + name(target))
            link(source, target, **options)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "link", spy_link)
        return calls

    def test_the_file_then_its_name_then_the_names_of_its_folders(
        self, storage: LocalStorage, calls: list[str]
    ) -> None:
        put(storage, "a/b/c")
        assert calls == [
            *("sync .", "sync files"),  # The base folder, and the hidden one in it.
            "link draft",  # A check whether a file without a name can get one.
            *("sync draft", "link files/a/b/c"),  # There is no folder yet.
            *("sync files", "sync files/a", "link files/a/b/c"),
            "sync files/a/b",
        ]
        calls.clear()
        storage.copy("a/b/c", "a/b/d")
        assert calls == ["sync draft", "link files/a/b/d", "sync files/a/b"]

    def test_nothing_is_synced_when_not_durable(self, base: Path, calls: list[str]) -> None:
        put(LocalStorage(str(base), durable=False), "a")
        assert calls == ["link draft", "link files/a"]

    @pytest.mark.parametrize("failing", [1, 2])
    def test_what_cannot_be_synced_is_not_there(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, failing: int
    ) -> None:
        put(storage, "folder/a")
        answers: Iterator[Callable[[int], None]] = iter(
            [refuse(errno.EIO) if turn == failing else os.fsync for turn in (1, 2)]
        )
        monkeypatch.setattr(os, "fsync", lambda descriptor: next(answers)(descriptor))
        with pytest.raises(StorageUnavailable):
            put(storage, "folder/b")
        assert keys(storage, "") == ["folder/a"]
        assert list(storage.list_unfinished()) == []

    def test_a_killed_writer_leaves_a_draft_and_no_file(
        self, base: Path, storage: LocalStorage
    ) -> None:
        process = forking.Popen(
            [sys.executable, "-W", "ignore", "-c", KILLED_WRITER, str(base), str(CHUNK_SIZE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert waiting.line_of(process) == b"written\n"
            process.send_signal(signal.SIGKILL)
        assert keys(storage, "") == []
        assert not storage.exists("folder/é.txt")
        [draft] = storage.list_unfinished()
        assert (draft.key, draft.size) == ("folder/é.txt", CHUNK_SIZE)
        assert f"-{process.pid}@" in draft.id
        assert draft.modified.tzinfo is not None
        storage.discard_unfinished(draft)
        storage.discard_unfinished(draft)
        assert everything(base) == [".unfinished"]

    def test_a_draft_of_a_published_file_is_only_its_second_name(
        self, base: Path, storage: LocalStorage
    ) -> None:
        put(storage, "a")
        os.link(base / "a", base / ".unfinished" / "killed between link and unlink")
        [draft] = storage.list_unfinished()
        storage.discard_unfinished(draft)
        assert contents(storage, "a") == b"x"

    def test_drafts_of_long_keys_have_part_of_the_key(self, storage: LocalStorage) -> None:
        key = "/".join(["é" * 100] * 5)
        found: list[Any] = []
        source = Source(LARGE, on_read=lambda position: found.extend(storage.list_unfinished()))
        storage.write(key, source, TEXT)
        assert len(found[0].key) > 50
        assert key.startswith(found[0].key)

    def test_discarding_reaches_nothing_else(self, base: Path, storage: LocalStorage) -> None:
        put(storage, "a")
        os.link(base / "a", base / ".unfinished" / "draft")
        [draft] = storage.list_unfinished()
        for hostile in ("../a", str(base / "a"), ".."):
            storage.discard_unfinished(type(draft)(hostile, "a", 1, draft.modified))
        assert contents(storage, "a") == b"x"


KILLED_WRITER = """
import sys
from kinto_attachment.storage.local import LocalStorage

class Stuck:
    def __init__(self):
        self.pieces = [bytes(int(sys.argv[2]))]

    def read(self, size):
        if self.pieces:
            return self.pieces.pop()
        print("written", flush=True)
        return sys.stdin.buffer.read(1)

LocalStorage(sys.argv[1]).write("folder/é.txt", Stuck(), "text/plain")
"""


class TestDiskErrors:
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        write = os.write

        def fill_up(descriptor: int, data: memoryview) -> int:
            if len(data) < CHUNK_SIZE:
                raise OSError(error, os.strerror(error))
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", fill_up)
        with pytest.raises(StorageFull) as caught:
            put(storage, "a", bytes(CHUNK_SIZE + 1))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == error
        assert keys(storage, "") == []
        assert list(storage.list_unfinished()) == []

    def test_a_file_larger_than_the_system_lets_it_be(self, storage: LocalStorage) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
        try:
            with pytest.raises(StorageUnavailable) as caught:
                put(storage, "a", bytes(2 * MIB))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EFBIG
        assert list(storage.list_unfinished()) == []

    @pytest.mark.parametrize(
        ("size", "error", "expected"),
        [(1, errno.EIO, StorageUnavailable), (SMALL + 1, errno.EDQUOT, StorageFull)],
    )
    def test_a_disk_that_tells_only_when_the_file_is_closed(
        self,
        storage: LocalStorage,
        monkeypatch: pytest.MonkeyPatch,
        size: int,
        error: int,
        expected: type[Exception],
    ) -> None:
        close = os.close

        def fail(descriptor: int) -> None:
            is_draft = ".unfinished/" in os.readlink(f"/proc/self/fd/{descriptor}")
            close(descriptor)
            if is_draft:
                refuse(error)()

        monkeypatch.setattr(os, "close", fail)
        with pytest.raises(expected):
            put(storage, "a", bytes(size))
        assert keys(storage, "") == []
        assert list(storage.list_unfinished()) == []

    def test_a_disk_that_takes_a_little_at_a_time(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:777]))
        content = os.urandom(100_000)
        put(storage, "a", content)
        assert contents(storage, "a") == content

    def test_a_disk_that_cannot_copy_by_itself(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = os.urandom(3 * CHUNK_SIZE + 1)
        put(storage, "a", content)
        monkeypatch.setattr(os, "copy_file_range", refuse(errno.EXDEV))
        storage.copy("a", "b")
        assert contents(storage, "b") == content
        with monkeypatch.context() as patched:
            patched.setattr(sys, "platform", "darwin")
            storage.copy("a", "mac")
        assert contents(storage, "mac") == content
        storage.delete("mac")
        monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC))
        with pytest.raises(StorageFull):
            storage.copy("a", "c")
        assert keys(storage, "") == ["a", "b"]

    def test_an_error_while_reading(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(storage, "a")
        with storage.open("a") as file:
            # Reading a folder fails without a broken disk.
            folder = os.open(os.path.dirname(storage.path("a")), os.O_RDONLY)
            os.dup2(folder, file.fileno())
            os.close(folder)
            with pytest.raises(StorageUnavailable):
                file.read(1)


SOMEBODY = 54321  # A user id that nobody has.


def as_somebody(action: Callable[[], object]) -> None:
    """Call a function in a process of another user, if root runs the tests."""
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(SOMEBODY)
                os.setuid(SOMEBODY)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    assert waiting.status_of(child) == 0


class TestPermissions:
    @pytest.fixture(autouse=True)
    def umask(self) -> Iterator[None]:
        before = os.umask(0o027)
        yield
        os.umask(before)

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def test_the_umask_decides(self, base: Path, storage: LocalStorage) -> None:
        put(storage, "a/b")
        assert self.mode(base / "a/b") == 0o640
        assert self.mode(base / "a") == 0o750

    def test_a_file_mode_decides_over_the_umask(self, base: Path) -> None:
        storage = LocalStorage(str(base), file_mode=0o444)
        put(storage, "a/b")
        storage.copy("a/b", "a/c")
        assert self.mode(base / "a/b") == self.mode(base / "a/c") == 0o444
        assert self.mode(base) == self.mode(base / "a") == 0o755

    def test_folders_keep_the_group_they_inherit(self, base: Path) -> None:
        base.mkdir()
        base.chmod(0o2750)
        put(LocalStorage(str(base), file_mode=0o640), "a/b")
        assert self.mode(base / "a") == 0o2750

    def test_folders_keep_the_group_of_others(self, tmp_path: Path) -> None:
        """Also if the server's user is not in that group, such as a web server's group."""
        os.umask(0o022)
        with tempfile.TemporaryDirectory() as name:
            os.chmod(name, 0o711)
            base = Path(name, "files")
            base.mkdir()
            if os.geteuid() == 0:  # Only root may change a folder's owner.
                os.chown(base, SOMEBODY, SOMEBODY + 1)
            base.chmod(0o2750)
            as_somebody(lambda: put(LocalStorage(str(base), file_mode=0o640), "a/b/c"))
            for folder in (base / "a", base / "a/b"):
                assert self.mode(folder) == 0o2750
                assert folder.stat().st_gid == base.stat().st_gid
            assert self.mode(base / "a/b/c") == 0o640
            assert (base / "a/b/c").stat().st_gid == base.stat().st_gid

    def test_drafts_are_nobody_elses(self, base: Path) -> None:
        put(LocalStorage(str(base), file_mode=0o666), "a")
        assert self.mode(base / ".unfinished") == 0o700


class TestManyFiles:
    def test_several_are_deleted_at_once_where_each_takes_long(
        self, base: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk, "SLOW", 0)
        many = [f"{folder}{number}" for folder in ("", "x/") for number in range(200)]
        for key in (*many, "other", "x/other"):
            put(storage, key)
        assert storage.delete("missing", *many, "x/missing")
        assert keys(storage, "") == ["other", "x/other"]
        assert not storage.delete(*many)
        assert storage.delete(*many, "x/other"), "the only one is the last"
        assert keys(storage, "") == ["other"]

    def test_those_threads_do_not_wait_for_each_other(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(disk, "SLOW", 0)
        names = [str(number) for number in range(disk.FILES_TIMED + 2)]
        for name in names:
            put(storage, name)
        both, unlink = threading.Barrier(2), os.unlink

        def unlink_together(name: str, **options: Any) -> None:
            if name in names[disk.FILES_TIMED :]:
                both.wait(waiting.SECONDS)
            unlink(name, **options)

        monkeypatch.setattr(os, "unlink", unlink_together)
        assert storage.delete(*names)
        assert keys(storage, "") == []


class TestEmptyFolders:
    def test_they_go_with_their_last_file(self, base: Path, storage: LocalStorage) -> None:
        for key in ("a/b/c/1", "a/b/2", "d/3", "d/4", "e/f/5", "e/g/6"):
            put(storage, key)
        storage.delete("a/b/c/1", "d/3", "e/f/5", "e/g/6")
        assert everything(base) == [".unfinished", "a", "a/b", "a/b/2", "d", "d/4"]
        storage.delete("a/b/2", "d/4")
        assert everything(base) == [".unfinished"]

    def test_a_writer_makes_its_folder_again(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(storage, "folder/a")
        link = os.link

        def link_too_late(source: str, target: str, **options: Any) -> None:
            monkeypatch.setattr(os, "link", link)
            storage.delete("folder/a")
            link(source, target, **options)

        monkeypatch.setattr(os, "link", link_too_late)
        put(storage, "folder/b")
        assert keys(storage, "") == ["folder/b"]

    def test_writing_and_deleting_in_one_folder_at_once(self, base: Path) -> None:
        storage = LocalStorage(str(base), durable=False)

        def live(number: int) -> None:
            for turn in range(300):
                put(storage, f"x/y/{number}-{turn}")
                assert contents(storage, f"x/y/{number}-{turn}") == b"x"
                storage.delete(f"x/y/{number}-{turn}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(live, range(4)))
        assert everything(base) == [".unfinished"]

    def test_a_lost_draft_is_an_outage_and_not_a_loop(
        self, base: Path, storage: LocalStorage
    ) -> None:
        def lose(position: int) -> None:
            for path in (base / ".unfinished").iterdir():
                path.unlink()

        with pytest.raises(StorageUnavailable):
            storage.write("a", Source(LARGE, on_read=lose), TEXT)
        assert keys(storage, "") == []


class TestListing:
    def test_what_is_no_file_of_ours_is_passed_over(
        self, base: Path, storage: LocalStorage
    ) -> None:
        put(storage, "a/b")
        (base / ".hidden").mkdir()
        (base / ".hidden" / "c").write_bytes(b"")
        (base / "a" / "back\\slash").write_bytes(b"")
        (base / "a" / "new\nline").write_bytes(b"")
        os.mkdir(os.fsencode(base) + b"/\xff\xfe")
        assert keys(storage, "") == ["a/b"]

    def test_files_and_folders_may_vanish_meanwhile(self, storage: LocalStorage) -> None:
        written = [f"{folder}/{name}" for folder in "abc" for name in range(5)]
        for key in written:
            put(storage, key)
        files = storage.list()
        kept = next(files).key
        storage.delete(*(key for key in written if key != kept))
        assert list(files) == []
        assert keys(storage, "") == [kept]

    def test_folders_are_no_drafts(self, base: Path, storage: LocalStorage) -> None:
        put(storage, "a")
        (base / ".unfinished" / "folder").mkdir()
        (base / ".unfinished" / "draft").touch()
        assert [draft.id for draft in storage.list_unfinished()] == ["draft"]

    def test_drafts_may_vanish_meanwhile(self, base: Path, storage: LocalStorage) -> None:
        put(storage, "a")
        for name in "12345":
            (base / ".unfinished" / name).write_bytes(b"")
        drafts = storage.list_unfinished()
        next(drafts)
        for path in (base / ".unfinished").iterdir():
            path.unlink()
        assert list(drafts) == []


class TestReading:
    def test_a_range_is_a_real_file_standing_at_its_start(self, storage: LocalStorage) -> None:
        put(storage, "a", b"0123456789")
        with storage.open("a", 3, 7) as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 3
            assert os.pread(file.fileno(), 100, 0) == b"0123456789"
            assert file.read(2) == b"34"
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 5

    def test_every_way_of_reading_ends_where_the_range_ends(self, storage: LocalStorage) -> None:
        put(storage, "a", b"01\n34\n6789")
        ways: list[Callable[[Any], bytes]] = [
            lambda file: file.read(),
            lambda file: file.read(None),
            lambda file: file.read(100),
            lambda file: file.readall(),
            lambda file: b"".join(file),
            read_into,
        ]
        for read in ways:
            with storage.open("a", 1, 8) as file:
                assert read(file) == b"1\n34\n67"

    def test_a_reader_outlives_its_file(self, storage: LocalStorage) -> None:
        put(storage, "a", b"0123456789")
        with storage.open("a") as file:
            storage.delete("a")
            assert file.read() == b"0123456789"

    def test_a_folder_of_files_is_not_found(self, storage: LocalStorage) -> None:
        put(storage, "a/b")
        for key in ("a", "a/b/c"):
            with pytest.raises(FileNotFound):
                storage.open(key)

    @pytest.mark.parametrize("key", ["special", "folder/special"])
    @pytest.mark.parametrize("kind", SPECIAL)
    def test_what_is_no_file_is_not_found_and_its_name_is_taken(
        self, base: Path, storage: LocalStorage, kind: str, key: str
    ) -> None:
        put(storage, "folder/a")
        path = base / key
        SPECIAL[kind](path)
        readers: list[Callable[[], object]] = [
            lambda: storage.open(key),
            lambda: storage.open(key, 0, 0),
            lambda: storage.stat(key),
            lambda: storage.copy(key, "copy"),
        ]
        writers: list[Callable[[], object]] = [
            lambda: put(storage, key),
            lambda: storage.copy("folder/a", key),
            lambda: storage.begin("0" * 32, key, TEXT),
        ]
        with nobody_waits(path):
            for steps, error in ((readers, FileNotFound), (writers, KeyTaken)):
                for step in steps:
                    with pytest.raises(error):
                        step()
            assert not storage.exists(key)
            assert keys(storage, "") == ["folder/a"]

    @pytest.mark.parametrize("device", ["null", "tty"])
    def test_a_device_is_not_found(self, device: str) -> None:
        """``/dev/tty`` cannot be opened by a process without a terminal."""
        assert os.path.exists(f"/dev/{device}")
        storage = LocalStorage("/dev")
        for step in (storage.open, storage.stat):
            with pytest.raises(FileNotFound):
                step(device)

    @pytest.mark.parametrize("kind", SPECIAL)
    def test_what_is_no_file_tells_no_site(
        self, base: Path, storage: LocalStorage, kind: str
    ) -> None:
        assert storage.write_site(b"1", replace=False)
        path = base.joinpath(*SITE_KEY.split("/"))
        exchange(path, kind)
        with nobody_waits(path):
            assert storage.read_site() is None
            assert not storage.write_site(b"2", replace=False)
        if kind == "a folder":
            with pytest.raises(StorageUnavailable):
                storage.write_site(b"2", replace=True)
            path.rmdir()
        assert storage.write_site(b"2", replace=True)
        assert storage.read_site() == b"2"


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # Otherwise each of them would import it.
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        yield pool


class TestRaces:
    @pytest.mark.parametrize("hard_links", [True, False])
    def test_one_of_several_processes_wins_each_key(
        self, base: Path, pool: ProcessPoolExecutor, hard_links: bool
    ) -> None:
        jobs = [pool.submit(win, str(base), number, hard_links) for number in range(3)]
        won = [job.result(waiting.SECONDS) for job in jobs]
        storage = LocalStorage(str(base))
        assert sorted(key for keys in won for key in keys) == sorted(map(str, range(200)))
        for number, keys_won in enumerate(won):
            assert {contents(storage, key) for key in keys_won} <= {str(number).encode()}
        assert list(storage.list_unfinished()) == []

    def test_without_hard_links_nobody_comes_between_a_look_and_a_rename(
        self, base: Path, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = LocalStorage(str(base), durable=False)
        rename = os.rename

        def rename_late(source: str, target: str) -> None:
            others.append(pool.submit(win, str(base), 1, False, 1))
            waiting.until(lambda: others[0].done() or waits_for_a_lock(pool))
            rename(source, target)

        others: list[Future[list[str]]] = []
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
        monkeypatch.setattr(os, "rename", rename_late)
        put(storage, "0", b"0")
        assert others[0].result(waiting.SECONDS) == [], "two writers have one key"
        assert contents(storage, "0") == b"0"
        assert list(storage.list_unfinished()) == []

    def test_a_taken_key_is_told_before_anything_is_read(self, storage: LocalStorage) -> None:
        put(storage, "a/b")
        for key in ("a/b", "a", "a/b/c"):
            source = Source(b"x")
            with pytest.raises(KeyTaken):
                storage.write(key, source, TEXT)
            assert source.position == 0


def waits_for_a_lock(pool: ProcessPoolExecutor) -> bool:
    """Whether a process of the pool waits for another's lock on a file (proc_locks(5))."""
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    pids = {int(fields[5]) for fields in locks if fields[1] == "->"}
    return not pids.isdisjoint(pool._processes)


LINK = os.link


def win(base: str, number: int, hard_links: bool, count: int = 200) -> list[str]:
    """Write keys in the same order as other processes; returns those that were free."""
    os.link = LINK if hard_links else refuse(errno.EPERM)  # type: ignore[assignment]
    storage = LocalStorage(base, durable=False)
    won = []
    for key in map(str, range(count)):
        try:
            put(storage, key, str(number).encode())
        except KeyTaken:
            continue
        won.append(key)
    return won
