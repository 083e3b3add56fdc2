"""Maintenance: one file per command, what commands share, and the heartbeat.

Commands share shards (``shards.py``) and reports (``reports.py``).

This layer may use ``files`` and the layers below it, but no endpoint.
"""
