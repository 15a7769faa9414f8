"""Another program holds the lock of the flow database, such as a copy that was begun and not ended."""

from __future__ import annotations

from collections.abc import Iterator

from faults import trial
from faults.bed import config
from faults.result import EITHER, PASS, Case
from faults.storage import Lock
from faults.trial import Trial

NAME = "locked"
TITLE = "Database locked by another program"
PLACES = ("here",)
PROMISE = """\
Learning goes on in memory and in the kernel; what was learned is written as soon as the lock is free, and
nothing is lost as long as the service lives. `glacic status` says degraded and why, the log says it once, and once that
it is over. With `durable = true` new flows wait for the commit, so they are dropped meanwhile."""
ADVICE = "`fuser` the database and end what holds it. For copies use `glacic backup`, which holds no lock."


def measure() -> Iterator[Case]:
    """Both settings of durable."""
    for durable in (False, True):
        yield trial.run(locked(durable=durable))


def locked(*, durable: bool) -> Trial:
    """For a few seconds."""
    lock = Lock()
    setting = f"durable = {'true' if durable else 'false'}"
    return Trial(
        setting=setting,
        configuration=config(setting),
        begin=lock.take,
        end=lock.give,
        lasts_s=5.0,
        promised={"unknown": EITHER if durable else PASS},
        known_s=0.0,
    )
