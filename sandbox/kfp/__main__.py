"""`python -P -m sandbox.kfp`: the pipelines process."""

from __future__ import annotations

import sys

from sandbox.kfp.server import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
