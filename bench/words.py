"""Figures as people read them: three digits that mean something, the middle with its ends. For report and plots."""

from __future__ import annotations

from collections.abc import Sequence

from bench.result import spread


def number(value: float) -> str:
    """Three significant digits at least, and none after the point where there are as many before it."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def short(value: float) -> str:
    """The same for an axis: 20 k, 1.5 M."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g} {letter}"
    return f"{value:g}"


def middle(values: Sequence[float], unit: str = "") -> str:
    """The median; with the ends, where there was more than one round."""
    median, low, high = spread(values)
    said = number(median) + (f" {unit}" if unit else "")
    return said if len(values) == 1 else f"{said} ({number(low)}-{number(high)})"
