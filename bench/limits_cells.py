"""The table of limits: which cells there are, what one comes to, and whether that is within bounds. Pure.

Bytes are payload where they arrive. A limit counts IP packets: of a full TCP segment's 1500 bytes 1448 are payload, so
an engine that is exact to the byte shows 96.5 % where segments are counted one by one, and up to 99.9 % where the
kernel hands them over put together; of these datagrams it is 98 %.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.result import Figure, Row
from bench.words import number
from glacic.shaping.engine import DOWNLOAD, UPLOAD

KIB, MIB = 1 << 10, 1 << 20
RATES = {50 * KIB: "50 KiB/s", MIB: "1 MiB/s", 20 * MIB: "20 MiB/s"}
SETTLE_S = 2.0  # before it is steady: the bucket that every limit begins with is used up
_SLOW = 50 * KIB
_TIMES = {50 * KIB: 10, MIB: 5, 20 * MIB: 3}  # of a round's seconds: packets of 64 KiB are 1.3 s of 50 KiB/s


class Traffic(NamedTuple):
    """congestion: TCP's, "" for UDP. flows: the address family of each, as in "46"."""

    name: str
    congestion: str
    flows: str


CUBIC = Traffic("TCP cubic", "cubic", "4")
TRAFFIC = (
    CUBIC,
    Traffic("TCP bbr", "bbr", "4"),
    Traffic("UDP flood", "", "4"),
    Traffic("IPv4 and IPv6", "cubic", "46"),
    Traffic("4 flows", "cubic", "4444"),
)


class Cell(NamedTuple):
    """One limit (rate: bytes/s), and what tries to exceed it."""

    engine: str
    direction: str
    rate: int
    traffic: Traffic

    @property
    def name(self) -> str:
        """As in a table of its engine."""
        return f"{self.direction}, {RATES[self.rate]}, {self.traffic.name}"

    def seconds(self, of_a_round: float) -> float:
        """How long its steady state is measured."""
        return _TIMES[self.rate] * of_a_round


class Bounds(NamedTuple):
    """Of achieved / limit, steady."""

    low: float
    high: float

    @property
    def text(self) -> str:
        """As in "90-105 %"."""
        return f"{100 * self.low:.0f}-{100 * self.high:.0f} %"


FAST, SLOW = Bounds(0.90, 1.05), Bounds(0.90, 1.10)
WIDE = Bounds(0.70, 1.15)  # on an emulated processor


class Measured(NamedTuple):
    """Of the limit: steady, first (second). wasted: of what came to the limit, thrown away by it. again: of what TCP
    sent, sent more than once; None for UDP. least: the smallest flow's part of all bytes."""

    steady: float
    first: float
    wasted: float
    again: float | None
    least: float


Told = Mapping[Cell, Sequence[Measured | str]]  # by round; a text says why there is nothing


def cells(engines: Iterable[str], rates: Iterable[int] = tuple(RATES)) -> list[Cell]:
    """All of them, in the report's order."""
    rates = tuple(rates)
    return [
        Cell(engine, direction, rate, traffic)
        for engine in engines
        for direction in (UPLOAD, DOWNLOAD)
        for rate in rates
        for traffic in TRAFFIC
    ]


def bounds(cell: Cell) -> Bounds:
    """What holds for it natively."""
    return SLOW if cell.rate == _SLOW else FAST


def rows(name: str, what: str, told: Told, wide: Bounds | None = None) -> list[Row]:
    """First the summary, which is judged (wide: by these bounds, all of it), then a table for each engine."""
    missed = [text for cell, values in told.items() if (text := _missed(cell, values, wide or bounds(cell)))]
    target = wide.text if wide else f"{FAST.text} from 1 MiB/s up, {SLOW.text} at 50 KiB/s"
    said = [f"Missed: {'; '.join(missed)}."] if missed else []
    if lacking := _lacking(told):
        said.append(f"Not measured: {lacking}.")
    summary = Row(
        name=f"{name}-steady",
        what=what,
        figures=tuple(_summary(told)),
        target=target,
        met=not missed if _summary(told) else None,
        note=" ".join(said),
    )
    return [summary, *_tables(name, told)]


def _missed(cell: Cell, values: Sequence[Measured | str], limits: Bounds) -> str:
    """Which cell is out of bounds, and by what; "" where none is, or nothing was measured."""
    measured = _measured(values)
    if not measured:
        return ""
    steady = statistics.median(one.steady for one in measured)
    if min(one.least for one in measured) == 0:
        return f"{cell.engine}, {cell.name}: a flow got nothing"
    return "" if limits.low <= steady <= limits.high else f"{cell.engine}, {cell.name}: {number(100 * steady)} %"


def _measured(values: Sequence[Measured | str]) -> list[Measured]:
    return [one for one in values if not isinstance(one, str)]


def _lacking(told: Told) -> str:
    """What was not measured, by its reason."""
    why: dict[str, list[Cell]] = {}
    for cell, values in told.items():
        for reason in dict.fromkeys(one for one in values if isinstance(one, str)):
            why.setdefault(reason, []).append(cell)
    return "; ".join(f"{_together(found, told)}: {reason}" for reason, found in why.items())


def _together(found: Sequence[Cell], told: Told) -> str:
    """Cells in few words: whole directions by name, others one by one."""
    said: dict[str, None] = {}
    for cell in found:
        alike = [one for one in told if (one.engine, one.direction) == (cell.engine, cell.direction)]
        whole = set(alike) <= set(found)
        said[f"{cell.engine}, {cell.direction}" if whole else f"{cell.engine}, {cell.name}"] = None
    return "; ".join(said)


def _summary(told: Told) -> list[Figure]:
    """For each engine and rate, the cells' steady values: the middle one and the ends."""
    found: dict[str, list[float]] = {}
    for cell, values in told.items():
        if measured := _measured(values):
            steady = 100 * statistics.median(one.steady for one in measured)
            found.setdefault(f"{cell.engine}, {RATES[cell.rate]}", []).append(steady)
    return [
        Figure(contestant=name, unit="% of the limit, all cells", values=tuple(values))
        for name, values in found.items()
    ]


_COLUMNS = {
    "steady": "steady, % of the limit",
    "first": "first second, %",
    "wasted": "thrown away, %",
    "again": "sent again, %",
    "least": "smallest flow, % of all",
}


def _tables(name: str, told: Told) -> list[Row]:
    made = []
    for engine in dict.fromkeys(cell.engine for cell in told):
        figures = [
            Figure(contestant=cell.name, unit=unit, values=tuple(100 * value for value in values))
            for cell, all_values in told.items()
            if cell.engine == engine and (measured := _measured(all_values))
            for column, unit in _COLUMNS.items()
            if (values := [value for one in measured if (value := getattr(one, column)) is not None])
            and (column != "least" or len(cell.traffic.flows) > 1)
        ]
        if figures:
            made.append(
                Row(name=f"{name}-{engine}", what=f"by {engine}: achieved, and at what price", figures=tuple(figures))
            )
    return made
