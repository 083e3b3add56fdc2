"""A WSGI application with others below paths. It imports little, for servers that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def make(loader: Any, global_conf: Any, main: str, **others: str) -> Application:
    """A composite of PasteDeploy: ``first = x`` is the application x below ``/first``.

    The application does not know the path: its URLs do not contain it.
    """
    usual = loader.get_app(main, global_conf=global_conf)
    below = {
        f"/{path}": loader.get_app(name, global_conf=global_conf) for path, name in others.items()
    }

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for path, other in below.items():
            if environ["PATH_INFO"].startswith(f"{path}/"):
                environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(path)
                return other(environ, start_response)
        return usual(environ, start_response)

    return application
