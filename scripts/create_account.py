#!/usr/bin/env python3
"""Create an account on a Kinto server: ``kinto-attachment create-account``."""

import sys
import warnings

# Pyramid imports it, which users of the script can do nothing about.
warnings.filterwarnings("ignore", "pkg_resources is deprecated")

from kinto_attachment.client.create_account_command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
