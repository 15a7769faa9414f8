"""Road 2, between the engine and who follows it: changes of flows' states, on their way to kernel, disk and log.

    put()   under the engine's lock, while a packet waits for its answer: takes it down, wakes nobody
    tell()  once the packet is answered: hands everything on, in the order in which it happened

A thread that is woken takes the processor and the interpreter from the one that wakes it: measured, three of them put
100 us between a new flow's decision and its verdict. So whoever has changed something tells when nobody waits any more.

Where learning is `durable`, a change is handed on when it is committed, and by the writer's thread: what the kernel
enforces is on disk.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from glacic.learning.flow import Transition


class Bulletin:
    """What waits to be told. Any thread may put and tell."""

    def __init__(
        self,
        *takers: Callable[[Transition], None],
        hasten: Callable[[], None] = lambda: None,
        commit: Callable[[], None] = lambda: None,
    ) -> None:
        """takers: each is told every change, one change after the other; they may not block, nor change a flow.

        hasten: has what waits committed soon, and returns at once. commit: has it committed, and returns then.
        """
        self._takers = takers
        self._hasten = hasten
        self.commit = commit
        self._waiting: deque[Transition] = deque()
        self._telling = threading.Lock()  # the order holds for those who hear it, too
        self._told = 0  # changes handed on so far,
        self._committed = 0  # and changes committed so far, in the same order
        self.durable = False  # whether those are handed on that are committed, and no others

    @property
    def waits(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._waiting)

    def put(self, transition: Transition) -> None:
        """Take it down."""
        self._waiting.append(transition)

    def tell(self) -> None:
        """Hand on what waits; when this returns, everything put before it has been handed on, or will be once it is
        committed."""
        self._hand_on()
        self._hasten()

    def committed(self, number: int) -> None:
        """The next `number` changes, in the order of put(), are committed. The writer's thread."""
        self._committed += number
        if self.durable:
            self._hand_on()

    def _hand_on(self) -> None:
        with self._telling:
            while self._waiting and not (self.durable and self._told >= self._committed):
                transition = self._waiting.popleft()
                self._told += 1
                for take in self._takers:
                    take(transition)
