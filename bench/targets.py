"""What Glacic sets out to reach, in one place and in one order: the first table of the report.

A target whose row was not measured stands there as such. Whether one is met, the row says (result.Row.met).
"""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """row: the name of the row that measures it. ratio: where it speaks of the row's ratio, how much that may be.

    shown: how many of the row's figures the table gives where it speaks of these; the first ones.
    """

    row: str
    what: str
    target: str
    ratio: float | None = None
    shown: int = 6


TARGETS = (
    Target(
        "cpu-per-verdict",
        "CPU per verdict, flow in the cache, whole engine with counters and latency histogram",
        "<= 1.20 x the C floor of its kind",
        ratio=1.20,
    ),
    Target("verdicts-per-second", "verdicts/s on one core, flow in the cache", ">= 0.85 x the C floor", ratio=0.85),
    Target(
        "first-packet-latency",
        "added first-packet latency, idle machine, p50 / p99",
        "<= 60 us / 300 us over the C floor",
        shown=4,
    ),
    Target(
        "loaded-latency",
        "first-packet p99 while the control socket lists 100,000 flows, a reload runs and the writer commits",
        "<= 3 ms",
    ),
    Target(
        "flows-learned-per-second",
        "new flows learned per second (verdict, stored, in the kernel map), none lost, for 60 s",
        ">= 10,000",
    ),
    Target("verdict-latency-while-learning", "verdict p99 at half of that", "<= 10 ms"),
    Target(
        "learned-flow-throughput",
        "learned flow, 100,000 elements loaded: packets/s against the static nftables set",
        ">= 0.97 x",
        ratio=0.97,
    ),
    Target("learned-flow-connections", "the same, new connections/s", ">= 0.97 x", ratio=0.97),
    Target("learned-flow-to-user-space", "packets that a learned flow sends to user space", "0"),
    Target(
        "nflog-throughput",
        "nflog: logged packets taken per second without loss",
        ">= ulogd2 on the same core, >= 100,000/s with batching",
    ),
    Target(
        "nflog-drop-to-element",
        "nflog: drop seen -> element in the kernel, p50 / p99 at 1,000 new flows/s",
        "<= 5 ms / 25 ms",
    ),
    Target("start-100k", "start to ready with 100,000 learned flows", "<= 3 s"),
    Target("start-1m", "start to ready with 1,000,000 learned flows", "<= 20 s"),
    Target("memory-1m", "memory with 1,000,000 flows in the store, cache 10,000", "<= 150 MB resident"),
    Target("check-1000-rules", "`glacic check` of a 1,000-rule configuration", "<= 2 s"),
    Target("compile-render-1000-rules", "compile + render of 1,000 rules alone", "<= 0.3 s"),
    Target("stats-command", "`glacic stats`, whole process", "<= 0.15 s"),
    Target("replay-throughput", "`glacic replay` of a capture, packets/s, new flows rare", ">= 300,000"),
    Target(
        "limits-steady",
        "bandwidth limits: what is achieved of one after two seconds, all kinds of traffic, both directions",
        "90-105 % from 1 MiB/s up, 90-110 % at 50 KiB/s",
        shown=9,
    ),
    Target("limits-vm-steady", "the same by traffic control, on a stock kernel in a virtual machine", "70-115 %"),
    Target(
        "limits-idle-upload",
        "a 64-byte datagram sent by a cgroup without a limit, 100 others having one",
        "<= 1.02 x",
        shown=3,
    ),
    Target("limits-idle-download", "the same, received", "<= 1.02 x", shown=3),
)
