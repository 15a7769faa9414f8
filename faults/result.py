"""What a fault came to: packets by kind, log lines, what `status` said, the time to recover, and broken promises.

Refuses to measure, and to print.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from faults.probes import Packet

PASS, STOP, EITHER = "pass", "stop", "either"  # what was promised to a kind of packets


@dataclass(frozen=True, slots=True)
class Count:
    """Packets of one kind while the fault lasted. promised: PASS, STOP or EITHER (such as: held, then let go)."""

    promised: str
    sent: int
    answered: int

    @classmethod
    def of(cls, promised: str, packets: Iterable[Packet]) -> Count:
        """Counted."""
        listed = list(packets)
        return cls(promised, len(listed), sum(packet.answered is not None for packet in listed))

    @property
    def dropped(self) -> int:
        """Not answered, as promised."""
        return 0 if self.promised == PASS else self.sent - self.answered

    @property
    def lost(self) -> int:
        """Not answered, although they should have passed."""
        return self.sent - self.answered if self.promised == PASS else 0

    @property
    def wrong(self) -> int:
        """Answered, although they should have been stopped."""
        return self.answered if self.promised == STOP else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault under one setting, on one kernel.

    setting: as in the file, `fail_mode = "open"`. kernel: its release, and how it queues. traffic: kind -> Count.
    said: log lines of level warning and above that came meanwhile, each with its number. status: what `glacic status`
    said meanwhile, "state: reason" each. recovered_s: from the fault's end (where it ends by itself: from its
    beginning) to the first of the new flows that are answered again, None where there is nothing to recover from.
    lost_flows: of `learned_before`, those that are not known any more afterwards. numbers: what else was measured.
    broken: promises that were not kept, in words.
    """

    setting: str
    kernel: str
    traffic: dict[str, Count] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)
    status: tuple[str, ...] = ()
    recovered_s: float | None = None
    lost_flows: int | None = None
    learned_before: int = 0
    numbers: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """All cases of one fault, and when they were run."""

    name: str
    day: str
    version: str
    seconds: float
    cases: tuple[Case, ...]


def save(measured: Measured, folder: Path) -> None:
    """As NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{measured.name}.json").write_text(json.dumps(asdict(measured), indent=1) + "\n")


def load(path: Path) -> Measured:
    """What `save` has written."""
    data: dict[str, Any] = json.loads(path.read_text())
    return Measured(**{**data, "cases": tuple(_case(case) for case in data["cases"])})


def _case(data: dict[str, Any]) -> Case:
    counts = {kind: Count(**count) for kind, count in data["traffic"].items()}
    return Case(**{**data, "traffic": counts, "status": tuple(data["status"]), "broken": tuple(data["broken"])})


def together(parts: Sequence[Measured]) -> Measured:
    """What was measured of one fault in several places."""
    cases = tuple(case for part in parts for case in part.cases)
    return replace(parts[-1], seconds=round(sum(part.seconds for part in parts), 1), cases=cases)
