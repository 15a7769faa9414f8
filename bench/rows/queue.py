"""Verdicts: what each costs, and how many a core gives, for packets of a flow that is in the cache.

Three ways of asking, on the same bed (queue_bed.py): flooded by a sender on the other core, at a moderate pace, and
working off what waits. Refuses to look at anything but the reader and what is behind it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import NamedTuple

from bench.effort import Effort
from bench.processes import program, python
from bench.queue_bed import OTHERS_MARK, WAITING, Given, Lane, QueueBed, queue_bed, room
from bench.result import Figure, Results, Row, paired, spread
from bench.rounds import alternate
from glacic.errors import LabError
from glacic.native import road

NAME = "queue"
TITLE = "Verdicts, the flow being in the cache"
INTRO = """\
One UDP flow, learned with its first packet, then answered again and again: by a C program that accepts everything (the
floor: per packet, and in batches of up to 64; its verdicts carry a mark, as Glacic's do), by NetfilterQueue with a
callback that accepts, by NetfilterQueue with scapy as tutorials have it, and by Glacic's reader with engine, counters,
latency histogram and the thread that writes the database (bench/contestants/glacic_queue.py). CPU time is user and
system time of the process, the kernel's work for its verdicts included. Flooded, a sender on the other core does what
it can: it has more work with each packet than the fastest readers, so CPU time tells them apart, and packets a second
do not. The rate that a core can give is measured where 4,096 packets wait and nobody sends: the reader is stopped while
they are sent, and goes on."""

FLOOR, FLOOR_BATCHED = "C floor", "C floor, batched"
ACCEPT, SCAPY = "NetfilterQueue, accept only", "NetfilterQueue with scapy"
GLACIC, PURE = "Glacic", "Glacic, pure Python"
PACE = 30_000  # packets a second: batches hold one or two
_PATIENCE_S = 5.0
_OWN_CORE = 0.7  # of a core, at least, where nobody else was at work; not all that the kernel does is in CPU time
CPU_TARGET, RATE_TARGET, GAIN_TARGET = 1.20, 0.85, 1.3
COMPILED = road is not None
FLOOR_OF_ITS_KIND = FLOOR_BATCHED if COMPILED else FLOOR  # the compiled reader answers in batches
OTHERS: tuple[str, ...] = (FLOOR, FLOOR_BATCHED, ACCEPT, SCAPY)
OURS: tuple[str, ...] = (GLACIC, PURE) if COMPILED else (GLACIC,)


class Means(NamedTuple):
    """A contestant's figures, round by round."""

    per_s: tuple[float, ...]
    cpu_us: tuple[float, ...]


def commands(name: str, waiting: int = 0) -> Callable[[tuple[int, ...]], list[list[str | float]]]:
    """The process of a contestant, for QueueBed.start. waiting: packets that work_off() lets wait, 0 without it."""

    def make(queues: tuple[int, ...]) -> list[list[str | float]]:
        return [command(name, *queues, waiting=waiting)]

    return make


def command(name: str, *queues: int, waiting: int = 0) -> list[str | float]:
    """One process on these queues."""
    packets, size = room(waiting)
    options = ("--maxlen", packets, "--buffer", size) if waiting else ()
    if name in (FLOOR, FLOOR_BATCHED):
        batch = ("--batch",) if name == FLOOR_BATCHED else ()
        return program("floor", *queues, *batch, "--mark", OTHERS_MARK, *options)
    if name in (ACCEPT, SCAPY):
        module = "netfilterqueue_accept" if name == ACCEPT else "netfilterqueue_scapy"
        return python(f"bench.contestants.{module}", *queues, *options[1::2])
    pure = ("--pure",) if name == PURE else ()
    return python("bench.contestants.glacic_queue", *queues, *pure, *options)


def measure(effort: Effort) -> Results:
    """All three ways."""
    names = (*OTHERS, *OURS)
    with queue_bed() as bed:
        lanes = {name: bed.start(commands(name)) for name in names}
        flooded = _means(alternate(names, effort.rounds, lambda name: bed.flood(lanes[name], effort.seconds)))
        quick_ones = [name for name in names if name != SCAPY]
        paced = _means(alternate(quick_ones, effort.rounds, lambda name: bed.flood(lanes[name], effort.seconds, PACE)))
    worked = _worked_off(names, effort)
    rows = [*_cpu_rows(flooded, paced, worked), *_rate_rows(worked, flooded), *_compiled_rows(flooded, paced, worked)]
    return Results(rows)


def quick() -> Results:
    """The ratios that a regression would move."""
    names = tuple(dict.fromkeys((FLOOR, FLOOR_OF_ITS_KIND, *OURS)))
    worked = {name: _best(means) for name, means in _worked_off(names, Effort(rounds=5, seconds=0.25)).items()}
    rows = [_cpu_waiting_row(worked)]
    if COMPILED:
        rows.append(_pure_cpu_row("cpu-per-verdict-waiting-pure", worked))
    if all(means.per_s[0] * means.cpu_us[0] / 1e6 > _OWN_CORE for means in worked.values()):
        rows.append(_rate_row(worked))
        rows += [_pure_rate_row(worked)] if COMPILED else []
    return Results(rows if COMPILED else [replace(row, name=f"{row.name}-pure") for row in rows])


# ---- measuring


def _worked_off(names: Sequence[str], effort: Effort) -> dict[str, Means]:
    with queue_bed() as bed:
        lanes = {name: bed.start(commands(name, WAITING)) for name in names}
        return _means(worked_off(bed, lanes, effort))


def worked_off(bed: QueueBed, lanes: Mapping[str, Lane], effort: Effort) -> dict[str, list[Given]]:
    """What each does when it works off what waits: in every round the median of as often as there is time for."""
    for lane in lanes.values():
        bed.work_off(lane)  # its first packet is learned, and caches are cold

    def once(name: str) -> Given:
        ends = time.monotonic() + effort.seconds
        seen: list[Given] = []
        while not seen or time.monotonic() < ends:
            given = bed.work_off(lanes[name])
            if given is not None:
                seen.append(given)
            elif time.monotonic() > ends + _PATIENCE_S:
                raise LabError("this machine is too busy: nobody can look at a queue that is worked off")
        return Given(*(statistics.median(values) for values in zip(*map(astuple, seen), strict=True)))

    return alternate(list(lanes), effort.rounds, once)


def _best(means: Means) -> Means:
    """Of all rounds: others may be at work where quick figures are asked for."""
    return Means((max(means.per_s),), (min(means.cpu_us),))


def _means(did: Mapping[str, Sequence[Given]]) -> dict[str, Means]:
    return {name: Means(*zip(*map(astuple, given), strict=True)) for name, given in did.items()}


# ---- rows


def _figures(unit: str, values: Mapping[str, tuple[float, ...]]) -> tuple[Figure, ...]:
    return tuple(Figure(contestant=name, unit=unit, values=of_it) for name, of_it in values.items())


def _cpu(means: Mapping[str, Means]) -> dict[str, tuple[float, ...]]:
    return {name: mean.cpu_us for name, mean in means.items()}


def _rates(means: Mapping[str, Means]) -> dict[str, tuple[float, ...]]:
    return {name: mean.per_s for name, mean in means.items()}


def _cpu_row(flooded: Mapping[str, Means]) -> Row:
    cpu = _cpu(flooded)
    ratio = paired(cpu[GLACIC], cpu[FLOOR_OF_ITS_KIND])
    return Row(
        name="cpu-per-verdict",
        what="CPU time per verdict, flooded",
        figures=_figures("us CPU per packet", cpu),
        target=f"<= {CPU_TARGET:.2f} x",
        ratio=ratio,
        ratio_of=f"{GLACIC} / {FLOOR_OF_ITS_KIND}",
        met=spread(ratio).median <= CPU_TARGET,
    )


def _cpu_waiting_row(worked: Mapping[str, Means]) -> Row:
    cpu = _cpu(worked)
    return Row(
        name="cpu-per-verdict-waiting",
        what="CPU time per verdict, with packets waiting",
        figures=_figures("us CPU per packet", cpu),
        ratio=paired(cpu[GLACIC], cpu[FLOOR_OF_ITS_KIND]),
        ratio_of=f"{GLACIC} / {FLOOR_OF_ITS_KIND}",
    )


def _cpu_rows(flooded: Mapping[str, Means], paced: Mapping[str, Means], worked: Mapping[str, Means]) -> list[Row]:
    cpu = _cpu(paced)
    return [
        _cpu_row(flooded),
        _cpu_waiting_row(worked),
        Row(
            name="cpu-per-verdict-paced",
            what=f"CPU time per verdict, {PACE:,} packets a second",
            figures=_figures("us CPU per packet", cpu),
            ratio=paired(cpu[GLACIC], cpu[FLOOR_OF_ITS_KIND]),
            ratio_of=f"{GLACIC} / {FLOOR_OF_ITS_KIND}",
            note="Most packets find the reader asleep, so most of this is falling asleep and waking up; scapy is left "
            "out, it cannot keep up.",
        ),
    ]


def _rate_row(worked: Mapping[str, Means]) -> Row:
    rates = _rates(worked)
    ratio = paired(rates[GLACIC], rates[FLOOR_OF_ITS_KIND])
    return Row(
        name="verdicts-per-second",
        what="verdicts a second on one core, with packets waiting",
        figures=_figures("verdicts/s", rates),
        target=f">= {RATE_TARGET:.2f} x",
        ratio=ratio,
        ratio_of=f"{GLACIC} / {FLOOR_OF_ITS_KIND}",
        met=spread(ratio).median >= RATE_TARGET,
    )


def _rate_rows(worked: Mapping[str, Means], flooded: Mapping[str, Means]) -> list[Row]:
    rates = _rates(flooded)
    return [
        _rate_row(worked),
        Row(
            name="verdicts-per-second-flooded",
            what="verdicts a second, flooded from the other core",
            figures=_figures("verdicts/s", rates),
            ratio=paired(rates[GLACIC], rates[FLOOR_OF_ITS_KIND]),
            ratio_of=f"{GLACIC} / {FLOOR_OF_ITS_KIND}",
            note="Where a reader has CPU time left (rate x CPU time per verdict is below 1), this is the sender's "
            "limit.",
        ),
    ]


def _pure_cpu_row(name: str, means: Mapping[str, Means]) -> Row:
    when = "with packets waiting" if "waiting" in name else "flooded"
    cpu = {who: mean for who, mean in _cpu(means).items() if who in (PURE, FLOOR)}
    return Row(
        name=name,
        what=f"CPU time per verdict, {when}, without the compiled part",
        figures=_figures("us CPU per packet", cpu),
        ratio=paired(cpu[PURE], cpu[FLOOR]),
        ratio_of=f"{PURE} / {FLOOR}",
    )


def _pure_rate_row(worked: Mapping[str, Means]) -> Row:
    rates = {name: of_it for name, of_it in _rates(worked).items() if name in (PURE, FLOOR)}
    return Row(
        name="verdicts-per-second-pure",
        what="verdicts a second on one core, with packets waiting, without the compiled part",
        figures=_figures("verdicts/s", rates),
        ratio=paired(rates[PURE], rates[FLOOR]),
        ratio_of=f"{PURE} / {FLOOR}",
    )


def _compiled_rows(flooded: Mapping[str, Means], paced: Mapping[str, Means], worked: Mapping[str, Means]) -> list[Row]:
    """What the compiled part is worth; nothing where it was not built."""
    if not COMPILED:
        return []
    return [
        _pure_cpu_row("cpu-per-verdict-pure", flooded),
        _pure_rate_row(worked),
        _gain_row("compiled-gain-cpu", "CPU time per verdict, flooded", "us CPU per packet", _cpu(flooded)),
        _gain_row("compiled-gain-cpu-paced", f"the same at {PACE:,} a second", "us CPU per packet", _cpu(paced)),
        _gain_row("compiled-gain-rate", "verdicts a second, with packets waiting", "verdicts/s", _rates(worked)),
    ]


def _gain_row(name: str, what: str, unit: str, values: Mapping[str, tuple[float, ...]]) -> Row:
    ours = {GLACIC: values[GLACIC], PURE: values[PURE]}
    less_is_better = unit.startswith("us")
    ratio = paired(*((ours[PURE], ours[GLACIC]) if less_is_better else (ours[GLACIC], ours[PURE])))
    return Row(
        name=name,
        what=f"what the compiled part is worth: {what}",
        figures=_figures(unit, ours),
        target=f">= {GAIN_TARGET:.1f} x",
        ratio=ratio,
        ratio_of=f"{PURE} / {GLACIC}" if less_is_better else f"{GLACIC} / {PURE}",
        met=spread(ratio).median >= GAIN_TARGET,
    )
