"""The client's connection: the body of a request, how long it is waited for, and its end.

This room may use the protocols (``http``), names and errors.
"""
