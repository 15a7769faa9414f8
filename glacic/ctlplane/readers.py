"""The readers of one worker: which queues and log groups are open, each with a thread of its own.

    open     what the new settings need and is not open yet; it answers at once
    keep     close what the settings in force do not need; a queue that one of the two rulesets reads and the other
             has as its sink changes sides in open() or here
    names    the threads that have ended although nobody closed them: the worker cannot go on without them

Refuses to know what a reader does with a packet.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from glacic.ctlplane.nflog import LogReader
from glacic.ctlplane.nfqueue import QueueReader, QueueTruth, SinkQueue
from glacic.ctlplane.reading import Holder, Latency
from glacic.ctlplane.settings import Settings
from glacic.ctlplane.troubles import Troubles
from glacic.errors import KernelRefused

STOP_S = 10.0
BOUNDARY_S = 1.0  # a packet is answered in microseconds; a reader that takes longer is ended by the parent


@dataclass(frozen=True, slots=True)
class _Running:
    reader: QueueReader | LogReader
    thread: threading.Thread


class Readers:
    """Queues and log groups of one worker. Only the thread that serves the parent opens and closes."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._queues: dict[int, _Running] = {}
        self._groups: dict[int, _Running] = {}
        self._sinks: dict[int, SinkQueue] = {}
        self._truth: QueueTruth | None = None
        self.troubles = Troubles()
        self._ended: list[str] = []

    def open(self, settings: Settings) -> None:
        """Open what is missing for these settings. Raises KernelRefused; what was opened before that stays open."""
        for number in settings.queues:
            if number not in self._queues:
                self._close_sink(number)  # the old ruleset's: what it holds back is decided until it is gone
                reader = QueueReader(
                    number, self._holder, fail_open=settings.queue_full_open, on_trouble=self.troubles.hear
                )
                self._queues[number] = self._start(f"queue {number}", reader)
        for number in settings.groups:
            if number not in self._groups:
                self._groups[number] = self._start(
                    f"log group {number}", LogReader(number, self._holder, on_trouble=self.troubles.hear)
                )
        if settings.sink not in self._queues:  # keep() opens it there, once the old ruleset is gone
            self._open_sink(settings.sink)
        if settings.queues and self._truth is None:
            self._truth = QueueTruth()

    def keep(self, settings: Settings) -> None:
        """Close what these settings do not need, and set the rest as they say."""
        for number in set(self._queues) - set(settings.queues):
            self._stop(self._queues.pop(number))
        for number in set(self._groups) - set(settings.groups):
            self._stop(self._groups.pop(number))
        for number in set(self._sinks) - {settings.sink}:
            self._close_sink(number)
        self._open_sink(settings.sink)
        for running in self._queues.values():
            if isinstance(running.reader, QueueReader):
                running.reader.set_fail_open(settings.queue_full_open)

    def close(self) -> None:
        """Close everything: from now on nobody listens."""
        for running in (*self._queues.values(), *self._groups.values()):
            running.reader.stop()
        for running in (*self._queues.values(), *self._groups.values()):
            running.thread.join(STOP_S)
        for sink in self._sinks.values():
            sink.close()
        if self._truth is not None:
            self._truth.close()
        self._queues, self._groups, self._sinks, self._truth = {}, {}, {}, None

    def pass_boundary(self) -> None:
        """Wait until no packet is being answered that was being answered when this was called; not for long."""
        for running in self._queues.values():
            if isinstance(running.reader, QueueReader):
                running.reader.pass_boundary(BOUNDARY_S)

    def names_of_ended(self) -> list[str]:
        """Threads that ended by themselves, with what ended them."""
        return list(self._ended)

    def stats(self) -> dict[str, Any]:
        """`queues`, `log_groups` and `latency_us` of the worker's figures."""
        truth = self._truth.read() if self._truth is not None else {}
        queues = []
        for number, running in sorted(self._queues.items()):
            depth, kernel_dropped, user_dropped, _ = truth.get(number, (0, 0, 0, 0))
            figures = {"depth": depth, "kernel_dropped": kernel_dropped, "user_dropped": user_dropped}
            queues.append({**running.reader.stats(), **figures})
        groups = [running.reader.stats() for _, running in sorted(self._groups.items())]
        return {
            "queues": queues,
            "log_groups": groups,
            "latency_us": Latency.summary(
                running.reader.latency for running in (*self._queues.values(), *self._groups.values())
            ),
        }

    def _start(self, name: str, reader: QueueReader | LogReader) -> _Running:
        reader.open()

        def run() -> None:
            try:
                reader.run()
            except KernelRefused as error:
                self._ended.append(f"{name}: {error}")

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return _Running(reader, thread)

    def _open_sink(self, number: int | None) -> None:
        if number is not None and number not in self._sinks:
            self._sinks[number] = SinkQueue(number).open()

    def _close_sink(self, number: int) -> None:
        sink = self._sinks.pop(number, None)
        if sink is not None:
            sink.close()

    def _stop(self, running: _Running) -> None:
        running.reader.stop()
        running.thread.join(STOP_S)
