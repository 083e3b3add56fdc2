"""The parts of Kinto and Pyramid that the plugin uses, as protocols.

Kinto and Pyramid are not typed, or their types inherit from untyped classes: a type checker
accepts any attribute. List an attribute here before using it in the plugin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kinto.core import Service
    from kinto.core.storage import Filter, Sort

    from kinto_attachment.files.collection_settings import CollectionSettingsResolver
    from kinto_attachment.files.fast_records import FastRecords
    from kinto_attachment.files.signatures import Signatures
    from kinto_attachment.files.target import Target
    from kinto_attachment.index.holds import HoldsInUse
    from kinto_attachment.index.links import Links
    from kinto_attachment.index.outbox import Garbage
    from kinto_attachment.index.overviews import Overviews
    from kinto_attachment.index.sessions import Sessions
    from kinto_attachment.index.site import Site
    from kinto_attachment.index.usage import Usage
    from kinto_attachment.settings import Settings
    from kinto_attachment.storage.storages import Storages

KintoObject = dict[str, Any]
"""A record, a collection, a bucket, or an object of the plugin's own index."""

Impacted = dict[str, KintoObject]
"""An object in an event: ``new`` unless it was deleted, ``old`` unless it was created."""


class StorageBackend(Protocol):
    """Kinto's storage of objects (``kinto.core.storage.StorageBase``)."""

    def create(self, resource_name: str, parent_id: str, obj: KintoObject) -> KintoObject: ...

    def get(self, resource_name: str, parent_id: str, object_id: str) -> KintoObject: ...

    def update(
        self, resource_name: str, parent_id: str, object_id: str, obj: KintoObject
    ) -> KintoObject: ...

    def delete(
        self, resource_name: str, parent_id: str, object_id: str, *, with_deleted: bool = True
    ) -> KintoObject: ...

    def delete_all(
        self,
        resource_name: str,
        parent_id: str,
        *,
        filters: list[Filter] | None = None,
        with_deleted: bool = True,
    ) -> list[KintoObject]: ...

    def list_all(
        self,
        resource_name: str,
        parent_id: str,
        *,
        filters: list[Filter] | None = None,
        sorting: list[Sort] | None = None,
        pagination_rules: list[list[Filter]] | None = None,
        limit: int | None = None,
        include_deleted: bool = False,
    ) -> list[KintoObject]: ...

    def count_all(
        self, resource_name: str, parent_id: str, filters: list[Filter] | None = None
    ) -> int: ...

    def resource_timestamp(self, resource_name: str, parent_id: str) -> int: ...


class PermissionBackend(Protocol):
    """Kinto's storage of permissions (``kinto.core.permission.PermissionBase``)."""

    def get_object_permission_principals(self, object_id: str, permission: str) -> set[str]: ...

    def get_objects_permissions(self, objects_ids: list[str]) -> list[dict[str, set[str]]]: ...

    def replace_object_permissions(
        self, object_id: str, permissions: Mapping[str, Any]
    ) -> object: ...

    def delete_object_permissions(self, *object_id_list: str) -> object: ...

    def check_permission(
        self, principals: Iterable[str], bound_permissions: Iterable[tuple[str, str]]
    ) -> bool: ...

    def get_accessible_objects(self, *arguments: Any, **options: Any) -> Any: ...


class Metrics(Protocol):
    """Kinto's metrics, or the substitute if none are configured."""

    def count(
        self, key: str, count: int = 1, unique: list[tuple[str, str]] | None = None
    ) -> object: ...

    def observe(self, key: str, value: float) -> object: ...


class IdGenerator(Protocol):
    """Kinto's generator of the ids of a resource, which also knows which ids are valid."""

    def __call__(self) -> str: ...

    def match(self, object_id: str) -> bool: ...


class Registry(Protocol):
    """The application's registry: Kinto's attributes and the plugin's.

    The plugin's are set once, by ``includeme``.
    """

    settings: dict[str, Any]
    route_prefix: str
    storage: StorageBackend
    permission: PermissionBackend
    metrics: Metrics
    id_generators: Mapping[str, IdGenerator]
    heartbeats: dict[str, Callable[[Request], object]]
    cornice_services: Mapping[str, Any]

    attachment_settings: Settings
    attachment_storages: Storages
    attachment_links: Links
    attachment_holds: HoldsInUse
    attachment_sessions: Sessions
    attachment_usage: Usage
    attachment_site: Site
    attachment_signatures: Signatures | None
    attachment_overviews: Overviews
    attachment_fast_records: FastRecords | None
    attachment_lingering: deque[Garbage]
    attachment_collection_settings: CollectionSettingsResolver

    def notify(self, event: object) -> None: ...

    # Who subscribes to what.
    adapters: Any

    def queryUtility(self, interface: Any) -> Any: ...

    def registerUtility(self, utility: object, interface: Any) -> object: ...


class Configurator(Protocol):
    """Pyramid's configurator, with the directives of Kinto and Cornice."""

    registry: Registry

    def get_settings(self) -> dict[str, Any]: ...

    def add_subscriber(
        self, subscriber: Callable[[Any], object], event: type, **predicates: Any
    ) -> object: ...

    def add_tween(
        self, name: str, *, under: str | None = None, over: str | None = None
    ) -> object: ...

    def add_view(self, view: Callable[..., object], **arguments: Any) -> object: ...

    def add_view_deriver(
        self, deriver: Callable[[Any, Any], object], *, name: str, under: str | None = None
    ) -> None: ...

    def add_view_predicate(self, name: str, factory: type) -> object: ...

    def add_cornice_service(self, service: Service) -> object: ...

    def add_api_capability(self, identifier: str, **capability: Any) -> object: ...

    def action(
        self, discriminator: object, function: Callable[[], object], *, order: int
    ) -> object: ...

    def maybe_dotted(self, name: object) -> Any: ...


class Named(Protocol):
    """A Cornice service or a Pyramid route."""

    name: str


class Errors(Protocol):
    """The errors of a request, which Cornice turns into a response."""

    def add(self, location: str, name: str, description: str, **details: object) -> None: ...

    def __len__(self) -> int: ...


class Request(Protocol):
    """A request to Kinto, or one of its sub-requests.

    ``bound_data`` is shared by a request and its sub-requests. ``parent`` and
    ``implicit_parents`` exist on sub-requests only: read them with ``getattr``.
    """

    registry: Registry
    environ: dict[str, Any]
    method: str
    scheme: str
    host: str
    path: str
    headers: MutableMapping[str, str]
    content_type: str
    content_length: int | None
    GET: Mapping[str, str]
    json: Any
    body: bytes
    charset: str
    matchdict: Mapping[str, str]
    matched_route: Named
    context: Target
    bound_data: dict[str, Any]
    errors: Errors
    authenticated_userid: str | None
    prefixed_userid: str | None
    authn_type: str | None
    selected_userid: str | None
    default_bucket_id: str
    response: Response  # Changed by views that only return data.
    parent: Request | None
    implicit_parents: bool

    @property
    def current_service(self) -> Named | None: ...

    def has_permission(self, permission: str, context: object) -> object: ...

    def get_resource_events(self, after_commit: bool = False) -> Iterable[ResourceEvent]: ...

    def log_context(self, **values: object) -> dict[str, object]: ...

    def route_url(self, route_name: str, **parts: Any) -> str: ...

    def invoke_subrequest(self, request: Request, use_tweens: bool = False) -> Response: ...

    def add_finished_callback(self, callback: Callable[[Request], object]) -> object: ...


class Response(Protocol):
    """Any response, as a tween sees it."""

    status_code: int
    headers: MutableMapping[str, str]
    content_type: str
    content_length: int | None
    vary: tuple[str, ...] | None
    app_iter: Iterable[bytes]
    json: Any


Handler = Callable[[Request], Response]
"""The type of the handler that a tween wraps, and of a tween."""


class RequestEvent(Protocol):
    """An event during a request: Pyramid's ``ContextFound``, Kinto's ``ServerFlushed``."""

    request: Request


class ResponseEvent(RequestEvent, Protocol):
    """Pyramid's ``NewResponse``."""

    response: Response


class ResourceEvent(RequestEvent, Protocol):
    """Kinto's ``ResourceChanged``.

    ``payload`` has the ids in the request's URL, and the action.
    """

    payload: dict[str, Any]
    impacted_objects: list[Impacted]


class Application(Protocol):
    registry: Registry


class ApplicationEvent(Protocol):
    """Pyramid's ``ApplicationCreated``."""

    app: Application
