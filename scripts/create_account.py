#!/usr/bin/env python3
"""Create an account on a Kinto server: ``kinto-attachment create-account``."""

import sys

from kinto_attachment.client.create_account_command import main

if __name__ == "__main__":
    sys.exit(main())
