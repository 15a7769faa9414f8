"""The commands that ask a running service: whole processes, as a person or a monitor starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.effort import Effort
from bench.filling import Filled
from bench.result import Figure, Results, Row, paired, spread
from bench.rounds import alternate
from bench.service import ENVIRONMENT, BenchGlacic, config, road, scratch
from glacic.lab.net import Network

NAME = "control"
TITLE = "Commands that ask the running service"
INTRO = """\
A service with 100,000 learned flows and nothing else to do; each command is a process of its own, from the start of the
interpreter to its end, its answer read. Beside them: the interpreter alone (`python3 -c pass`), which is in each of
them. They take turns, and every one was run before."""

FLOWS = 100_000
TARGET_S = 0.15
RUNS = 15  # at least
_INTERPRETER = "python3 -c pass"
_COMMANDS: dict[str, tuple[str, ...]] = {
    "glacic stats": ("stats",),
    "glacic stats --json": ("stats", "--json"),
    "glacic status": ("status",),
    "glacic flows list --limit 100": ("flows", "list", "--limit", "100"),
    "glacic flows list, all of them, as JSON": ("flows", "list", "--json"),
}
_LONG = "glacic flows list, all of them, as JSON"  # seconds: not in every round
_QUICK_RUNS = 7


def measure(effort: Effort) -> Results:
    """Every command in every round."""
    rounds = max(RUNS, 3 * effort.rounds)
    with scratch() as folder, Network() as network:
        glacic = BenchGlacic(road(network).router, folder, config())
        Filled(folder).put(FLOWS, glacic.database)
        with glacic:
            short = [name for name in _COMMANDS if name != _LONG]
            found = _alternated(glacic, [*short, _INTERPRETER], rounds)
            listed = _alternated(glacic, [_LONG], min(3, effort.rounds))
    return Results([_stats_row(found), _others_row(found, listed)])


def quick() -> Results:
    """`stats` against the interpreter's own start."""
    with scratch() as folder, Network() as network:
        glacic = BenchGlacic(road(network).router, folder, config())
        with glacic:
            found = _alternated(glacic, ["glacic stats", _INTERPRETER], _QUICK_RUNS)
    row = Row(
        name="stats-against-interpreter",
        what="`glacic stats`, whole process, against `python3 -c pass`",
        figures=tuple(_figure(name, values) for name, values in found.items()),
        ratio=paired(found["glacic stats"], found[_INTERPRETER]),
        ratio_of="glacic stats / python3 -c pass",
    )
    return Results([row])


def _alternated(glacic: BenchGlacic, names: Sequence[str], rounds: int) -> dict[str, list[float]]:
    def seconds(name: str) -> float:
        command = [sys.executable, "-c", "pass"] if name == _INTERPRETER else glacic.command(*_COMMANDS[name])
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ENVIRONMENT}, timeout=300)  # noqa: S603
        return time.perf_counter() - began

    for name in names:
        seconds(name)
    return alternate(names, rounds, seconds)


def _stats_row(found: dict[str, list[float]]) -> Row:
    ours = [name for name in found if name.startswith("glacic stats")]
    return Row(
        name="stats-command",
        what="`glacic stats`, whole process",
        figures=tuple(_figure(name, found[name]) for name in (*ours, _INTERPRETER)),
        target=f"<= {TARGET_S:g} s",
        met=all(spread(found[name]).median <= TARGET_S for name in ours),
        ratio=paired(found[ours[0]], found[_INTERPRETER]),
        ratio_of=f"glacic stats / {_INTERPRETER}",
    )


def _others_row(found: dict[str, list[float]], listed: dict[str, list[float]]) -> Row:
    names = [name for name in found if name != _INTERPRETER and not name.startswith("glacic stats")]
    return Row(
        name="other-commands",
        what=f"Other commands, {FLOWS:,} flows in the store, whole process",
        figures=tuple(_figure(name, values) for name, values in [*((n, found[n]) for n in names), *listed.items()]),
    )


def _figure(contestant: str, values: Sequence[float]) -> Figure:
    return Figure(contestant=contestant, unit="s", values=tuple(values))
