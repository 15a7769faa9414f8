"""What the ruleset says of a packet: worked out, and asked of the kernel with the packet itself.

    peer lan0   10.1.0.0/24 fd01::/64 ── lan0 ┐
    peer wlan0  10.2.0.0/24 fd02::/64 ── wlan0 ┼ router (.1 and ::1 everywhere)
    peer wan0   192.0.2.0/24 2001:db8::/64 ── wan0 ┘

The twin: random configurations, loaded; random packets, sent under any source address. Where the ruleset would ask or
reject, the packet is let on with a mark that says so, and a table behind ours notes each packet's tag and mark.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glacic.config.model import (
    FIREWALL,
    Action,
    AddressRange,
    Config,
    Identity,
    NamedSet,
    Nat,
    NatKind,
    Policy,
    PortRange,
    Rate,
    Rule,
    RuleLearning,
    SetRef,
    SetType,
    Zone,
)
from glacic.config.policies import learning_policies
from glacic.config.services import ICMP_TYPES
from glacic.firewall import claims
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables
from glacic.firewall.ruleset import Chain, Ruleset
from glacic.firewall.ruleset import Rule as NftRule
from glacic.firewall.shapes import REFUSE_CHAIN
from glacic.firewall.simulate import ERRORS, LISTENERS, NEIGHBOURS, Outcome, Probe, Simulator, Verdict, simulate
from glacic.lab.net import Host, Network, Port

WEB = """
rule_learning { enabled = true }
zone "lan" {
  interface = "lan0"
  management { ssh = true }
  services { dns = true }
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {
  rule "never" {
    proto = "tcp"
    dest_port = 25
    action = "reject"
  }
  rule "web" {
    proto     = ["tcp", "udp"]
    dest_port = [443, "8000-8010"]
    action    = "accept"
  }
}
policy "firewall" "wan" {
  rule "ntp" {
    proto     = "udp"
    dest_port = 123
    action    = "accept"
  }
}
"""


def probe(hook: str, iif: str, oif: str, source: str, to: str, protocol: int, port: int, **more: object) -> Probe:
    source_port = more.pop("source_port", 40_000)
    return Probe(hook, iif, oif, ip_address(source).packed, ip_address(to).packed, protocol, source_port, port, **more)


@pytest.mark.parametrize(
    ("packet", "verdict", "why"),
    [
        (("input", "lan0", "", "10.1.0.2", "10.1.0.1", 6, 22), "accept", "zone lan management ssh"),
        (("input", "lan0", "", "10.1.0.2", "10.1.0.1", 17, 53), "accept", "zone lan services dns"),
        (("input", "lan0", "", "10.1.0.2", "10.1.0.1", 6, 80), "asks", "zone lan: no policy claims it (DROP_INPUT)"),
        (("input", "wan0", "", "192.0.2.7", "192.0.2.1", 6, 22), "drop", "zone wan: no rule accepts it"),
        (("input", "tun0", "", "10.1.0.2", "10.1.0.1", 6, 22), "drop", "from no zone"),
        (("input", "lo", "", "127.0.0.1", "127.0.0.1", 6, 22), "accept", "loopback"),
        (("forward", "lan0", "wan0", "10.1.0.2", "192.0.2.7", 6, 8005), "accept", "policy lan_wan rule web"),
        (("forward", "lan0", "wan0", "10.1.0.2", "192.0.2.7", 6, 25), "reject", "policy lan_wan rule never"),
        (("forward", "lan0", "wan0", "fd01::2", "2001:db8::7", 6, 22), "asks", "policy lan_wan: no rule decides"),
        (
            ("forward", "lan0", "tun0", "10.1.0.2", "10.9.0.1", 6, 22),
            "asks",
            "zone lan: no policy claims it (DROP_FORWARD)",
        ),
        (("forward", "wan0", "lan0", "192.0.2.7", "10.1.0.2", 6, 22), "drop", "zone wan: no rule accepts it"),
        (("output", "", "wan0", "192.0.2.1", "192.0.2.7", 17, 123), "accept", "policy firewall_wan rule ntp"),
        (("output", "", "wan0", "192.0.2.1", "192.0.2.7", 17, 53), "asks", "policy firewall_wan: no rule decides"),
        (("output", "", "lan0", "10.1.0.1", "10.1.0.7", 17, 53), "accept", "no policy from the firewall claims it"),
        (("forward", "wan0", "lan0", "192.0.2.7", "10.1.0.2", 1, 11), "accept", "ICMP error"),
    ],
)
def test_the_answer_names_what_decided(config: Callable[[str], Config], packet: tuple, verdict: str, why: str) -> None:
    outcome = simulate(config(WEB), probe(*packet))
    assert (outcome.verdict, outcome.why, outcome.certain) == (verdict, why, True)
    assert (outcome.policy is not None) == (verdict == "asks")


def test_who_asks_is_named_by_policy_and_identity(config: Callable[[str], Config]) -> None:
    text = WEB.replace('interface = "lan0"', 'interface = "lan0"\n  identity = "ip"')
    outcome = simulate(config(text), probe("forward", "lan0", "tun0", "10.1.0.2", "10.9.0.1", 6, 22))
    assert outcome.policy is not None
    assert (outcome.policy.name, outcome.policy.identity) == ("DROP_FORWARD", Identity.IP)


@pytest.mark.parametrize("hook", ["input", "forward", "output"])
def test_limits_alone_refuse_nothing(config: Callable[[str], Config], hook: str) -> None:
    text = 'limit "a" {\n unit = "a.service"\n upload = "1 mbit"\n}\n'
    found = simulate(config(text), probe(hook, "eth0", "eth1", "192.0.2.7", "192.0.2.1", 6, 22))
    assert found == Outcome(Verdict.ACCEPT, "nothing but limits")


def test_ignored_networks_are_not_learned_from(config: Callable[[str], Config]) -> None:
    text = WEB.replace("{ enabled = true }", '{\n  enabled = true\n  ignore_networks = ["198.51.100.0/24"]\n}')
    of = Simulator(config(text)).of
    assert of(probe("forward", "lan0", "wan0", "10.1.0.2", "198.51.100.9", 6, 22)).ignored
    assert not of(probe("forward", "lan0", "wan0", "10.1.0.2", "192.0.2.9", 6, 22)).ignored


def test_a_neighbours_hop_limit_cannot_be_known() -> None:
    zones = (Zone(name="lan", interfaces=("lan0",), external=True),)
    outcome = simulate(Config(path=Path("x"), zones=zones), probe("input", "lan0", "", "fe80::1", "fe80::2", 58, 135))
    assert (outcome.verdict, outcome.certain) == (Verdict.DROP, False)
    assert outcome.why == "zone lan: no rule accepts it; or accept: neighbour discovery"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRule(Rule):
    """What an extension of the language may add."""

    hours: tuple[str, ...] = ()


def timed(action: Action, rest: Action, hours: tuple[str, ...] = ("08:00-17:00",)) -> Outcome:
    zones = (Zone(name="lan", interfaces=("lan0",)), Zone(name="wan", interfaces=("wan0",), external=True))
    rule = TimedRule(name="work", action=action, protos=("tcp",), hours=hours)
    policy = Policy(source="lan", destination="wan", name="p", action=rest, rules=(rule,))
    config = Config(path=Path("x"), zones=zones, policies=(policy,))
    return simulate(config, probe("forward", "lan0", "wan0", "10.1.0.2", "192.0.2.7", 6, 22))


def test_a_condition_that_is_not_known_may_hold_or_not() -> None:
    assert timed(Action.ACCEPT, Action.DROP)[:3] == (
        Verdict.DROP,
        "policy p: no rule accepts it; or accept: policy p rule work",
        False,
    )
    assert timed(Action.DROP, Action.ACCEPT)[::2] == (Verdict.ACCEPT, False, False)
    assert timed(Action.DROP, Action.DROP)[::2] == (Verdict.DROP, True, False)
    assert timed(Action.ACCEPT, Action.DROP, hours=())[:3] == (Verdict.ACCEPT, "policy p rule work", True)


def test_the_types_that_go_before_zones_are_those_of_the_ruleset(config: Callable[[str], Config]) -> None:
    chains = {part.name: part for part in compile_config(config(WEB)).parts if isinstance(part, Chain)}

    def types(chain: str, contains: str) -> list[set[int]]:
        lines = [rule.statement for rule in chains[chain].rules if contains in rule.statement]
        return [
            {
                ICMP_TYPES[line.split()[0]][name.strip()]
                for name in line[line.index("{") + 1 : line.index("}")].split(",")
            }
            for line in lines
        ]

    assert types("input", "hoplimit") == [set(NEIGHBOURS)]
    assert types("input", "mld-listener-query") == [set(LISTENERS)]
    assert types("forward", "time-exceeded") == [set(ERRORS[1]), set(ERRORS[58])]


# The twin

NOTES = """
table inet twin {
    set seen4 { typeof ip id . meta mark; flags dynamic; size 65535; }
    set seen6 { typeof ip6 flowlabel . meta mark; flags dynamic; size 65535; }
    chain input { type filter hook input priority 5; jump note; }
    chain forward { type filter hook forward priority 5; jump note; }
    chain output { type filter hook output priority 5; jump note; }
    chain note {
        update @seen4 { ip id . meta mark }
        update @seen6 { ip6 flowlabel . meta mark }
        drop
    }
}
"""
INTERFACES = {"lan0": ("10.1.0.1", "fd01::1"), "wlan0": ("10.2.0.1", "fd02::1"), "wan0": ("192.0.2.1", "2001:db8::1")}
ADDRESSES = {
    "lan0": ("10.1.0.9", "10.1.0.77", "fd01::9"),
    "wlan0": ("10.2.0.9", "fd02::9", "fd02:0:0:0:1::"),
    "wan0": ("192.0.2.9", "192.0.2.200", "198.51.100.7", "2001:db8::9", "2001:db8:5::1"),
}
NETWORKS = ("10.1.0.0/24", "10.0.0.0/8", "10.2.0.8/29", "192.0.2.128/25", "198.51.100.0/24", "fd00::/8", "fd02::/64")
PORTS = (22, 53, 67, 80, 443, 5353, 8000, 8005, 8080)
ROUTES = ("198.51.100.0/24 via 192.0.2.9", "2001:db8:5::/48 via 2001:db8::9")


@dataclass(frozen=True)
class Bed:
    router: Host
    nft: Libnftables
    wires: dict[str, socket.socket]  # raw sockets at the far ends; "" the router itself, "6" its IPv6
    macs: dict[str, bytes]

    def send(self, packet: Probe, tag: int) -> None:
        data = datagram(packet, tag)
        if packet.hook == "output":
            address = str(ip_address(packet.destination))
            with contextlib.suppress(PermissionError):  # dropped
                self.wires["6" if ":" in address else ""].sendto(data, (address, 0))
            return
        kind = b"\x08\x00" if len(packet.source) == 4 else b"\x86\xdd"
        self.wires[packet.iif].send(self.macs[packet.iif] + b"\x02\0\0\0\0\x99" + kind + data)

    def seen(self) -> dict[int, int]:
        """Tag -> mark, of every packet that came through."""
        listed = self.router.run(["nft", "-n", "list", "table", "inet", "twin"]).stdout
        return {int(tag, 0): int(mark, 0) for tag, mark in re.findall(r"(\w+) \. (0x\w+)", listed)}


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with Network() as net:
        router = net.host("router", forwards=True)
        router.set({"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0"})
        wires, macs = {}, {}
        for number, (interface, (four, six)) in enumerate(INTERFACES.items(), 1):
            peer = net.host(f"p{number}")
            near = f"02:00:00:00:0{number}:01"
            net.cable(Port(peer, "eth0", "", ()), Port(router, interface, near, (f"{four}/24", f"{six}/64")))
            router.ip(*(f"neigh add {a} lladdr 02:00:00:00:00:99 dev {interface}" for a in ADDRESSES[interface][:1]))
            wires[interface] = peer.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
            wires[interface].bind(("eth0", 0))
            macs[interface] = bytes.fromhex(near.replace(":", ""))
        router.ip(*(f"route add {route}" for route in ROUTES))
        wires[""] = router.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        wires["6"] = router.call(socket.socket, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        try:
            yield Bed(router, router.call(Libnftables), wires, macs)
        finally:
            for wire in wires.values():
                wire.close()


def datagram(packet: Probe, tag: int) -> bytes:
    """A whole IP packet; IPv4's id or IPv6's flow label is the tag."""
    if packet.protocol in (6, 17):
        ports = struct.pack("!HH", packet.source_port, packet.port)
        rest = (
            struct.pack("!IIBBHHH", 1, 0, 0x50, 0x02, 1024, 0, 0) if packet.protocol == 6 else struct.pack("!HH", 8, 0)
        )
        payload = bytearray(ports + rest)
    else:
        payload = bytearray(struct.pack("!BBHHH", packet.port, 0, 0, tag, 1))
    at = {6: 16, 17: 6, 1: 2, 58: 2}[packet.protocol]
    pseudo = packet.source + packet.destination + struct.pack("!II", len(payload), packet.protocol)
    payload[at : at + 2] = struct.pack("!H", checksum((b"" if packet.protocol == 1 else pseudo) + payload))
    if len(packet.source) == 16:
        head = struct.pack("!IHBB", 6 << 28 | tag, len(payload), packet.protocol, 64)
        return head + packet.source + packet.destination + bytes(payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), tag, 0, 64, packet.protocol, 0)
    header += packet.source + packet.destination
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + bytes(payload)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def telling(ruleset: Ruleset) -> Ruleset:
    """The same ruleset, but what asks or is rejected goes on with its mark."""

    def told(chain: Chain) -> Chain:
        if chain.name == REFUSE_CHAIN:
            return replace(chain, rules=(NftRule(f"meta mark set {claims.REJECT:#x} accept"),))
        return replace(
            chain, rules=tuple(NftRule(re.sub("^queue num .*", "accept", rule.statement)) for rule in chain.rules)
        )

    return Ruleset(tuple(told(part) if isinstance(part, Chain) else part for part in ruleset.parts))


def any_of(rng: random.Random, *choices: object) -> tuple:
    """Nothing half of the time, else some of the choices."""
    return () if rng.random() < 0.5 else tuple(rng.sample(choices, rng.randint(1, min(2, len(choices)))))


def random_config(rng: random.Random) -> Config:
    """Three or four zones of every kind, policies between some of them."""
    nets = [ip_network(text) for text in NETWORKS]
    zones = [
        Zone(
            name="lan",
            interfaces=("lan0",),
            networks=tuple(rng.sample([nets[0], nets[5]], rng.randint(0, 2))),
            services=any_of(rng, "dns", "ping", "dhcp", "ipsec"),
            management=any_of(rng, "ssh", "web"),
            identity=rng.choice(list(Identity)),
        ),
        Zone(name="wl", interfaces=("wl*",), services=any_of(rng, "mdns", "icmp")),
        Zone(name="wan", interfaces=("wan0",), external=rng.random() < 0.7, management=any_of(rng, "ssh")),
    ]
    if rng.random() < 0.5:
        del zones[rng.randint(0, 2)]
    if rng.random() < 0.6:
        zones.append(Zone(name="nets", networks=(nets[2], nets[4]), identity=Identity.IP))
    sets = (
        NamedSet(name="some", type=SetType.ADDRESS, elements=(nets[2], ip_network("fd02::8/125"), nets[3])),
        NamedSet(
            name="four", type=SetType.IPV4, elements=(AddressRange(ip_address("10.1.0.70"), ip_address("10.1.0.80")),)
        ),
        NamedSet(name="ports", type=SetType.PORT, elements=(PortRange(53, 53), PortRange(8000, 8004))),
    )
    names = [FIREWALL, *(zone.name for zone in zones)]
    policies = []
    for source in names:
        for destination in names:
            if rng.random() < 0.6 and not source == destination == FIREWALL:
                rules = tuple(random_rule(rng, f"r{at}", source, destination) for at in range(rng.randint(0, 4)))
                action, learn = rng.choice(list(Action)), rng.choice([None, None, False])
                policies.append(
                    Policy(
                        source=source,
                        destination=destination,
                        name=f"{source}_{destination}",
                        action=action,
                        learn=learn,
                        rules=rules,
                    )
                )
    nats = (
        Nat(
            name="web",
            kind=NatKind.DNAT,
            in_interface=("wan0",),
            protos=("tcp",),
            dest_port=(PortRange(8080, 8080),),
            to_ip=ip_address("10.1.0.9"),
            to_port=PortRange(80, 80),
            src_ip=any_of(rng, nets[3]),
        ),
    )
    return Config(
        path=Path("x.hcl"),
        rule_learning=RuleLearning(enabled=rng.random() < 0.8, inline_mode=True, log_group=100),
        zones=tuple(zones),
        policies=tuple(policies),
        sets=sets,
        nats=nats if rng.random() < 0.7 else (),
    )


def random_rule(rng: random.Random, name: str, source: str, destination: str) -> Rule:
    protos = any_of(rng, "tcp", "udp", "icmp", "icmpv6")
    ported = bool(protos) and not {"icmp", "icmpv6"} & set(protos)
    address = [*(ip_network(text) for text in NETWORKS), SetRef("some"), SetRef("four")]
    port = [PortRange(22, 22), PortRange(53, 80), PortRange(8000, 8080), SetRef("ports")]
    action = rng.choice(list(Action))
    return Rule(
        name=name,
        action=action,
        protos=protos,
        icmp_type=any_of(rng, "echo-request", "13") if protos and not {"tcp", "udp"} & set(protos) else (),
        dest_port=any_of(rng, *port) if ported else (),
        source_port=any_of(rng, PortRange(1024, 50_000), SetRef("ports")) if ported and rng.random() < 0.3 else (),
        src_ip=any_of(rng, *address) if rng.random() < 0.4 else (),
        dest_ip=any_of(rng, *address) if rng.random() < 0.4 else (),
        ct_state=any_of(rng, "new", "untracked") if rng.random() < 0.3 else (),
        in_interface=any_of(rng, "lan0", "wl*") if source != FIREWALL and rng.random() < 0.2 else (),
        out_interface=any_of(rng, "wan0", "wl*", "lan*") if destination != FIREWALL and rng.random() < 0.2 else (),
        translated=rng.random() < 0.1,
        limit=Rate(60_000, "second") if rng.random() < 0.2 else None,
        limit_per_source=Rate(60_000, "second") if action is Action.ACCEPT and rng.random() < 0.1 else None,
        counter=rng.random() < 0.1,
        disabled=rng.random() < 0.1,
    )


def random_probe(rng: random.Random) -> Probe:
    """A packet as it is sent: before any DNAT."""
    hook = rng.choice(["input", "forward", "forward", "output"])
    iif, oif = rng.sample(list(INTERFACES), 2)
    version = rng.choice([4, 6])

    def pick(addresses: tuple[str, ...]) -> str:
        return rng.choice([text for text in addresses if ip_address(text).version == version])

    source = pick(INTERFACES[oif] if hook == "output" else (*ADDRESSES[iif], *ADDRESSES[rng.choice(list(ADDRESSES))]))
    if hook == "input" and version == 4 and rng.random() < 0.1:
        source = "0.0.0.0"
    to = pick(INTERFACES[iif] if hook == "input" else ADDRESSES[oif])
    if source == "0.0.0.0":
        return probe(hook, iif, "", source, "255.255.255.255", 17, 67, source_port=68)
    protocol = rng.choice([6, 17, 1 if version == 4 else 58])
    port = rng.choice(PORTS) if protocol in (6, 17) else rng.choice([8, 13] if version == 4 else [128, 130, 139])
    sport = 0 if protocol not in (6, 17) else rng.choice([53, 8001, *range(1024, 1400), *range(50_000, 50_400)])
    return probe(
        hook,
        "" if hook == "output" else iif,
        "" if hook == "input" else oif,
        source,
        to,
        protocol,
        port,
        source_port=sport,
    )


def translated(config: Config, packet: Probe) -> Probe:
    """What prerouting makes of it."""
    for nat in config.nats:
        fits = packet.iif == "wan0" and packet.protocol == 6 and packet.port == 8080 and len(packet.source) == 4
        if fits and (not nat.src_ip or ip_address(packet.source) in nat.src_ip[0]):
            to = packet._replace(destination=ip_address("10.1.0.9").packed, port=80, forwarded_port=True)
            return to._replace(hook="forward", oif="lan0")
    return packet


@settings(max_examples=25)
@given(seed=st.integers(0, 1 << 32))
def test_the_kernel_says_the_same_of_real_packets(bed: Bed, seed: int) -> None:
    rng = random.Random(seed)
    config = random_config(rng)
    bed.router.run(["nft", "-f", "-"], text=f"table inet twin\ndelete table inet twin\n{NOTES}")
    apply(bed.nft, telling(compile_config(config)))
    bed.router.run(["conntrack", "-F"])
    packets = list(
        {connection(translated(config, packet)): packet for packet in (random_probe(rng) for _ in range(150))}.values()
    )
    for tag, packet in enumerate(packets, 1):
        bed.send(packet, tag)
    numbers = {policy.number: policy.name for policy in learning_policies(config)}
    simulator = Simulator(config)
    said = [simulator.of(translated(config, packet)) for packet in packets]
    expected = {tag: outcome for tag, outcome in enumerate(said, 1) if outcome.verdict is not Verdict.DROP}
    seen = bed.seen()
    deadline = time.monotonic() + 5
    while set(seen) != set(expected) and time.monotonic() < deadline:
        time.sleep(0.01)
        seen = bed.seen()
    for tag, (packet, outcome) in enumerate(zip(packets, said, strict=True), 1):
        mark = seen.get(tag)
        if mark is None:
            found = ("drop", "")
        elif mark & claims.ASKED:
            found = ("asks", numbers[claims.number_in(mark, max(numbers))])
        else:
            found = ("reject" if mark & claims.REJECT else "accept", "")
        policy = outcome.policy.name if outcome.policy else ""
        assert (outcome.verdict, policy) == found, (tag, packet, outcome)
        assert outcome.certain


def connection(packet: Probe) -> tuple:
    """What conntrack tells connections apart by; an echo has the tag."""
    ports = frozenset({(packet.source, packet.source_port), (packet.destination, packet.port)})
    return (packet.protocol, ports if packet.protocol in (6, 17) else packet)
