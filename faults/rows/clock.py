"""The clock jumps, a year ahead and a year back. Only in the virtual machine: it is the machine's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

from faults import trial
from faults.bed import Bed, config
from faults.result import PASS, Case
from faults.trial import Trial

NAME = "clock"
TITLE = "Clock jumps"
PLACES = ("vm",)
PROMISE = """\
No packet, no watchdog and no flow that was decided depends on the wall clock. A jump ahead ends a learning phase that
was to last until then, and forgets pending flows that are now older than `retention_days`; times in logs and lists are
the clock's."""
ADVICE = "Set the clock before the service starts (`After=time-sync.target`), and look at `glacic learn` after a jump."
_YEAR_S = 365 * 86_400


def measure() -> Iterator[Case]:
    """Ahead, and back."""
    for words, seconds in (("a year ahead", _YEAR_S), ("a year back", -_YEAR_S)):
        yield trial.run(jump(words, seconds))


def jump(words: str, seconds: int) -> Trial:
    """It jumps, and jumps back."""
    return Trial(
        setting=words,
        configuration=config(),
        begin=lambda _: _set(seconds),
        end=lambda _: _set(-seconds),
        promised={"unknown": PASS},
        measure=_same_worker,
    )


def _set(seconds: int) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME) + seconds)


def _same_worker(at: Bed, _case: Case) -> tuple[dict[str, str], list[str]]:
    starts = at.glacic.call("status")["worker_starts"]
    return {}, [] if starts == 1 else ["the worker was ended by a jump of the clock"]
