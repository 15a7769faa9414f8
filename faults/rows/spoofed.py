"""A million distinct flows in a minute, made up by one host: every packet with another source or port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Self

from bench.service import memory_kib
from faults.bed import Bed, Log, StatusWatch, Streams, bed, config, kernel
from faults.result import EITHER, PASS, STOP, Case, Count
from faults.rows.flooded import Sender
from glacic.lab.home import CAMERA_MAC, LAPTOP_MAC

NAME = "spoofed"
TITLE = "A million made-up flows in a minute"
PLACES = ("here",)
PROMISE = """\
With learning on or off, the memory of each process moves by less than 50 MB: what is learned, what waits and what is
remembered is bounded (`learn_max`, `learn_max_per_source`, `cache_size`). Learned and established traffic notices
nothing. A second, quiet host still gets a verdict on its new flows: allowed, or pending where a limit of learning is
reached. Where the flood is more than one core decides, a first packet may find the queue full; its next one gets it."""
ADVICE = """\
Learning for everybody ends where somebody has used it up: `glacic flows forget --state pending --source MAC` and
`glacic flows list --origin tofu` clean up afterwards, `learn_max_per_source` bounds what one source can take, and
`rate_limit` what reaches user space at all."""

FLOWS = 1_000_000
SECONDS = 60
EACH = 250  # flows of one made-up source: fewer than learn_max_per_source
MEMORY_KIB = 50 * 1024
QUIET_PER_S, TIMES = 15.0, 5  # packets, and of each flow: three flows a second stay below learn_max_per_source

DECIDED, UNDECIDED = "quiet hosts' new flows with a verdict", "without one"
MOST_UNDECIDED = 0.1  # all tries of a flow may find the queue full, where the machine cannot keep up


def measure() -> Iterator[Case]:
    """With learning on, then off."""
    for learning in (True, False):
        yield flood(learning=learning)


def flood(*, learning: bool, flows: int = FLOWS, seconds: float = SECONDS) -> Case:
    """So many flows in so many seconds."""
    ports = ("--ports", f"10000-{10_000 + EACH - 1}", "--source-ports", "2000-61999")
    sources = ("--source-macs", flows // EACH, "--new", "--count", flows, "--rate", flows / seconds)
    sender = Sender((*ports, *sources), first_mac="02:10:00:00:00:00")
    with (
        bed(config(limits=True)) as at,
        at.streams(QUIET_PER_S, times=TIMES) as streams,
        StatusWatch(at.glacic) as watch,
    ):
        streams.wait_answered("unknown", 0.0)
        if not learning:
            at.glacic.call("learn.off")
        time.sleep(1.0)
        log, began = Log(at.glacic), time.monotonic()
        with Memory(at) as memory:
            sender.begin(at)
            sender.wait(seconds * 4)
            ended = time.monotonic()
            streams.rest()
        case = _case(at, streams, (began, ended), learning)
        numbers, broken = sender.measure(at, case)
        said, status = log.troubles(), watch.since(began)
    broken += [
        f"memory of the {who} moved by {moved >> 10} MB" for who, moved in memory.moved.items() if moved > MEMORY_KIB
    ]
    numbers |= {f"memory of the {who}": f"+{moved / 1024:.0f} MB" for who, moved in memory.moved.items()}
    undecided = int(case.numbers[UNDECIDED])
    if undecided > MOST_UNDECIDED * int(case.numbers[DECIDED]):
        broken.append(f"{undecided} new flows of quiet hosts got no verdict")
    broken += [f"{count.lost} {kind} packets are lost" for kind, count in case.traffic.items() if count.lost]
    broken += [f"{count.wrong} {kind} packets passed" for kind, count in case.traffic.items() if count.wrong]
    return Case(
        setting=case.setting,
        kernel=kernel(),
        traffic=case.traffic,
        said=said,
        status=status,
        numbers={**numbers, **case.numbers},
        broken=tuple(broken),
    )


def _case(at: Bed, streams: Streams, times: tuple[float, float], learning: bool) -> Case:
    promised = {"learned": PASS, "established": PASS, "unknown": EITHER, "quiet": EITHER}
    counts = {
        kind: Count.of(promised.get(kind, STOP), stream.between(kind, *times)) for kind, stream in streams.kinds.items()
    }
    undecided = flows = 0
    for kind, source in (("unknown", LAPTOP_MAC), ("quiet", CAMERA_MAC)):
        known = {flow["port"] for flow in at.glacic.flows(source=source)}
        packets = streams.kinds[kind].between(kind, *times)
        asked = {packet.port for packet in packets}
        answered = {packet.port for packet in packets if packet.answered is not None}
        flows += len(asked)
        undecided += len(asked - answered - known)
    return Case(
        setting=f"learning {'on' if learning else 'off'}",
        kernel=kernel(),
        traffic=counts,
        numbers={DECIDED: str(flows - undecided), UNDECIDED: str(undecided)},
    )


class Memory:
    """How far the resident memory of both processes moves, in KiB, while the block lasts."""

    def __init__(self, at: Bed) -> None:
        self._pids = dict(zip(("control process", "worker"), at.glacic.pids(), strict=True))
        self._before = {who: memory_kib(pid)["rss"] for who, pid in self._pids.items()}
        self.moved = dict.fromkeys(self._pids, 0)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.wait(0.25):
            for who, pid in self._pids.items():
                self.moved[who] = max(self.moved[who], memory_kib(pid)["rss"] - self._before[who])
