"""What Kinto, Cornice and Pyramid do again and again when an application is built, done once.

That saves two thirds of the time to build one.
"""

from __future__ import annotations

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import colander
import pyramid.config.actions
import pyramid.util
from kinto.core.resource.schema import ResourceResponses
from kinto.core.resource.viewset import ViewSet
from pyramid.registry import Introspectable
from pyramid.util import TopologicalSorter


def install() -> None:
    """For the applications of this process, and of its forks."""
    share_schemas()
    share_arguments()
    sort_once()
    look_for_no_callers()
    keep_routes_alone()
    read_signatures_quickly()


def share_schemas() -> None:
    """Have applications share the schemas of Kinto's views, which nobody changes.

    Kinto makes them anew for each application, and copies all of their nodes for each view.
    """
    ViewSet.get_object_schema = functools.cache(ViewSet.get_object_schema)
    ResourceResponses.get_and_bind = functools.cache(ResourceResponses.get_and_bind)
    # Pyramid tells views apart by the addresses of these copies, so that there has to be one.
    colander.SchemaNode.__deepcopy__ = copy_root


def share_arguments() -> None:
    """Have a resource's views take their arguments from those of the application before."""
    compute = functools.cache(ViewSet.get_view_arguments)

    def get_view_arguments(*args: Any) -> dict[str, Any]:
        found = compute(*args)
        return {**found, "validators": [*found["validators"]]}

    ViewSet.get_view_arguments = get_view_arguments


def copy_root(schema: Any, memo: Any) -> Any:
    root = object.__new__(type(schema))
    root.__dict__.update(schema.__dict__)
    return root


def sort_once() -> None:
    """Have Pyramid sort predicates and derivers when they have changed, not for each view."""
    compute = TopologicalSorter.sorted

    def remembered(sorter: Any) -> list[Any]:
        if "result" not in sorter.__dict__:
            sorter.result = compute(sorter)
        return list(sorter.result)

    TopologicalSorter.sorted = remembered
    for name in ("add", "remove"):
        setattr(TopologicalSorter, name, forgetting(getattr(TopologicalSorter, name)))


def forgetting(change: Any) -> Any:
    @functools.wraps(change)
    def changing(sorter: Any, *args: Any, **options: Any) -> Any:
        sorter.__dict__.pop("result", None)
        return change(sorter, *args, **options)

    return changing


def keep_routes_alone() -> None:
    """Have Pyramid keep nothing for debug toolbars: Kinto asks for routes, and nobody for more."""
    register = Introspectable.register

    def register_route(kept: Any, *args: Any) -> None:
        if kept.category_name == "routes":
            register(kept, *args)

    Introspectable.register = register_route


def read_signatures_quickly() -> None:
    """Have Pyramid see what a view takes as arguments from the function's code alone."""
    pyramid.util.inspect = SimpleNamespace(**{**vars(inspect), "getfullargspec": arguments_of})


def arguments_of(function: Any) -> Any:
    if not inspect.isfunction(function):
        return inspect.getfullargspec(function)
    code = function.__code__
    names = list(code.co_varnames[: code.co_argcount])
    varargs = code.co_varnames[len(names) + code.co_kwonlyargcount :]
    more = varargs[0] if code.co_flags & inspect.CO_VARARGS else None
    return inspect.FullArgSpec(names, more, None, function.__defaults__, [], None, {})


def look_for_no_callers() -> None:
    """Have Pyramid not read the source of each call, which it shows where two calls conflict."""
    unknown = [("unknown", 0, "unknown", "")] * 4
    pyramid.config.actions.traceback = SimpleNamespace(extract_stack=lambda limit: unknown)
