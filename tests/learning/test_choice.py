from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from glacic.config.model import Action, Config, Identity, Policy, RuleLearning, Zone
from glacic.config.policies import LearningPolicy
from glacic.errors import GlacicError
from glacic.learning.choice import choice_of
from glacic.learning.flow import Why
from glacic.learning.packet import Packet


def zone(
    name: str, *networks: str, interface: str = "", external: bool = False, identity: Identity = Identity.MAC
) -> Zone:
    return Zone(
        name=name,
        interfaces=(interface,) if interface else (),
        networks=tuple(ip_network(network) for network in networks),
        external=external,
        identity=identity,
    )


def policy(source: str, destination: str, action: Action = Action.DROP, learn: bool | None = None) -> Policy:
    return Policy(source=source, destination=destination, name=f"{source}_{destination}", action=action, learn=learn)


def config(*zones: Zone, policies: tuple[Policy, ...] = (), enabled: bool = True) -> Config:
    return Config(path=Path("x.hcl"), rule_learning=RuleLearning(enabled=enabled), zones=zones, policies=policies)


def chosen(of: Config, source: str, destination: str, name: str | None = None) -> str | Why:
    """The name of the policy that a packet asks, with "/ip" for one that goes by address, or why there is none."""
    packet = Packet(4, ip_address(source).packed, ip_address(destination).packed, 6, 1, 2)
    choice = choice_of(of, name).choose(packet)
    if not isinstance(choice, LearningPolicy):
        return choice
    return choice.name + ("/ip" if choice.identity is Identity.IP else "")


LAN = zone("lan", "10.1.0.0/24", "fd01::/64", interface="lan0")
DMZ = zone("dmz", "10.2.0.0/24", interface="dmz0")
WAN = zone("wan", interface="wan0", external=True)
HOME = config(LAN, DMZ, WAN, policies=(policy("lan", "wan"), policy("lan", "dmz"), policy("dmz", "firewall")))


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("10.1.0.2", "10.2.0.9", "lan_dmz"),
        ("10.1.0.2", "192.0.2.1", "lan_wan"),
        ("fd01::2", "2001:db8::1", "lan_wan"),
        ("10.2.0.9", "192.0.2.1", "DROP_FORWARD"),
        ("10.2.0.9", "10.1.0.2", "DROP_FORWARD"),
        ("10.1.0.2", "10.1.0.1", "DROP_INPUT"),
        ("10.2.0.9", "10.2.0.1", "dmz_firewall"),
        ("10.1.0.2", "224.0.0.251", "DROP_INPUT"),
        ("10.1.0.2", "255.255.255.255", "DROP_INPUT"),
        ("fd01::2", "ff02::fb", "DROP_INPUT"),
        ("10.2.0.9", "239.255.255.250", "dmz_firewall"),
        ("192.0.2.1", "10.1.0.2", Why.OUTSIDE),
        ("fe80::1", "fd01::2", Why.OUTSIDE),
        ("0.0.0.0", "255.255.255.255", Why.OUTSIDE),
    ],
)
def test_the_networks_of_source_and_destination_name_the_policy(source, destination, expected):
    assert chosen(HOME, source, destination) == expected


def test_a_source_in_no_zone_is_outside_even_without_an_outside():
    assert chosen(config(LAN, DMZ), "192.0.2.1", "10.1.0.2") is Why.OUTSIDE
    two = config(LAN, WAN, zone("guests", interface="wl0"))
    assert chosen(two, "192.0.2.1", "10.1.0.2") is Why.OUTSIDE


def test_a_destination_in_no_zone_is_at_the_end_of_forward():
    assert chosen(config(LAN, DMZ), "10.1.0.2", "192.0.2.1") == "DROP_FORWARD"


def test_the_one_zone_without_networks_is_where_everything_else_is():
    rest = config(DMZ, zone("lan", interface="lan0"), policies=(policy("lan", "dmz"),))
    assert chosen(rest, "192.168.7.7", "10.2.0.9") == "lan_dmz"


def test_among_several_zones_without_networks_a_policy_that_learns_comes_first():
    zones = (LAN, WAN, zone("vpn", interface="wg0"))
    both = config(*zones, policies=(policy("lan", "wan", Action.ACCEPT), policy("lan", "vpn")))
    assert chosen(both, "10.1.0.2", "192.0.2.1") == "lan_vpn"
    neither = config(*zones, policies=(policy("lan", "wan", Action.ACCEPT),))
    assert chosen(neither, "10.1.0.2", "192.0.2.1") is Why.NOT_LEARNING


def test_the_longest_prefix_wins_wherever_its_zone_stands():
    everywhere = zone("wan", "0.0.0.0/0", "::/0", interface="wan0", external=True)
    for zones in ((everywhere, LAN), (LAN, everywhere), (everywhere, zone("lan", "10.1.0.0/24", "fd01::/64"))):
        of = config(*zones, policies=(policy("lan", "wan"),))
        assert chosen(of, "10.1.0.2", "192.0.2.1") == "lan_wan"
        assert chosen(of, "fd01::2", "2001:db8::1") == "lan_wan"
        assert chosen(of, "192.0.2.1", "10.1.0.2") is Why.OUTSIDE


def test_of_two_zones_with_the_same_network_the_one_that_names_interfaces_too_wins():
    same = zone("same", "10.1.0.0/24")
    assert chosen(config(same, LAN, policies=(policy("lan", "lan"),)), "10.1.0.2", "10.1.0.3") == "lan_lan"


def test_a_policy_that_does_not_learn_is_not_asked():
    accepting = config(LAN, WAN, policies=(policy("lan", "wan", Action.ACCEPT),))
    assert chosen(accepting, "10.1.0.2", "192.0.2.1") is Why.NOT_LEARNING
    opted_out = config(LAN, WAN, policies=(policy("lan", "wan", learn=False),))
    assert chosen(opted_out, "10.1.0.2", "192.0.2.1") is Why.NOT_LEARNING
    outside = config(LAN, WAN, policies=(policy("wan", "lan", Action.ACCEPT),))
    assert chosen(outside, "192.0.2.1", "10.1.0.2") is Why.OUTSIDE


def test_a_policy_from_outside_that_learns_is_asked():
    wan = zone("wan", interface="wan0", external=True, identity=Identity.IP)
    assert (
        chosen(config(LAN, wan, policies=(policy("wan", "lan", learn=True),)), "192.0.2.1", "10.1.0.2") == "wan_lan/ip"
    )


def test_the_reserved_policies_go_by_what_names_a_source_in_its_zone():
    routed = zone("routed", "10.3.0.0/16", interface="vpn0", identity=Identity.IP)
    mixed = config(LAN, routed)
    assert chosen(mixed, "10.3.0.9", "10.1.0.2") == "DROP_FORWARD/ip"
    assert chosen(mixed, "10.1.0.2", "10.3.0.9") == "DROP_FORWARD"
    assert chosen(mixed, "10.3.0.9", "10.3.0.1") == "DROP_INPUT/ip"


# ---- without networks, and by name

PLAIN = zone("lan", interface="lan0")


def test_without_networks_the_only_policy_that_learns_is_asked_and_it_says_so():
    only = config(PLAIN, WAN, policies=(policy("wan", "lan"), policy("lan", "wan")))
    assert chosen(only, "192.0.2.1", "10.1.0.2") == "lan_wan"
    assert "'lan_wan', the only one that learns" in choice_of(only, None).note


def test_without_networks_the_first_of_several_is_asked_and_it_says_so():
    several = config(PLAIN, WAN, policies=(policy("lan", "wan"), policy("lan", "firewall")))
    assert chosen(several, "192.0.2.1", "10.1.0.2") == "lan_wan"
    assert "'lan_wan', the first one that learns" in choice_of(several, None).note


def test_without_networks_and_policies_the_end_of_input_is_asked():
    assert chosen(config(PLAIN, WAN), "10.1.0.2", "192.0.2.1") == "DROP_INPUT"
    by_address = zone("lan", interface="tun0", identity=Identity.IP)
    assert chosen(config(by_address, WAN), "10.1.0.2", "192.0.2.1") == "DROP_INPUT/ip"


def test_a_named_policy_is_asked_by_every_packet():
    assert chosen(HOME, "192.0.2.1", "10.1.0.2", "lan_dmz") == "lan_dmz"
    assert chosen(HOME, "192.0.2.1", "10.1.0.2", "DROP_FORWARD") == "DROP_FORWARD"
    assert choice_of(HOME, "lan_dmz").note == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lan_wam", "no policy 'lan_wam'; did you mean 'lan_wan'"),
        ("nothing like it", "there are: DROP_INPUT, DROP_FORWARD, lan_wan, lan_dmz"),
        ("open", "does not learn; these do: DROP_INPUT"),
    ],
)
def test_a_wrong_name_is_refused_in_words(name, words):
    open_policy = Policy(source="dmz", destination="wan", name="open", action=Action.ACCEPT)
    of = config(LAN, DMZ, WAN, policies=(*HOME.policies, open_policy))
    with pytest.raises(GlacicError, match=words):
        choice_of(of, name)


def test_where_learning_is_not_enabled_nothing_is_asked():
    off = config(LAN, WAN, policies=(policy("lan", "wan"),), enabled=False)
    assert chosen(off, "10.1.0.2", "192.0.2.1") is Why.NOT_LEARNING
    assert "rule_learning is not enabled in x.hcl" in choice_of(off, None).note
    with pytest.raises(GlacicError, match="rule_learning is not enabled"):
        choice_of(off, "lan_wan")
