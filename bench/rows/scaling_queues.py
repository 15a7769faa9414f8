"""One queue or two: a process with a thread for each, or a process for each.

Nobody sends while packets are worked off, so on a machine with two cores both are the readers'. Refuses to ask which
split of packets is even: NFQUEUE's own hash does it, by addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.effort import Effort
from bench.queue_bed import Given, Lane, QueueBed, queue_bed
from bench.result import Figure, Plot, Results, Row, paired, spread
from bench.rows.queue import COMPILED, FLOOR, FLOOR_BATCHED, GLACIC, PURE, command, commands, worked_off

NAME = "queues"
TITLE = "Scaling: one queue, two queues"
INTRO = """\
The kernel deals packets out to two queues by their addresses (`--queue-balance`; `queue num 100-101` hashes the same
way). Packets of 256 hosts wait in each, 16,384 or so, nobody sends, and both cores are free for the readers. What is
counted is from the first verdict until one of the queues is empty. Glacic as it is has a thread for each queue in one
process; a process for each queue would need the engine twice, and stands here to tell what that would win."""

SOURCES = 256  # hosts, a flow of each
WAITING = 16_384  # packets for each queue: some 30 ms of work, so that two threads find two cores
EACH = "a process each"
CONTESTANTS = (FLOOR, FLOOR_BATCHED, GLACIC, *((PURE,) if COMPILED else ()))


def measure(effort: Effort) -> Results:
    """One and two queues."""
    with queue_bed() as bed:
        lanes = {name: _start(bed, commands(name, WAITING), 1) for name in CONTESTANTS}
        one = _rates(worked_off(bed, lanes, effort))
    with queue_bed() as bed:
        lanes = {}
        for name in CONTESTANTS:
            if name in (GLACIC, PURE):
                lanes[name] = _start(bed, commands(name, WAITING), 2)
                lanes[f"{name}, {EACH}"] = _start(bed, _each(name), 2)
            else:
                lanes[name] = _start(bed, _each(name), 2)
        two = _rates(worked_off(bed, lanes, effort))
    return Results([_row(one, two)], [_plot(one, two)])


def _start(bed: QueueBed, made: Callable[[tuple[int, ...]], list[list[str | float]]], queues: int) -> Lane:
    return bed.start(made, queues=queues, sources=SOURCES, waiting=WAITING, anywhere=True)


def _each(name: str) -> Callable[[tuple[int, ...]], list[list[str | float]]]:
    return lambda queues: [command(name, number, waiting=WAITING) for number in queues]


def _rates(did: Mapping[str, Sequence[Given]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(one.per_s for one in given) for name, given in did.items()}


def _row(one: dict[str, tuple[float, ...]], two: dict[str, tuple[float, ...]]) -> Row:
    figures = [Figure(contestant=f"{name}, 1 queue", unit="verdicts/s", values=one[name]) for name in one]
    figures += [Figure(contestant=f"{name}, 2 queues", unit="verdicts/s", values=two[name]) for name in two]
    return Row(
        name="two-queues",
        what="verdicts a second with two queues on two cores",
        figures=tuple(figures),
        ratio=paired(two[GLACIC], one[GLACIC]),
        ratio_of=f"{GLACIC}: 2 queues in one process / 1 queue",
    )


def _plot(one: dict[str, tuple[float, ...]], two: dict[str, tuple[float, ...]]) -> Plot:
    series = {}
    for name, rates in two.items():
        begin = one[name.removesuffix(f", {EACH}")]
        series[name] = [(float(count), *spread(values)) for count, values in ((1, begin), (2, rates))]
    return Plot(
        name="queues",
        title="Verdicts a second with one queue and with two",
        x_label="queues",
        y_label="verdicts/s",
        series=series,
        log_x=False,
    )
