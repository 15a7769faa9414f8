"""What grows with the number of learned flows in the store, and what does not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.effort import Effort
from bench.filling import Filled, keys
from bench.result import Figure, Plot, Results, Row, paired, spread
from bench.sending import Flows
from bench.service import POLICY, BenchGlacic, Road, config, road, scratch
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.client import Client
from glacic.errors import LabError
from glacic.lab.net import Network
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import FlowKey, Why
from glacic.learning.packet import Packet, Unknown, decode
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch

NAME = "scaling_flows"
TITLE = "More and more learned flows"
INTRO = """\
The same four things with 1,000, 10,000, 100,000 and 1,000,000 learned flows in the store and in the kernel: the first
packet of a new flow through the whole service (one-way, 250 new flows a second); a decision on a flow that is stored
and not in the flow cache, by the engine alone, in this process; the first page of 100 of `flows list`, and `stats`,
each over the control socket of the running service, without the start of a process. Medians of each round. Where the
kernel's counters are read quickly enough, in a small set, `flows list` waits for them."""

SIZES = (1_000, 10_000, 100_000, 1_000_000)
RATE = 250
_LOOKUPS = 2_000
_REQUESTS = 20
_FIRST, _LOOKUP, _LIST, _STATS = (
    "first packet of a new flow, one-way",
    "decision on a stored flow, cache missed",
    "flows list, first page",
    "stats",
)
_NAMES = {_FIRST: "scaling-first-packet", _LOOKUP: "scaling-lookup", _LIST: "scaling-list", _STATS: "scaling-stats"}

# IPv4, UDP, 10.0.0.1:4000 -> 10.0.1.2, to be given a port
_IP = bytes.fromhex("4500002c000040004011 0000 0a000001 0a000102")
_UDP = bytes.fromhex("0fa0")


def measure(effort: Effort) -> Results:
    """Each size in turn, as many rounds of the four in each as there are."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in (_FIRST, _LOOKUP, _LIST, _STATS)}
    with scratch() as folder, Network() as network:
        bed, filled = road(network), Filled(folder)
        for size in SIZES:
            for name, values in _measure(bed, folder / str(size), filled, size, effort).items():
                found[name][size] = values
    return Results([_row(name, by_size) for name, by_size in found.items()], [_plot(found)])


def _measure(bed: Road, folder: Path, filled: Filled, size: int, effort: Effort) -> dict[str, list[float]]:
    """us by what was measured, round by round."""
    glacic = BenchGlacic(bed.router, folder, config())
    filled.put(size, glacic.database)
    copy = folder / "engine" / "flows.db"
    filled.put(size, copy)
    found: dict[str, list[float]] = {name: [] for name in (_FIRST, _LOOKUP, _LIST, _STATS)}
    with glacic, Client(glacic.socket) as client, Store.open(copy) as store:
        flows, lookup = Flows(), Lookups(store, size)
        _first_us(bed, flows, 1.0)
        for _ in range(effort.rounds):
            found[_FIRST].append(_first_us(bed, flows, effort.seconds))
            found[_LOOKUP].append(lookup.median_us())
            found[_LIST].append(_median_us(lambda: client.call("flows.list", limit=100)))
            found[_STATS].append(_median_us(lambda: client.call("stats")))
    glacic.cli("unload")
    return found


def _first_us(bed: Road, flows: Flows, seconds: float) -> float:
    sent = flows.send(bed, int(RATE * seconds), RATE)
    if sent.lost:
        raise LabError(f"{sent.lost} of {sent.sent} first packets are lost")
    return sent.p50_us


class Lookups:
    """The engine over a store, asked about flows that are stored; each once in a round, so that the cache has none."""

    def __init__(self, store: Store, size: int) -> None:
        policy = LearningPolicy(name=POLICY, number=1)
        switch = LearningSwitch.restore(None, file_mode=True, learn_for_s=None, policies=[POLICY], now_ns=0)
        self._policy = policy
        self._cache = open_cache(store, 10)  # holds next to nothing
        self._engine = Engine(
            [policy],
            store=store,
            cache=self._cache,
            switch=switch,
            limits=Limits(),
            on_change=lambda _: None,
        )
        step = max(1, size // _LOOKUPS)
        self._keys = [key for number, key in enumerate(keys(size)) if number % step == 0][:_LOOKUPS]

    def median_us(self) -> float:
        """The middle of many decisions."""
        taken = []
        for key in self._keys:
            packet = _packet(key)
            began = time.perf_counter_ns()
            decision = self._engine.decide(packet, self._policy, key.source, began)
            taken.append(time.perf_counter_ns() - began)
            if decision.why is not Why.STORED_ALLOW:
                raise LabError(f"a stored flow was answered with: {decision.why}")
        self._cache.take()  # what was counted is thrown away, and with it what the cache holds for the writer
        self._cache.settle()
        return statistics.median(taken) / 1000


def _packet(key: FlowKey) -> Packet:
    packet = decode(_IP + _UDP + key.port.to_bytes(2, "big") + bytes.fromhex("00180000") + bytes(16))
    if isinstance(packet, Unknown):
        raise LabError(f"the bench's own packet cannot be read: {packet.reason}")
    return packet


def _median_us(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REQUESTS):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken)


def _row(name: str, by_size: dict[int, list[float]]) -> Row:
    smallest, largest = min(by_size), max(by_size)
    return Row(
        name=_NAMES[name],
        what=f"{name[0].upper()}{name[1:]}, by learned flows",
        figures=tuple(
            Figure(contestant=f"{size:,} flows", unit="us", values=tuple(values)) for size, values in by_size.items()
        ),
        ratio=paired(by_size[largest], by_size[smallest]),
        ratio_of=f"{largest:,} flows / {smallest:,}",
    )


def _plot(found: dict[str, dict[int, list[float]]]) -> Plot:
    return Plot(
        name="flows-learned",
        title="What the number of learned flows costs",
        x_label="learned flows in the store and in the kernel",
        y_label="us, median",
        series={
            name: [(float(size), *spread(values)) for size, values in sorted(by_size.items())]
            for name, by_size in found.items()
        },
    )
