"""Third-party storages, loaded by the dotted name of their class."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module

from pyramid.exceptions import ConfigurationError

from kinto_attachment.settings import Settings, full_name

from . import FileStorage

# The core methods that a class has to define; ``url`` has a default.
CORE = ("write", "open", "stat", "delete")


def load(settings: Settings) -> FileStorage:
    """Create the storage that ``kinto.attachment.backend`` names.

    Its class is called with ``base_url``, and with each setting ``kinto.attachment.backend.NAME``
    as the keyword argument ``NAME``, which is a text. The constructor's
    parameters are the options.

    :raises ConfigurationError: there is no such class, it is not a storage, or an option is wrong.
    """
    name: str = settings["backend"]
    storage = find_class(name)
    parameters = inspect.signature(storage).parameters
    options = settings.backend_options(
        parameter.name for parameter in parameters.values() if is_option(parameter)
    )
    check_options(name, parameters, options)
    try:
        return storage(base_url=settings["base_url"] or "", **options)
    except ValueError as error:
        raise ConfigurationError(f"{full_name('backend')}: {name}: {error}") from error


def find_class(name: str) -> type[FileStorage]:
    """:raises ConfigurationError: there is no such class, or it is not a complete storage."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        # The module may raise any exception while it is imported.
        raise refusal(f"cannot import {name}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, FileStorage)):
        raise refusal(f"{name} is not a subclass of kinto_attachment.storage.FileStorage")
    missing = [method for method in CORE if getattr(found, method) is getattr(FileStorage, method)]
    missing += sorted(getattr(found, "__abstractmethods__", frozenset()) - {*missing})
    if missing:
        raise refusal(f"{name} lacks {', '.join(missing)}")
    return found


def check_options(
    name: str, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, str]
) -> None:
    """:raises ConfigurationError: an option is missing, or is not one of the class."""
    kinds = {parameter.kind for parameter in parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    known = {parameter.name: parameter for parameter in parameters.values()}
    if "base_url" not in known and not takes_any:
        raise refusal(f"the constructor of {name} takes no base_url")
    own = {key: parameter for key, parameter in known.items() if is_option(parameter)}
    for option in options:
        if option not in own and not takes_any:
            message = f"{full_name(f'backend.{option}')} is not an option of {name}"
            likely = difflib.get_close_matches(option, own, n=1)
            if likely:
                message += f". Did you mean {full_name(f'backend.{likely[0]}')}?"
            raise ConfigurationError(message)
    for option, parameter in own.items():
        if option not in options and parameter.default is parameter.empty:
            raise ConfigurationError(f"{full_name(f'backend.{option}')} has to be set for {name}.")


def is_option(parameter: inspect.Parameter) -> bool:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter.name != "base_url" and parameter.kind in by_name


def refusal(reason: str) -> ConfigurationError:
    return ConfigurationError(f"{full_name('backend')}: {reason}.")
