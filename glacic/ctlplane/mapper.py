"""The end of road 2: the one thread that hands changed flows to the kernel, in batches and in the order they happened.

Packet threads only put a change into the queue. What the kernel refuses is kept and tried again, and said once. While
it refuses, no more than MAX_WAITING changes wait: when it takes changes again, everything is compared with the store.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from glacic.ctlplane import logs
from glacic.errors import KernelRefused
from glacic.firewall.learned import LearnedSets
from glacic.learning.flow import FlowKey, FlowState

_log = logs.logger("mapper")

BATCH = 5_000  # elements in one transaction: what the kernel does in 8 ms
LINGER_S = 0.002  # how long a change waits for others: each waking of this thread takes the interpreter from a packet's
RETRY_S = 1.0
MAX_WAITING = 20_000  # changes while the kernel refuses: 4 MB
HOLD_MAX_S = 120.0  # a parent that has asked for a hold and gone away does not stop learning for good

Change = tuple[FlowKey, FlowState | None]


class Mapper(threading.Thread):
    """Owns `sets` from start() on: nobody else may change them, other than through `run_between`."""

    def __init__(self, sets: LearnedSets, on_recovery: Callable[[], None]) -> None:
        """on_recovery: called in this thread when the kernel takes changes again; somebody may have emptied the
        table."""
        super().__init__(name="mapper", daemon=True)
        self._on_recovery = on_recovery
        self._sets = sets
        self._queue: queue.SimpleQueue[Change | Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._released = threading.Event()
        self.healthy = True

    def put(self, key: FlowKey, state: FlowState | None) -> None:
        """Have the kernel follow: allowed, refused, or (pending, forgotten) neither. Returns at once."""
        if self.healthy or self._queue.qsize() < MAX_WAITING:
            self._queue.put((key, state))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything put so far is in the kernel; False where it refuses, or is not done in time."""
        done = threading.Event()
        self._queue.put(done.set)
        ends = time.monotonic() + timeout_s
        while not done.wait(0.05):
            if not self.healthy or time.monotonic() > ends:
                return False
        return self.healthy

    def run_between(self, task: Callable[[], None]) -> None:
        """Have `task` done in this thread, between two batches, after everything put so far."""
        self._queue.put(task)

    def hold(self, timeout_s: float) -> None:
        """Apply what was put so far, and nothing more until release(): somebody else changes the table meanwhile.

        Raises KernelRefused where the kernel does not take it in time; then nothing is held.
        """
        reached, self._released = threading.Event(), threading.Event()
        released = self._released

        def wait() -> None:
            reached.set()
            released.wait(HOLD_MAX_S)

        self._queue.put(wait)
        if not reached.wait(timeout_s):
            self.release()
            raise KernelRefused("the kernel does not take what was learned before; see the service's log")

    def release(self) -> None:
        """Go on."""
        self._released.set()

    def backlog(self) -> int:
        """How many changes wait."""
        return self._queue.qsize()

    def stop(self, timeout_s: float) -> None:
        """Finish what was put, and end."""
        self.release()
        self._queue.put(self._stopping.set)
        self.join(timeout_s)

    def run(self) -> None:
        """Until stopped."""
        while not self._stopping.is_set():
            batch, task = self._next()
            if batch:
                self._apply(batch)
            if task is not None:
                task()

    def _next(self) -> tuple[list[Change], Callable[[], None] | None]:
        """What has come together up to the next task, at most BATCH changes; waits for the first, and then a moment."""
        item = self._queue.get()
        if not isinstance(item, tuple):
            return [], item
        batch = [item]
        if self._queue.empty():
            time.sleep(LINGER_S)
        for _ in range(min(self._queue.qsize(), BATCH - 1)):
            item = self._queue.get()
            if not isinstance(item, tuple):
                return batch, item
            batch.append(item)
        return batch, None

    def _apply(self, batch: list[Change]) -> None:
        while True:
            try:
                self._sets.apply(batch)
            except KernelRefused as error:
                if self.healthy:
                    self.healthy = False
                    _log.error(
                        "the kernel does not take what was learned; trying again", error=str(error), flows=len(batch)
                    )
                if self._stopping.wait(RETRY_S):
                    return
            else:
                if not self.healthy:
                    self.healthy = True
                    _log.info("the kernel takes what was learned again")
                    self._on_recovery()
                return
