"""The worker, or the control process, stands still (SIGSTOP): the queue has a listener that does not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from faults import trial
from faults.bed import SLOWER, Bed, config
from faults.result import EITHER, PASS, STOP, Case
from faults.rows.killed import is_replaced
from faults.trial import Trial
from glacic.ctlplane import child

NAME = "stopped"
TITLE = "Worker or control process stopped"
PLACES = ("here", "vm")
PROMISE = f"""\
A worker that is silent for {child.HUNG_S:g} s is ended by its parent and replaced. Until then new flows wait in the
queue (1,024 packets, then `queue_full`), and are dropped with it; from its end to the new one's start they get what
`fail_mode` says. A control process that stands still harms no packet: the worker goes on learning, only people wait."""
ADVICE = """\
Nothing for the worker. A control process that stays silent is ended by systemd's watchdog (`WatchdogSec=` in the unit),
and the worker with it."""
ENDED_S = child.HUNG_S + 10.0  # silence, the last look, another start; on a machine that others use too


def measure() -> Iterator[Case]:
    """The worker in both fail modes, then the control process."""
    for mode in ("open", "closed"):
        yield trial.run(worker(mode))
    yield trial.run(control())


def worker(mode: str) -> Trial:
    """Its parent ends it."""

    def judge(at: Bed, case: Case) -> tuple[dict[str, str], list[str]]:
        numbers, broken = trial.let_in(mode)(at, case)
        if case.recovered_s is None or case.recovered_s > ENDED_S * SLOWER:
            broken.append(f"a stopped worker was not replaced within {ENDED_S * SLOWER:g} s")
        return numbers, broken

    return Trial(
        setting=f'worker; fail_mode = "{mode}"',
        configuration=config(f'fail_mode = "{mode}"'),
        begin=lambda at: os.kill(at.glacic.worker(), signal.SIGSTOP),
        promised={"unknown": EITHER if mode == "open" else STOP},
        is_back=is_replaced,
        measure=judge,
    )


def control() -> Trial:
    """It stands still, and goes on."""
    return Trial(
        setting="control process",
        configuration=config(),
        begin=lambda at: os.kill(at.glacic.pid, signal.SIGSTOP),
        end=lambda at: os.kill(at.glacic.pid, signal.SIGCONT),
        lasts_s=child.HUNG_S + 2.0,  # longer than it lets a worker be silent: it must not end one for its own silence
        promised={"unknown": PASS},
        measure=_same_worker,
    )


def _same_worker(at: Bed, _case: Case) -> tuple[dict[str, str], list[str]]:
    starts = at.glacic.call("status")["worker_starts"]
    return {}, [] if starts == 1 else ["the worker was ended for its parent's silence"]
