"""The client's connection: reading a request's body, its time limits, and closing.

This room may use the protocols (``http``), names and errors.
"""
