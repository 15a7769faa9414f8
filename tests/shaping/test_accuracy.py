"""How exactly the nft engine holds a rate: bytes over some seconds, once the bucket that was full is empty.

The bounds are wide, since the machine may be busy; docs/benchmarks.md has the figures. All of them run at once, each in
a cgroup of its own, so this takes as long as one.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from glacic.lab.cgroups import Slice
from glacic.lab.net import Host
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.engine import Item

from .conftest import MIB, Wire

RATE = MIB
SETTLE_S, MEASURE_S = 2.5, 5.0  # the bucket holds 1.25 seconds' worth
V4, V6 = "10.0.0.2", "fd00::2"

# argv: address, the port to send from, seconds
TCP_UP = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sock = socket.create_connection((address, 9000), timeout=0.5, source_address=("", port))
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    try: sock.send(bytes(1 << 16))
    except TimeoutError: pass
"""
UDP_UP = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", port))
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    for _ in range(6):
        try: sock.sendto(bytes(1000), (address, 9000))
        except OSError: pass
    time.sleep(0.001)
"""
TCP_DOWN = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sock = socket.create_connection((address, 9001), timeout=0.5, source_address=("", port))
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    try: sock.recv(1 << 16)
    except TimeoutError: pass
"""
UDP_DOWN = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", port))
sock.settimeout(0.5)
sock.sendto(b"%f 3000000" % seconds, (address, 9000))
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    try: sock.recv(1 << 16)
    except TimeoutError: pass
"""
# name -> what runs in the cgroup: (code, address) each, from port 6000 on
FLOWS = {
    "tcp upload": [(TCP_UP, V4)],
    "udp upload": [(UDP_UP, V4)],
    "tcp upload, v4 and v6": [(TCP_UP, V4), (TCP_UP, V6)],
    "udp upload, v4 and v6": [(UDP_UP, V4), (UDP_UP, V6)],
    "tcp download": [(TCP_DOWN, V4)],
    "udp download": [(UDP_DOWN, V4)],
    "tcp download, v4 and v6": [(TCP_DOWN, V4), (TCP_DOWN, V6)],
    "four tcp downloads": [(TCP_DOWN, V4)] * 4,
}


@pytest.fixture(scope="module")
def achieved(hosts: tuple[Host, Host], hierarchy: Hierarchy) -> Iterator[dict[str, list[float]]]:
    """name -> bytes per second of each of its flows, counted by the hosts' own rules: uploads where they arrive,
    downloads where they have passed the limit."""
    folder = Slice(hierarchy).__enter__()
    wire = Wire(*hosts, folder)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        engine = wire.engine()
        items = [
            Item(name=name, cgroup=folder.make(f"{number}.service"), upload=RATE, download=RATE)
            for number, name in enumerate(FLOWS)
        ]
        engine.put(items)
        ports: dict[int, str] = {}
        for number, (name, flows) in enumerate(FLOWS.items()):
            for code, address in flows:
                port = 6000 + len(ports)
                ports[port] = name
                seconds = str(SETTLE_S + MEASURE_S + 1)
                processes.append(wire.start(f"{number}.service", code, address, str(port), seconds))
        _count(wire.far, "prerouting", -300, "sport", ports)
        _count(wire.near, "input", 30, "dport", ports)
        time.sleep(SETTLE_S)
        before, began = _counted(wire), time.monotonic()
        time.sleep(MEASURE_S)
        after, took = _counted(wire), time.monotonic() - began
        found: dict[str, list[float]] = {name: [] for name in FLOWS}
        for port, name in ports.items():
            side = 0 if "upload" in name else 1
            found[name].append((after[side][port] - before[side][port]) / took)
        yield found
        engine.remove()
    finally:
        for process in processes:
            wire.near.end(process)
        folder.__exit__(None, None, None)
        for host in hosts:
            host.run(["nft", "flush", "ruleset"])


def _count(host: Host, hook: str, priority: int, side: str, ports: dict[int, str]) -> None:
    lines = [f"add counter inet measure c{port}" for port in ports]
    lines += [f"add rule inet measure every th {side} {port} counter name c{port}" for port in ports]
    chain = f"add chain inet measure every {{ type filter hook {hook} priority {priority}; }}"
    host.run(["nft", "-f", "-"], text="\n".join(["add table inet measure", chain, *lines]) + "\n")


def _counted(wire: Wire) -> tuple[dict[int, int], dict[int, int]]:
    """Bytes by port: at the far host, at the near one."""
    listed = [
        host.run(["nft", "list", "counters", "table", "inet", "measure"]).stdout for host in (wire.far, wire.near)
    ]
    far, near = (
        {int(port): int(count) for port, count in re.findall(r"counter c(\d+) \{\s*packets \d+ bytes (\d+)", text)}
        for text in listed
    )
    return far, near


@pytest.mark.parametrize("name", FLOWS)
def test_a_rate_is_held_by_all_flows_of_a_cgroup_together(achieved: dict[str, list[float]], name: str) -> None:
    each = achieved[name]
    assert 0.80 <= sum(each) / RATE <= 1.15, [f"{rate / RATE:.1%}" for rate in each]
    assert all(rate > 0 for rate in each)  # a family, or a flow, that gets nothing shares nothing
