"""Protocols as functions over bytes and strings, and readers that wrap readers.

Nothing here uses Kinto, or does input and output of its own.
"""
