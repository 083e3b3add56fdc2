"""The life of a file: how it arrives, the record that it is for, its links, and its end.

This room may use the index, the storages and the protocols, but neither endpoints nor commands.
"""
