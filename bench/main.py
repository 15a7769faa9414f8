"""The bench's command line. Run it as root, with the interpreter that Glacic is installed for:

    python -P bench/main.py                       everything, into docs/benchmarks.md
    python -P bench/main.py --only queue commands some modules; of the others the report keeps what it has
    python -P bench/main.py --rounds 2 --seconds 1 a trial, into build/bench/trial
    python -P bench/main.py --report              writes the report anew from what was measured
    python -P bench/main.py --quick               the guard: a few ratios against bounds, exit 1 where one is lost
    python -P bench/main.py --only limits --judge limits       exit 1 also where a target of these modules is missed

-P: the installed Glacic is measured, not the source tree beside this file (`python -m bench.main` measures that).
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import bench.rows  # noqa: E402 -- found by the line above
import glacic  # noqa: E402
from bench import bounds, machine, pinning, report, runs  # noqa: E402
from bench.effort import FULL, Effort  # noqa: E402
from bench.result import Results, Row  # noqa: E402
from bench.words import middle  # noqa: E402
from glacic.errors import GlacicError  # noqa: E402

# The order of the report. Modules that are not named here come behind, by name.
ORDER = (
    *("queue", "queues", "first_packet", "load", "learning", "scaling_flows", "kernel", "rulepath", "logpath"),
    *("log-to-element", "opensnitch", "start", "commands", "control", "limits", "limits-vm", "limits-idle"),
)


class Measuring(report.Module, Protocol):
    """A module of bench/rows."""

    def measure(self, effort: Effort) -> Results:
        """Everything that it is for."""


def modules() -> list[Measuring]:
    """All of bench/rows, in the report's order."""
    names = [found.name for found in pkgutil.iter_modules(bench.rows.__path__)]
    loaded: list[Measuring] = [importlib.import_module(f"bench.rows.{name}") for name in names]
    measuring = [module for module in loaded if hasattr(module, "measure")]
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(measuring, key=lambda module: (places.get(module.NAME, len(ORDER)), module.NAME))


def main(words: Sequence[str]) -> int:
    """0; 1 where something could not be measured, or a quick ratio is lost; 2 where the question makes no sense."""
    known = modules()
    asked = _parse(words, [module.NAME for module in known])
    chosen = [module for module in known if not asked.only or module.NAME in asked.only]
    if asked.quick:
        return quick(chosen)
    effort = Effort(asked.rounds, asked.seconds, asked.long)
    place = runs.home(effort)
    failed = [] if asked.report else [module.NAME for module in chosen if not _measured(module, effort, place)]
    measured = {module.NAME: found for module in known if (found := runs.results(place, module.NAME)) is not None}
    path = report.write(known, measured, runs.runs(place), place)
    _say(f"The report is {path.relative_to(ROOT)}.")
    if failed:
        _say(f"Not measured: {', '.join(failed)}.")
    missed = [
        row for name in asked.judge for row in (measured[name].rows if name in measured else ()) if row.met is False
    ]
    for row in missed:
        _say(f"{row.name} is missed: {row.note}")
    return 1 if failed or missed else 0


def quick(chosen: Sequence[Measuring]) -> int:
    """A few ratios of every module that has some; one that fails, or is lost, is asked once more."""
    limits = bounds.load()
    rows: list[Row] = []
    troubled = False
    for module in chosen:
        if not hasattr(module, "quick"):
            continue
        began = time.monotonic()
        for last in (False, True):
            try:
                found = module.quick().rows
            except GlacicError as error:
                _say(f"{module.NAME}: {error}")
                troubled |= last
                continue
            if last or not any(one.failed for one in bounds.judge(found, limits)):
                rows += found
                break
        _say(f"{module.NAME}: {time.monotonic() - began:.0f} s")
    judged = bounds.judge(rows, limits)
    _say(bounds.table(judged))
    lost = [one.name for one in judged if one.failed]
    if lost:
        _say(f"Lost by more than a factor of {bounds.FACTOR:g}: {', '.join(lost)}.")
    return 1 if lost or troubled else 0


def _parse(words: Sequence[str], names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measures Glacic beside what people use today.")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--judge", nargs="+", metavar="NAME", choices=names, default=[], help="exit 1 if one misses")
    parser.add_argument("--quick", action="store_true", help="a few ratios against bench/bounds.json")
    parser.add_argument("--report", action="store_true", help="write the report, measure nothing")
    parser.add_argument("--rounds", type=int, default=FULL.rounds)
    parser.add_argument("--seconds", type=float, default=FULL.seconds, help="for each contestant and round")
    parser.add_argument("--long", type=float, default=FULL.long_s, help="seconds for what has to hold out")
    return parser.parse_args(words)


def _measured(module: Measuring, effort: Effort, place: Path) -> bool:
    _say(f"\n{module.TITLE}")
    idle, began = pinning.idle_part(), time.monotonic()
    try:
        results = module.measure(effort)
    except Exception:  # the top loop: what the other modules measure is not lost with it
        traceback.print_exc()
        return False
    run = runs.Run(time.strftime("%Y-%m-%d"), glacic.__version__, effort, round(idle, 3), machine.described())
    runs.keep(place, module.NAME, results, run)
    for row in results.rows:
        _say(told(row))
    _say(f"{time.monotonic() - began:.0f} s")
    return True


def told(row: Row) -> str:
    """A row for a terminal."""
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    ratio = f"; {row.ratio_of}: {middle(row.ratio)} x" if row.ratio else ""
    lines = [f"  {row.name}{ratio}{f'; target {row.target}: {verdict}' if row.target else ''}"]
    lines += [f"    {figure.contestant:<44} {middle(figure.values, figure.unit)}" for figure in row.figures]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- a command line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
