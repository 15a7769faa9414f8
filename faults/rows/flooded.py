"""More new flows than can be answered: one host floods the queue, another one is quiet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import processes
from faults import trial
from faults.bed import Bed, config
from faults.result import EITHER, Case
from faults.trial import Trial
from glacic.lab.home import CAMERA, CAMERA_MAC, ROUTER_LAN_MAC, SERVER
from glacic.lab.net import Host

NAME = "flooded"
TITLE = "Queue flooded"
PLACES = ("here", "vm")
PROMISE = """\
Learned and established traffic never meets the queue, and notices nothing. New flows share the queue with the flood:
what finds it full is dropped (`queue_full = "closed"`), or let in, counted and not learned (`"open"`). Nothing else is
harmed: the service answers people, and is back as soon as the flood ends. (What is not answered in the table
includes what the measurement's own server had no time for.)"""
ADVICE = """\
`rate_limit` in `rule_learning` keeps one flow key, or one interface, from filling the queue; `glacic stats` shows
`kernel_dropped`. Leave `queue_full` closed where somebody may want to get in: whoever can fill the queue opens it."""


def measure() -> Iterator[Case]:
    """Both settings."""
    for full in ("closed", "open"):
        yield trial.run(flood(full))


def flood(full: str) -> Trial:
    """The camera sends as fast as it can, a new flow with each packet."""
    sender = Sender()
    return Trial(
        setting=f'queue_full = "{full}"',
        configuration=config(f'queue_full = "{full}"', "learn_max = 5000000"),
        begin=sender.begin,
        end=sender.end,
        lasts_s=4.0,
        promised={"unknown": EITHER},
        measure=sender.measure,
        other_flows=1_000_000,
        not_after=("quiet",),  # the flood comes from its host, with its ports
    )


@dataclass(slots=True)
class Sender:
    """`traffic` on a host of the bed."""

    options: tuple[str | float, ...] = ("--ports", "2000-61999", "--source-ports", "2000-61999")
    first_mac: str = CAMERA_MAC
    sent: int = 0
    seconds: float = 0.0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _running: processes.Running | None = None

    def begin(self, at: Bed) -> None:
        """Begin to send."""
        host: Host = at.home.camera
        road = ("eth0", ROUTER_LAN_MAC, "--source", CAMERA, "--destination", SERVER, "--first-mac", self.first_mac)
        command = processes.program("traffic", *road, *self.options)
        self._running = self._stack.enter_context(processes.running(host, command, ready=False))

    def end(self, _: Bed) -> None:
        """Enough."""
        assert self._running is not None  # noqa: S101 -- begin() comes first
        self._ended(self._running.end())

    def wait(self, timeout_s: float) -> None:
        """Until it has sent everything."""
        assert self._running is not None  # noqa: S101 -- begin() comes first
        self._ended(self._running.wait(timeout_s))

    def _ended(self, said: dict[str, Any]) -> None:
        self.sent, self.seconds = int(said["sent"]), float(said["seconds"])
        self._stack.close()

    def measure(self, at: Bed, _case: Case | None) -> tuple[dict[str, str], list[str]]:
        """What became of the flood."""
        time.sleep(0.2)
        queue = at.glacic.call("stats")["queues"][0]
        numbers = {
            "flood": f"{self.sent:,} packets, {self.sent / self.seconds:,.0f} a second",
            "answered": f"{queue['processed']:,}",
            "found the queue full": f"{queue['kernel_dropped'] + queue['user_dropped']:,}",
            "let in by the fail mode": f"{queue['fail_open']:,}",
        }
        return numbers, []
