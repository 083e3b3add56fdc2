"""The life of a file: its upload, its record, its links, and its deletion.

This layer may use ``index`` and the layers below it, but neither endpoints nor commands.
"""
