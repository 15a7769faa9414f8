"""The lab, the network of the demo and of most tests: a home behind a router.

    laptop  eth0 10.1.0.10 --+                   lan0     wan0
                             +-- switch ------- [ router ] -------- eth0  server
    camera  eth0 10.1.0.20 --+            10.1.0.1       203.0.113.1      203.0.113.9

Both sides have IPv6 as well (fd01::/64 inside, 2001:db8:9::/64 outside). Every MAC and address is fixed, so that
tests and the demo can name them. The server is the outside: it knows the way back through the router and nothing
else; there is no NAT unless the router's own configuration says so. 203.0.113.0/24 and 2001:db8::/32 are for
documentation (RFC 5737, 3849).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from glacic.lab.net import Host, Network, Port

LAN = "10.1.0.0/24"
LAN_6 = "fd01::/64"
WAN = "203.0.113.0/24"
WAN_6 = "2001:db8:9::/64"

ROUTER_LAN_MAC = "02:00:00:00:00:01"
ROUTER_WAN_MAC = "02:00:00:00:00:02"
LAPTOP_MAC = "02:00:00:00:00:10"
CAMERA_MAC = "02:00:00:00:00:20"
SERVER_MAC = "02:00:00:00:00:99"

ROUTER_LAN, ROUTER_LAN_6 = "10.1.0.1", "fd01::1"
ROUTER_WAN, ROUTER_WAN_6 = "203.0.113.1", "2001:db8:9::1"
LAPTOP, LAPTOP_6 = "10.1.0.10", "fd01::10"
CAMERA, CAMERA_6 = "10.1.0.20", "fd01::20"
SERVER, SERVER_6 = "203.0.113.9", "2001:db8:9::9"


@dataclass(frozen=True, slots=True)
class Home:
    """The hosts by name. `network` is for what a test adds."""

    network: Network
    router: Host
    laptop: Host
    camera: Host
    server: Host


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """Builds the network, and removes it with everything that runs in it. Raises LabError (no root, no iproute2)."""
    with Network() as network:
        router = network.host("router", forwards=True)
        laptop, camera, server = (network.host(name) for name in ("laptop", "camera", "server"))
        switch = network.switch("switch")
        network.plug(Port(router, "lan0", ROUTER_LAN_MAC, (f"{ROUTER_LAN}/24", f"{ROUTER_LAN_6}/64")), switch)
        network.plug(Port(laptop, "eth0", LAPTOP_MAC, (f"{LAPTOP}/24", f"{LAPTOP_6}/64")), switch)
        network.plug(Port(camera, "eth0", CAMERA_MAC, (f"{CAMERA}/24", f"{CAMERA_6}/64")), switch)
        network.cable(
            Port(router, "wan0", ROUTER_WAN_MAC, (f"{ROUTER_WAN}/24", f"{ROUTER_WAN_6}/64")),
            Port(server, "eth0", SERVER_MAC, (f"{SERVER}/24", f"{SERVER_6}/64")),
        )
        for host in (laptop, camera):
            host.ip(f"route add default via {ROUTER_LAN}", f"route add default via {ROUTER_LAN_6}")
        server.ip(f"route add default via {ROUTER_WAN}", f"route add default via {ROUTER_WAN_6}")
        yield Home(network, router, laptop, camera, server)
