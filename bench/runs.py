"""What was measured when, on what, and where it is kept: a folder with NAME.json for each module and runs.json for all.

A full run is kept in docs/benchmarks, so that the report can be written anew from it anywhere; a trial, with fewer
rounds or shorter, goes to build/bench/trial and never touches docs. Refuses to measure and to judge.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.build import BUILT, ROOT
from bench.effort import FULL, Effort
from bench.result import Results, load, save

DOCS = ROOT / "docs"
TRIAL = BUILT / "trial"
_FOLDER, _RUNS = "benchmarks", "runs.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One module's measuring. day: as 2026-01-31. idle: of all cores before it began, 0 to 1; machine: machine.py."""

    day: str
    version: str
    effort: Effort
    idle: float
    machine: dict[str, str]


def home(effort: Effort) -> Path:
    """The folder that a run with this effort writes to."""
    return DOCS if effort == FULL else TRIAL


def results(place: Path, name: str) -> Results | None:
    """What this module has measured; None where it has not."""
    path = place / _FOLDER / f"{name}.json"
    return load(path) if path.exists() else None


def runs(place: Path) -> dict[str, Run]:
    """Module -> the run that its results are from."""
    path = place / _FOLDER / _RUNS
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())
    return {name: Run(**{**run, "effort": Effort(**run["effort"])}) for name, run in kept.items()}


def keep(place: Path, name: str, measured: Results, run: Run) -> None:
    """Write both; what other modules have measured stays."""
    save(measured, place / _FOLDER / f"{name}.json")
    all_runs = {**runs(place), name: run}
    text = json.dumps({each: asdict(one) for each, one in sorted(all_runs.items())}, indent=1)
    (place / _FOLDER / _RUNS).write_text(text + "\n")
