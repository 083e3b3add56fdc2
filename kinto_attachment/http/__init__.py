"""Protocols as functions of bytes and strings, and readers that wrap other readers.

This layer may use ``names`` and the layers below it. It does not use Kinto and does no I/O.
"""
