"""`python -m kanary` is the `kanary` command."""

from __future__ import annotations

import sys

from kanary.cli import main

if __name__ == "__main__":
    sys.exit(main())
