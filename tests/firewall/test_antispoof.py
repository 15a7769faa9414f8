"""The chain against false sources: for which interfaces, and what it lets through."""

from __future__ import annotations

from glacic.config.model import Zone
from glacic.firewall.antispoof import antispoof
from glacic.firewall.ruleset import Chain

LAN = Zone(name="lan", interfaces=("lan0", "wl*", "wlan0"), antispoof=True)
WAN = Zone(name="wan", interfaces=("wan0",), antispoof=True, services=("dhcp_client",))
IOT = Zone(name="iot", interfaces=("iot0",), services=("dhcp_client",))


def statements(*zones: Zone) -> list[str]:
    return [rule.statement for part in antispoof(zones) if isinstance(part, Chain) for rule in part.rules]


def test_without_a_zone_that_wants_it_there_is_no_chain() -> None:
    assert antispoof([IOT]) == []


def test_it_is_before_connection_tracking() -> None:
    (chain,) = antispoof([LAN])
    assert isinstance(chain, Chain)
    assert str(chain.hook) == "type filter hook prerouting priority raw; policy accept;"


def test_only_the_interfaces_of_zones_that_want_it_are_checked() -> None:
    assert statements(LAN, IOT) == [
        'iifname != { "lan0", "wl*" } accept',
        "ip6 saddr :: ip6 daddr ff02::/16 meta l4proto icmpv6 accept",
        "fib saddr . iif oif missing counter drop",
    ]


def test_a_lease_can_be_offered_where_the_zone_has_a_dhcp_client() -> None:
    assert 'iifname "wan0" udp sport 67 udp dport 68 accept' in statements(LAN, WAN, IOT)
