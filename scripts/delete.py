#!/usr/bin/env python3
"""Delete the files of Kinto records: ``kinto-attachment delete``."""

import sys

from kinto_attachment.client.delete_command import main

if __name__ == "__main__":
    sys.exit(main())
