"""Road 2, between the engine and who follows it: changes of flows' states, on their way to kernel, disk and log.

    put()   under the engine's lock, while a packet waits for its answer: takes it down, wakes nobody
    tell()  once the packet is answered: hands everything on, in the order in which it happened

A thread that is woken takes the processor and the interpreter from the one that wakes it: measured, three of them put
100 us between a new flow's decision and its verdict. So whoever has changed something tells when nobody waits any more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from glacic.learning.flow import Transition


class Bulletin:
    """What waits to be told. Any thread may put and tell."""

    def __init__(self, *takers: Callable[[Transition], None]) -> None:
        """takers: each is told every change, one change after the other; they may not block, nor change a flow."""
        self._takers = takers
        self._waiting: deque[Transition] = deque()
        self._telling = threading.Lock()  # the order holds for those who hear it, too

    @property
    def waits(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._waiting)

    def put(self, transition: Transition) -> None:
        """Take it down."""
        self._waiting.append(transition)

    def tell(self) -> None:
        """Hand on what waits; when this returns, everything put before it has been handed on."""
        with self._telling:
            while self._waiting:
                transition = self._waiting.popleft()
                for take in self._takers:
                    take(transition)
