"""The commands that a person waits for: check, compile and render, replay. Whole processes where the target says so.

Each is a fresh process of the code that this bench imports, started with warm caches (its .pyc files, the HCL parser's
grammar). Refuses to measure parts of them, but for compile and render, which the target names apart.
"""
# ruff: noqa: S603 -- processes of this interpreter, and tcpdump, found on PATH

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import glacic
from bench.captures import write_capture
from bench.configurations import LEARNING, configuration
from bench.effort import Effort
from bench.result import Figure, Results, Row, paired, spread
from glacic.config.load import load
from glacic.config.model import Config
from glacic.firewall.compile import compile_config
from glacic.firewall.render import render

NAME = "commands"
TITLE = "Commands that a person waits for"
INTRO = """\
`glacic check` and `glacic replay` as whole processes, from the start of the interpreter to its end; compile and render
in a running process. The configuration has 1,000 rules in 28 policies between 8 zones and the firewall itself
(bench/configurations.py), the capture 1,000,000 packets of 128 bytes at most (bench/captures.py): TCP and UDP, three
quarters IPv4, of 2,500 flows. Beside them stands what is in the figure anyway: the interpreter's own start, the HCL
parser alone, and reading the capture's records without looking at them."""

RULES = 1_000
PACKETS = 1_000_000
CHECK_S, COMPILE_S, REPLAY_PER_S = 2.0, 0.3, 300_000
_TIMEOUT_S = 300
_YARDSTICK = 40_000  # entries; some 25 ms, as compile and render

_ONE_ZONE_PAIR = """
zone "lan" {
  interface = "lan0"
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
}
"""

# What any reader of a capture in Python must do: the record's header, and its bytes.
_RECORDS_ONLY = """
import struct, sys
record, count = struct.Struct("<IIII"), 0
with open(sys.argv[1], "rb", buffering=1 << 20) as file:
    file.read(24)
    while header := file.read(16):
        file.read(record.unpack(header)[2])
        count += 1
print(count)
"""
_PARSE_ONLY = "import sys, hcl2; hcl2.parses_to_tree(open(sys.argv[1]).read())"


def measure(effort: Effort) -> Results:
    """All rows."""
    with _folder() as folder:
        config = folder / "glacic.hcl"
        config.write_text(configuration(RULES))
        check = _check(config, effort.rounds)
        compiled = _compile(load(config), effort.rounds)
        replay = _replay(folder, PACKETS, effort.rounds)
    return Results([check, compiled, replay])


def quick() -> Results:
    """Compile and render against a yardstick of pure Python in the same process."""
    with _folder() as folder:
        config = folder / "glacic.hcl"
        config.write_text(configuration(RULES))
        loaded = load(config)
    ours, theirs = _rounds(7, [lambda: _timed(lambda: render(compile_config(loaded))), lambda: _timed(yardstick)])
    row = Row(
        name="compile-render-against-yardstick",
        what=f"compile and render of {RULES:,} rules against a loop of pure Python",
        figures=(_figure("glacic", "s", ours), _figure("yardstick", "s", theirs)),
        ratio=paired(ours, theirs),
        ratio_of="glacic / yardstick",
    )
    return Results([row])


def yardstick() -> int:
    """Pure Python of the kind that compile and render are: strings, a dictionary, a sort, a join. Not to be changed."""
    lines = [f"{number % 977} . {number % 7} . {number}" for number in range(_YARDSTICK)]
    places = {line: at for at, line in enumerate(lines)}
    text = "\n".join(f'\t\t{line} accept comment "{places[line]}"' for line in sorted(lines))
    return len(text)


def _check(config: Path, rounds: int) -> Row:
    """`glacic check`, whole process."""
    glacic_check = [*_glacic(), "check", "-c", str(config)]
    ours, parser, empty = _rounds(
        rounds,
        [
            lambda: _seconds(glacic_check),
            lambda: _seconds([sys.executable, "-c", _PARSE_ONLY, str(config)]),
            lambda: _seconds([sys.executable, "-c", "pass"]),
        ],
    )
    return Row(
        name="check-1000-rules",
        what=f"`glacic check` of a configuration with {RULES:,} rules, whole process",
        figures=(
            _figure("glacic check", "s", ours),
            _figure("python-hcl2's grammar alone", "s", parser),
            _figure("python3 -c pass", "s", empty),
        ),
        target=f"<= {CHECK_S:g} s",
        met=spread(ours).median <= CHECK_S,
    )


def _compile(config: Config, rounds: int) -> Row:
    """Compile and render, in this process."""
    compiling, both, measured = _rounds(
        rounds,
        [
            lambda: _timed(lambda: compile_config(config)),
            lambda: _timed(lambda: render(compile_config(config))),
            lambda: _timed(yardstick),
        ],
    )
    return Row(
        name="compile-render-1000-rules",
        what=f"Compile and render of {RULES:,} rules, in a running process",
        figures=(
            _figure("compile and render", "s", both),
            _figure("compile alone", "s", compiling),
            _figure("yardstick: pure Python", "s", measured),
        ),
        target=f"<= {COMPILE_S:g} s",
        met=spread(both).median <= COMPILE_S,
        ratio=paired(both, measured),
        ratio_of="compile and render / yardstick",
    )


def _replay(folder: Path, packets: int, rounds: int) -> Row:
    """`glacic replay`, whole process."""
    capture, config = folder / "capture.pcap", folder / "replay.hcl"
    write_capture(capture, packets)
    config.write_text(LEARNING + _ONE_ZONE_PAIR)
    ours = [*_glacic(), "--json", "replay", "-c", str(config), "--policy", "lan_wan", str(capture)]
    contestants: list[tuple[str, Sequence[str]]] = [
        ("glacic replay", ours),
        ("python3 reading the records only", [sys.executable, "-c", _RECORDS_ONLY, str(capture)]),
        ("tcpdump -r FILE -w /dev/null", ["tcpdump", "-r", str(capture), "-w", "/dev/null"]),
    ]
    taken = _rounds(rounds, [partial(_per_second, packets, command) for _, command in contestants])
    return Row(
        name="replay-throughput",
        what=f"`glacic replay` of {packets:,} packets, new flows rare, whole process",
        figures=tuple(_figure(name, "packets/s", values) for (name, _), values in zip(contestants, taken, strict=True)),
        target=f">= {REPLAY_PER_S:,} packets/s",
        met=spread(taken[0]).median >= REPLAY_PER_S,
        ratio=paired(taken[0], taken[1]),
        ratio_of="glacic replay / reading the records only",
    )


def _rounds(rounds: int, contestants: Sequence[Callable[[], float]]) -> list[list[float]]:
    """What each gives in each round, once it has been warmed up. They take turns in being the first."""
    for contestant in contestants:
        contestant()
    values: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds):
        for step in range(len(contestants)):
            at = (number + step) % len(contestants)
            values[at].append(contestants[at]())
    return values


def _seconds(command: Sequence[str]) -> float:
    """How long a process takes, from its start to its end. It has to succeed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(glacic.__file__).parents[1])}
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=_TIMEOUT_S)
    return time.perf_counter() - began


def _per_second(packets: int, command: Sequence[str]) -> float:
    return packets / _seconds(command)


def _timed(work: Callable[[], object]) -> float:
    """How long it takes in this process: the middle of five, as it is short."""

    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return statistics.median(once() for _ in range(5))


def _glacic() -> list[str]:
    return [sys.executable, "-P", "-m", "glacic"]


def _figure(contestant: str, unit: str, values: Sequence[float]) -> Figure:
    return Figure(contestant=contestant, unit=unit, values=tuple(values))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glacic-bench-") as name:
        yield Path(name)
