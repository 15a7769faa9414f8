"""The file system of the flow database is full, and has room again."""

from __future__ import annotations

from collections.abc import Iterator

from faults import storage, trial
from faults.bed import config
from faults.result import EITHER, PASS, Case
from faults.trial import Trial

NAME = "disk_full"
TITLE = "Disk full"
PLACES = ("here",)
PROMISE = """\
As with a locked database: learning goes on in memory and in the kernel, `glacic status` says degraded and why, the log
says it once; when there is room again everything is written, and nothing is lost as long as the service lives. With
`durable = true` new flows are dropped meanwhile."""
ADVICE = "Make room; the service need not be restarted."


def measure() -> Iterator[Case]:
    """Both settings of durable."""
    for durable in (False, True):
        yield trial.run(full(durable=durable))


def full(*, durable: bool) -> Trial:
    """For a few seconds."""
    setting = f"durable = {'true' if durable else 'false'}"
    return Trial(
        setting=f"full; {setting}",
        configuration=config(setting),
        begin=storage.fill,
        end=storage.empty,
        lasts_s=5.0,
        promised={"unknown": EITHER if durable else PASS},
        known_s=0.0,
        around=storage.own_disk,
    )
