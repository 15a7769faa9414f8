"""The control process, limits: engines that a limit asks for and nobody has tried here are tried, by another process.

That takes namespaces of its own, and so root. The unit's service has no such right, and needs none: a step before its
start has tried (deploy/glacic.service). A service that somebody runs as root has it tried when a limit first asks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import glacic
from glacic.ctlplane import logs

_log = logs.logger("limits")

_PATIENCE_S = 120.0
# The same glacic that runs here, and nothing out of whatever folder the service was started in.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from glacic.ctlplane.cli import main; sys.exit(main())"


def may() -> bool:
    """Whether this process can have them tried."""
    return os.geteuid() == 0


def try_engines(state_dir: Path) -> None:
    """Have `glacic limits engines --keep` write its table; where that fails, there is none, and the log says why."""
    root = str(Path(glacic.__file__).parents[1])
    words = ["limits", "engines", "--keep", "--state-dir", str(state_dir)]
    try:
        done = subprocess.run(  # noqa: S603 -- ourselves
            [sys.executable, "-P", "-c", _START, root, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.error("the limit engines could not be tried", error=str(error))
        return
    if not done.stdout:  # the status says whether they can limit everything
        _log.error("the limit engines could not be tried", error=done.stderr.strip()[-500:])
