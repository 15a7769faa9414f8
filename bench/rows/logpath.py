"""The log path: how many logged packets a second a reader takes without loss, and what each costs it.

Refuses to look at what comes of them: log_to_element.py does.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.effort import Effort
from bench.log_bed import Lane, LogBed, log_bed
from bench.processes import program, python
from bench.result import Figure, Results, Row, paired, spread
from bench.rounds import alternate
from glacic.errors import LabError
from glacic.native import road

NAME = "logpath"
TITLE = "The log path: packets taken without loss"
INTRO = """\
A client sends datagrams of 100 flows to a firewall that logs each to a group (nflog) and drops it; the readers, each on
a group of its own and all on the same core, are given more and more of them. The rate that one takes without loss is
the highest that left no drop in its socket, found in steps of 10 %. They are: a C program that reads messages and looks
at their numbers (bench/c/logfloor.c); Debian's ulogd2 with its default settings, and at its best: 64 packets at a time
and 4 MiB of socket buffer, as Glacic has; and Glacic's reader with engine, counters, latency histogram and the thread
that writes the database (bench/contestants/glacic_log.py), every flow in the cache. ulogd2's stack is the cheapest
that says who sent what: NFLOG, BASE, IFINDEX, IP2STR, HWHDR, PRINTPKT, LOGEMU, into /dev/null without syncing."""

FLOOR, DEFAULT, TUNED = "C floor", "ulogd2, default", "ulogd2, at its best"
GLACIC, PURE = "Glacic", "Glacic, pure Python"
COMPILED = road is not None
NAMES: tuple[str, ...] = (FLOOR, DEFAULT, TUNED, GLACIC, *((PURE,) if COMPILED else ()))
LEAST_PER_S = 100_000
PACE = 20_000  # packets a second, for all
STEP = 1.1
_FIRST = 20_000
_COARSE = 1.5
_LONGEST_S = 0.7  # of one try
_TRIES = 2  # at a rate: somebody else may have had the core
_SENDER_KEEPS_UP = 0.97  # else the rate is the sender's, not the reader's

_NOTE = """\
The sender, which also does the kernel's part of logging, gives out at about a million packets a second on its core: a
reader that has lost nothing by then could take more. That nothing was lost is what the kernel says of the reader's
socket; Glacic and the C floor have counted, and numbers agree."""

_ULOGD = """\
[global]
logfile="{folder}/ulogd.log"
loglevel=5
plugin="{plugins}/ulogd_inppkt_NFLOG.so"
plugin="{plugins}/ulogd_raw2packet_BASE.so"
plugin="{plugins}/ulogd_filter_IFINDEX.so"
plugin="{plugins}/ulogd_filter_IP2STR.so"
plugin="{plugins}/ulogd_filter_HWHDR.so"
plugin="{plugins}/ulogd_filter_PRINTPKT.so"
plugin="{plugins}/ulogd_output_LOGEMU.so"
stack=log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,mac2str1:HWHDR,print1:PRINTPKT,emu1:LOGEMU

[log1]
group={group}
{tuning}
[emu1]
file="/dev/null"
sync=0
"""
_TUNING = """\
netlink_socket_buffer_size=4194303
netlink_socket_buffer_maxsize=4194304
netlink_qthreshold=64
netlink_qtimeout=1
"""


def measure(effort: Effort) -> Results:
    """The highest rate without loss, and CPU time at a common one."""
    trial_s = min(effort.seconds, _LONGEST_S)
    with _bed() as (bed, lanes):
        highest = {name: highest_rate(_keeps_up(bed, lane, trial_s), _FIRST, _COARSE) for name, lane in lanes.items()}

        def again(name: str) -> float:
            """In small steps, from where it was found before."""
            highest[name] = highest_rate(_keeps_up(bed, lanes[name], trial_s), highest[name], STEP)
            return highest[name]

        rates = alternate(NAMES, effort.rounds, again)
        cpu = alternate(NAMES, effort.rounds, lambda name: bed.send(lanes[name], PACE, effort.seconds).cpu_us)
    return Results([_row(rates, cpu)])


def highest_rate(holds: Callable[[float], float | None], first: float, step: float) -> float:
    """The last rate of `first` x `step` ^ n that holds; where not even the first does, downwards. What holds is told
    as the rate that was really reached, None where it did not."""
    rate, reached = first, holds(first)
    if reached is None:
        while reached is None and rate > 1:
            rate /= step
            reached = holds(rate)
        return reached or 0.0
    while (higher := holds(rate * step)) is not None:
        rate, reached = rate * step, max(higher, reached)
        if higher < rate * _SENDER_KEEPS_UP:
            break
    return reached


def _keeps_up(bed: LogBed, lane: Lane, seconds: float) -> Callable[[float], float | None]:
    def holds(rate: float) -> float | None:
        for _ in range(_TRIES):
            taken = bed.send(lane, rate, seconds)
            if taken.whole:
                return taken.per_s
        return None

    return holds


@contextlib.contextmanager
def _bed() -> Iterator[tuple[LogBed, dict[str, Lane]]]:
    with tempfile.TemporaryDirectory(prefix="glacic-bench-") as folder, log_bed() as bed:
        commands: dict[str, Callable[[int], list[str | float]]] = {
            FLOOR: lambda group: program("logfloor", group),
            DEFAULT: lambda group: _ulogd(Path(folder, "default"), group, ""),
            TUNED: lambda group: _ulogd(Path(folder, "tuned"), group, _TUNING),
            GLACIC: lambda group: python("bench.contestants.glacic_log", group),
            PURE: lambda group: python("bench.contestants.glacic_log", group, "--pure"),
        }
        lanes = {
            name: bed.start(name, commands[name](bed.group(number)), ready=name not in (DEFAULT, TUNED))
            for number, name in enumerate(NAMES)
        }
        for lane in lanes.values():
            bed.send(lane, PACE, 0.2)  # flows are learned, caches are warm
        yield bed, lanes
        for name in (FLOOR, GLACIC):
            bed.end(lanes[name])


def _ulogd(folder: Path, group: int, tuning: str) -> list[str | float]:
    folder.mkdir()
    plugins = next(Path("/usr/lib").glob("**/ulogd/ulogd_inppkt_NFLOG.so"), None)
    if plugins is None:
        raise LabError("ulogd2 is missing; on Debian: tools/bench-packages")
    config = folder / "ulogd.conf"
    config.write_text(_ULOGD.format(folder=folder, plugins=plugins.parent, group=group, tuning=tuning))
    return ["ulogd", "-c", str(config)]


def _row(rates: dict[str, list[float]], cpu: dict[str, list[float]]) -> Row:
    ours, theirs = spread(rates[GLACIC]).median, max(spread(rates[name]).median for name in (DEFAULT, TUNED))
    best = max((DEFAULT, TUNED), key=lambda name: spread(rates[name]).median)
    figures = [Figure(contestant=name, unit="packets/s without loss", values=tuple(rates[name])) for name in NAMES]
    figures += [
        Figure(contestant=name, unit=f"us CPU per packet at {PACE:,}/s", values=tuple(cpu[name])) for name in NAMES
    ]
    return Row(
        name="nflog-throughput",
        what="logged packets taken per second without loss",
        figures=tuple(figures),
        target=f">= ulogd2 on the same core, >= {LEAST_PER_S:,}/s",
        ratio=paired(rates[GLACIC], rates[best]),
        ratio_of=f"{GLACIC} / {best}",
        met=ours >= theirs and ours >= LEAST_PER_S,
        note=_NOTE,
    )
