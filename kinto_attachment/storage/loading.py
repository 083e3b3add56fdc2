"""Third-party storages, loaded by the dotted name of their class."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module

from pyramid.exceptions import ConfigurationError

from kinto_attachment.storage_settings import StorageSettings

from . import FileStorage

# The core methods that a class has to define; ``url`` has a default.
CORE = ("write", "open", "stat", "delete")


def load(settings: StorageSettings) -> FileStorage:
    """Create the storage whose class the setting ``backend`` names.

    The class is called with ``base_url``, and with each setting ``backend.NAME`` as the keyword
    argument ``NAME``, which is a text. The constructor's parameters are the options.

    :raises ConfigurationError: there is no such class, it is not a storage, or an option is wrong.
    """
    name: str = settings["backend"]
    storage = find_class(settings, name)
    parameters = inspect.signature(storage).parameters
    options = settings.backend_options(
        parameter.name for parameter in parameters.values() if is_option(parameter)
    )
    check_options(settings, name, parameters, options)
    try:
        return storage(base_url=settings["base_url"] or "", **options)
    except ValueError as error:
        raise ConfigurationError(f"{settings.full_name('backend')}: {name}: {error}") from error


def find_class(settings: StorageSettings, name: str) -> type[FileStorage]:
    """:raises ConfigurationError: there is no such class, or it is not a complete storage."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        # The module may raise any exception while it is imported.
        reason = f"cannot import {name}: {type(error).__name__}: {error}"
        raise refusal(settings, reason) from error
    if not (isinstance(found, type) and issubclass(found, FileStorage)):
        reason = f"{name} is not a subclass of kinto_attachment.storage.FileStorage"
        raise refusal(settings, reason)
    missing = [method for method in CORE if getattr(found, method) is getattr(FileStorage, method)]
    missing += sorted(getattr(found, "__abstractmethods__", frozenset()) - {*missing})
    if missing:
        raise refusal(settings, f"{name} lacks {', '.join(missing)}")
    return found


def check_options(
    settings: StorageSettings,
    name: str,
    parameters: Mapping[str, inspect.Parameter],
    options: Mapping[str, str],
) -> None:
    """:raises ConfigurationError: an option is missing, or is not one of the class."""
    kinds = {parameter.kind for parameter in parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    known = {parameter.name: parameter for parameter in parameters.values()}
    if "base_url" not in known and not takes_any:
        raise refusal(settings, f"the constructor of {name} takes no base_url")
    own = {key: parameter for key, parameter in known.items() if is_option(parameter)}
    for option in options:
        if option not in own and not takes_any:
            message = f"{settings.full_name(f'backend.{option}')} is not an option of {name}"
            likely = difflib.get_close_matches(option, own, n=1)
            if likely:
                message += f". Did you mean {settings.full_name(f'backend.{likely[0]}')}?"
            raise ConfigurationError(message)
    for option, parameter in own.items():
        if option not in options and parameter.default is parameter.empty:
            setting = settings.full_name(f"backend.{option}")
            raise ConfigurationError(f"{setting} has to be set for {name}.")


def is_option(parameter: inspect.Parameter) -> bool:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter.name != "base_url" and parameter.kind in by_name


def refusal(settings: StorageSettings, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{settings.full_name('backend')}: {reason}.")
