"""Ending connections, with real ones: a client, a router that tracks them, and a server.

client 10.0.0.1, 10.0.0.11, fd00::1  ----lan0  router  wan0----  server 10.0.1.1, fd01::1
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from glacic.ctlplane.conntrack import FEW, belongs, by_address, count_let_in, end_flow, end_flows, neighbours
from glacic.ctlplane.netlink import Connection
from glacic.lab.net import Network, Port
from glacic.learning.flow import FlowKey

MAC = bytes.fromhex("020000000001")
CLIENT, CLIENT_TOO, SERVER = (socket.inet_aton(text) for text in ("10.0.0.1", "10.0.0.11", "10.0.1.1"))
CLIENT6, SERVER6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("fd00::1", "fd01::1"))

TRACK = """
table inet bed {
    chain prerouting {
        type nat hook prerouting priority -100;
        tcp dport 8080 dnat ip to 10.0.1.1:80
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        udp dport 99 masquerade
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        udp dport 5000-5009 ct mark set ct mark | 0x00800000
        udp dport 5010 ct mark set 0x00400001
        ct state new,established accept
    }
}
"""


class Bed:
    def __init__(self, network: Network) -> None:
        self.client, self.router, self.server = (
            network.host("client"),
            network.host("r", forwards=True),
            network.host("s"),
        )
        network.cable(
            Port(self.client, "eth0", MAC.hex(":"), ("10.0.0.1/24", "10.0.0.11/24", "fd00::1/64")),
            Port(self.router, "lan0", "02:00:00:00:00:fe", ("10.0.0.254/24", "fd00::fe/64")),
        )
        network.cable(
            Port(self.router, "wan0", "", ("10.0.1.254/24", "fd01::fe/64")),
            Port(self.server, "eth0", "", ("10.0.1.1/24", "fd01::1/64")),
        )
        for host, four, six in ((self.client, "10.0.0.254", "fd00::fe"), (self.server, "10.0.1.254", "fd01::fe")):
            host.ip(f"route add default via {four}", f"route add default via {six}")
        self.router.run(["nft", "-f", "-"], text=TRACK)

    def udp(self, port: int, *, to: str = "10.0.1.1", source: str = "", count: int = 1) -> None:
        """New connections from the client, each with a source port of its own, until the router tracks them."""
        family = "ipv6" if ":" in to else "ipv4"
        before = self.tracked("-f", family, "-p", "udp")

        def send() -> None:
            for _ in range(count):
                with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind((source, 0))
                    sock.sendto(b"?", (to, port))

        self.client.call(send)
        until(lambda: self.tracked("-f", family, "-p", "udp") == before + count)

    def ping(self, to: str) -> None:
        """One echo request, until its reply is there."""

        def ping() -> None:
            family, protocol, request, reply = (
                (socket.AF_INET6, socket.IPPROTO_ICMPV6, b"\x80\0\0\0\0\1\0\1", 129)  # its checksum the kernel makes
                if ":" in to
                else (socket.AF_INET, socket.IPPROTO_ICMP, b"\x08\0\xf7\xfd\0\1\0\1", 0)
            )
            with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
                sock.settimeout(10)
                sock.sendto(request, (to, 0))
                while sock.recv(100)[0 if ":" in to else 20] != reply:
                    pass

        self.client.call(ping)

    def end(self, key: FlowKey, *addresses: bytes) -> int:
        return self.router.call(end_flow, key, addresses)

    def tracked(self, *filters: str) -> int:
        return len(self.router.run(["conntrack", "-L", *filters]).stdout.splitlines())


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen: a first packet waits for its neighbour."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Network() as network:
        yield Bed(network)


def flow(protocol: int, port: int, *, source: bytes = MAC, destination: bytes = b"") -> FlowKey:
    return FlowKey("lan_wan", source, protocol, port, destination)


def test_the_connections_of_a_flow_end_and_no_others(bed: Bed) -> None:
    bed.udp(53, count=3)
    bed.udp(54)
    bed.udp(53, source="10.0.0.11")
    assert bed.end(flow(17, 53), CLIENT) == 4  # the neighbour table knows the other address of that MAC
    assert bed.tracked("-p", "udp") == 1
    assert bed.end(flow(17, 53), CLIENT) == 0


def test_a_flow_by_address_ends_for_that_address_alone(bed: Bed) -> None:
    bed.udp(53)
    bed.udp(53, source="10.0.0.11")
    assert bed.end(flow(17, 53, source=CLIENT_TOO), CLIENT) == 1
    assert bed.tracked("-p", "udp", "--orig-src", "10.0.0.1") == 1


def test_addresses_that_a_flow_was_seen_from_need_no_neighbour(bed: Bed) -> None:
    bed.udp(53)
    elsewhere = flow(17, 53, source=bytes.fromhex("020000000099"))
    assert bed.end(elsewhere) == 0
    assert bed.end(elsewhere, CLIENT, b"\0" * 5) == 1


def test_ipv6_connections_end_as_well(bed: Bed) -> None:
    bed.udp(53, to="fd01::1", count=2)
    bed.udp(53)
    assert bed.end(flow(17, 53, source=CLIENT6)) == 2
    assert bed.tracked("-p", "udp") == 1


def test_icmp_goes_by_its_type(bed: Bed) -> None:
    bed.ping("10.0.1.1")
    bed.ping("fd01::1")
    assert bed.end(flow(1, 13), CLIENT) == 0
    assert bed.end(flow(1, 8), CLIENT) == 1
    assert bed.end(flow(58, 128), CLIENT6) == 1


def test_the_destination_counts_where_the_key_has_one(bed: Bed) -> None:
    bed.udp(53)
    assert bed.end(flow(17, 53, destination=socket.inet_aton("10.0.1.2")), CLIENT) == 0
    assert bed.end(flow(17, 53, destination=SERVER), CLIENT) == 1


def test_a_masqueraded_connection_ends(bed: Bed) -> None:
    bed.udp(99)
    assert bed.end(flow(17, 99, destination=SERVER), CLIENT) == 1


def test_a_forwarded_port_goes_by_what_the_filter_saw(bed: Bed) -> None:
    listener = bed.server.call(socket.create_server, ("10.0.1.1", 80))
    with listener, bed.client.call(socket.create_connection, ("10.0.0.254", 8080), timeout=10):
        assert bed.end(flow(6, 8080), CLIENT) == 0
        assert bed.end(flow(6, 80, destination=SERVER), CLIENT) == 1


@pytest.mark.parametrize("others", [0, FEW])
def test_many_flows_end_as_one_does(bed: Bed, others: int) -> None:
    for port in (53, 54, 55):
        bed.udp(port)
    bed.udp(53, to="fd01::1")
    strangers = [(flow(17, 53, source=bytes([10, 9, 9, number])), []) for number in range(others)]
    wanted = [(flow(17, 53), [CLIENT]), (flow(17, 54), [CLIENT]), (flow(17, 54), [CLIENT]), *strangers]
    assert bed.router.call(end_flows, wanted) == 3
    assert bed.tracked("-p", "udp") == 1
    assert bed.router.call(end_flows, []) == 0


def test_what_fail_modes_let_in_is_counted(bed: Bed) -> None:
    assert bed.router.call(count_let_in) == 0
    for port in (5000, 5001, 5010, 53):
        bed.udp(port)
    bed.udp(5002, to="fd01::1")
    assert bed.router.call(count_let_in) == 3


def test_a_mac_has_the_addresses_that_its_neighbours_know(bed: Bed) -> None:
    bed.udp(53)
    bed.udp(53, source="10.0.0.11")
    bed.udp(53, to="fd01::1")
    assert {CLIENT, CLIENT_TOO, CLIENT6} <= bed.router.call(neighbours)[MAC]


def connection(*, protocol: int = 6, port: int = 443, icmp_type: int | None = None) -> Connection:
    return Connection(2, protocol, CLIENT, SERVER, port, icmp_type, 0, b"")


@pytest.mark.parametrize(
    ("key", "of", "yes"),
    [
        (flow(6, 443), connection(), True),
        (flow(6, 80), connection(), False),
        (flow(17, 443), connection(), False),
        (flow(6, 443, destination=SERVER), connection(), True),
        (flow(6, 443, destination=CLIENT), connection(), False),
        (flow(1, 8), connection(protocol=1, port=0, icmp_type=8), True),
        (flow(1, 8), connection(protocol=1, port=0, icmp_type=0), False),
        (flow(47, 0), connection(protocol=47, port=6789), True),  # GRE's keys are no ports of a flow
    ],
)
def test_a_connection_belongs_to_a_flow_by_protocol_port_and_destination(
    key: FlowKey, of: Connection, yes: bool
) -> None:
    assert belongs(of, by_address([(key, [CLIENT])], {})) is yes
    assert belongs(of, by_address([(key, [])], {key.source: [CLIENT]})) is yes
    assert belongs(of, by_address([(key, [CLIENT_TOO])], {})) is False
