"""Lanes: a client, a router and a server in a line each, all alike but for the router's firewall.

    client 10.0.0.1, any MAC ---- lan0 [ router ] wan0 ---- server 10.0.1.2

Each firewall has a lane to itself, so that measuring can go from one to the next and back within a second, and nothing
has to be loaded in between. Neighbours are written down; client and server drop what comes to them at the interface,
so that nobody answers. A packet's whole road runs on the sender's core, in its system call: packets per second of a
sender that does nothing else are one over the cost of the road.

Refuses to say what a figure means (bench/rows).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from bench import pinning, processes, rulesets
from glacic.ctlplane.elements import KernelSets
from glacic.errors import LabError
from glacic.firewall.learned import BATCH, LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.firewall.shapes import Key
from glacic.lab.net import Host, Network, Port

CLIENT, SERVER = "10.0.0.1", "10.0.1.2"
ROUTER_MACS = ("02:00:01:00:00:01", "02:00:01:00:00:02")
CLIENT_MAC, SERVER_MAC = "02:00:00:00:00:01", "02:00:02:00:00:01"
ROAD = ("--source", CLIENT, "--destination", SERVER)
SLICE = 100_000  # new connections in a row, before they are forgotten; the kernel keeps 262,144 by default

_SINK = """
table netdev sink {
    chain ingress {
        type filter hook ingress device eth0 priority 0; policy drop;
    }
}
"""


_ALONE = ("chrt", "--fifo", "1")  # before whatever else wants the core, for the tenths of a second that a slice takes
_TIMEOUT_S = 60
TCP_S = 0.25  # a slice of real connections: some 20,000
TRIES = 20  # at a slice: one in which somebody else had the core as well is of no use
OWN = 0.97  # how much of the time the sender must have had the core


class Sent(NamedTuple):
    """Packets that have arrived, how long it took, and for how much of it the sender had its core."""

    packets: int
    seconds: float
    own: float


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of three hosts. learned: Glacic's sets, where the firewall is Glacic's."""

    name: str
    client: Host
    router: Host
    server: Host
    learned: LearnedSets | None = None

    def establish(self) -> None:
        """One connection, UDP from port 4000 to FIRST_PORT, that was answered."""
        there = ("--source-ports", 4000, "--ports", rulesets.FIRST_PORT, "--count", 1)
        back = ("--source-ports", rulesets.FIRST_PORT, "--ports", 4000, "--count", 1)
        core = pinning.cores().sender
        for _ in range(2):
            processes.send(self.client, "eth0", ROUTER_MACS[0], *ROAD, *there, core=core)
            road = ("--source", SERVER, "--destination", CLIENT)
            processes.send(self.server, "eth0", ROUTER_MACS[1], *road, *back, core=core)

    def flood(self) -> Sent:
        """SLICE packets of the established connection, as fast as it goes. Raises LabError where they do not arrive."""
        return self._send("--source-ports", 4000, "--ports", rulesets.FIRST_PORT, "--count", SLICE)

    def connections(self, keys: int, part: int, count: int = SLICE) -> Sent:
        """So many new connections of known flows, the part-th stretch of them, which are forgotten afterwards."""
        ports = min(keys, rulesets.PORTS)
        macs = keys // ports
        walks = SLICE // ports
        first = rulesets.FIRST_MAC + part * walks % macs
        sent = self._send(
            *("--ports", f"{rulesets.FIRST_PORT}-{rulesets.FIRST_PORT + ports - 1}", "--source-ports", "1024-61023"),
            *("--source-macs", min(macs, walks), "--first-mac", first.to_bytes(6, "big").hex(":"), "--count", count),
        )
        self.router.run(["conntrack", "-F"], check=False)
        return sent

    def open(self) -> None:
        """From now on client and server take what comes to them. There is no way back."""
        for host in (self.client, self.server):
            host.run(["nft", "delete", "table", "netdev", "sink"])
        self.client.ip("route add default via 10.0.0.254")
        self.server.ip("route add default via 10.0.1.254")

    def tcp_connections(self) -> Sent:
        """Real connections to FIRST_PORT, one after the other, each with handshake and reset. Raises LabError."""
        cores = pinning.cores()
        listen = processes.program("connect", "--listen", rulesets.FIRST_PORT, "--core", cores.receiver)
        command = processes.program(
            *("connect", SERVER, rulesets.FIRST_PORT, "--seconds", TCP_S, "--core", cores.sender)
        )
        with (
            processes.running(self.server, listen),
            processes.running(self.client, [*_ALONE, *command], ready=False) as opening,
        ):
            said = opening.wait(_TIMEOUT_S)
        self.router.run(["conntrack", "-F"], check=False)
        if said["failed"]:
            raise LabError(f"{self.name}: {said['failed']} of {said['connections']} connections failed")
        return Sent(said["connections"], said["seconds"], min(1.0, said["cpu_s"] / said["seconds"]))

    def asked(self) -> int:
        """How many packets came to where the hook would be."""
        return self.router.call(KernelSets().counter, rulesets.ASKED)

    def _send(self, *options: str | float) -> Sent:
        before = self._arrived()
        core = pinning.cores().sender
        command = processes.program("traffic", "eth0", ROUTER_MACS[0], "--core", core, *ROAD, *options)
        with processes.running(self.client, [*_ALONE, *command], ready=False) as traffic:
            said = traffic.wait(_TIMEOUT_S)
        arrived = self._arrived() - before
        if arrived < 0.999 * said["sent"]:
            raise LabError(f"{self.name}: of {said['sent']} packets only {arrived} arrived")
        return Sent(arrived, said["seconds"], min(1.0, said["cpu_s"] / said["seconds"]))

    def _arrived(self) -> int:
        listed = self.server.run(["ip", "-json", "-statistics", "link", "show", "dev", "eth0"]).stdout
        return int(json.loads(listed)[0]["stats64"]["rx"]["packets"])


def lane(network: Network, name: str) -> Lane:
    """A lane without a firewall."""
    number = len(network.hosts)
    client, server = network.host(f"c{number}"), network.host(f"s{number}")
    router = network.host(f"r{number}", forwards=True)
    network.cable(
        Port(client, "eth0", CLIENT_MAC, (f"{CLIENT}/24",)), Port(router, "lan0", ROUTER_MACS[0], ("10.0.0.254/24",))
    )
    network.cable(
        Port(server, "eth0", SERVER_MAC, (f"{SERVER}/24",)), Port(router, "wan0", ROUTER_MACS[1], ("10.0.1.254/24",))
    )
    router.ip(
        f"neigh replace {CLIENT} lladdr {CLIENT_MAC} dev lan0 nud permanent",
        f"neigh replace {SERVER} lladdr {SERVER_MAC} dev wan0 nud permanent",
    )
    for host in (client, server):
        host.run(["nft", "-f", "-"], text=_SINK)
    return Lane(name, client, router, server)


def by_hand(network: Network, name: str, ruleset: str, flows: Sequence[Key] = ()) -> Lane:
    """A lane with a firewall that somebody wrote."""
    made = lane(network, name)
    nft = made.router.call(Libnftables)
    made.router.call(nft.run, ruleset)
    for at in range(0, len(flows), BATCH):
        made.router.call(nft.run, rulesets.set_elements(flows[at : at + BATCH]))
    return made


def glacic(network: Network, name: str, flows: Sequence[Key], *, inline: bool = True) -> Lane:
    """A lane with Glacic's firewall, these flows learned."""
    made = lane(network, name)
    script, policies = rulesets.glacic_ruleset(inline)
    nft = made.router.call(Libnftables)
    made.router.call(nft.run, script)
    sets = LearnedSets(nft, KernelSets(), policies)
    made.router.call(sets.reconcile, [(key, "allowed") for key in flows])
    return Lane(name, made.client, made.router, made.server, sets)


def interleaved(lanes: Sequence[Lane], send: Callable[[Lane, int], Sent], slices: int) -> list[list[float]]:
    """Packets per second of every lane, slice by slice: each slice of one has its neighbours in time in the others."""
    rates: list[list[float]] = [[] for _ in lanes]
    for number in range(slices):
        for step in range(len(lanes)):
            at = (number + step) % len(lanes)
            sent = _undisturbed(partial(send, lanes[at], number))
            rates[at].append(sent.packets / sent.seconds)
    return rates


def _undisturbed(send: Callable[[], Sent]) -> Sent:
    """The first slice in which the sender had its core to itself, or the best of TRIES."""
    best = send()
    for _ in range(TRIES - 1):
        if best.own >= OWN:
            break
        best = max(best, send(), key=lambda sent: sent.own)
    return best
