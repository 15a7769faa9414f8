"""The flow database is damaged, of a newer version, or read-only: while the service runs, or before it starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator

from faults import storage, trial
from faults.bed import Around, Bed, config
from faults.result import EITHER, PASS, STOP, Case
from faults.trial import Trial
from glacic.errors import LabError

NAME = "damaged"
TITLE = "Database damaged, newer or read-only"
PLACES = ("here",)
PROMISE = """\
While the service does not run, what was learned stays in force in the kernel and new flows get what `fail_mode` says.
A database that is damaged when the service starts is set aside, said loudly, and made anew: from what can be read of
it, and from the kernel's own sets. One of a newer version, or one that cannot be written, is never touched: the service
does not start, and says what to do. One that is damaged while the service runs costs no known flow its way through."""
ADVICE = "Look at what was set aside, or `glacic restore` a backup. For a newer version, install that version again."
NEWER = 9_999


def measure() -> Iterator[Case]:
    """Before a start, then while it runs."""
    yield trial.run(before_a_start("pages overwritten", _scribbled(keep_first=True)))
    yield trial.run(before_a_start("header overwritten", _scribbled(keep_first=False)))
    yield trial.run(newer())
    yield trial.run(read_only())
    yield trial.run(while_it_runs())


def newer() -> Trial:
    """A database of a newer Glacic."""
    before: list[int] = []

    def raise_version(at: Bed) -> None:
        before.append(_set_version(at, NEWER))

    return before_a_start("of a newer version", raise_version, heal=lambda at: _set_version(at, before[0]))


def read_only() -> Trial:
    """The file system of the state directory."""
    return before_a_start(
        "read-only file system",
        lambda at: storage.remount(at, "ro"),
        heal=lambda at: storage.remount(at, "rw"),
        around=storage.own_disk,
    )


def while_it_runs() -> Trial:
    """Pages of the file change under its feet; then the worker is replaced, as after a crash."""
    return Trial(
        setting="pages overwritten while it runs; then the worker is killed",
        configuration=config(),
        begin=_scribbled(keep_first=True),
        end=lambda at: os.kill(at.glacic.worker(), signal.SIGKILL),
        lasts_s=3.0,
        promised={"unknown": EITHER},
        is_back=lambda at: trial.is_running(at) and at.glacic.call("status")["worker_starts"] >= 2,
        known_s=None,
    )


def before_a_start(
    setting: str,
    damage: Callable[[Bed], object],
    *,
    heal: Callable[[Bed], object] | None = None,
    around: Around = lambda _: contextlib.nullcontext(),
) -> Trial:
    """It is stopped, something happens, it is started; where it should refuse to, it is healed and started again."""
    said: list[str] = []

    def begin(at: Bed) -> None:
        at.glacic.stop()
        damage(at)
        if heal is not None:
            said.append(_refused(at))

    def end(at: Bed) -> None:
        if heal is not None:
            heal(at)
        at.glacic.start()

    def measure(at: Bed, _case: Case) -> tuple[dict[str, str], list[str]]:
        names = sorted(path.name for path in at.glacic.state_dir.iterdir())
        numbers = {"state directory": ", ".join(name for name in names if name.startswith("flows"))}
        if heal is None:
            return numbers, []
        return {"the start said": said[0]}, [] if said[0] else ["it started nevertheless"]

    return Trial(
        setting=f'{setting} before a start; fail_mode = "closed"',
        configuration=config('fail_mode = "closed"'),
        begin=begin,
        end=end,
        promised={"unknown": STOP, "learned": PASS},
        known_s=0.0,
        measure=measure,
        around=around,
    )


def _refused(at: Bed) -> str:
    """A start that should not come about: what it says. "" where it comes about."""
    try:
        at.glacic.start()
    except LabError:
        lines = [line for line in at.glacic.log.read_text().splitlines() if line.strip()]
        return _event(lines[-1])
    at.glacic.kill()
    return ""


def _event(line: str) -> str:
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return line[:300]


def _scribbled(*, keep_first: bool) -> Callable[[Bed], object]:
    return lambda at: storage.scribble(at.glacic.database, keep_first=keep_first)


def _set_version(at: Bed, version: int) -> int:
    """Returns what it was."""
    with contextlib.closing(sqlite3.connect(at.glacic.database)) as database:
        before = int(database.execute("PRAGMA user_version").fetchone()[0])
        database.execute(f"PRAGMA user_version = {version}")
        return before
