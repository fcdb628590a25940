"""``python -m sparsecirc``."""

from __future__ import annotations

import sys

from sparsecirc.cli import main

if __name__ == "__main__":
    sys.exit(main())
