"""Cheaper clients of Amazon's and Google's libraries, of which the tests create many."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_sessions() -> Iterator[None]:
    """Inspect the 130 event handlers that every session registers only once.

    For each session and handler, boto3 looks up whether it takes any argument, and the current
    name of its event.
    """
    from botocore import hooks

    def accepts_kwargs(handler: Any) -> Any:
        function = getattr(handler, "__func__", handler)
        if function not in accepting:
            accepting[function] = original_accepts(function)
        return accepting[function]

    def alias(self: Any, name: str) -> str:
        if name not in aliases:
            aliases[name] = original_alias(self, name)
        return aliases[name]

    accepting: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
    aliases: dict[str, str] = {}
    original_accepts = hooks.accepts_kwargs
    original_alias = hooks.EventAliaser._alias_event_name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "accepts_kwargs", accepts_kwargs)
        patch.setattr(hooks.EventAliaser, "_alias_event_name", alias)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_keys() -> Iterator[None]:
    """Have Google's library read the key of a service account only once, not for each client.

    Checking that its numbers are primes takes longer than the rest of creating a client.
    """
    from google.auth.crypt import RSASigner

    with pytest.MonkeyPatch.context() as patch:
        cached = staticmethod(functools.cache(RSASigner.from_string))
        patch.setattr(RSASigner, "from_string", cached)
        yield
