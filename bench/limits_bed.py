"""The bed for limits: pairs of hosts, a cgroup on each pair's near side, and one cell of the table measured there.

    near  10.9.0.1 fd09::1 ---- eth0 ---- 10.9.0.2 fd09::2  far        a lane; as many as measure at a time
    the cgroup bench-N.service of a slice

The engines are Glacic's own classes. Each cell has a new one, its two ends new processes (limits_end.py), the near one
in the cgroup from its start. Refuses to judge; limits_cells.py does.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import limits_end, processes
from bench.limits_cells import SETTLE_S, Cell, Measured, Told
from glacic.errors import GlacicError
from glacic.firewall.nft import Libnftables
from glacic.lab.cgroups import Slice, hierarchy
from glacic.lab.net import Host, Network, Port
from glacic.shaping.bpf.engine import BpfLimits
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Counted, Engine, Item
from glacic.shaping.nftlimits import NftLimits
from glacic.shaping.tc.police import Police
from glacic.shaping.tc.shape import Shape

INTERFACE = "eth0"
NEAR_4, FAR_4, FAR_6 = "10.9.0.1", "10.9.0.2", "fd09::2"
_SPARE_S = 90.0  # for the ends to start, and to end
_ENGINE = threading.Lock()  # libnftables and the routing socket are one caller's at a time

# No connection takes over what an earlier one, under another limit, has learned of the path (tcp_metrics).
_SETTINGS = {"net/ipv4/tcp_no_metrics_save": "1"}


@dataclass(frozen=True, slots=True)
class Lane:
    """Two hosts and a cgroup."""

    near: Host
    far: Host
    slice: Slice
    cgroup: Cgroup

    def engine(self, name: str) -> Engine:
        """A new engine on the near host."""
        mount = self.slice.hierarchy.mount
        if name == "nft":
            return self.near.call(lambda: NftLimits(Libnftables(), mount=lambda: mount))
        if name == "shape":
            return Shape(self.near.call(Libnftables), mount=lambda: mount)
        return BpfLimits(mount) if name == "bpf" else Police()

    @contextlib.contextmanager
    def limited(self, cell: Cell) -> Iterator[Engine]:
        """The cell's limit is in force. Raises GlacicError where this kernel cannot."""
        upload, download = (cell.rate, 0) if cell.direction == UPLOAD else (0, cell.rate)
        item = Item(name="bench", cgroup=self.cgroup, upload=upload, download=download, interface=INTERFACE)
        with _ENGINE:
            engine = self.engine(cell.engine)
        try:
            with _ENGINE:
                self.near.call(engine.put, [item])
            yield engine
        finally:
            with _ENGINE:
                self.near.call(engine.remove)


@contextlib.contextmanager
def lanes(count: int) -> Iterator[list[Lane]]:
    """So many, alike and apart from each other."""
    with contextlib.ExitStack() as stack:
        slice_ = stack.enter_context(Slice(stack.enter_context(hierarchy())))
        network = stack.enter_context(Network())
        yield [_lane(network, slice_, number) for number in range(count)]


def _lane(network: Network, slice_: Slice, number: int) -> Lane:
    near, far = network.host(f"near{number}"), network.host(f"far{number}")
    ends = [
        Port(host, INTERFACE, "", (f"10.9.0.{last}/24", f"fd09::{last}/64")) for host, last in ((near, 1), (far, 2))
    ]
    network.cable(*ends)
    for host in (near, far):
        host.set(_SETTINGS)
    return Lane(near, far, slice_, slice_.make(f"bench-{number}.service"))


def measure(lane: Lane, cell: Cell, seconds: float) -> Measured | str:
    """What one cell comes to, in `seconds` behind its first two; why not, where it cannot be."""
    try:
        if (lacks := missing(cell.traffic.congestion)) != "":
            return lacks
        with lane.limited(cell) as engine:
            took, gave = _transferred(lane, cell, seconds)
            with _ENGINE:
                counted = lane.near.call(engine.counters)["bench", cell.direction]
    except GlacicError as error:
        return " ".join(str(error).split())
    bins: Sequence[int] = took["bins"]
    each = round(1 / limits_end.BIN_S)
    begin = round(SETTLE_S * each)
    return Measured(
        steady=sum(bins[begin:]) / (len(bins) - begin) * each / cell.rate,
        first=sum(bins[:each]) / cell.rate,
        wasted=wasted(counted),
        again=gave["again"] / gave["sent"] if cell.traffic.congestion and gave["sent"] else None,
        least=min(took["flows"]) / max(1, sum(took["flows"])),
    )


def _transferred(lane: Lane, cell: Cell, seconds: float) -> tuple[dict[str, list[int]], dict[str, int]]:
    """What the taking end says, and the sending one."""
    families = {"4": FAR_4, "6": FAR_6}
    order = limits_end.Order(
        upload=cell.direction == UPLOAD,
        protocol="tcp" if cell.traffic.congestion else "udp",
        congestion=cell.traffic.congestion,
        addresses=[families[family] for family in cell.traffic.flows],
        rate=cell.rate,
        seconds=SETTLE_S + seconds,
    )
    program = [sys.executable, "-P", str(Path(limits_end.__file__)), "far", json.dumps(order)]
    near = lane.slice.command(Path(lane.cgroup.path).name, [*program[:3], "near", program[4]])
    patience_s = seconds + _SPARE_S
    with (
        processes.running(lane.far, program) as far_end,
        processes.running(lane.near, near, ready=False) as near_end,
    ):
        taking, sending = (near_end, far_end) if cell.direction == DOWNLOAD else (far_end, near_end)
        return taking.wait(patience_s), sending.wait(patience_s)


def wasted(counted: Counted) -> float:
    """The part of what came to a limit that it threw away: bytes, or packets of an engine that knows no bytes."""
    if counted.dropped_packets and not counted.dropped_bytes:
        return counted.dropped_packets / (counted.packets + counted.dropped_packets)
    return counted.dropped_bytes / max(1, counted.bytes + counted.dropped_bytes)


def missing(congestion: str) -> str:
    """Why a socket cannot have this congestion control here, "" where it can (or needs none)."""
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
    if congestion and congestion not in known.read_text().split():
        with contextlib.suppress(OSError):
            subprocess.run(["modprobe", f"tcp_{congestion}"], capture_output=True, check=False)  # noqa: S603, S607
        if congestion not in known.read_text().split():
            return f"this kernel has no tcp_{congestion}"
    return ""


def table(lanes_: Sequence[Lane], cells: Sequence[Cell], rounds: int, seconds: float, alone: int) -> Told:
    """All cells, round by round: below the rate `alone` as many at a time as there are lanes, the others by themselves,
    as they would take each other's processor. seconds: of a round (Cell.seconds)."""
    told: dict[Cell, list[Measured | str]] = {cell: [] for cell in cells}
    free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for lane in lanes_:
        free.put(lane)

    def one(cell: Cell) -> None:
        lane = free.get()
        try:
            told[cell].append(measure(lane, cell, cell.seconds(seconds)))
        finally:
            free.put(lane)

    for _ in range(rounds):
        with ThreadPoolExecutor(len(lanes_)) as pool:
            for done in [pool.submit(one, cell) for cell in cells if cell.rate < alone]:
                done.result()
        for cell in cells:
            if cell.rate >= alone:
                one(cell)
    return told
