"""Who runs where, and what it costs: cores, and CPU time out of /proc.

A packet's way through veth pairs, bridges, rules and into a queue is work of whoever sent it: the kernel does it on the
sender's core, at the end of the sender's system call, and much of it in the sender's name. So the sender has a core of
its own, and what is read here of the process under test is its own work: taking packets out of the queue, deciding,
giving verdicts, and sending on what it accepted, which the kernel does within the verdict's system call.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glacic.errors import LabError

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """Two different cores."""

    sender: int
    receiver: int


@functools.cache
def cores() -> Cores:
    """The cores to use: the last two that this process could run on when it was first asked; interrupts like the first.

    Raises LabError where there is only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise LabError("the bench needs two cores: one that sends and one that is measured")
    return Cores(sender=allowed[-2], receiver=allowed[-1])


@contextlib.contextmanager
def here(core: int) -> Iterator[None]:
    """This thread stays on a core, and what it starts, for as long as the block lasts."""
    cores()  # what there was to choose from
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, *allowed: int) -> None:
    """Keep a process, with all its threads, on these cores. 0: this process."""
    tasks = Path("/proc", str(pid or os.getpid()), "task")
    for task in tasks.iterdir():
        os.sched_setaffinity(int(task.name), allowed)


def cpu_time_s(pid: int, *, children: bool = False) -> float:
    """User and system time of a process and its threads so far, in seconds; those that have ended count too.

    children: with those of its children that it has waited for. By the scheduler's clock, but in steps of 1/100 s.
    """
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    ticks = [int(word) for word in fields[11:15]]  # utime, stime, cutime, cstime: proc(5), columns 14 to 17
    return sum(ticks if children else ticks[:2]) * _TICK_S


def precise_cpu_s(pid: int) -> float:
    """The same for a process that lives, by the scheduler's own clock, in nanosecond steps; threads that have ended are
    left out."""
    tasks = Path("/proc", str(pid), "task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def idle_part(seconds: float = 0.2) -> float:
    """How much of all cores' time nobody uses now, 0 to 1: below 0.9 others are at work, and figures are worth less."""
    before, began = _idle_s(), time.monotonic()
    time.sleep(seconds)
    return min(1.0, (_idle_s() - before) / (time.monotonic() - began) / (os.cpu_count() or 1))


def _idle_s() -> float:
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(words[4]) + int(words[5])) * _TICK_S  # idle and iowait: proc(5)
