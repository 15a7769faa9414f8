"""A learned flow in the kernel, beside what an administrator would have written by hand: does it cost the same?

Nothing of Glacic's user space is at work here but what fills the sets. Refuses to use the hook: a learned flow never
gets to it, which is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from bench import lanes, rulesets
from bench.effort import Effort
from bench.lanes import Lane, Sent
from bench.result import Figure, Plot, Results, Row, paired, spread
from glacic.firewall.shapes import Key
from glacic.lab.net import Network

NAME = "kernel"
TITLE = "A learned flow, in the kernel"
INTRO = """\
Client, router and server are network namespaces in a line; the router forwards, through Glacic's generated ruleset with
its learned sets filled, or through nftables as an administrator would have written it: established, then one hashed set
of the same key (`ether saddr . meta l4proto . th dport`), then drop. A packet's whole road runs on the sender's core,
in its system call, so packets per second of one sender are one over the cost of the road, sending and receiving
included. Each firewall has its own namespaces; slices of 100,000 packets go round among them, a round's value is the
median of its slices, and the sender has its core to itself while it sends. A new connection is a packet from another
source port, of another flow than the one before; after each slice connection tracking is emptied. Where Glacic's first
packets cost more, rule by rule, and what could be done:
[decision 0008](decisions/0008-what-a-learned-connection-costs.md)."""

ELEMENTS = 100_000
LEAST = 0.97  # of the static set
LINEAR = 1_000
SIZES = (10, 1_000, 10_000, 100_000, 1_000_000)
QUICK_ELEMENTS = 10_000
_SLICE_S = 0.5  # of a round for each slice, which takes about half of that with its beginning and end
_ADDS = 40

INLINE, NFLOG = "Glacic", "Glacic, nflog mode"
STATIC, PLAIN = "static set", "static set without counters"
CONNTRACK, NOTHING, ROW_OF_RULES = "connection tracking alone", "no firewall", f"{LINEAR:,} rules in a row"


def measure(effort: Effort) -> Results:
    """All rows and plots."""
    slices = max(2, round(effort.seconds / _SLICE_S))
    with Network() as network:
        contestants = _contestants(network)
        for lane in contestants:
            lane.establish()
        flood = _rounds(contestants, lambda lane, _: lane.flood(), effort.rounds, slices)
        connections = _rounds(contestants, _connect, effort.rounds, slices)
        few = [lane for lane in contestants if lane.name != ROW_OF_RULES]
        for lane in few:
            lane.open()
        tcp = _rounds(few, lambda lane, _: lane.tcp_connections(), effort.rounds, slices)
        asked = sum(lane.asked() for lane in contestants if lane.learned)
    rows = [
        _against_static("learned-flow-throughput", "packets of an established flow", flood, "packets/s"),
        _against_static("learned-flow-connections", "first packets of new connections", connections, "connections/s"),
        _against_static(
            "learned-flow-tcp-connections",
            "TCP connections opened and reset, one after the other",
            tcp,
            "connections/s",
        ),
        Row(
            name="learned-flow-to-user-space",
            what="Packets of learned flows that came to where the hook is, in all of the above",
            figures=(Figure(contestant=INLINE, unit="packets", values=(float(asked),)),),
            target="0",
            met=asked == 0,
        ),
    ]
    return Results(rows, _scaling(effort.rounds, slices))


def quick() -> Results:
    """New connections of learned flows against the static set, with fewer elements."""
    flows = rulesets.keys(QUICK_ELEMENTS)
    with Network() as network:
        pair = [lanes.glacic(network, INLINE, flows), _static(network, flows)]
        values = _rounds(pair, partial(_connect_to, QUICK_ELEMENTS), 3, 3)
    name = f"learned-flow-connections-{QUICK_ELEMENTS}"
    return Results([_against_static(name, "first packets of new connections", values, "connections/s", QUICK_ELEMENTS)])


def _contestants(network: Network) -> list[Lane]:
    flows = [*rulesets.keys(ELEMENTS), rulesets.tcp_key()]
    return [
        lanes.glacic(network, INLINE, flows),
        _static(network, flows),
        lanes.by_hand(network, PLAIN, rulesets.set_ruleset(counter=False), flows),
        lanes.glacic(network, NFLOG, flows, inline=False),
        lanes.by_hand(network, CONNTRACK, rulesets.conntrack_ruleset()),
        lanes.lane(network, NOTHING),
        lanes.by_hand(network, ROW_OF_RULES, rulesets.linear_ruleset(LINEAR)),
    ]


def _static(network: Network, flows: Sequence[Key]) -> Lane:
    return lanes.by_hand(network, STATIC, rulesets.set_ruleset(counter=True), flows)


def _connect(lane: Lane, part: int) -> Sent:
    """Fewer where each takes 20 times as long."""
    return lane.connections(ELEMENTS, part, lanes.SLICE // 20 if lane.name == ROW_OF_RULES else lanes.SLICE)


def _connect_to(size: int, lane: Lane, part: int) -> Sent:
    return lane.connections(size, part)


Values = dict[str, list[float]]


def _rounds(contestants: Sequence[Lane], send: Callable[[Lane, int], Sent], rounds: int, slices: int) -> Values:
    """Contestant -> the median of each round."""
    lanes.interleaved(contestants, send, 1)  # warms up
    rates = lanes.interleaved(contestants, send, rounds * slices)
    return {
        lane.name: [median(values[at : at + slices]) for at in range(0, len(values), slices)]
        for lane, values in zip(contestants, rates, strict=True)
    }


def _against_static(name: str, what: str, values: Values, unit: str, elements: int = ELEMENTS) -> Row:
    ratio = paired(values[INLINE], values[STATIC])
    return Row(
        name=name,
        what=f"{what}, {elements:,} elements in the sets",
        figures=tuple(Figure(contestant=who, unit=unit, values=tuple(found)) for who, found in values.items()),
        target=f">= {LEAST} x the static set",
        ratio=ratio,
        ratio_of=f"{INLINE} / {STATIC}, both with a counter in each element",
        met=spread(ratio).median >= LEAST,
        note=_in_nanoseconds(values),
    )


def _in_nanoseconds(values: Values) -> str:
    """What one costs, and what Glacic's costs more."""
    cost = {who: 1e9 / median(found) for who, found in values.items()}
    listed = ", ".join(f"{who} {ns:,.0f} ns" for who, ns in cost.items())
    return f"One costs: {listed}. Glacic's is {cost[INLINE] - cost[STATIC]:+.0f} ns."


def _scaling(rounds: int, slices: int) -> list[Plot]:
    """New connections, and the time to add one more element, by the elements that are there."""
    rates: dict[str, list[tuple[float, float, float, float]]] = {INLINE: [], STATIC: []}
    ratios: dict[str, list[tuple[float, float, float, float]]] = {f"{INLINE} / {STATIC}": []}
    adding: dict[str, list[tuple[float, float, float, float]]] = {INLINE: []}
    for size in SIZES:
        flows = rulesets.keys(size)
        with Network() as network:
            pair = [lanes.glacic(network, INLINE, flows), _static(network, flows)]
            values = _rounds(pair, partial(_connect_to, size), rounds, slices)
            adding[INLINE].append(_point(size, _adding(pair[0])))
        for who, line in rates.items():
            line.append(_point(size, values[who]))
        ratios[f"{INLINE} / {STATIC}"].append(_point(size, paired(values[INLINE], values[STATIC])))
    return [
        _plot("elements-connections", "New connections by elements in the set", "connections/s", rates),
        _plot("elements-ratio", "New connections, against the static set", "ratio", ratios),
        _plot("elements-adding", "One learned flow more, into the kernel", "us", adding),
    ]


def _adding(lane: Lane) -> list[float]:
    """Microseconds of each of some elements, one transaction each, as the mapper makes it."""
    assert lane.learned is not None  # noqa: S101 -- a lane with Glacic's firewall
    sets = lane.learned
    flows: list[Key] = [(rulesets.POLICY, b"\x02\xff\0\0\0" + bytes([n]), rulesets.TCP, 443, b"") for n in range(_ADDS)]

    def add() -> list[float]:
        taken = []
        for flow in flows:
            began = time.perf_counter()
            sets.apply([(flow, "allowed")])
            taken.append((time.perf_counter() - began) * 1e6)
        return taken[1:]  # the first may have looked at what is there

    return lane.router.call(add)


def _point(x: float, values: Sequence[float]) -> tuple[float, float, float, float]:
    middle, low, high = spread(values)
    return (x, middle, low, high)


def _plot(name: str, title: str, y_label: str, series: dict[str, list[tuple[float, float, float, float]]]) -> Plot:
    return Plot(name=name, title=title, x_label="elements in the set", y_label=y_label, series=series)
