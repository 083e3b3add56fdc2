"""Does once what Kinto, Cornice and Pyramid repeat for each application that is built.

That saves nine tenths of the time to build one.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import colander
import plaster.loaders
import pyramid.config
import pyramid.config.actions
import pyramid.config.routes
import pyramid.request
import pyramid.util
import pyramid.view
import pyramid.viewderivers
import venusian
import venusian.advice
from kinto.core.resource.schema import ResourceResponses
from kinto.core.resource.viewset import ViewSet
from pyramid.config.actions import ActionState
from pyramid.interfaces import IRouteRequest
from pyramid.registry import Introspectable, Registry
from pyramid.util import TopologicalSorter


def install() -> None:
    """Install everything, for the applications of this process and its forks."""
    share_schemas()
    share_arguments()
    sort_once()
    look_for_no_callers()
    keep_routes_alone()
    read_signatures_quickly()
    wrap_views_quickly()
    describe_functions_quickly()
    share_interfaces()
    find_modules_once()
    find_loaders_once()
    register_views_when_asked()


def share_schemas() -> None:
    """Have applications share the schemas of Kinto's views, which are never changed.

    Kinto creates them for each application, and copies all of their nodes for each view.
    """
    ViewSet.get_object_schema = functools.cache(ViewSet.get_object_schema)
    ResourceResponses.get_and_bind = functools.cache(ResourceResponses.get_and_bind)
    # Pyramid distinguishes views by the addresses of these copies, so there has to be one.
    colander.SchemaNode.__deepcopy__ = copy_root


def share_arguments() -> None:
    """Have a resource's views reuse their arguments from the previous application."""
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
    """Have Pyramid sort predicates and derivers only if they have changed, not for each view."""
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
    """Have Pyramid keep nothing for debug toolbars except routes, which Kinto needs."""
    register = Introspectable.register

    def register_route(kept: Any, *args: Any) -> None:
        if kept.category_name == "routes":
            register(kept, *args)

    Introspectable.register = register_route


def read_signatures_quickly() -> None:
    """Have Pyramid read the arguments of a view from the function's code only."""
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
    """Keep Pyramid from reading the source of each call, which it shows if two calls conflict."""
    unknown = [("unknown", 0, "unknown", "")] * 4
    pyramid.config.actions.traceback = SimpleNamespace(extract_stack=lambda limit: unknown)
    # Venusian need not read the line that calls it either.
    venusian.advice.inspect = SimpleNamespace(getframeinfo=place_of)


def place_of(frame: Any) -> tuple[str, int, str, list[str]]:
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, [""]


# The attributes that Pyramid copies from a view to its wrappers, if the view has them.
HANDED_ON = (
    *("__permitted__", "__call_permissive__", "__permission__", "__predicated__"),
    *("__predicates__", "__accept__", "__order__", "__text__"),
)


def wrap_views_quickly() -> None:
    """Have Pyramid look for all attributes of a function at once: most have none of them."""
    preserve = pyramid.viewderivers.preserve_view_attrs

    def preserve_view_attrs(view: Any, wrapper: Any) -> Any:
        if wrapper is view:
            return view
        if type(view) is not FunctionType or type(wrapper) is not FunctionType:
            return preserve(view, wrapper)
        has, gets = view.__dict__, wrapper.__dict__
        wrapper.__module__, wrapper.__doc__ = view.__module__, view.__doc__
        wrapper.__name__ = view.__name__
        gets["__wraps__"] = view
        original = has.get("__original_view__")
        gets["__original_view__"] = view if original is None else original
        for name in HANDED_ON:
            if name in has:
                gets[name] = has[name]
        return wrapper

    pyramid.viewderivers.preserve_view_attrs = preserve_view_attrs


def describe_functions_quickly() -> None:
    """Have Pyramid describe a function without searching all modules."""
    describe = pyramid.util.object_description

    def object_description(what: Any) -> str:
        if type(what) is FunctionType and what.__module__ in sys.modules:
            return f"function {what.__module__}.{what.__name__}"
        description: str = describe(what)
        return description

    pyramid.viewderivers.object_description = object_description
    pyramid.config.Configurator.object_description = staticmethod(object_description)


def share_interfaces() -> None:
    """Have applications share the request interfaces of a route, by its name."""
    share = functools.cache(pyramid.request.route_request_iface)
    pyramid.config.routes.route_request_iface = share


def find_modules_once() -> None:
    """Have Venusian search for the files of each module only once."""
    venusian.compat_find_loader = functools.cache(venusian.compat_find_loader)


def find_loaders_once() -> None:
    """Have plaster read the metadata of installed packages once, not for each ini file."""
    find = plaster.loaders._iter_ep_in_dists
    found: dict[Any, Any] = {}

    def remembered(scheme: str, groups: list[str]) -> Any:
        wanted = (scheme, *groups)
        if wanted not in found:
            found[wanted] = list(find(scheme, groups))
        return found[wanted]

    plaster.loaders._iter_ep_in_dists = remembered


class View(NamedTuple):
    """A call of ``add_view``; ``beside`` has the other actions of the same commit."""

    config: Any
    beside: Any
    add: Callable[[], None]


class Waiting:
    """The views of an application that are not registered yet, by the names of their routes.

    Two views of a route override or contradict each other if they were added in the same commit.
    That is detected when they are registered.
    """

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._views: defaultdict[str, list[View]] = defaultdict(list)
        self._routes: dict[Any, str] = {}
        self._lock = threading.RLock()  # Requests are handled in several threads.

    def add(self, route: str, view: View) -> None:
        self._views[route].append(view)
        self._routes = {}

    def register(self, interface: Any) -> None:
        """Register the views of the route whose requests provide the interface, if any."""
        if not self._routes:
            self._routes = {
                self._registry.queryUtility(IRouteRequest, name=route): route
                for route in [*self._views]
            }
        route = self._routes.get(interface)
        if route in self._views:
            self._register(route)

    def register_all(self) -> None:
        for route in [*self._views]:
            self._register(route)

    def _register(self, route: str) -> None:
        with self._lock:
            before = self._registry.action_state
            views = self._views.get(route, ())
            try:
                for _, found in itertools.groupby(views, key=lambda view: id(view.beside)):
                    together = [*found]
                    self._registry.action_state = ActionState()
                    for view in together:
                        view.add()
                    together[0].config.commit()
            finally:
                self._registry.action_state = before
            self._views.pop(route, None)  # Other threads find them now.


def waiting_in(registry: Any) -> Waiting:
    known = vars(registry)
    if "waiting_views" not in known:
        known["waiting_views"] = Waiting(registry)
    found: Waiting = known["waiting_views"]
    return found


def register_views_when_asked() -> None:
    """Have Pyramid register the views of a route when it looks for one of them.

    An application has 300 views of 40 routes, and a test uses only a few. For each view, Pyramid
    creates predicates and their hash, looks for conflicts, and wraps it in ten functions.
    """
    add, find = pyramid.config.Configurator.add_view, pyramid.view._find_views
    adapters = Registry.registeredAdapters

    @functools.wraps(add)
    def add_view(config: Any, *args: Any, **options: Any) -> None:
        route = options.get("route_name")
        if len(args) > 1 or config.autocommit or not route or not AT_ONCE.isdisjoint(options):
            add(config, *args, **options)
        else:
            call = functools.partial(add, config, *args, **options)
            waiting_in(config.registry).add(route, View(config, config.action_state, call))

    def find_views(registry: Any, request_iface: Any, *args: Any, **options: Any) -> Any:
        waiting = waiting_in(registry)
        for interface in request_iface.__sro__:
            waiting.register(interface)
        return find(registry, request_iface, *args, **options)

    def registered_adapters(registry: Any) -> Iterator[Any]:
        waiting_in(registry).register_all()
        found: Iterator[Any] = adapters(registry)
        return found

    pyramid.config.Configurator.add_view = add_view
    pyramid.view._find_views = find_views
    Registry.registeredAdapters = registered_adapters


# Not only views of a route have them.
AT_ONCE = frozenset({"context", "for_", "exception_only"})
