"""What has to be done now and then: bring the kernel's counters into the store, forget old pending flows, say that
learning ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from glacic.ctlplane import logs
from glacic.errors import GlacicError

_log = logs.logger("upkeep")

COUNT_S = 10.0  # between two readings of the counters, and never more than a twentieth of the time on them
EXPIRE_S = 600.0
TICK_S = 1.0


class Upkeep(threading.Thread):
    """Calls `count` and `expire` in their turns; `count` also on demand."""

    def __init__(self, count: Callable[[], None], expire: Callable[[], None], check: Callable[[], None]) -> None:
        super().__init__(name="upkeep", daemon=True)
        self._count = count
        self._expire = expire
        self._check = check
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self._took_s = 0.0

    def count_now(self, if_within_s: float) -> None:
        """Read the counters now, unless the last reading took longer than `if_within_s`, or one that is under way does.

        Raises GlacicError.
        """
        if self._took_s > if_within_s or not self._counting.acquire(timeout=min(if_within_s, threading.TIMEOUT_MAX)):
            return
        try:
            began = time.monotonic()
            self._count()
            self._took_s = time.monotonic() - began
        finally:
            self._counting.release()

    def stop(self, timeout_s: float) -> None:
        """End soon."""
        self._stopping.set()
        self.join(timeout_s)

    def run(self) -> None:
        """Until stopped. A failure is said once, and tried again."""
        expire_at, count_at, trouble = 0.0, time.monotonic() + COUNT_S, ""
        while not self._stopping.wait(TICK_S):
            now = time.monotonic()
            try:
                self._check()
                if now >= expire_at:
                    expire_at = now + EXPIRE_S
                    self._expire()
                if now >= count_at:
                    self.count_now(float("inf"))
                    count_at = time.monotonic() + max(COUNT_S, 20 * self._took_s)
                trouble = ""
            except GlacicError as error:
                count_at = now + COUNT_S
                if str(error) != trouble:
                    trouble = str(error)
                    _log.error("upkeep failed; trying again", error=trouble)
