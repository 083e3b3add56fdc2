#!/usr/bin/env python3
"""Upload files to Kinto records: ``kinto-attachment upload``."""

import sys

from kinto_attachment.client.upload_command import main

if __name__ == "__main__":
    sys.exit(main())
