"""Road 2, what both readers share: the engine they ask, which a reload replaces, and what they measure.

A reader takes `holder.rules` once per packet, so a packet is decided by the old configuration or by the new one, never
by half of each. Counters are written by one reader's thread and read by any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from glacic.config.model import Action, Granularity, Identity
from glacic.firewall import claims
from glacic.learning.engine import Engine
from glacic.learning.flow import Why
from glacic.native import road

COPY_RANGE = 128  # bytes of each packet: IPv6 with some extension headers and TCP; lengths come from the headers
RECEIVE_BUFFER = 4 << 20  # bytes; holds some 3,000 headers, each in a buffer of its own
STOP_S = 0.2  # how long a reader that has nothing to read takes to notice that it is to stop

_SUB_BITS = 3  # 8 steps for each power of two, so a step is at most an eighth
_SUB = 1 << _SUB_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a packet is answered by. highest_number: of all policies, how wide the mark's field is (claims.field).

    engine_error_open: what cannot be decided is let in and counted. packet_window: packets of a connection to look at.
    """

    engine: Engine
    highest_number: int
    engine_error_open: bool = False
    packet_window: int = 0


class News(Protocol):
    """What the engine's decisions have changed, on its way to the kernel, the disk and the log."""

    @property
    def waits(self) -> bool:
        """Whether there is any that its taker may not know of."""

    def commit(self) -> None:
        """Wait until all of it is on disk. Raises StoreError."""

    def tell(self) -> None:
        """Wake who takes it, once the packet is answered: a thread that is woken delays the one that wakes it."""


class NoNews:
    """Where nobody takes any."""

    waits = False

    def commit(self) -> None:
        """Nothing."""

    def tell(self) -> None:
        """Nothing."""


class Holder:
    """The one place where a reload puts new rules; readers see them with the next packet, compiled or not."""

    def __init__(self, rules: Rules, news: News | None = None) -> None:
        self.news = news or NoNews()
        self.compiled = None if road is None else road.Rules()  # what the compiled readers look into
        self.rules = rules

    @property
    def rules(self) -> Rules:
        """What packets are answered by now."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._rules = rules
        if self.compiled is None:
            return
        if rules.engine.cache.table is None:
            self.compiled.clear()
            return
        policies = tuple(
            (
                policy.number,
                policy.name,
                policy.identity is Identity.MAC,
                policy.granularity is Granularity.DESTINATION,
                policy.action is Action.REJECT,
            )
            for policy in rules.engine.policies.values()
        )
        self.compiled.set(
            rules.engine.cache.table,
            policies,
            highest_number=rules.highest_number,
            window=rules.packet_window > 0,
            field=claims.field(rules.highest_number),
            asked=claims.ASKED,
            reject=claims.REJECT,
            number_low=claims.NUMBER_LOW,
            low_numbers=claims.LOW_NUMBERS,
        )

    @property
    def engine(self) -> Engine:
        """The engine that answers now."""
        return self.rules.engine


class Latency:
    """A histogram of durations, in steps of an eighth of their size. One thread adds, any may read."""

    __slots__ = ("_largest", "_steps")

    def __init__(self, steps: Mapping[int, int] | None = None, largest: int = 0) -> None:
        """steps, largest: what a compiled reader has added up."""
        self._steps: Counter[int] = Counter(steps)
        self._largest = largest

    def add(self, duration_ns: int) -> None:
        """One more, in nanoseconds."""
        shift = duration_ns.bit_length() - _SUB_BITS - 1
        self._steps[shift * _SUB + (duration_ns >> shift) if shift > 0 else duration_ns] += 1
        if duration_ns > self._largest:
            self._largest = duration_ns

    @staticmethod
    def summary(parts: Iterable[Latency]) -> dict[str, float]:
        """{"p50", "p99", "max"} of all parts together, in microseconds; zeros where there was nothing."""
        parts = list(parts)
        steps: Counter[int] = Counter()
        for part in parts:
            steps.update(part._steps.copy())
        largest = max((part._largest for part in parts), default=0)
        return {
            "p50": _us(min(_percentile(steps, 0.50), largest)),
            "p99": _us(min(_percentile(steps, 0.99), largest)),
            "max": _us(largest),
        }


def _us(duration_ns: int) -> float:
    return round(duration_ns / 1000, 1)


def _percentile(steps: Counter[int], part: float) -> int:
    """The upper end, in nanoseconds, of the step below which this part of all durations lies; 0 for none."""
    wanted, seen = part * steps.total(), 0
    for step in sorted(steps):
        seen += steps[step]
        if seen >= wanted:
            return _upper_end(step)
    return 0


def _upper_end(step: int) -> int:
    if step < 2 * _SUB:
        return step
    shift = step // _SUB - 1
    return ((step - shift * _SUB + 1) << shift) - 1


def tally(counts: Counter[Any]) -> dict[str, int]:
    """A reader's counter of reasons, for people: reason -> packets."""
    return {str(reason): number for reason, number in counts.copy().items()}


# The reasons of what compiled readers answer, in the order of their counters (enum state in glacic/native/road.h).
_TABLE_REASONS = (None, Why.PENDING, Why.CACHED_ALLOW, Why.DENIED, Why.IGNORED)


def reasons(by_state: Sequence[int]) -> Counter[Why]:
    """A compiled reader's counters, by the reasons that Python gives for the same decisions."""
    return Counter({why: packets for why, packets in zip(_TABLE_REASONS, by_state, strict=True) if why and packets})
