"""The commands that work on a server's data: one file each, with its options and exit codes.

What a command does is in the room ``maintenance``. This room may use that one and what is below.
"""
