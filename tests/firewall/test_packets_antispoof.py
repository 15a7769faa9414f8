"""False sources on the wire: what of them gets through, and what of hosts without an address."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from glacic.lab.net import Host

from .conftest import ZONES, Place, tcp

ROUTER = bytes.fromhex("020000000101")
EVERYBODY, ALL_NODES = b"\xff" * 6, bytes.fromhex("333300000001")
CHECKED = ZONES.replace("external  = true", "external  = true\n  antispoof = true\n  services { dhcp_client = true }")
CHECKED = CHECKED.replace('{ interface = "lan0" }', '{\n  interface = "lan0"\n  antispoof = true\n}')


def named(value: object) -> str | None:
    """An id for a packet: its addresses."""
    if not isinstance(value, bytes) or len(value) < 20:
        return None if isinstance(value, bytes) else str(value)
    family, at, length = (socket.AF_INET6, 8, 16) if value[0] >> 4 == 6 else (socket.AF_INET, 12, 4)
    ends = (socket.inet_ntop(family, value[start : start + length]) for start in (at, at + length))
    return "->".join(ends)


def udp(source: str, to: str, ports: tuple[int, int] = (1000, 443)) -> bytes:
    """An IP packet with one byte in UDP, without checksums of UDP."""
    datagram = struct.pack("!HHHH", *ports, 9, 0) + b"?"
    if ":" in source:
        addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
        return struct.pack("!IHBB", 6 << 28, len(datagram), 17, 64) + addresses + datagram
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", 0xFFFF - (total & 0xFFFF) - (total >> 16)) + header[12:] + datagram


def icmpv6(source: str, to: str, type_: int) -> bytes:
    """An ICMPv6 message with hop limit 255."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
    return struct.pack("!IHBB", 6 << 28, 24, 58, 255) + addresses + bytes([type_]) + bytes(23)


def send(host: Host, packet: bytes, to: bytes) -> None:
    """Puts a packet on the host's cable as it is."""
    with host.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        sock.send(to + bytes.fromhex("020000000199") + kind + packet)


def dropped(place: Place) -> int:
    (rule,) = [rule for rule in place.nft.dump.rules() if rule.chain == "antispoof"]
    assert rule.counted is not None
    return rule.counted.packets


@pytest.mark.parametrize(
    ("who", "packet", "to"),
    [
        ("laptop", udp("10.2.0.2", "192.0.2.2"), ROUTER),  # the camera's address
        ("laptop", udp("192.0.2.2", "10.2.0.2"), ROUTER),  # the server's
        ("laptop", udp("8.8.8.8", "10.1.0.1"), ROUTER),  # nobody's
        ("laptop", udp("10.1.0.1", "10.1.0.1"), ROUTER),  # the router's own
        ("laptop", udp("10.3.0.1", "10.1.0.1"), ROUTER),
        ("laptop", udp("127.0.0.1", "10.1.0.1"), ROUTER),
        ("laptop", udp("224.0.0.5", "10.1.0.1"), ROUTER),
        ("laptop", udp("0.0.0.0", "10.1.0.1"), ROUTER),
        ("laptop", udp("fd02::2", "2001:db8::2"), ROUTER),
        ("laptop", udp("fd01::1", "fd01::1"), ROUTER),
        ("laptop", udp("::", "fd01::1"), ROUTER),
        ("server", udp("10.1.0.2", "10.2.0.2"), bytes.fromhex("020000000901")),
        ("server", udp("fd01::2", "2001:db8::1"), bytes.fromhex("020000000901")),
        ("server", udp("10.1.0.2", "255.255.255.255", (67, 69)), EVERYBODY),
    ],
    ids=named,
)
def test_a_source_that_answers_would_not_go_back_to_is_dropped(
    place: Place, enforce: Callable, who: str, packet: bytes, to: bytes
) -> None:
    enforce(CHECKED)
    send(getattr(place, who), packet, to)
    assert dropped(place) == 1


@pytest.mark.parametrize(
    ("who", "packet", "to"),
    [
        ("laptop", udp("10.1.0.77", "192.0.2.2"), ROUTER),
        ("laptop", udp("0.0.0.0", "255.255.255.255", (68, 67)), EVERYBODY),  # DHCP
        ("laptop", udp("10.1.0.2", "224.0.0.251", (5353, 5353)), EVERYBODY),
        ("laptop", udp("fd01::77", "2001:db8::2"), ROUTER),
        ("laptop", udp("fe80::77", "ff02::1:2", (546, 547)), ALL_NODES),  # DHCPv6
        ("laptop", icmpv6("::", "ff02::1:ff00:1", 135), ALL_NODES),  # duplicate address detection
        ("laptop", icmpv6("::", "ff02::16", 143), ALL_NODES),  # multicast listener report
        ("server", udp("192.0.2.7", "192.0.2.1"), bytes.fromhex("020000000901")),
        ("server", udp("10.99.0.1", "255.255.255.255", (67, 68)), EVERYBODY),  # a lease is offered
        ("guest", udp("10.1.0.2", "10.3.0.1"), bytes.fromhex("020000000301")),  # this zone did not ask
    ],
    ids=named,
)
def test_a_source_at_its_place_or_without_an_address_is_not(
    place: Place, enforce: Callable, who: str, packet: bytes, to: bytes
) -> None:
    enforce(CHECKED)
    send(getattr(place, who), packet, to)
    assert dropped(place) == 0


def test_a_false_source_leaves_no_connection_behind(place: Place, enforce: Callable) -> None:
    enforce(CHECKED + 'policy "lan" "wan" { action = "accept" }')
    send(place.laptop, udp("10.77.0.2", "192.0.2.2", (7777, 7777)), ROUTER)
    assert "7777" not in place.router.run(["conntrack", "-L"]).stdout
    enforce(CHECKED.replace("antispoof = true", "") + 'policy "lan" "wan" { action = "accept" }')
    send(place.laptop, udp("10.77.0.2", "192.0.2.2", (7777, 7777)), ROUTER)
    assert "7777" in place.router.run(["conntrack", "-L"]).stdout


def test_connections_go_on_both_ways(place: Place, enforce: Callable) -> None:
    enforce(CHECKED + 'policy "lan" "wan" { action = "accept" }')
    assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "open"
    assert tcp(place.laptop, place.server, "2001:db8::2", 443) == "open"
