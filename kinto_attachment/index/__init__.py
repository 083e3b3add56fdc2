"""The index in the database: which file belongs to which record, and what is to be deleted.

This room may use the storages and what is below them.
"""
