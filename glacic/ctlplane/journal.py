"""One log line for each new flow and each changed verdict, written by a thread of its own.

A full pipe or a slow disk behind stderr must never hold a packet: above MAX_WAITING lines are counted instead of kept.
And nobody who makes up a million flows writes a million lines: what packets and clocks cause has a pace (PACES), and
the rest is counted. What people decide is always said. While thousands of flows are learned each second, the packet
threads wait for the interpreter while this one runs. So it wakes up seldom, writes many lines at once, and makes lines
of JSON itself, which takes a sixth of what the logger does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from glacic.config.source import printable
from glacic.ctlplane import logs
from glacic.ctlplane.pace import Bucket
from glacic.learning.flow import FlowState, Transition
from glacic.learning.text import protocol_name, source_text

_log = logs.logger("flows")

MAX_WAITING = 10_000
AT_ONCE = 500  # lines in one write: 1 ms of making them
LINGER_S = 0.05  # how long a line waits for others
TELL_S = 10.0  # how often it is said how many lines were left out

# Lines a second, and at once, by who caused them. A person reads some; a flood of spoofed sources makes 20,000.
PACES = {"traffic": (20.0, 500.0), "expiry": (20.0, 500.0), "tofu": (200.0, 5_000.0)}


class Journal(threading.Thread):
    """Takes transitions from any thread, logs them in order."""

    def __init__(self) -> None:
        super().__init__(name="journal", daemon=True)
        self._queue: queue.SimpleQueue[Transition | None] = queue.SimpleQueue()
        self._paces = {who: Bucket(*pace) for who, pace in PACES.items()}
        self._left_out = 0  # lines in all; put()'s own
        self._told = 0  # how many of them have been told of; this thread's own
        self._tell_at = 0.0

    def put(self, transition: Transition) -> None:
        """Log it soon; returns at once. Ignored flows are never reported. One caller at a time (news.py sees to it)."""
        if FlowState.IGNORED in (transition.before, transition.after) and transition.who == "traffic":
            return
        pace = self._paces.get(transition.who)
        if pace is None or (self._queue.qsize() < MAX_WAITING and pace.take()):
            self._queue.put(transition)
        else:
            self._left_out += 1

    def stop(self, timeout_s: float) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self.join(timeout_s)

    def run(self) -> None:
        """Until stopped."""
        stopped = False
        while not stopped:
            try:
                waiting = [self._queue.get(timeout=TELL_S)]
            except queue.Empty:
                self._tell()
                continue
            if waiting[0] is not None and self._queue.qsize() < AT_ONCE:
                time.sleep(LINGER_S)
            waiting += [self._queue.get() for _ in range(min(self._queue.qsize(), AT_ONCE))]
            transitions = [transition for transition in waiting if transition is not None]
            stopped = len(transitions) < len(waiting)
            _write(transitions)
            if stopped or time.monotonic() >= self._tell_at:
                self._tell()

    def _tell(self) -> None:
        """How many lines are missing since the last time."""
        unsaid = self._left_out - self._told
        if unsaid:
            self._told += unsaid
            self._tell_at = time.monotonic() + TELL_S
            _log.warning("flows changed faster than they are logged", lines_left_out=unsaid)


def _write(transitions: Sequence[Transition]) -> None:
    if logs.takes_json():
        stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        logs.write_lines([json_line(transition, stamp) for transition in transitions])
        return
    for transition in transitions:
        _log.info(_event(transition), **fields(transition))


def _event(transition: Transition) -> str:
    return f"flow {transition.after or 'forgotten'}"


def fields(transition: Transition) -> dict[str, Any]:
    """What a line says of a change, besides its name."""
    key = transition.key
    return {
        "policy": key.policy,
        "source": source_text(key.source),
        "protocol": protocol_name(key.protocol),
        "port": key.port,
        "destination": source_text(key.destination) if key.destination else None,
        "before": transition.before.value if transition.before else None,
        "who": transition.who,
        "why": transition.why,
    }


def json_line(transition: Transition, timestamp: str) -> str:
    """The same as the line that the logger would write, to the letter."""
    policy, source, protocol, port, destination = transition.key
    return (
        f'{{"part": "flows", "policy": {quoted(printable(policy))}, "source": "{source_text(source)}", '
        f'"protocol": "{protocol_name(protocol)}", "port": {port}, '
        f'"destination": {quoted(source_text(destination)) if destination else "null"}, '
        f'"before": {quoted(transition.before) if transition.before else "null"}, '
        f'"who": {quoted(printable(transition.who))}, "why": {quoted(printable(transition.why))}, '
        f'"event": "{_event(transition)}", "level": "info", "timestamp": "{timestamp}"}}'
    )
