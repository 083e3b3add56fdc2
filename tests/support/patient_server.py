"""A plugin for servers whose clients may be slow, because the machine is busy.

A client whose request is refused early may reuse its connection if it sends the rest of the body
soon. Here, "soon" is as long as a test lasts.
"""

from __future__ import annotations

from typing import Any

from kinto_attachment.wsgi import bodies, closing
from tests.support import waiting


def includeme(config: Any) -> None:
    bodies.WAITING_SECONDS = bodies.STALL_SECONDS = waiting.SECONDS
    bodies.ANONYMOUS_WAIT = (waiting.SECONDS, waiting.SECONDS)
    closing.SECONDS = waiting.SECONDS
