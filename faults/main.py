"""The faults' command line. Run it as root, with the interpreter that Glacic is installed for:

    python -P faults/main.py                       all of them, into docs/reliability.md
    python -P faults/main.py --only killed stopped some of them; of the others the report keeps what it has
    python -P faults/main.py --report              writes the report anew from what was measured

What a row says of itself decides where it runs: "here", in network namespaces of this machine; "vm", in a virtual
machine with a stock kernel, one boot for all of them, where nftables' own `queue` statement hands out the packets and
the clock may be set.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import faults.rows  # noqa: E402 -- found by the line above
import glacic  # noqa: E402
from bench import build  # noqa: E402
from faults import report, result  # noqa: E402
from faults.result import Case, Measured  # noqa: E402
from glacic.errors import GlacicError  # noqa: E402
from glacic.lab import vm  # noqa: E402

DOCS = ROOT / "docs"
KEPT = DOCS / "reliability"
HERE, VM = "here", "vm"
GUEST_S = 2400.0  # for everything in the virtual machine
# The order of the report. Modules that are not named here come behind, by name.
ORDER = (
    *("reloads", "confirm", "killed", "stopped", "flooded", "spoofed", "power", "locked", "disk_full", "damaged"),
    *("clock", "interface", "descriptors", "foreign"),
)


class Fault(report.Module, Protocol):
    """A module of faults/rows."""

    PLACES: tuple[str, ...]

    def measure(self) -> Iterator[Case]:
        """Every case of it in the place where this runs."""


def modules() -> list[Fault]:
    """All of faults/rows, in the report's order."""
    names = [found.name for found in pkgutil.iter_modules(faults.rows.__path__)]
    loaded: list[Fault] = [importlib.import_module(f"faults.rows.{name}") for name in names]
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(loaded, key=lambda module: (places.get(module.NAME, len(ORDER)), module.NAME))


def main(words: Sequence[str]) -> int:
    """0; 1 where a promise was broken or something could not be measured; 2 where the question makes no sense."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each packet of a known flow has a socket of its own
    known = modules()
    asked = _parse(words, [module.NAME for module in known])
    chosen = [module for module in known if not asked.only or module.NAME in asked.only]
    if asked.in_guest:
        return _measure_all(chosen, VM, Path(asked.in_guest))
    status = 0 if asked.report else _everywhere(chosen)
    measured = [found for module in known if (found := _kept(KEPT, module.NAME)) is not None]
    path = report.write(known, {found.name: found for found in measured}, DOCS)
    _say(f"The report is {path.relative_to(ROOT)}.")
    return status


def _everywhere(chosen: Sequence[Fault]) -> int:
    """Here, then in one virtual machine; what both have measured of a fault is kept together."""
    for program in ("connect", "sink", "traffic"):  # the virtual machine has no compiler of its own to wait for
        build.program(program)
    with vm.shared_folder() as folder:
        here, guest = folder / HERE, folder / VM
        here.mkdir()
        guest.mkdir()
        status = _measure_all([module for module in chosen if HERE in module.PLACES], HERE, here)
        status |= _in_guest([module for module in chosen if VM in module.PLACES], guest)
        for module in chosen:
            parts = [found for place in (here, guest) if (found := _kept(place, module.NAME)) is not None]
            if parts:
                result.save(result.together(parts), KEPT)
    return status


def _in_guest(chosen: Sequence[Fault], folder: Path) -> int:
    if not chosen:
        return 0
    names = [module.NAME for module in chosen]
    _say(f"\nIn the virtual machine: {', '.join(names)}")
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--in-guest", str(folder), "--only", *names]
    environment = {"PYTHONPATH": f"{vm.PACKAGE_FOLDER.parent}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return vm.run(command, timeout_s=GUEST_S, cwd=ROOT, environment=environment, writable=[folder])
    except GlacicError as error:
        _say(str(error))
        return 1


def _measure_all(chosen: Sequence[Fault], place: str, folder: Path) -> int:
    status = 0
    for module in chosen:
        _say(f"\n{module.TITLE} ({place})")
        began, cases = time.monotonic(), list[Case]()
        try:
            for case in module.measure():
                cases.append(case)
                _say(told(case))
        except Exception:  # the top loop: what the other modules measure is not lost with it
            traceback.print_exc()
            status = 1
        seconds = time.monotonic() - began
        _say(f"{seconds:.0f} s")
        if cases:
            day = time.strftime("%Y-%m-%d")
            result.save(Measured(module.NAME, day, glacic.__version__, round(seconds, 1), tuple(cases)), folder)
        if any(case.broken for case in cases):
            status = 1
    return status


def told(case: Case) -> str:
    """A case for a terminal."""
    counts = ", ".join(f"{kind} {count.answered}/{count.sent}" for kind, count in case.traffic.items())
    lines = [f"  {case.setting}: {counts}"]
    if case.recovered_s is not None:
        lines.append(f"    back after {case.recovered_s:g} s; {case.lost_flows} of {case.learned_before} flows lost")
    lines += [f"    {what}: {value}" for what, value in case.numbers.items()]
    lines += [f"    status: {text}" for text in case.status]
    lines += [f"    log, {times} x: {event}" for event, times in case.said.items()]
    lines += [f"    BROKEN: {text}" for text in case.broken]
    return "\n".join(lines)


def _kept(folder: Path, name: str) -> Measured | None:
    path = folder / f"{name}.json"
    return result.load(path) if path.exists() else None


def _parse(words: Sequence[str], names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description="Glacic while something fails, with real packets.")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--report", action="store_true", help="write the report, measure nothing")
    parser.add_argument("--in-guest", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- a command line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
