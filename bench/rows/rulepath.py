"""The rule path: how a learned flow gets into the kernel. Glacic's LearnedSets beside what others do: fork `nft`.

Refuses packets: what an element does once it is there is kernel.py's question.
"""
# ruff: noqa: S603, S607 -- nft, found on PATH as an administrator's shell finds it

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bench import lanes, rulesets
from bench.effort import Effort
from bench.result import Figure, Results, Row, paired
from bench.rounds import alternate
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.firewall.shapes import Key, element_text, set_name, shape_of
from glacic.lab.net import Network

NAME = "rulepath"
TITLE = "The rule path: a learned flow into the kernel"
INTRO = """\
Elements that are added to a set in a network namespace that has nothing else to do, one transaction each, or one for a
hundred: by Glacic's own code (`glacic.firewall.learned.LearnedSets`, as the mapper calls it), by libnftables kept open
in the process, and by forking `nft add element` for each, which is what most tools that block or allow addresses do.
CPU time is that of the process and of those that it forked, the kernel's work included."""

SIZES = (1_000, 100_000)
BATCH = 100
ONE, MANY = "Glacic, one at a time", f"Glacic, {BATCH} at a time"
LIBRARY, FORKED = "libnftables kept open, one at a time", "`nft add element` forked for each"
_NAMES = (ONE, MANY, LIBRARY, FORKED)
_TURNS = 4  # changes of a flow, at least; an even number
_AT_MOST = 1_000  # elements that are added before they are removed again, so that the set stays as it is


class Added(NamedTuple):
    """Elements per second, and what each cost, in us of CPU."""

    per_s: float
    cpu_us: float


class Bed:
    """Some hosts, of which the router has Glacic's ruleset with so many elements in its set."""

    def __init__(self, network: Network, elements: int) -> None:
        lane = lanes.glacic(network, ONE, rulesets.keys(elements))
        assert lane.learned is not None  # noqa: S101 -- a lane with Glacic's firewall
        self._sets: LearnedSets = lane.learned
        self._nft = lane.router.call(Libnftables)
        self._host = lane.router
        self._fresh = _fresh()

    def add(self, name: str, seconds: float) -> Added:
        """What a contestant does in so many seconds."""
        ways: dict[str, Callable[[Sequence[Key]], None]] = {
            ONE: self._by_glacic,
            MANY: self._by_glacic,
            LIBRARY: lambda flows: self._nft.run(_command(flows)),
            FORKED: lambda flows: _fork(_command(flows)),
        }
        return self._host.call(self._timed, ways[name], BATCH if name == MANY else 1, seconds)

    def _timed(self, add: Callable[[Sequence[Key]], None], size: int, seconds: float) -> Added:
        """Adds until the time is over, in the namespace. What removing takes is not counted."""
        count, lasted, spent = 0, 0.0, 0.0
        while not count or lasted < seconds:
            batches = [list(itertools.islice(self._fresh, size)) for _ in range(_AT_MOST // size)]
            began, before = time.perf_counter(), _cpu_s()
            done = _each(add, batches, began + seconds - lasted)
            lasted += time.perf_counter() - began
            spent += _cpu_s() - before
            count += done * size
            self._sets.apply([(flow, None) for batch in batches[:done] for flow in batch])
        return Added(count / lasted, spent * 1e6 / count)

    def deny(self, name: str, seconds: float) -> Added:
        """The same for a flow that is denied, allowed, denied, ...: out of one set and into the other."""
        flow = next(self._fresh)
        ways: dict[str, Callable[[bool], None]] = {
            ONE: lambda allowed: self._sets.apply([(flow, "allowed" if allowed else "denied")]),
            LIBRARY: lambda allowed: self._nft.run(_move(flow, allowed)),
            FORKED: lambda allowed: _fork(_move(flow, allowed)),
        }

        def turn() -> Added:
            self._sets.apply([(flow, "allowed")])
            count, began, spent = 0, time.perf_counter(), _cpu_s()
            while count < _TURNS or time.perf_counter() - began < seconds:
                ways[name](bool(count % 2))
                count += 1
            lasted, spent = time.perf_counter() - began, _cpu_s() - spent
            self._sets.apply([(flow, None)])
            return Added(count / lasted, spent * 1e6 / count)

        return self._host.call(turn)

    def _by_glacic(self, flows: Sequence[Key]) -> None:
        self._sets.apply([(flow, "allowed") for flow in flows])


def measure(effort: Effort) -> Results:
    """A row for each size, and one for what changes sides."""
    rows = [_row(f"one-element-{size}", _NAMES, size, effort) for size in SIZES]
    return Results([*rows, _change_row(effort)])


def quick() -> Results:
    """One element after the other, into a small set."""
    return Results([_row("one-element", (ONE, FORKED), SIZES[0], Effort(rounds=3, seconds=0.2))])


def _row(name: str, contestants: Sequence[str], size: int, effort: Effort) -> Row:
    with Network() as network:
        bed = Bed(network, size)
        for each in contestants:
            bed.add(each, 0)
        added = alternate(contestants, effort.rounds, lambda each: bed.add(each, effort.seconds))
    return Row(
        name=name,
        what=f"elements added to a set of {size:,}",
        figures=_figures(added, "elements/s", "us CPU per element"),
        ratio=paired([one.per_s for one in added[ONE]], [one.per_s for one in added[FORKED]]),
        ratio_of=f"{ONE} / {FORKED}",
    )


def _change_row(effort: Effort) -> Row:
    """As long as a refused set is there, every change of a flow takes it out of the other set."""
    names = (ONE, LIBRARY, FORKED)
    with Network() as network:
        bed = Bed(network, SIZES[0])
        for name in names:
            bed.deny(name, 0)
        changed = alternate(names, effort.rounds, lambda name: bed.deny(name, effort.seconds))
    return Row(
        name="one-change",
        what=f"flows denied and allowed again, beside {SIZES[0]:,} others",
        figures=_figures(changed, "changes/s", "us CPU per change"),
        ratio=paired([one.per_s for one in changed[ONE]], [one.per_s for one in changed[FORKED]]),
        ratio_of=f"{ONE} / {FORKED}",
    )


def _figures(did: Mapping[str, Sequence[Added]], *units: str) -> tuple[Figure, ...]:
    return tuple(
        Figure(contestant=name, unit=unit, values=tuple(values))
        for name, found in did.items()
        for unit, values in zip(units, zip(*found, strict=True), strict=True)
    )


def _each(add: Callable[[Sequence[Key]], None], batches: Sequence[Sequence[Key]], until: float) -> int:
    """How many were added by then; one at least."""
    for number, batch in enumerate(batches, 1):
        add(batch)
        if time.perf_counter() > until:
            return number
    return len(batches)


def _cpu_s() -> float:
    """Of this process by the scheduler's clock, and of the children that it has waited for."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _command(flows: Sequence[Key], verb: str = "add", allowed: bool = True) -> str:
    name = set_name(rulesets.POLICY, shape_of(flows[0]), allowed)
    return f"{verb} element {FAMILY} {TABLE} {name} {{ {', '.join(map(element_text, flows))} }}\n"


def _move(flow: Key, allowed: bool) -> str:
    """From where it is, which is the other side."""
    return _command([flow], "delete", not allowed) + _command([flow], "add", allowed)


def _fork(command: str) -> None:
    subprocess.run(["nft", command], check=True, capture_output=True)


def _fresh() -> Iterator[Key]:
    """Flows that are in no set yet."""
    for number in itertools.count():
        mac = 0x02_FF_00_00_00_00 + (number >> 15)
        yield (rulesets.POLICY, mac.to_bytes(6, "big"), rulesets.TCP, 1 + number % (1 << 15), b"")
