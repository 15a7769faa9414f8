"""Which zone a packet is of: the maps, from the most exact word to the least."""

from __future__ import annotations

from ipaddress import ip_network

from glacic.config.model import Zone
from glacic.firewall.dispatch import addressless, by_destination, by_source

LAN = Zone(name="lan", interfaces=("lan0", "wl*", "wlan1"))
BOTH = Zone(name="both", interfaces=("lan0",), networks=(ip_network("10.1.0.0/24"), ip_network("fd01::/64")))
NETS = Zone(name="nets", networks=(ip_network("10.8.0.0/16"), ip_network("10.9.0.0/16"), ip_network("fd08::/32")))
EVERYWHERE = {zone.name: f"goto to_{zone.name}" for zone in (LAN, BOTH, NETS)}


def texts(rules: list) -> list[str]:
    return [rule.statement for rule in rules]


def test_both_come_first_then_interfaces_then_networks_on_interfaces_of_nobody() -> None:
    assert texts(by_source([NETS, LAN, BOTH]).rules(EVERYWHERE)) == [
        'iifname . ip saddr vmap { "lan0" . 10.1.0.0/24 : goto to_both }',
        'iifname . ip6 saddr vmap { "lan0" . fd01::/64 : goto to_both }',
        'iifname vmap { "lan0" : goto to_lan, "wl*" : goto to_lan }',
        'iifname != { "lan0", "wl*" } ip saddr vmap { 10.8.0.0/15 : goto to_nets }',
        'iifname != { "lan0", "wl*" } ip6 saddr vmap { fd08::/32 : goto to_nets }',
    ]


def test_destinations_go_the_same_way_with_the_other_words() -> None:
    assert texts(by_destination([LAN, BOTH]).rules({"lan": "drop"})) == ['oifname vmap { "lan0" : drop, "wl*" : drop }']


def test_a_network_that_no_interface_competes_with_needs_no_guard() -> None:
    assert texts(by_source([NETS]).rules(EVERYWHERE))[0] == "ip saddr vmap { 10.8.0.0/15 : goto to_nets }"


def test_interfaces_of_zones_without_a_verdict_still_belong_to_them() -> None:
    assert texts(by_source([LAN, NETS]).rules({"nets": "accept"}))[0].startswith(
        'iifname != { "lan0", "wl*" } ip saddr'
    )


def test_long_maps_have_one_entry_to_a_line() -> None:
    zones = [Zone(name=f"z{number}", interfaces=(f"interface{number}",)) for number in range(9)]
    (rule,) = by_source(zones).rules({zone.name: f"goto {zone.name}" for zone in zones})
    assert rule.statement.splitlines()[1] == '\t"interface0" : goto z0,'
    assert rule.statement.splitlines()[-2:] == ['\t"interface8" : goto z8', "}"]


def test_dhcp_is_heard_before_its_sender_has_an_address() -> None:
    asked = Zone(name="both", interfaces=("lan0",), networks=BOTH.networks, services=("dhcp",))
    assert len(addressless([asked])) == 2
    assert addressless([BOTH, Zone(name="lan", interfaces=("lan1",), services=("dhcp",))]) == []
