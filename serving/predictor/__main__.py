"""`python -m serving.predictor`: serve one model directory until told to stop."""

from __future__ import annotations

import sys

from serving.predictor.server import main

if __name__ == "__main__":
    sys.exit(main())
