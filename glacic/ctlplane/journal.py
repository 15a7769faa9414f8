"""One log line for each new flow and each changed verdict, written by a thread of its own.

A full pipe or a slow disk behind stderr must never hold a packet: above MAX_WAITING lines are counted instead of kept.
"""

from __future__ import annotations

import queue
import threading

from glacic.ctlplane import logs
from glacic.learning.flow import FlowState, Transition
from glacic.learning.text import protocol_name, source_text

_log = logs.logger("flows")

MAX_WAITING = 10_000


class Journal(threading.Thread):
    """Takes transitions from any thread, logs them in order."""

    def __init__(self) -> None:
        super().__init__(name="journal", daemon=True)
        self._queue: queue.SimpleQueue[Transition | None] = queue.SimpleQueue()
        self._unsaid = 0

    def put(self, transition: Transition) -> None:
        """Log it soon; returns at once. Ignored flows are never reported."""
        if FlowState.IGNORED in (transition.before, transition.after) and transition.who == "traffic":
            return
        if self._queue.qsize() < MAX_WAITING:
            self._queue.put(transition)
        else:
            self._unsaid += 1

    def stop(self, timeout_s: float) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self.join(timeout_s)

    def run(self) -> None:
        """Until stopped."""
        while (transition := self._queue.get()) is not None:
            _log.info(
                f"flow {transition.after.value if transition.after else 'forgotten'}",
                policy=transition.key.policy,
                source=source_text(transition.key.source),
                protocol=protocol_name(transition.key.protocol),
                port=transition.key.port,
                destination=source_text(transition.key.destination) if transition.key.destination else None,
                before=transition.before.value if transition.before else None,
                who=transition.who,
                why=transition.why,
            )
            if self._unsaid:
                unsaid, self._unsaid = self._unsaid, 0
                _log.warning("flows changed faster than they could be logged", lines_left_out=unsaid)
