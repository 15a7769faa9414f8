"""nflog mode: how long after its first packet a flow is open, that is, its element in the kernel."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench.effort import Effort
from bench.result import Figure, Results, Row, spread
from bench.sending import Flows
from bench.service import BenchGlacic, Road, config, service
from bench.watching import Elements, Tap
from glacic.errors import LabError

NAME = "log-to-element"
TITLE = "From a packet that is dropped and logged to the element that lets the next one through"
INTRO = """\
nflog mode, the whole service: new flows at a fixed rate, one datagram each, all of which the kernel logs and drops. The
time is from the datagram's sending, as written in it, to the kernel's event that says that the flow's element is in the
learned set, as another process reads it (nftables' monitor). That somebody listens to these events makes each
transaction a little dearer."""

RATES = (1_000, 100)  # new flows a second; the target is for the first
TARGET_P50_MS, TARGET_P99_MS = 5.0, 25.0
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Opened:
    """Percentiles in ms."""

    p50_ms: float
    p99_ms: float


def measure(effort: Effort) -> Results:
    """Both rates in every round."""
    found: dict[int, list[Opened]] = {rate: [] for rate in RATES}
    with service(config(inline=False)) as (bed, glacic):
        flows = Flows()
        flows.send(bed, 500, 500, sink=False)
        for number in range(effort.rounds):
            for step in range(len(RATES)):
                rate = RATES[(number + step) % len(RATES)]
                found[rate].append(opened(bed, glacic, flows, rate, effort.seconds))
    return Results([_row(rate, rounds, number == 0) for number, (rate, rounds) in enumerate(found.items())])


def opened(bed: Road, glacic: BenchGlacic, flows: Flows, rate: int, seconds: float) -> Opened:
    """New flows for some seconds: how long each took. Raises LabError where one of them was not learned."""
    count, before = max(100, int(rate * seconds)), glacic.elements()
    tap = Tap(bed.router)
    with Elements(bed.router) as elements:
        flows.send(bed, count, rate, sink=False)
        ends = time.monotonic() + _PATIENCE_S
        while glacic.elements() < before + count and time.monotonic() < ends:
            time.sleep(0.2)
    sent, added = tap.sent(), elements.added()
    late_ms = sorted((added[name] - at_ns) / 1e6 for name, at_ns in sent.items() if name in added)
    if len(late_ms) < count:
        raise LabError(f"of {count} new flows {len(sent)} were seen and {len(late_ms)} came into the kernel")
    return Opened(statistics.median(late_ms), late_ms[int(0.99 * (len(late_ms) - 1))])


def _row(rate: int, rounds: list[Opened], judged: bool) -> Row:
    p50, p99 = tuple(one.p50_ms for one in rounds), tuple(one.p99_ms for one in rounds)
    met = spread(p50).median <= TARGET_P50_MS and spread(p99).median <= TARGET_P99_MS
    return Row(
        name="nflog-drop-to-element" if judged else f"nflog-drop-to-element-{rate}",
        what=f"From a packet's sending to its flow's element, {rate:,} new flows/s",
        figures=(
            Figure(contestant="p50", unit="ms", values=p50),
            Figure(contestant="p99", unit="ms", values=p99),
        ),
        target=f"p50 <= {TARGET_P50_MS:g} ms, p99 <= {TARGET_P99_MS:g} ms" if judged else "",
        met=met if judged else None,
    )
