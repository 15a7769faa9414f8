"""What a measurement is: values by round and contestant, the ratio between two of them, and whether a target is met.

Contestants alternate: round 1 of all, round 2 of all, ... so the n-th value of one is paired with the n-th value of
another, and a machine that becomes slower in between moves both. Refuses to measure, and to print.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The middle and the ends of some values."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one contestant did in every round. unit: "us", "packets/s", ...; values: one for each round, in order."""

    contestant: str
    unit: str
    values: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        """Median and ends."""
        return spread(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the report.

    name: its key, as in "cpu-per-verdict"; unique, and what bounds and `--only` refer to. what: in words.
    target: in words, "" where the row is there to be compared. figures: one or more for each contestant.
    ratio: round by round, what the target speaks of, () where it is absolute. met: None where there is no target.
    note: how it was measured, or why a target is missed and what the next idea is.
    """

    name: str
    what: str
    figures: tuple[Figure, ...]
    target: str = ""
    ratio: tuple[float, ...] = ()
    ratio_of: str = ""  # "glacic / C floor, batched"
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Some lines over one axis. series: name -> [(x, y, lowest y, highest y), ...]."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: dict[str, list[tuple[float, float, float, float]]]
    log_x: bool = True


@dataclass(slots=True)
class Results:
    """Everything that one module has measured."""

    rows: list[Row] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Ratios, round by round."""
    return tuple(our / their for our, their in zip(ours, theirs, strict=True))


def save(results: Results, path: Path) -> None:
    """As JSON, for the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1) + "\n")


def load(path: Path) -> Results:
    """What `save` has written."""
    data: dict[str, Any] = json.loads(path.read_text())
    rows = [
        Row(
            **{
                **row,
                "ratio": tuple(row["ratio"]),
                "figures": tuple(Figure(**{**figure, "values": tuple(figure["values"])}) for figure in row["figures"]),
            }
        )
        for row in data["rows"]
    ]
    plots = [
        Plot(**{**plot, "series": {name: [tuple(point) for point in line] for name, line in plot["series"].items()}})
        for plot in data["plots"]
    ]
    return Results(rows, plots)
