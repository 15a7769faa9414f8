"""Out of file descriptors: the control process, then the worker, may open no more files."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from faults import trial
from faults.bed import Bed, config
from faults.result import PASS, STOP, Case
from faults.trial import Trial

NAME = "descriptors"
TITLE = "Out of file descriptors"
PLACES = ("here", "vm")
PROMISE = """\
The worker opens nothing for a packet, so nothing changes for traffic. The control process takes no new clients until
descriptors are free again, and says so once. A worker that dies meanwhile cannot be replaced, so new flows get what
`fail_mode` says; it is tried again and again, and works as soon as there is room."""
ADVICE = "Look who holds them (`ls /proc/PID/fd`); the unit sets `LimitNOFILE=`."


def measure() -> Iterator[Case]:
    """The worker's, the control process's, and the latter's with a worker to replace."""
    yield trial.run(_limited("worker", lambda at: at.glacic.worker(), PASS))
    yield trial.run(_limited("control process", lambda at: at.glacic.pid, PASS))
    yield trial.run(killed_meanwhile())


def _limited(who: str, pid: Callable[[Bed], int], promised: str) -> Trial:
    return Trial(
        setting=who,
        configuration=config(),
        begin=lambda at: _limit(pid(at)),
        end=lambda at: _unlimit(at.glacic.pid, *_children(at.glacic.pid)),
        promised={"unknown": promised},
    )


def killed_meanwhile() -> Trial:
    """A worker that dies while no other can be started."""

    def begin(at: Bed) -> None:
        worker = at.glacic.worker()
        _limit(at.glacic.pid)
        os.kill(worker, signal.SIGKILL)

    return Trial(
        setting='control process, its worker killed; fail_mode = "closed"',
        configuration=config('fail_mode = "closed"'),
        begin=begin,
        end=lambda at: _unlimit(at.glacic.pid),
        lasts_s=4.0,
        promised={"unknown": STOP},
        tolerated={"unknown": 3},
        is_back=lambda at: trial.is_running(at) and at.glacic.call("status")["worker_starts"] >= 2,
        measure=trial.let_in("closed"),
    )


def _limit(pid: int) -> None:
    """As many as it has."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc", str(pid), "fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))


def _unlimit(*pids: int) -> None:
    for pid in pids:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path("/proc", str(pid), "task", str(pid), "children").read_text().split()]
