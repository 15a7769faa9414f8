"""A million distinct flows in a minute, made up by one host: every packet with another source or port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Self

from bench.service import memory_kib
from faults.bed import Bed, Log, StatusWatch, bed, config, kernel
from faults.probes import FIRST_PORT, LAST_PORT
from faults.result import EITHER, PASS, STOP, Case, Count
from faults.rows.flooded import Sender
from glacic.lab import traffic
from glacic.lab.home import SERVER

NAME = "spoofed"
TITLE = "A million made-up flows in a minute"
PLACES = ("here",)
PROMISE = """\
With learning on or off, the memory of each process moves by less than 50 MB: what is learned, what waits and what is
remembered is bounded (`learn_max`, `learn_max_per_source`, `cache_size`). Learned and established traffic notices
nothing. A second, quiet host still gets a verdict on its new connections: accepted, or what the policy says where a
limit of learning is reached. Where the flood is more than one core decides, a SYN may find the queue full, and the next
one gets it."""
ADVICE = """\
Learning for everybody ends where somebody has used it up: `glacic flows forget --state pending --source MAC` and
`glacic flows list --origin tofu` clean up afterwards, `learn_max_per_source` bounds what one source can take, and
`rate_limit` what reaches user space at all."""

FLOWS = 1_000_000
SECONDS = 60
EACH = 250  # flows of one made-up source: fewer than learn_max_per_source
MEMORY_KIB = 50 * 1024
PER_S = 10.0
PAUSE_S, PATIENT_S = (
    0.4,
    8.0,
)  # of the quiet host: few enough flows for learn_max_per_source; three SYNs of a connection
MOST_UNDECIDED = 0.05


def measure() -> Iterator[Case]:
    """With learning on, then off."""
    for learning in (True, False):
        yield flood(learning=learning)


def flood(*, learning: bool, flows: int = FLOWS, seconds: float = SECONDS) -> Case:
    """So many flows in so many seconds."""
    ports = ("--ports", f"10000-{10_000 + EACH - 1}", "--source-ports", "2000-61999")
    sources = ("--source-macs", flows // EACH, "--new", "--count", flows, "--rate", flows / seconds)
    sender = Sender((*ports, *sources), first_mac="02:10:00:00:00:00")
    with bed(config(limits=True, action="reject")) as at, at.streams(PER_S) as streams, StatusWatch(at.glacic) as watch:
        streams.wait_answered("unknown", 0.0)
        if not learning:
            at.glacic.call("learn.off")
        time.sleep(1.0)
        log, began = Log(at.glacic), time.monotonic()
        with Memory(at) as memory, QuietHost(at) as quiet:
            sender.begin(at)
            sender.wait(seconds * 4)
            ended = time.monotonic()
        streams.rest()
        numbers, broken = sender.measure(at, None)
        said, status = log.troubles(), watch.since(began)
    promised = {"learned": PASS, "established": PASS, "unknown": EITHER, "quiet": EITHER}
    counts = {
        kind: Count.of(promised.get(kind, STOP), stream.between(kind, began, ended))
        for kind, stream in streams.kinds.items()
    }
    broken += [f"{count.lost} {kind} packets are lost" for kind, count in counts.items() if count.lost]
    broken += [f"{count.wrong} {kind} packets passed" for kind, count in counts.items() if count.wrong]
    for who, moved in memory.moved.items():
        numbers[f"memory of the {who}"] = f"+{moved / 1024:.0f} MB"
        if moved > MEMORY_KIB:
            broken.append(f"memory of the {who} moved by {moved >> 10} MB")
    numbers["a quiet host's new connections: accepted / rejected / no verdict"] = " / ".join(map(str, quiet.verdicts()))
    if quiet.verdicts()[2] > MOST_UNDECIDED * sum(quiet.verdicts()):
        broken.append(f"{quiet.verdicts()[2]} new connections of a quiet host got no verdict")
    return Case(
        setting=f"learning {'on' if learning else 'off'}",
        kernel=kernel(),
        traffic=counts,
        said=said,
        status=status,
        numbers=numbers,
        broken=tuple(broken),
    )


class QuietHost:
    """Opens a connection now and then, each a new flow; the policy rejects, so that every verdict is seen."""

    def __init__(self, at: Bed) -> None:
        self._at = at
        self._said: list[str] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def verdicts(self) -> tuple[int, int, int]:
        """Accepted, rejected, neither within PATIENT_S."""
        refused = sum(error == "refused" for error in self._said)
        return self._said.count(""), refused, len(self._said) - self._said.count("") - refused

    def _run(self) -> None:
        for port in range(FIRST_PORT, LAST_PORT):
            if self._enough.wait(PAUSE_S):
                return
            self._said.append(self._at.home.laptop.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S).error)


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
