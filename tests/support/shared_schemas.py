"""One copy of the schemas of Kinto's views, which nobody changes.

Kinto makes them anew for each application, and copies all of their nodes for each view. That takes
half of the time to build one.
"""

from __future__ import annotations

import functools
from typing import Any

import colander
from kinto.core.resource.schema import ResourceResponses
from kinto.core.resource.viewset import ViewSet


def share() -> None:
    """For the applications of this process, and of its forks."""
    ViewSet.get_object_schema = functools.cache(ViewSet.get_object_schema)
    ResourceResponses.get_and_bind = functools.cache(ResourceResponses.get_and_bind)
    # Pyramid tells views apart by the addresses of these copies, so that there has to be one.
    colander.SchemaNode.__deepcopy__ = copy_root


def copy_root(schema: Any, memo: Any) -> Any:
    root = object.__new__(type(schema))
    root.__dict__.update(schema.__dict__)
    return root
