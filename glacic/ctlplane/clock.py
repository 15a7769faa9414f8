"""Whether somebody has set the machine's clock: what was counted from the old time goes on from the new one.

`learn_for` and `retention_days` are durations, and what they are counted from is kept as a time of day, because it has
to outlive a restart. So when the clock is set, by a year or by fifty (a machine without a battery begins in 1970), the
times that the old clock gave are moved with it (`moves`). Compares with the time since boot, which nobody can set and
which counts sleep (clock_gettime(2), CLOCK_BOOTTIME). Refuses to move anything itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_NS = 60 * 1_000_000_000  # less than a minute is corrected all the time, and matters to nobody


def since_boot_ns() -> int:
    """Nanoseconds since the machine was started."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Jumps:
    """Asked now and then how far the clock was set since it was asked last."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = since_boot_ns) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._offset_ns = wall_ns() - steady_ns()

    def jumped_ns(self) -> int:
        """Nanoseconds, below zero where the clock was set back; 0 where it was not set."""
        offset_ns = self._wall_ns() - self._steady_ns()
        jumped_ns, self._offset_ns = offset_ns - self._offset_ns, offset_ns
        return jumped_ns if abs(jumped_ns) >= LEAST_NS else 0
