"""The index in the database: which file belongs to which record, and which files to delete.

This layer may use ``storage`` and the layers below it.
"""
