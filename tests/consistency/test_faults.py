"""A server that fails, or is killed, at every single step: no file is lost or left for ever.

Each case does something to a record once, to learn the steps, and then again for each step:
with a failure before it, a failure after it, and the worker killed before it; and killed after
the last one. ``make tests-all`` tries all of them everywhere. ``make tests`` makes one action
fail, and kills the next one, which shares most steps with it. It tries the decisive commit, each
step that concerns a file, each kind of step that it meets for the first time, and one in eight
of the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import transaction

from tests.support import invariants, live, load, owned, sampling
from tests.support.application import move_behind
from tests.support.faults_plugin import Faults, How, Kinds, Order, When
from tests.support.services import S3, PostgreSQL
from tests.support.snapshots import Snapshots

RECORDS = "/buckets/b/collections/c/records"
ONE, TWO, THREE = (f"{RECORDS}/{name}" for name in ("one", "two", "three"))
NAMED = "/buckets/b/collections/named/records/one"
KEPT = "/buckets/b/collections/kept/records/one"
# A record that is deleted, with its file kept.
GONE = "/buckets/b/collections/kept/records/gone"
# In a collection whose files go to another storage; the second one's file predates that setting.
OTHER = "/buckets/b/collections/other/records/one"
MOVED = "/buckets/b/collections/other/records/two"
COPY = "/buckets/b/collections/public/records/copy"
ALICE = ("alice", "secret")

SETTINGS = {
    **load.SETTINGS,
    "resources.b.other.storage": "other",
}


class Site:
    """A server to break, and the real contents of its database and storage."""

    def __init__(self, server: live.Server, registry: Any, faults: Faults) -> None:
        self.server, self.registry, self.faults = server, registry, faults
        self.versions: dict[str, str] = {}
        self.kinds: dict[How, Kinds] = {how: Kinds() for how in ("error", "kill", "conflict")}
        self.broken: set[Action] = set()
        self.alice = self.request("GET", "/").json()["user"]["id"]
        self.snapshots = Snapshots()

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        url = f"{self.server.url}{path}"
        return requests.request(method, url, auth=ALICE, timeout=120, **kwargs)

    def attach(self, record: str, content: bytes = b"new") -> requests.Response:
        return self.request(
            "POST", f"{record}/attachment", files={"attachment": ("a.txt", content)}
        )

    def start(self, *records: str) -> None:
        """Create a few collections, and these records, each with a file; TWO has a copy.

        KEPT has an earlier version, too.
        """
        self.versions = self.snapshots.start(self.registry, records, lambda: self.make(records))

    def make(self, records: tuple[str, ...]) -> dict[str, str]:
        """Create what exists at the start; returns the first version of each record."""
        self.clear()
        self.create_parents()
        versions = {}
        for record in records:
            answers = [
                self.attach(record, content)
                for content in ((b"older", b"old") if record == KEPT else (b"old",))
            ]
            assert all(answer.ok for answer in answers)
            versions[record] = answers[0].headers["Attachment-Version"]
        if GONE in records:
            assert self.request("DELETE", GONE).ok
        if TWO in records:
            assert publish(self, TWO).ok
        if MOVED in records:
            with transaction.manager:
                (link,) = self.registry.attachment_links.of_record(MOVED)
            move_behind(self.registry, link.key, "")
        return versions

    def oldest_version(self, record: str) -> str:
        """Its path. Each worker counts its own steps, so an action must be a single request."""
        return f"{record}/attachment/versions/{self.versions[record]}"

    def create_parents(self) -> None:
        """Create a bucket of alice's and its collections, without the requests of a client."""
        registry = self.registry
        with transaction.manager:
            registry.storage.create("bucket", "", {"id": "b"})
            registry.permission.add_principal_to_ace("/buckets/b", "write", self.alice)
            for name in ("c", "named", "kept", "public", "other"):
                registry.storage.create("collection", "/buckets/b", {"id": name})

    def clear(self) -> None:
        registry = self.registry
        for backend in (registry.storage, registry.permission, registry.cache):
            backend.flush()
        owned.own(registry)
        # Otherwise the first upload of each worker has one more step than the others.
        with transaction.manager:
            registry.attachment_links.used_storages.put_back(["other"])
        for storage in registry.attachment_storages:
            files = storage.files
            files.delete(*[file.key for file in files.list()])
            for remains in files.list_unfinished():
                files.discard_unfinished(remains)

    def steps_of(self, action: Action) -> list[str]:
        self.start(*ACTIONS[action])
        self.faults.give(Order(0))
        answer = action(self)
        assert answer.ok, answer.text
        self.faults.take_back()
        assert not invariants.left(self.registry)
        return self.faults.steps()

    def try_order(self, action: Action, order: Order) -> requests.Response | None:
        """None when there was no answer."""
        self.faults.give(order)
        answer = failure = None
        try:
            answer = action(self)
        except requests.ConnectionError as error:
            failure = error
        left = self.faults.take_back()
        told = failure if answer is None else answer.text
        assert not left, f"only {self.faults.steps()} of the steps were reached: {told}"
        return answer


Action = Callable[[Site], requests.Response]


def create(site: Site) -> requests.Response:
    return site.attach(f"{RECORDS}/four")


def create_in_default_bucket(site: Site) -> requests.Response:
    path = "/buckets/default/collections/new/records/one/attachment?filename=a.txt"
    return site.request("PUT", path, data=b"raw")


def create_named(site: Site) -> requests.Response:
    return site.attach("/buckets/b/collections/named/records/two")


def replace(site: Site) -> requests.Response:
    return site.attach(ONE)


def replace_named(site: Site) -> requests.Response:
    return site.attach(NAMED)


def replace_kept(site: Site) -> requests.Response:
    return site.attach(KEPT)


def create_in_other_storage(site: Site) -> requests.Response:
    return site.attach(OTHER)


def replace_in_other_storage(site: Site) -> requests.Response:
    return site.attach(OTHER)


def replace_across_storages(site: Site) -> requests.Response:
    return site.attach(MOVED)


def replace_shared(site: Site) -> requests.Response:
    return site.attach(TWO)


def restore(site: Site) -> requests.Response:
    return site.request("POST", f"{site.oldest_version(KEPT)}/restore")


def restore_deleted(site: Site) -> requests.Response:
    return site.request("POST", f"{site.oldest_version(GONE)}/restore")


def delete_version(site: Site) -> requests.Response:
    return site.request("DELETE", site.oldest_version(KEPT))


def copy(site: Site) -> requests.Response:
    return site.request("POST", f"{ONE}/attachment", json={"copy_from": TWO})


def copy_across_storages(site: Site) -> requests.Response:
    return site.request("POST", f"{OTHER}/attachment", json={"copy_from": ONE})


def attach_by_code(site: Site) -> requests.Response:
    report = {"record": ONE, "filename": "report.csv", "content": "a;b"}
    return site.request("POST", "/attach", json=report)


def publish(site: Site, record: str = ONE) -> requests.Response:
    return site.request("POST", "/publish", json={"copies": {record: COPY}})


def remove(site: Site) -> requests.Response:
    return site.request("DELETE", f"{ONE}/attachment")


def put_without(site: Site) -> requests.Response:
    return site.request("PUT", ONE, json={"data": {"title": "x"}})


def delete_record(site: Site) -> requests.Response:
    return site.request("DELETE", ONE)


def delete_records(site: Site) -> requests.Response:
    return site.request("DELETE", RECORDS)


def delete_collection(site: Site) -> requests.Response:
    return site.request("DELETE", "/buckets/b/collections/c")


def delete_bucket(site: Site) -> requests.Response:
    return site.request("DELETE", "/buckets/b")


def batch(site: Site) -> requests.Response:
    calls = [
        {"method": "DELETE", "path": ONE},
        {"method": "PATCH", "path": TWO, "body": {"data": {"attachment": None}}},
        {"method": "DELETE", "path": f"{THREE}/attachment"},
    ]
    return site.request("POST", "/batch", json={"requests": calls})


def flush(site: Site) -> requests.Response:
    return site.request("POST", "/__flush__")


# With the records that exist before.
ACTIONS: dict[Action, tuple[str, ...]] = {
    create: (),
    create_in_default_bucket: (),
    create_named: (NAMED,),
    replace: (ONE,),
    replace_named: (NAMED,),
    replace_kept: (KEPT,),
    replace_shared: (TWO,),
    create_in_other_storage: (),
    replace_in_other_storage: (OTHER,),
    replace_across_storages: (MOVED,),
    restore: (KEPT,),
    restore_deleted: (GONE,),
    delete_version: (KEPT,),
    copy: (ONE, TWO),
    copy_across_storages: (ONE,),
    attach_by_code: (ONE,),
    publish: (ONE, TWO),
    remove: (ONE,),
    put_without: (ONE,),
    delete_record: (ONE,),
    delete_records: (ONE, TWO),
    delete_collection: (ONE, KEPT),
    delete_bucket: (ONE, TWO, KEPT, OTHER, MOVED),
    batch: (ONE, TWO, THREE),
    flush: (ONE, TWO, OTHER),
}
# On S3. These two cover all steps that differ there: writing a file, deleting one, or several.
MAIN_ACTIONS = [replace, delete_bucket]
if sampling.every_case():
    MAIN_ACTIONS += [create, replace_across_storages, remove, batch]

HOWS: tuple[How, ...] = ("error", "kill")


def cases(actions: Iterable[Action]) -> pytest.MarkDecorator:
    """Each action with each failure, or with one of the two if not every case is tried."""
    every = [(action, how) for action in actions for how in HOWS]
    # The first failure for every other action, the second one for the rest.
    some = every if sampling.every_case() else [*every[::4], *every[3::4]]
    names = [f"{action.__name__}-{how}" for action, how in some]
    return pytest.mark.parametrize(("action", "how"), some, ids=names)


@contextlib.contextmanager
def site(storage: dict[str, str], postgresql: PostgreSQL, folder: Path) -> Iterator[Site]:
    """A server with this storage, and a folder for the files of one collection."""
    faults = Faults(folder)
    storage = {**storage, "storages.other.base_path": str(folder / "other")}
    database = postgresql.create_database()
    with (
        live.kinto(
            {**storage, **SETTINGS},
            workers=2,
            threads=4,
            preload=True,
            database=database,
            includes=[
                "kinto.plugins.default_bucket",
                "kinto.plugins.flush",
                "tests.support.publishing",
                "tests.support.server_code",
                "tests.support.faults_plugin",
            ],
            environ=faults.environ,
        ) as server,
        invariants.inside(server) as registry,
    ):
        yield Site(server, registry, faults)
    postgresql.drop_database(database)


@pytest.fixture(scope="module")
def local_site(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    storage = {"base_path": str(tmp_path_factory.mktemp("files"))}
    with site(storage, postgresql, tmp_path_factory.mktemp("faults")) as broken:
        yield broken


@pytest.fixture(scope="module")
def s3_site(
    postgresql: PostgreSQL, seaweedfs: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    storage = seaweedfs.options(seaweedfs.create_bucket())
    with site(storage, postgresql, tmp_path_factory.mktemp("faults")) as broken:
        yield broken


def break_every_step(site: Site, action: Action, how: How) -> int:
    steps = site.steps_of(action)
    is_as_before, is_first = False, True
    # The first upload creates counters; names stay reserved; a conflict concerns only one part.
    leaves_traces = not ACTIONS[action] or "attachment-name create" in steps or how == "conflict"
    # Kinto commits a flush in several steps: it can fail although it is done.
    decisive = 0 if action is flush else commit_of(steps)
    kinds = site.kinds[how]
    kinds.seen |= {*steps}
    site.broken.add(action)
    for number, step in enumerate(steps, 1):
        # Of identical steps, like the deletions of a bucket's files, only the last one is tried.
        if step != "commit" and step in steps[number:] and not sampling.every_case():
            continue
        is_new = kinds.is_new(step)
        for when in moments(action, how, number, steps, decisive, is_new=is_new):
            kinds.tried.add(step)
            told = f"{how} {when} step {number} of {steps}: {step}"
            if not is_as_before:
                site.start(*ACTIONS[action])
            answer = site.try_order(action, Order(number, when, how))
            assert (answer is None) == (how == "kill"), told
            if how == "error" and decisive:
                assert answer is not None
                assert answer.ok == (number > decisive), told
            if how == "error" and number < decisive and (step, when) != ("file write", "after"):
                # It is undone at once: nothing is left to gc.
                left = invariants.left(site.registry)
                if step == "file write" or (step, when) == ("commit", "after"):
                    # The server cannot know that it failed: the name is left to gc.
                    left = [remains for remains in left if not remains.startswith("reserved:")]
                assert not left, f"{left} after {told}"
            if action is flush:
                # As operators do with reindex --claim: Kinto commits before our rows are back.
                owned.own(site.registry)
            invariants.check(site.registry, told, collecting=is_first)
            is_first = False
            # A failure before the commit has changed nothing, as was just checked.
            is_as_before = number < decisive and not leaves_traces
    return len(steps)


def moments(
    action: Action, how: How, number: int, steps: list[str], decisive: int, *, is_new: bool
) -> list[When]:
    """When to fail at a step. A kill after a step is the same as one before the next step."""
    is_last = number == len(steps)
    every: list[When] = ["before", "after"] if how != "kill" or is_last else ["before"]
    if sampling.every_case() or number == decisive:
        return every
    if how == "kill" and is_last:
        return ["after"]
    turn = number + list(ACTIONS).index(action)
    if is_new or steps[number - 1].startswith("file") or turn % 8 == 0:
        return [every[turn % len(every)]]
    return []


def commit_of(steps: list[str]) -> int:
    """The number of the decisive step: the commit of the requested change."""
    # No record is written when a version is deleted.
    for kinds in (("record", "collection", "bucket"), ("attachment",)):
        for number, step in enumerate(steps):
            if step.startswith(kinds):
                return steps.index("commit", number) + 1
    raise AssertionError(f"nothing is committed: {steps}")


def test_a_conflict_in_a_batch_loses_no_file(local_site: Site) -> None:
    # Kinto rolls back the previous parts, but still answers them with 200, and continues.
    assert break_every_step(local_site, batch, "conflict") > 6


@cases(ACTIONS)
def test_no_step_loses_or_leaves_a_file(local_site: Site, action: Action, how: How) -> None:
    assert break_every_step(local_site, action, how) > 2


@cases(MAIN_ACTIONS)
def test_no_step_loses_or_leaves_an_object(s3_site: Site, action: Action, how: How) -> None:
    assert break_every_step(s3_site, action, how) > 2


# The names of a site's steps, as the plugin that breaks them gives them. The steps of uploads in
# several requests are broken in test_sessions.
ON_S3 = {
    *("file write", "file delete", "commit"),
    *("record update", "record delete_all", "bucket delete", "everything delete_all"),
    *("permission replace_object_permissions", "permission delete_object_permissions"),
    *("attachment update", "attachment delete"),
    *("attachment-garbage update", "attachment-garbage delete"),
    *("attachment-lock update", "attachment-lock delete"),
}
KINDS = ON_S3 | {
    *("record create", "record delete", "everything flush"),
    *("collection create", "collection delete", "bucket create"),
    *("attachment delete_all", "attachment-name create", "attachment-name delete"),
    *("attachment-storage create", "attachment-site update"),
}


@pytest.mark.parametrize(
    ("name", "actions", "expected"),
    [("local_site", ACTIONS, KINDS), ("s3_site", MAIN_ACTIONS, ON_S3)],
    ids=["local", "s3"],
)
def test_each_kind_of_step_was_tried(
    request: pytest.FixtureRequest, name: str, actions: Iterable[Action], expected: set[str]
) -> None:
    """The tests before this one tried each kind, even if they left out steps."""
    site: Site = request.getfixturevalue(name)
    for kinds in site.kinds.values():
        assert kinds.tried == kinds.seen
    tried = set().union(*(kinds.tried for kinds in site.kinds.values()))
    assert tried <= KINDS
    # There are fewer if not all actions were selected.
    assert tried >= expected or not site.broken >= {*actions}


def test_killing_workers_under_load_loses_and_leaves_no_file(local_site: Site) -> None:
    server, registry = local_site.server, local_site.registry
    local_site.clear()
    load.prepare(server)
    clients = load.Load(server)
    with clients.running():
        deaths = 30 // sampling.one_in(10)
        load.kill_workers(server, lambda killed: killed >= deaths and clients.answers[200] > 20)
    load.wait_for_quiet(registry)
    assert set(clients.answers) <= {0, 200, 201, 204, 404, 409, 503}, clients.answers
    invariants.check(registry, collecting=True)
