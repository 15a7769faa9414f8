"""How often something may happen: a token bucket, for whatever an outsider could otherwise make happen without end: log
lines, audit entries of refusals, requests. Refuses to sleep or to forget: its owner waits, and counts what was left
out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_S = 2.0  # that anybody is made to wait at once


class Bucket:
    """Full at first with `burst` tokens, and filled again by `per_second`. Not for more than one thread at a time."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._level = burst
        self._at = clock()

    def take(self) -> bool:
        """Take one token; False where there is none."""
        self._fill()
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def owe(self, tokens: float = 1, longest_s: float = LONGEST_S) -> float:
        """Take tokens, on credit where there are none: how many seconds to wait until they are there, at most
        `longest_s`; the credit ends there, too, so that a flood that has ended is soon forgotten."""
        self._fill()
        self._level = max(self._level - tokens, -longest_s * self._per_second)
        return max(0.0, -self._level / self._per_second)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
