"""Rounds: everybody in each, and another one first each time, so that nobody always comes after the same other.

A machine that gets slower meanwhile slows all of them, and ratios are made within a round (result.paired).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def alternate(contestants: Sequence[str], rounds: int, measure: Callable[[str], T]) -> dict[str, list[T]]:
    """Contestant -> what it did in round 1, 2, ...; measured in rounds, each beginning one further."""
    did: dict[str, list[T]] = {name: [] for name in contestants}
    for number in range(rounds):
        begin = number % len(contestants)
        for name in (*contestants[begin:], *contestants[:begin]):
            did[name].append(measure(name))
    return did
