"""Clients of the libraries of Amazon and Google, of which the tests make many, at less cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_sessions() -> Iterator[None]:
    """A session registers 130 handlers of events, always the same.

    For each of them, boto3 finds out whether it takes any argument, and what its event is called
    now: here, once.
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
    """Google's library reads the key of a service account once rather than for each client.

    To check that the numbers in it are primes takes longer than the rest of a client.
    """
    from google.auth.crypt import RSASigner

    with pytest.MonkeyPatch.context() as patch:
        cached = staticmethod(functools.cache(RSASigner.from_string))
        patch.setattr(RSASigner, "from_string", cached)
        yield
