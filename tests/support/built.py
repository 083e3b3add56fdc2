"""A description of an application that Kinto has built, as text, to compare two of them.

``python -m tests.support.built 2`` builds two and describes the last one. This file does not
import the tests, which make some things faster than on a server.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from typing import Any

import kinto
from pyramid.config.views import MultiView
from webob import Request

SETTINGS = {
    "includes": "kinto.plugins.history kinto.plugins.default_bucket kinto.plugins.flush "
    "kinto_attachment",
    "multiauth.policies": "basicauth",
    "http_host": "localhost:8888",
    "experimental_permissions_endpoint": "true",
}
BACKENDS = {
    f"{name}_backend": f"kinto.core.{name}.memory" for name in ("storage", "permission", "cache")
}
# The attributes that Pyramid sets on a view.
KEPT = (
    *("__original_view__", "__permitted__", "__call_permissive__", "__predicated__"),
    *("__accept__", "__order__", "__text__"),
)


def build(folder: str) -> Any:
    settings = {**SETTINGS, **BACKENDS, "attachment.base_path": folder}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kinto.main({}, **{f"kinto.{name}": value for name, value in settings.items()})


def describe(app: Any) -> dict[str, Any]:
    """The views and their wrappers, the routes, listeners, services and OpenAPI."""
    while not hasattr(app, "registry"):
        app = app.app
    registry = app.registry
    openapi = Request.blank("/v1/__api__").get_response(app).json
    # They are in the order in which the modules of their services were imported.
    openapi["tags"].sort(key=json.dumps)
    return {
        "adapters": sorted(map(adapter, registry.registeredAdapters()), key=json.dumps),
        "handlers": sorted(map(handler, registry.registeredHandlers()), key=json.dumps),
        "utilities": sorted(map(utility, registry.registeredUtilities()), key=json.dumps),
        "routes": [
            [route.name, route.pattern, len(route.predicates)]
            for route in registry.introspector.get_category("routes")
            for route in [route["introspectable"]["object"]]
        ],
        "services": {
            path: [(method, sorted(args)) for method, _, args in service.definitions]
            for path, service in sorted(registry.cornice_services.items())
        },
        "openapi": openapi,
    }


def adapter(found: Any) -> list[Any]:
    required = [each.__name__ for each in found.required]
    return [required, found.provided.__name__, found.name, component(found.factory)]


def handler(found: Any) -> list[Any]:
    return [[each.__name__ for each in found.required], found.name, text(found.factory)]


def utility(found: Any) -> list[Any]:
    return [found.provided.__name__, found.name, type(found.component).__qualname__]


def component(what: Any) -> Any:
    if isinstance(what, MultiView):
        views = [[order, view(each)] for order, each, _ in what.views]
        of_media = {
            media: [[order, view(each)] for order, each, _ in known]
            for media, known in sorted(what.media_views.items())
        }
        return [what.name, what.accepts, views, of_media]
    return view(what)


def view(what: Any) -> list[Any]:
    """The functions around a view, from the outermost, with Pyramid's attributes."""
    found = []
    while what is not None:
        kept = {name: text(getattr(what, name)) for name in KEPT if hasattr(what, name)}
        predicates = [text(each.phash()) for each in getattr(what, "__predicates__", ())]
        names = [getattr(what, name, None) for name in ("__module__", "__name__", "__doc__")]
        found.append([text(what), names, kept, predicates])
        what = getattr(what, "__wraps__", None)
    return found


def text(what: Any) -> str:
    """Text without addresses, which are different in each process."""
    return re.sub(r" at (0x)?[0-9a-f]+", "", str(what))


def main() -> None:
    for _ in range(int(sys.argv[1])):
        app = build(sys.argv[2])
    json.dump(describe(app), sys.stdout)


if __name__ == "__main__":
    main()
