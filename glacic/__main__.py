"""`glacic` and `python -m glacic`: the command line."""

from __future__ import annotations

import sys

from glacic.ctlplane.cli import main

if __name__ == "__main__":
    sys.exit(main())
