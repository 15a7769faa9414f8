"""From nothing to in force with many learned flows, and what the service then needs of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bench.effort import Effort
from bench.filling import Filled, keys, packets_of
from bench.result import Figure, Results, Row, paired, spread
from bench.sending import send
from bench.service import BenchGlacic, Road, config, memory_kib, road, scratch
from glacic.errors import LabError
from glacic.firewall.nft import Libnftables
from glacic.firewall.shapes import Shape, element_text
from glacic.lab.net import Network

NAME = "start"
TITLE = "Start, and memory"
INTRO = """\
`glacic run`, from the start of its process to READY=1, with so many learned flows in its database: in an empty kernel
(cold), over the table that a clean stop has left (warm), and over what kill -9 has left. Afterwards the kernel has
as many elements as there are flows. The files are in the page cache. Beside it stands what only putting these elements
into such a set takes, by libnftables in transactions of 5,000, their text being ready.

Memory with 1,000,000 flows and a flow cache of 10,000: resident and proportional set of control process and worker
(proc(5): VmRSS, Pss, VmHWM), after a cold start, and after a minute in which 100,000 of the flows were used and the
kernel's counters were read and stored."""

SIZES = {100_000: 3.0, 1_000_000: 20.0}  # flows -> seconds
MEMORY_MIB = 150
CACHE = 10_000
_USED = 100_000  # flows that are used while memory is watched
_BATCH = 5_000  # elements of one transaction, as the service's are
_MANY = 500_000  # flows from which on two rounds have to do
_KIND = ("cold", "warm", "after kill -9")


@dataclass(slots=True)
class Starts:
    """Seconds to READY=1 by kind, and the floor's."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _KIND})
    floor: list[float] = field(default_factory=list)


def measure(effort: Effort) -> Results:
    """Both sizes, and memory with the larger one."""
    rows = []
    with scratch() as folder, Network() as network:
        bed, filled = road(network), Filled(folder)
        for size, target_s in SIZES.items():
            starts = Starts()
            for number in range(min(effort.rounds, 2) if size >= _MANY else effort.rounds):
                starts.floor.append(bed.client.call(_fill_by_hand, size))
                glacic = BenchGlacic(bed.router, folder / f"{size}-{number}", config(cache_size=CACHE))
                filled.put(size, glacic.database)
                _start_thrice(glacic, size, starts)
                glacic.cli("unload")
            rows.append(_start_row(size, target_s, starts))
        rows.append(_memory_row(bed, folder, filled, max(SIZES), effort.long_s))
    return Results(rows)


def _start_thrice(glacic: BenchGlacic, size: int, starts: Starts) -> None:
    endings: dict[str, Callable[[], None]] = {"cold": glacic.stop, "warm": glacic.kill, "after kill -9": glacic.stop}
    for kind, end in endings.items():
        with glacic:
            starts.seconds[kind].append(glacic.ready_s)
            if (found := glacic.elements()) != size:
                raise LabError(f"after a {kind} start the kernel has {found:,} of {size:,} elements")
            end()


def _fill_by_hand(count: int) -> float:
    """Seconds that libnftables and the kernel need for such a set."""
    nft = Libnftables()
    shape = Shape("mac", "port", "")
    flows = keys(count)
    scripts = []
    while chosen := list(islice(flows, _BATCH)):
        scripts.append(f"add element inet byhand flows {{ {', '.join(map(element_text, chosen))} }}\n")
    nft.run(f"table inet byhand {{\n set flows {{ typeof {shape.expression}; counter; }}\n}}\n")
    began = time.monotonic()
    for script in scripts:
        nft.run(script)
    took = time.monotonic() - began
    nft.run("delete table inet byhand\n")
    return took


def _start_row(size: int, target_s: float, starts: Starts) -> Row:
    figures = [Figure(contestant=f"glacic, {kind}", unit="s", values=tuple(starts.seconds[kind])) for kind in _KIND]
    floor = Figure(contestant="the elements alone, by libnftables", unit="s", values=tuple(starts.floor))
    return Row(
        name="start-1m" if size >= _MANY else "start-100k",
        what=f"Start to ready with {size:,} learned flows",
        figures=(*figures, floor),
        target=f"<= {target_s:g} s",
        met=all(spread(figure.values).median <= target_s for figure in figures),
        ratio=paired(starts.seconds["cold"], starts.floor),
        ratio_of="cold start / the elements alone",
    )


def _memory_row(bed: Road, folder: Path, filled: Filled, size: int, seconds: float) -> Row:
    glacic = BenchGlacic(bed.router, folder / "memory", config(cache_size=CACHE))
    filled.put(size, glacic.database)
    with glacic:
        fresh = _memory(glacic)
        used = send(bed, packets_of(_USED), sink=False)
        time.sleep(seconds)
        glacic.call("flows.list", filters={}, limit=1)
        later = _memory(glacic)
        counted = sum(flow["packets"] > 1 for flow in glacic.call("flows.list", filters={}, limit=5_000)["flows"])
    glacic.cli("unload")
    figures = [
        Figure(contestant=f"{who}, {when}", unit="MiB", values=(mib[what],))
        for when, memory in (("after the start", fresh), (f"{seconds:.0f} s later", later))
        for who, mib in memory.items()
        for what in ("rss",)
    ]
    both = [memory["both"] for memory in (fresh, later)]
    return Row(
        name="memory-1m",
        what=f"Resident memory with {size:,} flows in the store, a cache of {CACHE:,}",
        figures=tuple(figures),
        target=f"<= {MEMORY_MIB} MB, both processes",
        met=max(memory["rss"] for memory in both) <= MEMORY_MIB * 1e6 / (1 << 20),
        note=f"At its highest: control process {later['control process']['peak']:.0f} MiB, worker "
        f"{later['worker']['peak']:.0f} MiB. Proportional, both: {both[0]['pss']:.0f} MiB after the start, "
        f"{both[1]['pss']:.0f} MiB later. {used.sent:,} flows were used meanwhile; of the first 5,000 flows "
        f"{counted:,} show it in the database.",
    )


def _memory(glacic: BenchGlacic) -> dict[str, dict[str, float]]:
    """MiB by process, and of both together."""
    found = {
        who: {name: kib / 1024 for name, kib in memory_kib(pid).items()}
        for who, pid in zip(("control process", "worker"), glacic.pids(), strict=True)
    }
    first, second = found.values()
    return {**found, "both": {name: first[name] + second[name] for name in first}}
