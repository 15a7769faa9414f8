"""How many new flows a second are learned with none lost; and that a learned flow is the kernel's affair alone."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from bench import pinning, processes
from bench.effort import Effort
from bench.result import Figure, Results, Row, paired
from bench.sending import FIRST_PORT, Flows, Sent, mac_text, send, send_back
from bench.service import POLICY, QUEUE, BenchGlacic, Road, config, road, scratch, service
from glacic.ctlplane.nfqueue import QueueTruth
from glacic.errors import LabError
from glacic.lab.net import Network

NAME = "learning"
TITLE = "New flows learned, and learned flows"
INTRO = """\
New flows at a fixed rate, one datagram each, 250 ports of a source MAC and then the next MAC, through a router with the
whole service. A flow counts as learned when its packet has arrived, its row is in the database and its element in the
kernel's set; a rate holds when that is so of every one, with nothing dropped by the queue or its socket, and when what
was left for the database and the kernel at the end is done within a second. Latency is one-way, from the sending to the
server's interface. The sender keeps one core busy with waiting for the next packet's moment; the service has the rest
of the machine. Then packets and new connections of a learned flow, and what of them reached user space."""

TARGET_PER_S = 10_000
TARGET_P99_MS = 10.0
LADDER = (1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 10_000, 12_000, 14_000, 16_000, 20_000, 25_000)
_STEP_S = 10.0  # of one rung, at most
_BEHIND_S = 1.0  # how long the database and the kernel may take after the last packet
_FLOOD = 1_000_000
_LEARNED_MAC = 0x02_30_00_00_00_00
_QUICK_ROUNDS, _QUICK_S, _QUICK_FLOOD = 3, 0.7, 20_000
_QUICK_RATE, _QUICK_FLOOR_RATE = 2_000, 5_000


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of new flows. behind_s: from the end of sending until all of it was stored and in the kernel."""

    sent: Sent
    accepted: int
    stored: int
    elements: int
    kernel_dropped: int
    user_dropped: int
    behind_s: float
    service_p99_us: float

    @property
    def all(self) -> bool:
        """Whether none is lost, and all of it was done in time."""
        figures = (self.sent.received, self.accepted, self.stored, self.elements)
        dropped = self.kernel_dropped + self.user_dropped
        return all(figure == self.sent.sent for figure in figures) and not dropped and self.behind_s <= _BEHIND_S

    def told(self) -> str:
        """In words."""
        return (
            f"sent {self.sent.sent:,}, arrived {self.sent.received:,}, stored {self.stored:,}, in the kernel "
            f"{self.elements:,}, dropped by the queue {self.kernel_dropped:,}, by its socket {self.user_dropped:,}; "
            f"the rest was done {self.behind_s:.2f} s after the last packet"
        )


def measure(effort: Effort) -> Results:
    """The highest rate that holds, the target's rate, half of it, and learned flows."""
    step_s = min(_STEP_S, effort.long_s)
    highest = _highest(step_s)
    long = learn(highest, effort.long_s)
    while not long.all and highest > LADDER[0]:  # what holds for seconds need not hold out
        highest = LADDER[LADDER.index(highest) - 1]
        long = learn(highest, effort.long_s)
    asked = long if highest == TARGET_PER_S else learn(TARGET_PER_S, effort.long_s)
    half = learn(TARGET_PER_S // 2, effort.long_s)
    with service(config()) as (bed, glacic):
        to_user_space = _user_space(bed, glacic, effort.rounds, _FLOOD)
    return Results([_learned_row(highest, long, asked), _half_row(half), to_user_space])


def learn(rate: int, seconds: float) -> Learned:
    """New flows at this rate, by a service that knows none."""
    with service(config()) as (bed, glacic):
        return learn_more(bed, glacic, Flows(), rate, seconds)


def learn_more(bed: Road, glacic: BenchGlacic, flows: Flows, rate: int, seconds: float) -> Learned:
    """More new flows for a service that is there."""
    stored, elements, before = _stored(glacic), glacic.elements(), glacic.queue()
    sent = flows.send(bed, int(rate * seconds), rate, settle_s=0.2)
    ended = time.monotonic() - 0.2
    while True:
        figures = glacic.queue()
        now = _stored(glacic) - stored, glacic.elements() - elements
        took = time.monotonic() - ended
        if min(now) >= sent.received or took > _BEHIND_S + 10:
            break
        time.sleep(0.05)
    return Learned(
        sent=sent,
        accepted=figures["accepted"] - before["accepted"],
        stored=now[0],
        elements=now[1],
        kernel_dropped=figures["kernel_dropped"] - before["kernel_dropped"],
        user_dropped=figures["user_dropped"] - before["user_dropped"],
        behind_s=took,
        service_p99_us=figures["latency_us"]["p99"],
    )


def _stored(glacic: BenchGlacic) -> int:
    with closing(sqlite3.connect(f"{glacic.database.as_uri()}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM flow WHERE policy = ?", (POLICY,)).fetchone()[0])


def _highest(seconds: float) -> int:
    """The highest rung that holds for a while: up from the target, or down."""
    at = LADDER.index(TARGET_PER_S)
    if _holds(LADDER[at], seconds):
        while at + 1 < len(LADDER) and _holds(LADDER[at + 1], seconds):
            at += 1
        return LADDER[at]
    while at > 1 and not _holds(LADDER[at - 1], seconds):
        at -= 1
    return LADDER[at - 1]


def _holds(rate: int, seconds: float) -> bool:
    """Once of twice: somebody else may have had the machine."""
    return learn(rate, seconds).all or learn(rate, seconds).all


def _learned_row(highest: int, long: Learned, asked: Learned) -> Row:
    arrived = asked.sent.received / asked.sent.seconds
    return Row(
        name="flows-learned-per-second",
        what=f"New flows learned, none lost, for {long.sent.seconds:.0f} s",
        figures=(
            _figure("highest rate of the ladder that holds", "flows/s", long.sent.per_s if long.all else 0.0),
            _figure(f"learned of {TARGET_PER_S:,} flows/s sent", "flows/s", arrived),
        ),
        target=f">= {TARGET_PER_S:,} flows/s",
        met=asked.all,
        note=f"At {highest:,} a second: {long.told()}. At {TARGET_PER_S:,} a second: {asked.told()}.",
    )


def _half_row(half: Learned) -> Row:
    return Row(
        name="verdict-latency-while-learning",
        what=f"The same at {TARGET_PER_S // 2:,} flows/s",
        figures=(
            _figure("one-way latency, p50", "us", half.sent.p50_us),
            _figure("one-way latency, p99", "us", half.sent.p99_us),
            _figure("the service's own part, p99", "us", half.service_p99_us),
        ),
        target=f"p99 <= {TARGET_P99_MS:g} ms, none lost",
        met=half.all and half.sent.p99_us <= TARGET_P99_MS * 1000,
        note=half.told(),
    )


def _user_space(bed: Road, glacic: BenchGlacic, rounds: int, count: int) -> Row:
    """A learned flow's packets and new connections; what the queue has had of them, by the kernel and by the reader."""
    kinds: tuple[tuple[str, list[float]], ...] = (("2000-60000", []), ("1999", []))
    flow: list[str | float] = ["--ports", FIRST_PORT, "--first-mac", mac_text(_LEARNED_MAC), "--source-ports"]
    before = bed.arrived()
    send(bed, [*flow, "1999", "--count", 1], sink=False)
    glacic.call("flows.list", filters={}, limit=1)  # answers when the kernel has it
    send_back(bed, FIRST_PORT, 1999)
    with closing(bed.router.call(QueueTruth)) as truth:
        for _ in range(rounds):
            for ports, found in kinds:
                queued, read = _seen(truth, glacic)
                send(bed, [*flow, ports, "--count", count // rounds], sink=False)
                now_queued, now_read = _seen(truth, glacic)
                found.append(float(max(now_queued - queued, now_read - read)))
    sent = 1 + len(kinds) * rounds * (count // rounds)
    arrived = bed.arrived() - before
    return Row(
        name="learned-flow-to-user-space",
        what=f"Of {sent - 1:,} packets of a learned flow: those that reached the queue",
        figures=(
            Figure(contestant="of connections that nobody has answered", unit="packets", values=tuple(kinds[0][1])),
            Figure(contestant="of one that was answered", unit="packets", values=tuple(kinds[1][1])),
        ),
        target="0",
        met=not any(kinds[0][1]) and not any(kinds[1][1]) and arrived >= sent,
        note="Told by the kernel's number of packets ever queued and by the reader's own count, whichever says more; "
        f"{max(0, sent - arrived):,} did not arrive.",
    )


def _seen(truth: QueueTruth, glacic: BenchGlacic) -> tuple[int, int]:
    """How many packets the queue has had, and how many the reader."""
    return truth.read()[QUEUE].id_sequence, glacic.queue()["processed"]


def _figure(contestant: str, unit: str, value: float) -> Figure:
    return Figure(contestant=contestant, unit=unit, values=(value,))


def quick() -> Results:
    """What a new flow costs the service, all in all, against what a verdict costs the C floor; learned flows."""
    ours, theirs = [], []
    with scratch() as folder, Network() as network:
        beds = road(network, "1"), road(network, "2")
        with BenchGlacic(beds[1].router, folder / "2", config()):
            pass  # its ruleset stays, and is the floor's
        glacic = BenchGlacic(beds[0].router, folder / "1", config())
        with glacic, processes.running(beds[1].router, processes.program("floor", QUEUE)) as floor:
            flows = Flows()
            for _ in range(_QUICK_ROUNDS):
                ours.append(_cost_us(beds[0], flows, glacic.worker(), _QUICK_RATE))
                theirs.append(_cost_us(beds[1], flows, floor.pid, _QUICK_FLOOR_RATE))
            learned = _user_space(beds[0], glacic, 1, _QUICK_FLOOD)
    if not learned.met:
        raise LabError(f"packets of a learned flow reached user space: {learned.figures}; {learned.note}")
    row = Row(
        name="new-flow-cost",
        what="CPU time of a new flow in the whole worker, against a verdict of the C floor",
        figures=(
            Figure(contestant="glacic", unit="us/flow", values=tuple(ours)),
            Figure(contestant="C floor", unit="us/packet", values=tuple(theirs)),
        ),
        ratio=paired(ours, theirs),
        ratio_of="glacic / C floor",
    )
    return Results([row])


def _cost_us(bed: Road, flows: Flows, pid: int, rate: int) -> float:
    """us of a process for each packet that it has let through; on a machine that is too busy it may not be all."""
    began = pinning.precise_cpu_s(pid)
    sent = flows.send(bed, int(rate * _QUICK_S), rate)
    return (pinning.precise_cpu_s(pid) - began) / max(1, sent.received) * 1e6
