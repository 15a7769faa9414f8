"""The bed for what limits cost whoever has none: datagrams of a cgroup without a limit, beside 100 that have one.

    near  10.9.0.1 ---- eth0 ---- 10.9.0.2  far

Blocks alternate within a few tenths of a second: without anything, with it, without. Both directions; what arrives is
dropped where it has been through the hook in question. Refuses to say what a figure means (rows/limits_idle.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench import limits_bed, pinning, processes
from bench.limits_bed import FAR_4, INTERFACE, NEAR_4, Lane
from glacic.errors import LabError
from glacic.firewall.nft import Libnftables
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Item

LIMITS = 100
RATE = 10**10  # bytes/s: none of them is ever reached
PORT, SIZE = 9100, 64
TABLE = "inet bench_idle"

_TAKE = f"""
import socket
taking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taking.bind(("{NEAR_4}", {PORT}))
print("ready", flush=True)
import threading; threading.Event().wait()
"""
_SWALLOW = f"""
table inet swallow {{
    chain first {{
        type filter hook prerouting priority -300; policy accept;
        udp dport {PORT} drop
    }}
}}
"""


class Pair(NamedTuple):
    """Processor time of a packet, in ns: in a block with something, and in those around it without, on average."""

    having: float
    without: float


@dataclass
class IdleBed:
    """A lane, its limited cgroups, and a sender for each direction."""

    lane: Lane
    limited: list[Cgroup]
    senders: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def block(self, direction: str, seconds: float) -> float:
        """Sends for so long; ns of processor time for each packet."""
        process = self.senders[direction]
        assert process.stdin is not None  # noqa: S101 -- pipes, see below
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(f"{seconds}\n".encode())
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise LabError("datagrams has ended")
        said = json.loads(line)
        return float(1e9 * said["cpu_s"] / said["sent"])

    def pair(self, direction: str, having: Having, seconds: float) -> Pair:
        """Without, with, without."""
        before = self.block(direction, seconds)
        with having(self):
            between = self.block(direction, seconds)
        return Pair(between, (before + self.block(direction, seconds)) / 2)

    @contextlib.contextmanager
    def engine(self, name: str, direction: str = "") -> Iterator[None]:
        """All limits by one engine; in one direction or both."""
        upload, download = (RATE if direction in ("", way) else 0 for way in (UPLOAD, DOWNLOAD))
        items = [
            Item(name=cgroup.path, cgroup=cgroup, upload=upload, download=download, interface=INTERFACE)
            for cgroup in self.limited
        ]
        engine = self.lane.engine(name)
        self.lane.near.call(engine.put, items)
        try:
            yield
        finally:
            self.lane.near.call(engine.remove)

    @contextlib.contextmanager
    def table(self, *rules: str) -> Iterator[None]:
        """A part of what the nft engine makes, by hand. LO: loopback; ONE: a limited cgroup; MAP: all of them."""
        held = [os.open(self.lane.slice.hierarchy.mount / one.path, os.O_PATH) for one in self.limited]
        nft = self.lane.near.call(Libnftables)
        elements = ", ".join(f'"../../../proc/self/fd/{descriptor}" : jump slow' for descriptor in held)
        lines = [f"add table {TABLE}", f"add chain {TABLE} slow", f"add rule {TABLE} slow counter"]
        lines.append(f"add map {TABLE} limited {{ type cgroupsv2 : verdict; elements = {{ {elements} }}; }}")
        for hook, loopback in (("output", "oif lo"), ("input", "iif lo")):
            lines.append(f"add chain {TABLE} {hook} {{ type filter hook {hook} priority 20; policy accept; }}")
            words = {"LO": loopback, "MAP": "@limited", "ONE": f'"../../../proc/self/fd/{held[0]}"'}
            for rule in rules:
                lines.append(f"add rule {TABLE} {hook} " + " ".join(words.get(word, word) for word in rule.split()))
        try:
            self.lane.near.call(nft.run, "".join(f"{line}\n" for line in lines))
            yield
            self.lane.near.call(nft.run, f"delete table {TABLE}\n")
        finally:
            for descriptor in held:
                os.close(descriptor)


Having = Callable[[IdleBed], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def idle_bed() -> Iterator[IdleBed]:
    """Ready to send."""
    core = pinning.cores().sender
    with limits_bed.lanes(1) as (lane,), contextlib.ExitStack() as stack:
        free = lane.slice.make("free.service")
        limited = [lane.slice.make(f"limited-{number}.service") for number in range(LIMITS)]
        assert free.level == limited[0].level  # noqa: S101 -- the lookup is at this level
        lane.far.run(["nft", "-f", "-"], text=_SWALLOW)
        take = lane.slice.command("free.service", [sys.executable, "-c", _TAKE])
        stack.enter_context(processes.running(lane.near, take))
        bed = IdleBed(lane, limited)
        for direction, host, address in ((UPLOAD, lane.near, FAR_4), (DOWNLOAD, lane.far, NEAR_4)):
            command = [str(word) for word in processes.program("datagrams", address, PORT, SIZE, core)]
            if direction == UPLOAD:
                command = lane.slice.command("free.service", command)
            process = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(host.end, process)
            bed.senders[direction] = process
        yield bed


def pairs(bed: IdleBed, direction: str, variants: Mapping[str, Having], seconds: float) -> dict[str, Pair]:
    """One pair of each."""
    return {name: bed.pair(direction, having, seconds) for name, having in variants.items()}
