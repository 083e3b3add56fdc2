"""Concurrent transactions on one file, seen from the index: they drop, copy, keep or claim it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
import transaction
from kinto.core.storage.exceptions import BackendError, IntegrityError, ObjectNotFoundError

from kinto_attachment.errors import AttachmentGone
from kinto_attachment.files import keys as new_keys
from kinto_attachment.files.settling import delete_garbage
from kinto_attachment.index.link import Link
from kinto_attachment.index.links import Links
from kinto_attachment.storage.memory import MemoryStorage
from tests.support import owned, races, sampling
from tests.support.application import replace_backend
from tests.support.interleavings import Decide, Orders, Stage, at_random
from tests.support.services import PostgreSQL

FILE, NEW_FILE = "file.txt", "new.txt"
PLACES = {FILE: "", NEW_FILE: "other"}  # The storages that contain them.


def parent(name: str) -> str:
    return f"/buckets/b/collections/{name}"


@pytest.fixture(scope="module")
def registry(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    other = {"storages.other.base_path": str(tmp_path_factory.mktemp("other"))}
    with races.server(postgresql, tmp_path_factory.mktemp("files"), **other) as app:
        yield on_memory(app.app.registry)


def on_memory(registry: Any) -> Any:
    """Keep files in memory: deletions and existence checks are also steps."""
    replace_backend(registry, MemoryStorage())
    replace_backend(registry, MemoryStorage(), "other")
    return registry


class Records:
    """Records that contain only a key, and what requests do to them and to the index.

    Each has its own collection, to which nothing else writes at the same time.
    """

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.links: Links = registry.attachment_links

    def start(self, *names: str) -> None:
        """Create records that all point to one file."""
        self.registry.storage.flush()
        owned.own(self.registry)
        for key, storage in PLACES.items():
            files = self.registry.attachment_storages[storage].files
            files.delete(FILE, NEW_FILE)
            files.write(key, BytesIO(b"content"), "text/plain")
        with transaction.manager:
            for number, name in enumerate(names):
                self._write(name, FILE)
                link = self._link(name, FILE)
                self.links.share(link) if number else self.links.add(link)

    def delete(self, name: str) -> Any:
        """Delete a record with its links, and then its file."""
        with transaction.manager:
            try:
                self.registry.storage.delete("record", parent(name), "r", with_deleted=False)
            except ObjectNotFoundError:
                return "nothing"
            entries = self.links.outbox.add_files(self.links.drop(self._current(name)))
        return self._finish(entries)

    def delete_but_fail(self, name: str) -> None:
        """The same when the storage does not answer: the file remains, and is in the outbox."""
        with transaction.manager:
            self.registry.storage.delete("record", parent(name), "r", with_deleted=False)
            self.links.outbox.add_files(self.links.drop(self._current(name)))

    def replace(self, name: str) -> Any:
        """Replace the file by one in another storage."""
        with transaction.manager:
            self._write(name, NEW_FILE)
            current = self._current(name)
            self.links.add(self._link(name, NEW_FILE, "other"))
            entries = self.links.outbox.add_files(self.links.drop(current))
        return self._finish(entries)

    def keep(self, name: str) -> Any:
        """The record gives up the file, which is kept."""
        with transaction.manager:
            self._write(name, None)
            for link in self._current(name):
                self.links.retain(link, "kept")

    def rename(self, name: str) -> Any:
        with transaction.manager:
            try:
                record = self.registry.storage.get("record", parent(name), "r")
            except ObjectNotFoundError:
                return "nothing"
            self._write(name, record["key"])
            for link in self._current(name):
                self.links.update(dataclasses.replace(link, filename="renamed"))
        return "renamed"

    def revise(self) -> Any:
        """What reindex does with links of an earlier release."""
        with transaction.manager:
            return self.links.revise(FILE, lambda link: dataclasses.replace(link, created=1))

    def copy(self, source: str, target: str, *, is_known: bool = False) -> Any:
        with transaction.manager:
            try:
                key = self.registry.storage.get("record", parent(source), "r")["key"]
            except ObjectNotFoundError:
                return "nothing"
            entries = []
            if key is not None:
                self._write(target, key)
                before = [link for link in self._current(target) if link.key != key]
                known_in = [PLACES[key]] if is_known else []
                self.links.share(self._link(target, key), known_in=known_in)
                entries = self.links.outbox.add_files(self.links.drop(before))
        self._finish(entries)
        return "copied"

    def withdraw(self, name: str) -> Any:
        """Delete the record, and make its earlier file unreadable."""
        with transaction.manager:
            self.registry.storage.delete("record", parent(name), "r", with_deleted=False)
            for link in self._links_of(name):
                self.links.retain(link, "withdrawn", link.until)

    def end_lingering(self) -> Any:
        """What a later request does with files whose time has expired."""
        with transaction.manager:
            entries = [entry for entry in self.links.outbox.entries() if entry.due]
        return self._finish(entries)

    def linger(self, name: str) -> None:
        """The record gives up the file, which is kept until a time in the past."""
        with transaction.manager:
            self._write(name, None)
            for link in self._current(name):
                self.links.retain(link, "lingering", until=1)
            self.links.outbox.add([FILE], due=1)

    def forget(self, name: str) -> None:
        """Remove the record, but not its link."""
        with transaction.manager:
            self.registry.storage.delete("record", parent(name), "r", with_deleted=False)

    def copy_unseen(self, target: str) -> Any:
        """Copy an attachment object that code on the server has read before."""
        with transaction.manager:
            self._write(target, FILE)
            self.links.share(self._link(target, FILE))
        return "copied"

    def drop_dangling(self, name: str) -> Any:
        """What gc does with links for which it has found no record."""
        with transaction.manager:
            dangling = self._current(name)
        with transaction.manager:
            entries = self.links.outbox.add_files(self.links.drop_dangling(dangling))
        return self._finish(entries)

    def collect(self) -> Any:
        """What gc does with a file that had no link when it looked."""
        with transaction.manager:
            entries, _ = self.links.move_orphans_to_outbox([FILE])
        return self._finish(entries)

    def name_anew(self, name: str, storage: str = "") -> Any:
        """What an upload does that stores its file under the name of the file, if that is free."""
        request: Any = SimpleNamespace(registry=self.registry)
        target = self.registry.attachment_storages[storage]
        with transaction.manager:
            free = self.links.reservations.claim(FILE)
            free = free and new_keys._is_free(request, target, FILE)
        if not free:
            return "taken"
        target.files.write(FILE, BytesIO(b"new content"), "text/plain")
        with transaction.manager:
            self._write(name, FILE)
            self.links.add(self._link(name, FILE, storage))
        with transaction.manager:
            self.links.reservations.release(FILE)
        return "named"

    def there(self) -> dict[str, str | None]:
        """The keys of the existing records."""
        rows = self.registry.storage.list_all("record", parent("*"))
        return {row["name"]: row["key"] for row in rows}

    def problems(self) -> list[str]:
        with transaction.manager:
            linked = [link for page in self.links.under() for link in page]
            rows = {f"{parent(name)}/records/r": key for name, key in self.there().items()}
            found = [f"{entry} is left" for entry in self.links.outbox.entries()]
        current = [(link.record, link.key) for link in linked if link.state == "current"]
        keys = [link.key for link in linked]
        for record, key in current:
            if rows.get(record) != key:
                found.append(f"{record} has a link that it does not need")
        for record, key in rows.items():
            if key and current.count((record, key)) != 1:
                found.append(f"{record} has not one link")
            if key and not self._exists(key, linked):
                found.append(f"{record} has no file")
        for record in {record for record, _ in current} - rows.keys():
            found.append(f"a link of {record}, which is gone, is left")
        for link in linked:
            if not link.shared and keys.count(link.key) > 1:
                found.append(f"{link} is not alone")
        for storage in self.registry.attachment_storages:
            is_there = storage.files.exists(FILE)
            if is_there != ((storage.name, FILE) in [(link.storage, link.key) for link in linked]):
                found.append("the file is left" if is_there else "the file is lost")
        if len({link.storage for link in linked if link.key == FILE}) > 1:
            found.append("one name for two files")
        return found

    def _exists(self, key: str, linked: list[Link]) -> bool:
        storage = next((link.storage for link in linked if link.key == key), "")
        return bool(self.registry.attachment_storages[storage].files.exists(key))

    def _write(self, name: str, key: str | None) -> None:
        self.registry.storage.update("record", parent(name), "r", {"key": key, "name": name})

    def _link(self, name: str, key: str, storage: str = "") -> Link:
        return Link.to(f"{parent(name)}/records/r", key, {"size": 7}, storage=storage)

    def _current(self, name: str) -> list[Link]:
        return [link for link in self._links_of(name) if link.state == "current"]

    def _links_of(self, name: str) -> list[Link]:
        return self.links.of_record(f"{parent(name)}/records/r")

    def _finish(self, entries: Iterable[Any]) -> Any:
        return [delete_garbage(self.registry, entry) is not None for entry in entries]


Act = Callable[[Records], Any]


def delete(name: str) -> Act:
    return lambda records: records.delete(name)


def replace(name: str) -> Act:
    return lambda records: records.replace(name)


def keep(name: str) -> Act:
    return lambda records: records.keep(name)


def rename(name: str) -> Act:
    return lambda records: records.rename(name)


def copy(source: str, target: str) -> Act:
    return lambda records: records.copy(source, target)


def copy_known(source: str, target: str) -> Act:
    return lambda records: records.copy(source, target, is_known=True)


def meet(
    registry: Any,
    start: str,
    acts: list[Act],
    orders: Iterable[Decide],
    before: Act = lambda records: None,
) -> set[str]:
    """Run the acts in these orders, with records that share the file; returns the outcomes."""
    records = Records(registry)
    outcomes = set()
    with contextlib.closing(Stage(registry)) as stage:
        for order in orders:
            records.start(*start.split())
            before(records)
            with stage.watching():
                results = stage.play([lambda act=act: act(records) for act in acts], order)
            for result in results:
                assert not isinstance(result, Exception) or is_retried(result), repr(result)
            outcomes.add(" | ".join(map(str, results)))
            told = "\n".join([str(results), *stage.trace])
            assert not (problems := records.problems()), f"{problems} after {told}"
            # Delete the remaining records one by one: none deletes the file of another.
            with transaction.manager:
                there = sorted(records.there())
            for name in there:
                assert records.delete(name) != "nothing"
                problems = records.problems()
                assert not problems, f"{problems}: {name} deleted, {told}"
    return outcomes


def is_retried(error: Exception) -> bool:
    """Whether the client is told to retry, or Kinto retries: nothing was changed."""
    if isinstance(error, BackendError) and not isinstance(error, IntegrityError):
        return "deadlock" in str(error.original)
    # If two links are made for one record in one millisecond, Kinto's storage refuses the second.
    return isinstance(error, IntegrityError | AttachmentGone)


TWO = {
    "last link, copy": ("a", [delete("a"), copy("a", "b")]),
    "two last links": ("a b", [delete("a"), delete("b")]),
    "shared link, copy": ("a b", [delete("a"), copy("a", "c")]),
    "other link, copy": ("a b", [delete("a"), copy("b", "c")]),
    "two copies": ("a", [copy("a", "b"), copy("a", "c")]),
    "one copy twice": ("a", [copy("a", "b"), copy("a", "b")]),
    "kept, copy": ("a", [keep("a"), copy("a", "b")]),
    "kept, last link": ("a b", [keep("a"), delete("b")]),
    "replaced, copy": ("a", [replace("a"), copy("a", "b")]),
    "replaced, copied back": ("a b", [replace("a"), copy("b", "a")]),
    "renamed, copy": ("a", [rename("a"), copy("a", "b")]),
    "renamed, other link": ("a b", [rename("a"), delete("b")]),
    "revised, last link": ("a", [Records.revise, delete("a")]),
    "revised, replaced": ("a", [Records.revise, replace("a")]),
    "revised, kept": ("a", [Records.revise, keep("a")]),
    "revised, copy": ("a", [Records.revise, copy("a", "b")]),
    "revised, shared link": ("a b", [Records.revise, delete("a")]),
}
MORE = {
    "three droppers": ("a b c", [delete("a"), delete("b"), delete("c")]),
    "dropper, copiers": ("a", [delete("a"), copy("a", "b"), copy("a", "c")]),
    "2 and 2": ("a b", [delete("a"), delete("b"), copy("b", "c"), copy("a", "d")]),
    "replaced": ("a b", [replace("a"), delete("b"), copy("b", "c"), copy("a", "d")]),
    "kept": ("a b", [keep("a"), delete("b"), copy("b", "c")]),
}


def some_orders(name: str, one_in: int) -> Orders:
    """One in so many of the orders with one change of turns, different ones for each ``name``."""
    one_in = sampling.one_in(one_in)
    return Orders(preemptions=1, one_in=one_in, first=sampling.start(name, one_in))


@pytest.mark.parametrize("name", TWO)
def test_two_transactions_that_meet_on_a_file(registry: Any, name: str) -> None:
    assert meet(registry, *TWO[name], some_orders(name, 4))


@pytest.mark.parametrize("case", MORE.values(), ids=MORE)
def test_more_transactions_that_meet_on_a_file(registry: Any, case: tuple[str, list[Act]]) -> None:
    assert meet(registry, *case, [at_random(seed) for seed in range(25 // sampling.one_in(5))])


def test_the_one_that_drops_the_last_link_and_the_one_that_copies_tell_each_other(
    registry: Any,
) -> None:
    outcomes = meet(registry, "a", [delete("a"), copy("a", "b")], Orders(preemptions=1))
    assert {"[True] | nothing", "[] | copied"} < outcomes
    assert any("please retry" in outcome for outcome in outcomes)


@pytest.mark.parametrize("copying", [copy, copy_known])
def test_a_file_that_is_being_kept_can_be_copied(
    registry: Any, copying: Callable[[str, str], Act]
) -> None:
    # The file exists all the time, so no request has to be repeated.
    acts = [keep("a"), copying("a", "b")]
    orders = some_orders(copying.__name__, 2)
    assert meet(registry, "a", acts, orders) == {"None | copied"}


def test_a_file_that_lingered_gets_no_link_when_it_is_deleted(registry: Any) -> None:
    def let_shared_file_linger(records: Records) -> None:
        records.delete("b")
        records.linger("a")

    outcomes = meet(
        registry,
        "a b",
        [lambda records: records.withdraw("a"), Records.end_lingering],
        some_orders("linger", 2),
        before=let_shared_file_linger,
    )
    assert outcomes == {"None | [True]"}


def test_gc_drops_a_link_without_a_record_that_is_shared_meanwhile(registry: Any) -> None:
    outcomes = meet(
        registry,
        "a",
        [lambda records: records.drop_dangling("a"), lambda records: records.copy_unseen("b")],
        Orders(preemptions=1),
        before=lambda records: records.forget("a"),
    )
    assert "[] | copied" in outcomes


def test_gc_spares_a_file_without_a_link_that_gets_one_meanwhile(registry: Any) -> None:
    """From reindex, or from a copy of a record that was written before the index existed."""

    def link_known(records: Records) -> Any:
        with transaction.manager:
            records._write("a", FILE)
            records.links.share(records._link("a", FILE), known_in=[""])
        return "linked"

    acts = [link_known, Records.collect]
    assert "linked | []" in meet(registry, "", acts, Orders(preemptions=1))


def test_one_of_those_who_claim_a_name_gets_it(registry: Any) -> None:
    def claim(records: Records) -> bool:
        with transaction.manager:
            return records.links.reservations.claim("name.txt")

    records = Records(registry)
    with contextlib.closing(Stage(registry)) as stage:
        for order in Orders(preemptions=2, one_in=sampling.one_in(8)):
            records.start()
            with stage.watching():
                results = stage.play([lambda: claim(records)] * 3, order)
            assert sorted(results) == [False, False, True], stage.trace


@pytest.mark.parametrize("second", [delete("a"), Records.collect], ids=["deletion", "gc"])
@pytest.mark.parametrize("storage", ["", "other"], ids=["here", "elsewhere"])
def test_a_name_that_becomes_free_is_given_to_a_file_that_stays(
    registry: Any, second: Act, storage: str, request: pytest.FixtureRequest
) -> None:
    def name_anew(records: Records) -> Any:
        return records.name_anew("b", storage)

    orders = some_orders(request.node.name, 2)
    outcomes = meet(registry, "a", [name_anew, second], orders)
    assert any(outcome.startswith("taken") for outcome in outcomes)


def test_a_name_is_not_given_twice_while_its_file_is_taken_out_of_the_outbox(
    registry: Any,
) -> None:
    """The file, whose deletion failed, is linked again while a new file claims its name."""

    def start_and_link_again(records: Records) -> Any:
        with transaction.manager:
            records._write("c", FILE)
            records.links.share(records._link("c", FILE), known_in=[""])

    def name_anew(records: Records) -> Any:
        return records.name_anew("b", "other")

    orders = Orders(preemptions=2, one_in=sampling.one_in(4))
    acts = [name_anew, start_and_link_again]
    meet(registry, "a", acts, orders, before=lambda records: records.delete_but_fail("a"))


def test_a_name_stays_taken_while_its_file_goes_from_the_links_to_the_outbox(
    registry: Any,
) -> None:
    """A request that found it in neither would give the name to a second file, elsewhere."""
    records = Records(registry)
    with contextlib.closing(Stage(registry)) as stage:
        for order in Orders(preemptions=1):
            records.start("a")
            with stage.watching():
                acts = [
                    lambda: records.name_anew("b", "other"),
                    lambda: records.delete_but_fail("a"),
                ]
                outcomes = stage.play(acts, order)
            assert outcomes == ["taken", None], stage.trace


def test_gc_spares_the_new_file_of_a_name_that_it_saw_unused(registry: Any) -> None:
    def delete_and_name_anew(records: Records) -> Any:
        records.delete("a")
        return records.name_anew("b")

    meet(registry, "a", [delete_and_name_anew, Records.collect], Orders(preemptions=1))
