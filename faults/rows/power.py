"""Killed in the midst of learning: what is not on disk is lost, and `durable` says what that may be."""

from __future__ import annotations

from collections.abc import Iterator

from faults import trial
from faults.bed import EMULATED, config
from faults.result import STOP, Case
from faults.trial import GROUP_COMMIT_S, Trial

NAME = "power"
TITLE = "Ended in the midst of learning"
PLACES = ("here",)
PROMISE = """\
With `durable = false` a crash loses no learned flow that is older than the group commit interval (200 ms). With
`durable = true` it loses none that was let in: the verdict waits for the commit."""
ADVICE = """\
`durable = true` where a flow that was let in must never be forgotten; each batch of new flows then waits for the disk.
A power cut is a crash of the disk's cache as well: durable writes are synced (fsync), the others when SQLite copies its
write-ahead log into the database."""
_PER_S = 20.0 if EMULATED else 250.0


def measure() -> Iterator[Case]:
    """Both settings, each with flows being learned as fast as the probes go."""
    for durable in (False, True):
        yield trial.run(crash(durable=durable))


def crash(*, durable: bool) -> Trial:
    """Service and worker are killed, and started again."""
    setting = f"durable = {'true' if durable else 'false'}"
    return Trial(
        setting=setting,
        configuration=config(setting, 'fail_mode = "closed"'),
        begin=lambda at: at.glacic.kill(),
        end=lambda at: at.glacic.start(),
        lasts_s=0.2,
        promised={"unknown": STOP},
        known_s=0.0 if durable else GROUP_COMMIT_S,
        per_s=_PER_S,
        measure=trial.let_in("closed"),
    )
