"""The plugin in a server: one file for each kind of set-up steps, and the list of them.

This layer may use all other layers except ``cli.py``, ``commands`` and ``client``. It is imported
when Kinto includes the plugin.
"""

from __future__ import annotations

from kinto_attachment.files.acting_users import let_users_act
from kinto_attachment.files.overviews import add_overviews
from kinto_attachment.kinto_types import Configurator
from kinto_attachment.plugin.capability import add_capability
from kinto_attachment.plugin.listeners import add_listeners
from kinto_attachment.plugin.monitoring import add_heartbeat, add_metrics
from kinto_attachment.plugin.registry import fill_registry
from kinto_attachment.plugin.start_warnings import warn_of_names, warn_of_relative_locations
from kinto_attachment.plugin.transactions import add_fast_records, add_transactions
from kinto_attachment.plugin.views import add_views
from kinto_attachment.settings import Settings


def set_up(config: Configurator) -> None:
    """Set the plugin up in Kinto's Pyramid application."""
    settings = Settings.parse(config.get_settings())
    warn_of_names(config, settings)
    warn_of_relative_locations(config, settings)
    fill_registry(config, settings)
    add_views(config, settings)
    let_users_act(config)
    add_transactions(config)
    add_overviews(config)
    add_fast_records(config)
    add_listeners(config)
    add_heartbeat(config, settings)
    add_metrics(config)
    add_capability(config, settings)
