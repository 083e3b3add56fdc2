"""Files that linger, without the wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import transaction

from kinto_attachment.maintenance.gc import gc


def pass_the_time(app: Any) -> None:
    """Change the stored times as if the time for which files linger had passed."""
    links = app.app.registry.attachment_links
    with transaction.manager:
        for page in list(links.under()):
            for link in page:
                if link.until:
                    links.retain(link, link.state, until=1)
        for entry in links.outbox.entries():
            if entry.due and links.outbox.take(entry):
                links.outbox.put(replace(entry, due=1))
    waiting = app.app.registry.attachment_lingering
    soon = [replace(each, due=1) for each in waiting]
    waiting.clear()
    waiting.extend(soon)


def end(app: Any) -> None:
    """Delete the lingering files, and forget them."""
    pass_the_time(app)
    report = gc(
        app.app.registry, grace=timedelta(seconds=-1), orphan_age=timedelta(0), pause=timedelta(0)
    )
    assert not report.errors
    app.app.registry.attachment_lingering.clear()
