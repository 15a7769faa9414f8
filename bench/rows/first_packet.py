"""What a flow's first packet waits for: its way through the firewall, one packet at a time, on an idle machine.

Every packet is of a flow that was never seen: looked up, learned, stored, put into the kernel's set. Refuses to
load the machine; another module does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.effort import FULL, Effort
from bench.processes import program, python, running
from bench.result import Figure, Results, Row, spread
from bench.rounds import alternate
from bench.sending import Flows, Sent
from bench.service import QUEUE, BenchGlacic, Road, config, road, scratch, service
from glacic.firewall.claims import field, mark_of
from glacic.lab.net import Network

NAME = "first_packet"
TITLE = "The first packet of a flow"
INTRO = """\
New flows, 250 a second, one packet each, from a client through a router to a server; the time is from sending to
arrival at the server's interface, by the kernel's clock there. The floor (C, per packet) answers behind the same
ruleset as Glacic: the one that Glacic has loaded, and left behind when it was stopped. `Glacic` is the whole service.
Beside them, behind two rules that mark and queue and do nothing else: the floor, and Glacic's reader with engine and
store alone, which tells what is the ruleset's and what the rest of the service costs. Nobody is pinned but the sender
and the server's sink, which share a core."""

FLOOR, GLACIC = "C floor", "Glacic"
BARE_FLOOR, BARE_READER = "C floor, two rules", "Glacic's reader alone, two rules"
RATE = 250  # packets a second
ENOUGH = 2_000  # packets, for a 99th percentile
_WARM = 50
P50_US, P99_US = 60.0, 300.0
_POLICY_NUMBER = 3  # of the reader alone


def measure(effort: Effort) -> Results:
    """Rounds of all four."""
    count = max(int(RATE * effort.seconds), ENOUGH if effort.seconds >= FULL.seconds else 0)
    flows = Flows()
    with contextlib.ExitStack() as stack:
        ways = Ways(stack)

        def once(name: str) -> Sent:
            with ways.open(name) as way:
                flows.send(way, _WARM, RATE)
                return flows.send(way, count, RATE)

        did = alternate((FLOOR, GLACIC, BARE_FLOOR, BARE_READER), effort.rounds, once)
    return Results([_row(did)])


class Ways:
    """A road for each way of being answered; all are there for as long as the stack is."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        network = stack.enter_context(Network())
        self._bare = road(network, "-bare")
        mark = f"{mark_of(_POLICY_NUMBER):#x}/{field(_POLICY_NUMBER):#x}"
        rules = (
            f"*mangle\n-A FORWARD -p udp -j MARK --set-xmark {mark}\nCOMMIT\n"
            f"*filter\n-A FORWARD -p udp -j NFQUEUE --queue-num {QUEUE} --queue-bypass\nCOMMIT\n"
        )
        self._bare.router.run(["iptables-nft-restore"], text=rules)
        self._left = road(network, "-left")
        with BenchGlacic(self._left.router, stack.enter_context(scratch()), config()):
            pass  # its ruleset stays
        self._served, _ = stack.enter_context(service(config()))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Road]:
        """The road, with somebody at its queue."""
        if name == GLACIC:
            yield self._served
            return
        way = self._left if name == FLOOR else self._bare
        command = python("bench.contestants.glacic_queue", QUEUE)
        if name != BARE_READER:
            command = program("floor", QUEUE, "--mark", 0)
        with running(way.router, command) as process:
            yield way
            process.end()


def _row(did: dict[str, list[Sent]]) -> Row:
    p50 = {name: tuple(sent.p50_us for sent in of_it) for name, of_it in did.items()}
    p99 = {name: tuple(sent.p99_us for sent in of_it) for name, of_it in did.items()}
    lost = sum(sent.lost for of_it in did.values() for sent in of_it)
    added = [
        tuple(ours - floor for ours, floor in zip(values[GLACIC], values[FLOOR], strict=True)) for values in (p50, p99)
    ]
    minus = f"{GLACIC} minus {FLOOR}"
    units = ("us, p50", "us, p99")
    figures = [Figure(contestant=minus, unit=unit, values=values) for unit, values in zip(units, added, strict=True)]
    figures += [
        Figure(contestant=name, unit=unit, values=values[name])
        for name in did
        for unit, values in zip(units, (p50, p99), strict=True)
    ]
    return Row(
        name="first-packet-latency",
        what="latency of a flow's first packet, idle machine",
        figures=tuple(figures),
        target=f"p50 / p99 at most {P50_US:.0f} us / {P99_US:.0f} us over the C floor",
        met=spread(added[0]).median <= P50_US and spread(added[1]).median <= P99_US and not lost,
        note=f"{lost} packets were lost." if lost else "",
    )
