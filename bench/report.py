"""The report: docs/benchmarks.md and its charts, from what is kept of all modules' runs. Nothing else goes into it.

Targets first, in their order, met or not; then a section for each module. Refuses to measure, and to leave out what is
missed or was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bench import plot
from bench.result import Figure, Results, Row, paired, spread
from bench.runs import Run
from bench.targets import TARGETS, Target
from bench.words import middle, number

OURS = "glacic"
_CHARTS = "benchmarks"
# Rows that are worth a picture: bars of the figures that have the first figure's unit.
BARS = (
    "cpu-per-verdict",
    "verdicts-per-second",
    "learned-flow-throughput",
    "learned-flow-connections",
    "nflog-throughput",
    "new-connections-per-second",
)

_HOW = """\
`make bench` measures all of this anew (as root, on Linux; some of the contestants are Debian packages that it names),
and writes this file. `make bench-limits` does so for bandwidth limits alone, and fails where a rate is out of bounds.
`make bench-quick` is the guard: under a minute, a few ratios against bounds (bench/bounds.json).

## How it is measured

- Everything happens in network namespaces made for it, joined by veth pairs; no packet leaves the machine. Packets come
  from a C program through AF_PACKET (bench/c/traffic.c) with right checksums.
- The sender has a core of its own. A packet's way through veth, rules and into a queue is kernel work in the sender's
  context, so on the sender's core; taking it out, deciding, and sending it on once it is accepted is the reader's.
- Contestants run side by side, are warmed up, and alternate: each round measures all of them, another one first each
  time. Figures are medians over the rounds, with the lowest and the highest round behind them; a ratio is made within
  each round, and then its median is taken. So ratios hold better than figures on a machine that others use too.
- CPU time is user and system time of the process that is measured, with all its threads.
- The floor is the least that a program in user space can do: bench/c/floor.c binds the queue over netlink, looks at
  nothing but the packet's number, and accepts.
"""

_STANDIN = """\
- **This kernel has no `queue` statement in nftables** (CONFIG_NFT_QUEUE). Packets are handed to the queue by an
  iptables rule with the NFQUEUE target instead: the same queue, the same messages, the same verdicts. Where a whole
  service runs, its ruleset is Glacic's own but for that one statement (bench/standin.py). What it costs is one more
  walk through a table of one rule for each packet, in everybody's figures alike.
"""
_ALL_KERNELS = """\
- Where readers are measured alone, packets are handed to the queue by an iptables rule with the NFQUEUE target, on
  every kernel, so that figures of different kernels speak of the same.
"""


class Module(Protocol):
    """What a file in bench/rows says of itself."""

    NAME: str
    TITLE: str
    INTRO: str


def write(modules: Sequence[Module], measured: dict[str, Results], runs: dict[str, Run], place: Path) -> Path:
    """benchmarks.md and benchmarks/*.svg in this folder; returns the file. Charts of what is gone go too."""
    charts = dict(_charts(measured))
    folder = place / _CHARTS
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.stem not in charts:
            old.unlink()
    for name, drawn in charts.items():
        (folder / f"{name}.svg").write_text(drawn)
    path = place / "benchmarks.md"
    path.write_text(render(modules, measured, runs, set(charts)))
    return path


def render(modules: Sequence[Module], measured: dict[str, Results], runs: dict[str, Run], charts: set[str]) -> str:
    """The text. charts: the names of those that were drawn."""
    rows = {row.name: row for results in measured.values() for row in results.rows}
    parts = ["# Benchmarks\n", _HOW + _caveats(runs), *_machines(runs), *_targets(rows, charts)]
    for module in modules:
        if module.NAME in measured:
            parts += _section(module, measured[module.NAME], runs.get(module.NAME), charts)
    missing = [module.TITLE for module in modules if module.NAME not in measured]
    if missing:
        parts.append(f"## Not measured\n\n{'; '.join(missing)}.\n")
    return "\n".join(parts)


# ---- what it was measured on


def _caveats(runs: dict[str, Run]) -> str:
    lacks = any(run.machine.get("nftables' queue statement", "").startswith("no") for run in runs.values())
    busy = [name for name, run in sorted(runs.items()) if run.idle < 0.9]
    said = (_STANDIN if lacks else "") + _ALL_KERNELS
    if busy:
        said += f"- The machine was not idle when these began: {', '.join(busy)}. Their figures are worth less.\n"
    return said


def _machines(runs: dict[str, Run]) -> Iterator[str]:
    yield "## The machine\n"
    different: list[dict[str, str]] = []
    for run in runs.values():
        if run.machine not in different:
            different.append(run.machine)
    if not different:
        yield "Nothing was measured yet.\n"
    for machine in different:
        users = sorted(name for name, run in runs.items() if run.machine == machine)
        if len(different) > 1:
            yield f"For {', '.join(users)}:\n"
        yield _table(("", ""), [(what, said) for what, said in machine.items()])


# ---- targets


def _targets(rows: dict[str, Row], charts: set[str]) -> Iterator[str]:
    yield "## Targets\n"
    lines = [_target_line(target, rows.get(target.row)) for target in TARGETS]
    yield _table(("what", "target", "measured: median (lowest-highest)", ""), lines)
    if "ratios" in charts:
        yield "![Ratios beside their targets](benchmarks/ratios.svg)\n"


def _target_line(target: Target, row: Row | None) -> tuple[str, ...]:
    if row is None:
        return target.what, target.target, "", "not measured"
    said = [_of_ratio(row), *_compared(row)] if target.ratio is not None else _absolute(row, target.shown)
    verdict = {True: "met", False: "**missed**", None: "not judged"}[row.met]
    return target.what, target.target, "<br>".join(part for part in said if part), verdict


def _of_ratio(row: Row) -> str:
    return f"**{middle(row.ratio)} x** ({row.ratio_of})" if row.ratio else ""


def _compared(row: Row) -> list[str]:
    """The two that the ratio compares."""
    names = row.ratio_of.split(" / ")
    found = {figure.contestant: figure for figure in reversed(row.figures)}  # the first of each
    return [_figure(found[name]) for name in names if name in found]


def _absolute(row: Row, shown: int) -> list[str]:
    return [_figure(figure) for figure in row.figures[:shown]]


def _figure(figure: Figure) -> str:
    return f"{figure.contestant}: {middle(figure.values, figure.unit)}"


# ---- a module


def _section(module: Module, results: Results, run: Run | None, charts: set[str]) -> Iterator[str]:
    yield f"## {module.TITLE}\n"
    yield module.INTRO.strip() + "\n"
    if run is not None:
        effort = run.effort
        yield f"{run.day}, Glacic {run.version}, {effort.rounds} rounds of {effort.seconds:g} s each.\n"
    for row in results.rows:
        yield f"### {row.what[:1].upper()}{row.what[1:]} (`{row.name}`)\n"
        yield _row_table(row)
        yield from _beneath(row)
        if row.name in charts:
            yield f"![{row.what}](benchmarks/{row.name}.svg)\n"
    for drawn in results.plots:
        yield f"![{drawn.title}](benchmarks/{drawn.name}.svg)\n"


def _beneath(row: Row) -> Iterator[str]:
    said = []
    if row.ratio:
        said.append(f"{row.ratio_of}: **{middle(row.ratio)} x**.")
    if row.target:
        said.append(f"Target {row.target}: {'met' if row.met else '**missed**' if row.met is False else 'not judged'}.")
    if said:
        yield " ".join(said) + "\n"
    if row.note:
        yield row.note + "\n"


def _row_table(row: Row) -> str:
    """A line for each contestant, a column for each unit; and each one's ratio to the one the row compares with."""
    units = list(dict.fromkeys(figure.unit for figure in row.figures))
    by_name: dict[str, dict[str, Figure]] = {}
    for figure in row.figures:
        by_name.setdefault(figure.contestant, {})[figure.unit] = figure
    yardstick = by_name.get(row.ratio_of.rpartition(" / ")[2], {}).get(units[0])
    columns = [column for unit in units for column in (unit, "lowest-highest")]
    lines = []
    for name, of_it in by_name.items():
        line = [name]
        for unit in units:
            line += _cells(of_it.get(unit))
        if yardstick is not None:
            line.append(_ratio_cell(of_it.get(units[0]), yardstick))
        lines.append(tuple(line))
    return _table(("", *columns, *(["ratio"] if yardstick is not None else [])), lines)


def _cells(figure: Figure | None) -> tuple[str, str]:
    if figure is None:
        return "", ""
    median, low, high = spread(figure.values)
    return number(median), f"{number(low)}-{number(high)}" if len(figure.values) > 1 else ""


def _ratio_cell(figure: Figure | None, yardstick: Figure) -> str:
    if figure is None or len(figure.values) != len(yardstick.values) or not all(yardstick.values):
        return ""
    return number(spread(paired(figure.values, yardstick.values)).median)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:" if _is_figures(lines, column) else "---" for column in range(1, len(head))]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ruler, *lines)) + "\n"


def _is_figures(lines: Sequence[Sequence[str]], column: int) -> bool:
    cells = [line[column] for line in lines if line[column]]
    return (
        bool(cells)
        and all(cell[0].isdigit() or cell[0] == "-" for cell in cells)
        and all(set(cell) <= set("0123456789.,-e+") for cell in cells)
    )


# ---- charts


def _charts(measured: dict[str, Results]) -> Iterator[tuple[str, str]]:
    rows = {row.name: row for results in measured.values() for row in results.rows}
    wanted = [(rows[target.row], target.ratio) for target in TARGETS if target.row in rows and target.ratio is not None]
    if any(row.ratio for row, _ in wanted):
        yield "ratios", plot.ratios("Ratios: Glacic beside the floor, or beside hand-written rules", wanted)
    for name in BARS:
        if name in rows:
            first = rows[name].figures[0].unit
            alike = [figure for figure in rows[name].figures if figure.unit == first]
            yield name, plot.bars(rows[name].what[:1].upper() + rows[name].what[1:], alike, OURS)
    for results in measured.values():
        for drawn in results.plots:
            yield drawn.name, plot.lines(drawn)
