"""Which keys the plugin, as it is configured, gives to files."""

from __future__ import annotations

import re

from kinto_attachment.files.collection_settings import DEFAULT
from kinto_attachment.maintenance import heartbeat
from kinto_attachment.settings import CollectionSettings, Settings

FAN = "\1"  # Stands for two hexadecimal digits.
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def key_layout(settings: Settings) -> re.Pattern[str]:
    """A pattern that matches all keys of the plugin, and no others where settings tell."""
    resources = {(*resource, "")[:2] for resource in settings.overrides}
    of_default = {collection for bucket, collection in resources if bucket == DEFAULT}
    rules = [settings.for_collection(*resource) for resource in resources]
    rules += [
        settings.for_collection(bucket, collection, DEFAULT)
        for bucket, own in resources
        for collection in {own, *of_default}
    ]
    patterns = {_layout_of(each) for each in [*rules, settings.for_collection("", "")]}
    return re.compile("|".join([*sorted(patterns), f"{heartbeat.FOLDER}/{UUID}\\.txt"]))


def _layout_of(rules: CollectionSettings) -> str:
    placeholder = "\0"
    folder = ""
    if rules.folder is not None:
        folder = rules.folder.format(bucket_id=placeholder, collection_id=placeholder, fan=FAN)
        folder = folder.strip("/") + "/"
    if rules.randomize:
        return _pattern(folder, placeholder) + UUID + r"(\.[^/.]+)?"
    name = rules.filename_pattern.format(
        filename=placeholder, datetime=placeholder, rid=placeholder
    )
    return _pattern(folder + name, placeholder) + "(-[0-9]+)?(\\.[^/.]+)?"


def _pattern(text: str, placeholder: str) -> str:
    escaped = re.escape(text).replace(re.escape(placeholder), "[^/]+")
    return escaped.replace(re.escape(FAN), "[0-9a-f]{2}")
