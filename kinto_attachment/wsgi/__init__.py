"""The client's connection: reading a request's body, its time limits, and closing.

This layer may use ``http`` and the layers below it.
"""
