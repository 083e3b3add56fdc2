"""Protocols as functions over bytes and strings, and readers around readers.

Nothing here knows Kinto, or does input and output of its own.
"""
