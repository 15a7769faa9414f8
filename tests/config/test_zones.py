"""Which zone an address is of, as the compiled ruleset has it (tests/firewall/test_simulate.py sends packets)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from glacic.config.model import Zone
from glacic.config.zones import Patterns, Zones

LAN = Zone(name="lan", interfaces=("lan0", "wl*"))
BOTH = Zone(name="both", interfaces=("lan0",), networks=(ip_network("10.1.9.0/24"), ip_network("fd01:9::/64")))
NETS = Zone(name="nets", networks=(ip_network("10.8.0.0/16"), ip_network("10.1.9.0/24")))
ZONES = Zones([LAN, NETS, BOTH])


@pytest.mark.parametrize(
    ("interface", "address", "zone"),
    [
        ("lan0", "10.1.9.7", BOTH),
        ("lan0", "fd01:9::1", BOTH),
        ("lan0", "10.1.0.7", LAN),
        ("lan0", "10.8.0.1", LAN),
        ("wlan1", "10.1.9.7", LAN),
        ("tun0", "10.8.3.4", NETS),
        ("tun0", "10.1.9.7", NETS),
        ("tun0", "10.9.0.1", None),
        ("tun0", "fd01:9::1", None),
        ("", "10.8.0.1", NETS),
    ],
)
def test_the_most_exact_word_counts(interface: str, address: str, zone: Zone | None) -> None:
    assert ZONES.of(interface, ip_address(address).packed) is zone


def test_by_address_alone_a_zone_with_interfaces_counts_before_its_equal() -> None:
    assert ZONES.by_address(ip_address("10.1.9.7").packed) is BOTH
    assert ZONES.by_address(ip_address("10.8.9.7").packed) is NETS
    assert ZONES.by_address(ip_address("192.0.2.1").packed) is None


def test_by_address_alone_the_longest_prefix_counts() -> None:
    wide, narrow = (Zone(name=text, networks=(ip_network(text),)) for text in ("0.0.0.0/0", "10.0.0.1/32"))
    zones = Zones([wide, narrow])
    assert zones.by_address(bytes([10, 0, 0, 1])) is narrow
    assert zones.by_address(bytes([10, 0, 0, 2])) is wide
    assert zones.by_address(bytes(16)) is None


def test_patterns_end_in_a_star_or_are_names() -> None:
    patterns = Patterns(["eth*", "lo"])
    assert [patterns.match(name) for name in ("eth0", "eth", "lo", "lo0", "")] == [True, True, True, False, False]
