"""A database and its files from a release that had neither lives nor several storages.

``old_rows.json`` has the rows of Kinto's tables and the files. It was written by that release on
PostgreSQL: in a checkout of it, with this file added to ``tests/support/``,
``python -m tests.support.old_rows >old_rows.json``. It must not be overwritten by a later
release.

=======================  =========================================================================
record (in bucket b)     what alice did in it
=======================  =========================================================================
``c/replaced``           uploaded twice; nothing is kept
``public/copy``          published from ``c/replaced``: both have one file
``packed/r``             uploaded, compressed
``kept/living``          uploaded three times; old files are kept
``kept/removed``         uploaded twice, then deleted the attachment
``kept/deleted``         uploaded twice, then deleted the record
``gone/r``               uploaded twice, then deleted the collection, where old files are kept
``lingering/replaced``   uploaded twice; old files linger
``lingering/removed``    uploaded, then deleted the attachment
=======================  =========================================================================
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import transaction

from tests.support.application import (
    ALICE,
    BUCKET,
    attach,
    make_app,
    postgresql_settings,
    put,
    put_collection,
    stored_content,
    stored_files,
)

ROWS = Path(__file__).with_suffix(".json")
OPTIONS = {
    **{f"resources.b.{name}.keep_old_files": "true" for name in ("kept", "gone")},
    "resources.b.packed.gzipped": "true",
    "resources.b.lingering.linger": "365d",
}
FAR_FUTURE = 2**42
SETTINGS = {"includes": "tests.support.publishing"}


def record(name: str) -> str:
    """The URI of a record from its collection and id: ``c/replaced``."""
    return f"{BUCKET}/collections/{name.replace('/', '/records/')}"


def load(app: Any) -> None:
    """Put the rows and the files into an empty server, with the options above."""
    stored = json.loads(ROWS.read_text())
    registry = app.app.registry
    with transaction.manager:
        for resource_name, parent_id, object_id, last_modified, data in stored["objects"]:
            # Files that lingered when the rows were written still linger.
            still = {name: FAR_FUTURE for name in ("until", "due") if name in data}
            obj = {**data, **still, "last_modified": last_modified}
            registry.storage.update(resource_name, parent_id, object_id, obj)
        for object_id, permission, principal in stored["permissions"]:
            registry.permission.add_principal_to_ace(object_id, permission, principal)
    for key, content in stored["files"].items():
        registry.attachment_storages.default.files.write(
            key, io.BytesIO(base64.b64decode(content)), "text/plain"
        )


def fill(app: Any) -> None:
    for name in ("c", "public", "packed", "kept", "gone", "lingering"):
        put_collection(app, f"{BUCKET}/collections/{name}")
    for name, contents in {
        "c/replaced": (b"1", b"22"),
        "packed/r": (b"packed",),
        "kept/living": (b"first", b"second", b"third"),
        "kept/removed": (b"one", b"another"),
        "kept/deleted": (b"secret", b"secret too"),
        "gone/r": (b"hidden", b"hidden too"),
        "lingering/replaced": (b"lingers", b"stays"),
        "lingering/removed": (b"withdrawn",),
    }.items():
        for content in contents:
            attach(app, record(name), content, permissions={})
    app.post_json("/publish", {"copies": {record("c/replaced"): record("public/copy")}})
    for name in ("kept/removed", "lingering/removed"):
        app.delete(f"{record(name)}/attachment", headers=ALICE)
    app.delete(record("kept/deleted"), headers=ALICE)
    app.delete(f"{BUCKET}/collections/gone", headers=ALICE)
    put(app, record("c/plain"))


def dump(app: Any, url: str) -> dict[str, Any]:
    import psycopg2

    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT resource_name, parent_id, id, as_epoch(last_modified), data FROM objects"
            " WHERE NOT deleted AND resource_name <> 'history' ORDER BY 1, 2, 3"
        )
        objects = cursor.fetchall()
        cursor.execute(
            "SELECT object_id, permission, principal FROM access_control_entries"
            " WHERE object_id NOT LIKE '%history%' ORDER BY 1, 2, 3"
        )
        permissions = cursor.fetchall()
    files = {
        key: base64.b64encode(stored_content(app, key)).decode()
        for key in sorted(stored_files(app))
    }
    return {"objects": objects, "permissions": permissions, "files": files}


def main() -> None:
    from tests.support.services import postgresql

    with postgresql() as server, tempfile.TemporaryDirectory() as folder:
        url = server.create_database()
        storage = {"base_path": folder, **OPTIONS}
        app = make_app(storage, postgresql_settings(url), **SETTINGS)
        fill(app)
        parts = dump(app, url)
    lists = []
    for name in ("objects", "permissions"):
        rows = ",\n".join(map(json.dumps, parts[name]))
        lists.append(f'"{name}": [\n{rows}\n]')
    files = json.dumps(parts["files"])
    sys.stdout.write("{\n" + ",\n".join([*lists, f'"files": {files}']) + "\n}\n")


if __name__ == "__main__":
    main()
