#!/usr/bin/env python3
"""Download the files of Kinto records: ``kinto-attachment download``."""

import sys

from kinto_attachment.client.download_command import main

if __name__ == "__main__":
    sys.exit(main())
