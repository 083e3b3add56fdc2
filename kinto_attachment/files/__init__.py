"""The life of a file: its upload, its record, its links, and its deletion.

This layer may use the index, the storages and the protocols, but neither endpoints nor commands.
"""
