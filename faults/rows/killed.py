"""The worker, or the whole service, is killed (SIGKILL): nobody listens to the queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from faults import trial
from faults.bed import Bed, config
from faults.result import PASS, STOP, Case
from faults.trial import Trial

NAME = "killed"
TITLE = "Worker or service killed"
PLACES = ("here", "vm")
PROMISE = """\
New flows get what `fail_mode` says while nobody listens; packets that wait in the queue at that moment are dropped.
What was learned, what was denied and what is established is decided by the kernel and notices nothing. A killed worker
is replaced at once, a killed service when it is started again. Learned flows younger than the group commit interval
(200 ms) may have to be learned again."""
ADVICE = """\
Nothing. If it happens again and again, the log has the worker's last words and `glacic status` the reason. The unit
restarts the service by itself (`Restart=on-failure`)."""
HELD = 3  # packets of the stream that may be in the queue, or in the worker's hands, when it is killed
MODES = {"open": PASS, "closed": STOP}


def measure() -> Iterator[Case]:
    """Worker and service, in both fail modes."""
    for mode in MODES:
        yield trial.run(worker(mode))
        yield trial.run(service(mode))


def worker(mode: str) -> Trial:
    """The control process starts another one."""
    return Trial(
        setting=f'worker; fail_mode = "{mode}"',
        configuration=config(f'fail_mode = "{mode}"'),
        begin=kill_worker,
        promised={"unknown": MODES[mode]},
        tolerated={"unknown": HELD, "quiet": 1},
        is_back=is_replaced,
        measure=trial.let_in(mode),
    )


def service(mode: str) -> Trial:
    """Killed with its worker, and started again after a while."""
    return Trial(
        setting=f'service; fail_mode = "{mode}"',
        configuration=config(f'fail_mode = "{mode}"'),
        begin=lambda at: at.glacic.kill(),
        end=lambda at: at.glacic.start(),
        promised={"unknown": MODES[mode]},
        tolerated={"unknown": HELD, "quiet": 1},
        measure=trial.let_in(mode),
    )


def is_replaced(at: Bed) -> bool:
    """Whether another worker answers."""
    return trial.is_running(at) and at.glacic.call("status")["worker_starts"] == 2


def kill_worker(at: Bed) -> None:
    """SIGKILL, as the kernel's out-of-memory killer sends it."""
    os.kill(at.glacic.worker(), signal.SIGKILL)
