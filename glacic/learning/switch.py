"""Road 2, beside the engine: whether a policy is learning right now.

The file says how it begins (`learning_mode`), `learn on` and `learn off` change it for all policies or for some, and
a time ends it: the one given with `--for`, else the file's `learn_for`, counted from when it was switched on. What
was switched holds until `learning_mode` in the file changes, also across restarts; a changed `learn_for` counts anew
from the same start.

A row per switched policy, and one under "" for all others. Refuses to read a clock or a database: rows and times
(nanoseconds since the epoch) come in, rows to be kept go out. Not locked: engine.py changes it under the lock that
orders all changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from glacic.errors import GlacicError
from glacic.learning.flow import Jump

ALL = ""  # the row that stands for every policy without a row of its own
BY_FILE = "file"  # who switched, where nobody did
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LearningRow:
    """Learning of one policy was switched.

    until_ns None: as the file's `learn_for` says. who: "file" or "user NAME".
    """

    policy: str
    on: bool
    since_ns: int
    until_ns: int | None
    who: str


@dataclass(frozen=True, slots=True)
class SavedLearning:
    """What outlives a restart: the `learning_mode` that the rows were made under, and the rows."""

    file_mode: bool
    rows: tuple[LearningRow, ...]


class Learning(NamedTuple):
    """Whether a policy learns at a given moment, until when (nanoseconds; None: until switched off), and by whom."""

    on: bool
    until_ns: int | None
    who: str


class LearningSwitch:
    """Per policy: learning on or off, and until when."""

    def __init__(
        self, rows: Iterable[LearningRow], *, file_mode: bool, learn_for_s: int | None, policies: Iterable[str]
    ) -> None:
        self._rows = {row.policy: row for row in rows}
        self._file_mode = file_mode
        self._learn_for_ns = None if learn_for_s is None else learn_for_s * NS_PER_S
        self._policies = tuple(dict.fromkeys(policies))

    @classmethod
    def restore(
        cls,
        saved: SavedLearning | None,
        *,
        file_mode: bool,
        learn_for_s: int | None,
        policies: Iterable[str],
        now_ns: int,
    ) -> LearningSwitch:
        """The switch as it was left, or as the file says if nothing was left or `learning_mode` has changed since.

        What was switched later than now was switched before the clock was set back: it counts from now.
        """
        rows = saved.rows if saved is not None and saved.file_mode == file_mode else ()
        rows = tuple(_moved(row, min(now_ns - row.since_ns, 0)) for row in rows)
        if not any(row.policy == ALL for row in rows):
            rows = (LearningRow(ALL, file_mode, now_ns, None, BY_FILE), *rows)
        return cls(rows, file_mode=file_mode, learn_for_s=learn_for_s, policies=policies)

    def is_on(self, policy: str, now_ns: int) -> bool:
        """Whether a first packet of this policy is learned at this moment."""
        row = self._rows.get(policy) or self._rows[ALL]
        if not row.on:
            return False
        until_ns = self._until(row)
        return until_ns is None or now_ns < until_ns

    def status(self, now_ns: int) -> dict[str, Learning]:
        """Every policy's name -> whether it learns, until when, and who said so."""
        status = {}
        for policy in self._policies:
            row = self._rows.get(policy) or self._rows[ALL]
            on = self.is_on(policy, now_ns)
            status[policy] = Learning(on, self._until(row) if on else None, row.who)
        return status

    def on(self, policies: Iterable[str], until_ns: int | None, who: str, now_ns: int) -> None:
        """Switch learning on; no policies means all of them. until_ns None: for as long as the file's `learn_for` says.

        Raises GlacicError, and changes nothing, if a name is not that of a learning policy.
        """
        self._set(policies, True, until_ns, who, now_ns)

    def off(self, policies: Iterable[str], who: str, now_ns: int) -> None:
        """Switch learning off; no policies means all of them. Raises as `on` does."""
        self._set(policies, False, None, who, now_ns)

    def move(self, jump: Jump) -> None:
        """The clock was set: what was switched, and until when, goes on from the new time."""
        self._rows = {
            name: _moved(row, jump.by_ns) if jump.moves(row.since_ns) else row for name, row in self._rows.items()
        }

    def saved(self) -> SavedLearning:
        """What to keep for `restore`."""
        return SavedLearning(self._file_mode, tuple(self._rows.values()))

    def _set(self, policies: Iterable[str], on: bool, until_ns: int | None, who: str, now_ns: int) -> None:
        names = tuple(policies)
        for name in names:
            if name not in self._policies:
                known = ", ".join(self._policies) or "none"
                raise GlacicError(f"no learning policy is named {name!r}; there are: {known}")
        if names:
            self._rows |= {name: LearningRow(name, on, now_ns, until_ns, who) for name in names}
        else:
            self._rows = {ALL: LearningRow(ALL, on, now_ns, until_ns, who)}

    def _until(self, row: LearningRow) -> int | None:
        if row.until_ns is not None or self._learn_for_ns is None:
            return row.until_ns
        return row.since_ns + self._learn_for_ns


def _moved(row: LearningRow, by_ns: int) -> LearningRow:
    until_ns = None if row.until_ns is None else row.until_ns + by_ns
    return replace(row, since_ns=row.since_ns + by_ns, until_ns=until_ns) if by_ns else row
