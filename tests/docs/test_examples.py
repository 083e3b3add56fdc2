"""Tests run the examples in the documents, except a few, each for a given reason."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.test_documents import DOCUMENTS
from tests.docs.test_surface import names_in
from tests.support import ROOT
from tests.support.documents import code_blocks

LANGUAGES = ("shell", "console", "python", "javascript")

# Why an example is not run.
INSTALLS = "installs from a package index, or with npm"
MAKE = "a target of make: the documents' tests check that it exists"
LOOP = "runs the tests, or the site's build, which runs in them"
FRAGMENT = "part of a plugin: another example is whole"
SYSTEM = "needs root, or changes the machine"
CLOUD = "needs an account with a cloud provider"
PROGRAM = "needs a program that not every machine has: jq, rsync"
PAGES = "serves the folder of a reader's own page"
REASONS = (INSTALLS, MAKE, LOOP, FRAGMENT, SYSTEM, CLOUD, PROGRAM, PAGES)

README = "tests/docs/test_readme.py"
SHELL = f"{README}::test_the_shell_commands_work_as_pasted"
CLIENT = "tests/client/test_examples.py"
EVENTS = "tests/docs/test_events_page.py"
STORAGE = "tests/docs/test_writing_a_storage.py"
IN_BROWSER = "tests/browser/test_pages_page.py::paste"
OPERATORS = "tests/docs/test_operators_commands.py::test_each_of_them_finds_nothing_wrong"

# The first matching row applies to an example. A row has the document, the language, a text in
# the example, and the test that runs it or the reason why none does.
EXAMPLES = [
    ("*", "shell", r"make [a-z0-9-]+( \w+=\S+)*", MAKE),
    ("*", "shell", r"(\w+=\S+ )+make serve", MAKE),
    ("*", "console", r"\$ make .*", MAKE),
    ("*", "shell", r"pip install [^\n]*(\n[^\n]*)*", INSTALLS),
    ("*", "shell", r"npm install.*", INSTALLS),
    ("*", "shell", r"kinto-attachment usage [^\n]* \| jq .*", PROGRAM),
    (
        *("docs/between-storages.rst", "shell", ".*"),
        "tests/maintenance/test_move.py::test_the_commands_of_the_page",
    ),
    ("*", "shell", r"kinto-attachment [\w-]+ .*--ini .*", OPERATORS),
    ("CONTRIBUTING.rst", "shell", r"\.ci/run|\.venv/bin/python -m pytest .*", LOOP),
    ("README.rst", "javascript", ".*", f"{README}::test_the_javascript_example_works"),
    ("README.rst", "shell", ".*", SHELL),
    ("docs/admin.rst", "shell", "curl .*", f"{README}::test_a_collection_says_that_it_has_files"),
    ("docs/api.rst", "javascript", ".*", f"{README}::test_the_form_of_a_page_works"),
    ("docs/api.rst", "python", ".*", f"{README}::test_the_event_example_works"),
    ("docs/api.rst", "shell", ".*", SHELL),
    (
        *("docs/client.rst", "shell", ".* create-account"),
        "tests/client/test_connection_options.py::test_create_account",
    ),
    ("docs/bundles.rst", "shell", ".*", SHELL),
    ("docs/client.rst", "shell", ".*kinto-attachment .*", f"{CLIENT}::test_commands"),
    ("docs/client.rst", "shell", ".*", SHELL),
    ("docs/client.rst", "python", ">>> .*", f"{CLIENT}::test_documentation"),
    ("docs/client.rst", "python", ".*tusclient.*", f"{CLIENT}::test_tuspy"),
    (
        *("docs/client.rst", "python", ".*from_env.*"),
        f"{CLIENT}::test_a_client_from_the_environment",
    ),
    (
        "docs/client.rst",
        "python",
        ".*kinto_http.*",
        f"{README}::test_the_kinto_http_example_works",
    ),
    (
        "docs/client.rst",
        "python",
        "import requests.*",
        f"{README}::test_the_requests_example_works",
    ),
    ("docs/design.rst", "python", ".*", FRAGMENT),
    ("docs/direct.rst", "shell", ".*", SHELL),
    ("docs/events.rst", "python", "body = .*", FRAGMENT),
    (
        "docs/events.rst",
        "python",
        ".*FileListener.*",
        "tests/files/test_kinto_listeners.py::listening",
    ),
    ("docs/events.rst", "python", ".*", f"{EVENTS}::start"),
    (
        "docs/holds.rst",
        "shell",
        "kinto-attachment hold .*",
        f"{README}::test_the_clients_hold_files",
    ),
    ("docs/export.rst", "shell", "cd .*", "tests/maintenance/test_export.py::test_the_command"),
    ("docs/holds.rst", "shell", ".*", SHELL),
    ("docs/holds.rst", "python", ".*", f"{README}::test_the_clients_hold_files"),
    ("docs/listing.rst", "shell", ".*", "tests/docs/test_listing_page.py::test_the_commands_work"),
    ("docs/offline.rst", "javascript", ".*", "tests/endpoints/test_offline_clients.py::results"),
    ("docs/pages.rst", "shell", "python3 -m http.server .*", PAGES),
    ("docs/pages.rst", "javascript", ".*", IN_BROWSER),
    ("docs/production.rst", "python", ".*", "tests/endpoints/test_rights.py::TestCaches"),
    (
        "docs/production.rst",
        "shell",
        r".*\bgunicorn --.*",
        f"{README}::test_the_gunicorn_commands_work",
    ),
    ("docs/production.rst", "shell", r"17 3 .*", SYSTEM),
    ("docs/production.rst", "shell", "pg_dump .*", PROGRAM),
    ("docs/quotas.rst", "shell", ".*", SHELL),
    ("docs/resumable.rst", "shell", ".*", SHELL),
    ("docs/storage.rst", "shell", "(groupadd|runuser) .*", SYSTEM),
    ("docs/storage.rst", "shell", "aws s3api .*", CLOUD),
    ("docs/versions.rst", "shell", ".*", SHELL),
    ("docs/writing-a-storage.rst", "python", ".*", f"{STORAGE}::folder"),
    ("docs/writing-a-storage.rst", "console", ".*", f"{STORAGE}::TestItsTests"),
]


def examples() -> Iterator[tuple[str, str, str]]:
    for name in DOCUMENTS:
        for language in LANGUAGES:
            for block in code_blocks(name, language):
                yield name, language, block


def row_of(name: str, language: str, block: str) -> tuple[str, str, str, str] | None:
    for row in EXAMPLES:
        document, of, pattern, _ = row
        if document in ("*", name) and of == language and re.fullmatch(pattern, block, re.S):
            return row
    return None


def test_each_example_is_run_or_has_a_reason() -> None:
    rows = {example: row_of(*example) for example in examples()}
    assert [example for example, row in rows.items() if row is None] == []
    assert [row for row in EXAMPLES if row not in rows.values()] == [], "of examples that are gone"
    left_out = [row for row in rows.values() if row and row[3] in REASONS]
    assert len(left_out) < len(rows) / 3


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: "-".join(row[:3]))
def test_what_runs_an_example_reads_it(row: tuple[str, str, str, str]) -> None:
    document, _, _, test = row
    if test not in REASONS:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text("utf-8")
        assert name in names_in(path)
        assert "code_blocks(" in text or "DocTestParser" in text
        assert document == "*" or document in text
