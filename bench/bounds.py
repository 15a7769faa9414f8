"""The guard: ratios that a quick run measures, beside what they are on a quiet machine (bounds.json).

Machines are noisy, so a ratio fails only where it is worse than its bound by more than a factor of two. A bound whose
row was not measured is said and fails nothing: some are left out where a machine is too busy to tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from bench.result import Row, spread
from bench.words import number

BOUNDS = Path(__file__).resolve().parent / "bounds.json"
FACTOR = 2.0


class Bound(NamedTuple):
    """What a ratio is on a quiet machine, and which way is better."""

    ratio: float
    better: Literal["lower", "higher"]


class Judged(NamedTuple):
    """worse: by which factor the ratio is worse than its bound; below 1 it is better. None: nothing to say."""

    name: str
    ratio_of: str
    measured: float | None
    bound: Bound | None
    worse: float | None

    @property
    def failed(self) -> bool:
        """Worse by more than a noisy machine explains."""
        return self.worse is not None and self.worse > FACTOR


def load(path: Path = BOUNDS) -> dict[str, Bound]:
    """Row -> its bound."""
    return {name: Bound(**bound) for name, bound in json.loads(path.read_text()).items()}


def judge(rows: Iterable[Row], bounds: dict[str, Bound]) -> list[Judged]:
    """Every row that has a ratio, then every bound without a row."""
    judged = []
    measured = {row.name: row for row in rows if row.ratio}
    for name, row in measured.items():
        ratio, bound = spread(row.ratio).median, bounds.get(name)
        judged.append(Judged(name, row.ratio_of, ratio, bound, None if bound is None else _worse(ratio, bound)))
    judged += [Judged(name, "", None, bound, None) for name, bound in bounds.items() if name not in measured]
    return judged


def _worse(ratio: float, bound: Bound) -> float:
    better, other = (bound.ratio, ratio) if bound.better == "lower" else (ratio, bound.ratio)
    return other / better if better else float("inf")


def table(judged: Iterable[Judged]) -> str:
    """For a terminal."""
    lines = [("ratio", "measured", "bound", "worse by", "")]
    for one in judged:
        bound = "none" if one.bound is None else number(one.bound.ratio)
        verdict = "FAILED" if one.failed else "not measured" if one.measured is None else ""
        of = f"{one.name} ({one.ratio_of})" if one.ratio_of else one.name
        measured = "" if one.measured is None else number(one.measured)
        lines.append((of, measured, bound, "" if one.worse is None else f"{one.worse:.2f} x", verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
