"""Maintenance: one file per command, what commands share, and the heartbeat.

Commands share shards (``shards.py``) and reports (``reports.py``).

This room may use the files, the index and the storages, but no endpoint.
"""
