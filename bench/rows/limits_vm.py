"""Bandwidth limits by traffic control on a distribution's kernel, in the virtual machine: whether they hold at all."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import limits_guest, processes
from bench.effort import Effort
from bench.limits_cells import WIDE, rows
from bench.result import Results
from glacic.errors import LabError
from glacic.lab import vm

NAME = "limits-vm"
TITLE = "Bandwidth limits by traffic control, on a stock kernel"
INTRO = """\
The engines shape and police need pieces that not every kernel has (act_connmark, act_police, cls_fw, cls_matchall). So
both are tried on Debian's kernel as well, in a virtual machine whose processor is emulated, ten to twenty times slower:
**this shows that they are correct, not how exact they are**, and only up to 1 MiB/s. One round; bounds are wide. The
police engine limits the whole interface, so that answers to what it lets through count too."""

_TIMEOUT_S = 1800.0


def measure(effort: Effort) -> Results:
    """One round of the smaller rates. Raises LabError where there can be no virtual machine."""
    with vm.shared_folder() as shared:
        file = shared / "limits.json"
        words = processes.python("bench.limits_guest", str(file), effort.seconds)
        status = vm.run(
            [str(word) for word in words],
            timeout_s=_TIMEOUT_S,
            cwd=Path(__file__).resolve().parents[2],
            environment={"PYTHONDONTWRITEBYTECODE": "1"},
            writable=[shared],
            stdout=sys.stderr.buffer,
        )
        if status != 0:
            raise LabError(f"the cells in the virtual machine ended with status {status}")
        told = limits_guest.read(file)
    return Results(rows("limits-vm", "achieved of a limit in the virtual machine, steady", told, WIDE))
