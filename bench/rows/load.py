"""First packets while the service is busy with other things, each alone and all together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import pinning, processes
from bench.effort import Effort
from bench.filling import Filled
from bench.result import Figure, Results, Row, paired, spread
from bench.sending import Flows, Sent
from bench.service import QUEUE, BenchGlacic, Road, config, road, scratch
from glacic.ctlplane.client import Client
from glacic.errors import LabError
from glacic.lab.net import Network

NAME = "load"
TITLE = "First packets while the service is busy"
INTRO = """\
The whole service, 100,000 flows learned before. 500 new flows a second, each one datagram through the router; its time
is from its sending to its arrival at the server's interface, so the sender's and the kernel's own part is in it, as it
is for the C floor, which answers the same queue behind the same ruleset on a router of its own. Meanwhile, each in a
loop on the service's control socket: all flows are listed, in pages of 5,000, again and again; the configuration is
reloaded, one reload after the other. The database is written all the time, as the flows are new. Each disturbance
stands alone as well, and the floor is measured with both of them at work beside it: that is what they take of the
machine, whatever is measured."""

FLOWS = 100_000
RATE = 500.0  # new flows a second
TARGET_MS = 3.0
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Bed:
    """Two routers alike: the service on one, the C floor on the other."""

    ours: Road
    floors: Road
    glacic: BenchGlacic
    new: Flows


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is measured, and what goes on meanwhile."""

    name: str
    floor: bool = False
    listing: bool = False
    reloading: bool = False


CONTESTANTS = (
    Contestant("C floor, nothing else at work", floor=True),
    Contestant("C floor, the service beside it listing and reloading", floor=True, listing=True, reloading=True),
    Contestant("glacic, nothing else at work"),
    Contestant("glacic, flows being listed", listing=True),
    Contestant("glacic, reloads", reloading=True),
    Contestant("glacic, flows being listed, and reloads", listing=True, reloading=True),
)


def measure(effort: Effort) -> Results:
    """Every contestant in every round."""
    sent: dict[str, list[Sent]] = {contestant.name: [] for contestant in CONTESTANTS}
    done: dict[str, list[str]] = {contestant.name: [] for contestant in CONTESTANTS}
    with bed() as at:
        for contestant in CONTESTANTS:
            _one(at, contestant, min(1.0, effort.seconds))
        for number in range(effort.rounds):
            for step in range(len(CONTESTANTS)):
                contestant = CONTESTANTS[(number + step) % len(CONTESTANTS)]
                came, said = _one(at, contestant, effort.seconds)
                sent[contestant.name].append(came)
                done[contestant.name].append(said)
    return Results([_row(sent, done)])


@contextlib.contextmanager
def bed() -> Iterator[Bed]:
    """Both routers, running."""
    with scratch() as folder, Network() as network:
        ours, floors = road(network, "1"), road(network, "2")
        with BenchGlacic(floors.router, folder / "2", config()):
            pass  # its ruleset stays, and is the floor's
        glacic = BenchGlacic(ours.router, folder / "1", config())
        Filled(folder).put(FLOWS, glacic.database)
        floor = processes.running(floors.router, processes.program("floor", QUEUE))
        with glacic, floor:
            yield Bed(ours, floors, glacic, Flows())


def _one(at: Bed, contestant: Contestant, seconds: float) -> tuple[Sent, str]:
    """One contestant: how late its packets came, and how often it was disturbed."""
    with contextlib.ExitStack() as stack:
        disturbances = []
        if contestant.listing:
            disturbances.append(stack.enter_context(Disturbance("lists", at.glacic, lists)))
        if contestant.reloading:
            disturbances.append(stack.enter_context(Disturbance("reloads", at.glacic, reloads)))
        sent = at.new.send(at.floors if contestant.floor else at.ours, int(RATE * seconds), RATE)
    if sent.lost:
        raise LabError(f"{contestant.name}: {sent.lost} of {sent.sent} packets are lost")
    return sent, ", ".join(f"{disturbance.times:.1f} {disturbance.what}" for disturbance in disturbances)


class Disturbance:
    """Calls a request of the control socket again and again, in a thread of its own, while the block lasts."""

    def __init__(self, what: str, glacic: BenchGlacic, work: Callable[[Client], float]) -> None:
        self.what = what
        self.times = 0.0
        self._glacic = glacic
        self._work = work
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._trouble: Exception | None = None

    def __enter__(self) -> Disturbance:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble

    def _run(self) -> None:
        try:
            with Client(self._glacic.socket) as client:
                while not self._enough.is_set():
                    self.times += self._work(client)
        except Exception as error:  # raised again where the block ends
            self._trouble = error


class _Lists:
    """`flows list` of everything, page by page; each call is one page."""

    def __init__(self) -> None:
        self._after = 0

    def __call__(self, client: Client) -> float:
        page = client.call("flows.list", after=self._after, limit=_PAGE)
        self._after = page["next"] or 0
        return _PAGE / FLOWS


lists = _Lists()


def reloads(client: Client) -> float:
    """One reload."""
    client.call("reload")
    return 1


def _row(sent: dict[str, list[Sent]], done: dict[str, list[str]]) -> Row:
    worst = [one.p99_us for one in sent[CONTESTANTS[-1].name]]
    floor = [one.p99_us for one in sent[CONTESTANTS[0].name]]
    figures = []
    for contestant in CONTESTANTS:
        for part in ("p50", "p99"):
            values = tuple(float(getattr(one, f"{part}_us")) for one in sent[contestant.name])
            figures.append(Figure(contestant=f"{contestant.name}: {part}", unit="us", values=values))
    said = "; ".join(f"{name}: {rounds[0]}" for name, rounds in done.items() if rounds and rounds[0])
    return Row(
        name="loaded-latency",
        what=f"First packet through the router, {RATE:,.0f} new flows a second, {FLOWS:,} flows in the store",
        figures=tuple(figures),
        target=f"p99 <= {TARGET_MS:g} ms with everything at work",
        met=spread(worst).median <= TARGET_MS * 1000,
        ratio=paired(worst, floor),
        ratio_of="p99, glacic with everything at work / C floor with nothing at work",
        note=f"In the first round there were, meanwhile: {said}. The sender has core {pinning.cores().sender}; nothing "
        "else is pinned.",
    )
