"""What packet threads run into, said once when it begins and once when it is over, however many packets meet it.

Packet threads only take it down (`hear`); the thread that looks after everything says it (`tick`). Refuses to start a
thread: where the machine is out of something, that would fail too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from glacic.ctlplane import logs

_log = logs.logger("readers")

CALM_S = 5.0  # without a packet that meets it, a trouble is over
MOST = 100  # different ones at a time; texts may come from outside


class Troubles:
    """Those of one worker's readers. Any thread may hear, one may tick."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}  # text -> when it was heard last
        self._said: set[str] = set()

    @property
    def now(self) -> str:
        """One that is not over, "" where there is none."""
        return next(iter(dict(self._heard)), "")

    def hear(self, text: str) -> None:
        """A packet met this. Returns at once."""
        if text in self._heard or len(self._heard) < MOST:
            self._heard[text] = self._clock()

    def tick(self) -> None:
        """Say what has begun and what is over. To be called every second or so."""
        now = self._clock()
        for text, heard in list(self._heard.items()):
            if text not in self._said:
                self._said.add(text)
                _log.error("packets cannot be decided", error=text)
            elif now - heard > CALM_S:
                del self._heard[text]
                self._said.discard(text)
                _log.info("packets are decided again", after=text)
