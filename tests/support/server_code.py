"""A plugin whose views use the functions for server code like other plugins.

``POST /attach`` with ``{"record": URI, "filename": …, "content": …}`` attaches a text.
"""

from __future__ import annotations

from typing import Any

from pyramid.security import NO_PERMISSION_REQUIRED

import kinto_attachment


def includeme(config: Any) -> None:
    config.add_route("attach", "/attach")
    config.add_view(
        attach,
        route_name="attach",
        request_method="POST",
        renderer="json",
        permission=NO_PERMISSION_REQUIRED,
    )


def attach(request: Any) -> dict[str, Any]:
    asked = request.json
    content = asked["content"].encode()
    return kinto_attachment.attach(request, asked["record"], content, asked["filename"])
