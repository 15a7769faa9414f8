"""What runs in the virtual machine: the cells that it is asked for, into a file. See rows/limits_vm.py, which asks.

python -m bench.limits_guest FILE SECONDS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench import limits_bed
from bench.limits_cells import KIB, MIB, TRAFFIC, Cell, Measured, Told, cells

ENGINES = ("shape", "police")
RATES = (50 * KIB, MIB)  # what an emulated processor carries
_LANES = 3
_ALONE = 2 * MIB  # bytes/s: nothing here


def write(told: Told, file: Path) -> None:
    """As JSON."""
    file.write_text(json.dumps([[*cell[:3], cell.traffic.name, values] for cell, values in told.items()]) + "\n")


def read(file: Path) -> dict[Cell, list[Measured | str]]:
    """What `write` has written."""
    named = {traffic.name: traffic for traffic in TRAFFIC}
    return {
        Cell(engine, direction, rate, named[traffic]): [
            value if isinstance(value, str) else Measured(*value) for value in values
        ]
        for engine, direction, rate, traffic, values in json.loads(file.read_text())
    }


def main(file: str, seconds: str) -> None:
    """One round."""
    with limits_bed.lanes(_LANES) as lanes:
        write(limits_bed.table(lanes, cells(ENGINES, RATES), 1, float(seconds), _ALONE), Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
