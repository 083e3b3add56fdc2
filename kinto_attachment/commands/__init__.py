"""The commands for a server's data: one file each, with its exit codes.

Their options are in ``arguments/``, and their work in ``maintenance``. This layer may use
``maintenance`` and the layers below it.
"""
