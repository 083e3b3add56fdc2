"""The commands that an operator runs, one file per command, and the heartbeat.

This room may use the files, the index and the storages, but no endpoint.
"""
