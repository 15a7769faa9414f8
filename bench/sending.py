"""New flows and learned ones, sent along a road and counted at its end (bench/c/traffic.c, bench/c/sink.c).

A flow is named by its source MAC and port, so every new one is a pair of them that was never sent before: FLOWS_EACH
ports of one MAC, then the next MAC. Each walk has a source port of its own, so every packet begins a connection.

Sender and sink share a core: the sink's times are the kernel's, and everything else is left to what is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from bench import pinning, processes
from bench.service import CLIENT, HOST_INTERFACE, ROUTER_MAC, ROUTER_WAN_MAC, SERVER, Road
from glacic.lab.net import Host

FLOWS_EACH = 250  # of one MAC: below the default of learn_max_per_source
FIRST_PORT = 10_000
_FIRST_MAC = 0x02_10_00_00_00_00
_FIRST_SOURCE_PORT, _SOURCE_PORTS = 2_000, 60_000
_QUIET_S = 0.4  # how long what was sent may take to arrive, when nothing is left to wait for


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent in how many seconds, what of it came (0 where nobody looked), and how late, in us."""

    sent: int
    seconds: float
    received: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    max_us: float = 0.0

    @property
    def lost(self) -> int:
        """What did not come."""
        return self.sent - self.received

    @property
    def per_s(self) -> float:
        """The rate that the sender really had."""
        return self.sent / self.seconds if self.seconds else 0.0


def mac_text(number: int) -> str:
    """An Ethernet address as `traffic` reads it."""
    return number.to_bytes(6, "big").hex(":")


class Flows:
    """Never hands out the same flow twice."""

    def __init__(self) -> None:
        self._macs = 0

    def send(
        self,
        road: Road,
        count: int,
        rate: float,
        *,
        protocol: str = "udp",
        sink: bool = True,
        settle_s: float = _QUIET_S,
    ) -> Sent:
        """`count` new flows, one packet each, `rate` a second. settle_s: how long to wait for the last of them."""
        macs = -(-count // FLOWS_EACH)
        first, self._macs = self._macs, self._macs + macs
        options: list[str | float] = [
            *("--ports", f"{FIRST_PORT}-{FIRST_PORT + FLOWS_EACH - 1}", "--source-macs", macs),
            *("--first-mac", mac_text(_FIRST_MAC + first), "--protocol", protocol, "--new", "--count", count),
            *("--source-ports", _source_ports(first, macs), "--rate", rate),
        ]
        return send(road, options, sink=sink, settle_s=settle_s, timeout_s=count / rate * 4 + 30 if rate else 600)

    @property
    def last_mac(self) -> bytes:
        """The MAC of the flows that were sent last."""
        return (_FIRST_MAC + self._macs - 1).to_bytes(6, "big")


def send(
    road: Road,
    options: list[str | float],
    *,
    sink: bool = True,
    settle_s: float = _QUIET_S,
    timeout_s: float = 600,
) -> Sent:
    """What `traffic` sends from the client to the server with these options, and what of it comes there."""
    core = pinning.cores().sender
    options = ["--source", CLIENT, "--destination", SERVER, *options]
    if not sink:
        said = processes.send(road.client, HOST_INTERFACE, ROUTER_MAC, *options, core=core, timeout_s=timeout_s)
        return Sent(said["sent"], said["seconds"])
    with _sink(road.server, core) as running:
        said = processes.send(road.client, HOST_INTERFACE, ROUTER_MAC, *options, core=core, timeout_s=timeout_s)
        time.sleep(settle_s)
        came: dict[str, Any] = running.end()
    times = {name: float(came[name]) for name in ("p50_us", "p99_us", "p999_us", "max_us")}
    return Sent(said["sent"], said["seconds"], came["received"] - came["twice"], **times)


def send_back(road: Road, source_port: int, port: int) -> None:
    """One packet from the server to the client, by the road's router."""
    options = ("--source", SERVER, "--destination", CLIENT, "--source-ports", source_port, "--ports", port)
    core = pinning.cores().sender
    processes.send(road.server, HOST_INTERFACE, ROUTER_WAN_MAC, *options, "--count", 1, core=core)


def _sink(server: Host, core: int) -> Any:
    last = FIRST_PORT + FLOWS_EACH - 1
    command = processes.program("sink", "--interface", HOST_INTERFACE, "--ports", f"{FIRST_PORT}-{last}")
    return processes.running(server, command, core=core)


def _source_ports(first: int, count: int) -> str:
    """As many ports as there are walks, or as there are; others than the last time."""
    begin = _FIRST_SOURCE_PORT + first % _SOURCE_PORTS
    if begin + count > _FIRST_SOURCE_PORT + _SOURCE_PORTS:
        begin = _FIRST_SOURCE_PORT
    return f"{begin}-{begin + min(count, _SOURCE_PORTS) - 1}"
