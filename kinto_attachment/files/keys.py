"""Keys of new files: random keys, and reserved keys that are made from filenames.

A key is unique over all storages.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial

from kinto_attachment import names
from kinto_attachment.errors import KeyTaken
from kinto_attachment.files.ledger import Ledger
from kinto_attachment.files.transactions import separate_transaction, shares_transaction
from kinto_attachment.index.elsewhere import commit_elsewhere
from kinto_attachment.kinto_types import Request
from kinto_attachment.settings import CollectionSettings
from kinto_attachment.storage.storages import Storage


def new_key(
    request: Request,
    rules: CollectionSettings,
    storage: Storage,
    filename: str,
    *,
    session: str = "",
) -> str:
    """The key for a new file in a storage.

    With the id of an upload session, the key belongs to the session instead of the request.

    :raises KeyTaken: thousands of files have the same name.
    """
    if rules.randomize:
        name = request.registry.attachment_site.random_name(storage, filename)
        if rules.filename_pattern.text == "{filename}":
            return _folder(request, rules, fan=name[:2]) + name
        filename = name  # Reserved, because gc recognizes only plain random names.
    return _reserved_key(request, rules, storage, filename, session)


def _reserved_key(
    request: Request, rules: CollectionSettings, storage: Storage, filename: str, session: str
) -> str:
    """Reserve a key made from the client's filename, with ``-1``, ``-2`` … if it is taken.

    The reservation lasts until the end of the request, or of the upload session. Concurrent
    uploads of the same name get different keys: an upload cannot retry with another key, because
    its body is read only once.
    """
    request.registry.attachment_site.look_at(storage)
    # It is committed before the file is stored, since it tells gc which site the file belongs to.
    reserve = partial(_reserve, request, rules, storage, filename, session)
    if shares_transaction(request):
        key = commit_elsewhere(reserve)
    else:
        with separate_transaction(request):
            key = reserve()
    if not session:
        Ledger.of(request).reserved.append(key)
    return key


def _reserve(
    request: Request, rules: CollectionSettings, storage: Storage, filename: str, session: str
) -> str:
    reservations = request.registry.attachment_links.reservations
    for key in _candidates(request, rules, filename):
        # Checked before the claim, too: otherwise, concurrent uploads of a common name would
        # wait for each other at each taken key.
        if _is_taken(request, storage, key) or not reservations.claim(key, session):
            continue
        if _is_free(request, storage, key):
            return key
        reservations.release(key)
    raise KeyTaken()


def _is_taken(request: Request, storage: Storage, key: str) -> bool:
    """Whether the storage has a file with this key, or a link to another storage has it."""
    if storage.files.exists(key):
        return True
    links = request.registry.attachment_links
    return _may_be_elsewhere(request) and bool(links.of_key(key))


def _is_free(request: Request, storage: Storage, key: str) -> bool:
    """Whether no file has a claimed key, and none will get it again."""
    if storage.files.exists(key):
        return False
    links = request.registry.attachment_links
    if not _may_be_elsewhere(request):
        # A key in the outbox is not free either: its file is about to be deleted.
        return not links.outbox.entries(key)
    # A file moves from the links to the outbox and, because of the lock, cannot be linked again.
    # So looking in that order finds it.
    links.locks.lock(key)
    is_free = not links.of_key(key) and not links.outbox.entries(key)
    links.locks.clear(key)
    return is_free


def _may_be_elsewhere(request: Request) -> bool:
    """Whether another storage may have files, which one storage alone does not show."""
    links, storages = request.registry.attachment_links, request.registry.attachment_storages
    return len(storages) > 1 or not links.used_storages.are_among(storages)


def _candidates(request: Request, rules: CollectionSettings, filename: str) -> Iterator[str]:
    now = datetime.now(timezone.utc)
    name = rules.filename_pattern.format(
        filename=filename,
        datetime=now.strftime("%Y%m%d%H%M%S"),
        rid=request.context.uri.record_id,
        id=request.context.uri.record_id,
    )
    folder = _folder(request, rules, fan=secrets.token_hex(1))
    return (folder + candidate for candidate in names.numbered(names.safe_name(name)))


def _folder(request: Request, rules: CollectionSettings, *, fan: str) -> str:
    if rules.folder is None:
        return ""
    uri = request.context.uri
    folder = rules.folder.format(
        bucket_id=uri.bucket_id, collection_id=uri.collection_id, id=uri.record_id, fan=fan
    )
    return folder.strip("/") + "/"
