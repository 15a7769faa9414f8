"""Road 1: address translation: the two nat chains, and the way in for forwarded ports.

A hairpin is a port forward for those inside, who ask for it by the firewall's outer address: they are sent to the same
host, and where they leave by the interface that they came in by, under the firewall's address, so that the answer comes
back this way and not to a client that asked somebody else.

Refuses to open anything but exactly what a port forward translates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from glacic.config.model import Address, AddressRange, Nat, NatKind, PortRange, Zone
from glacic.config.overlap import inside
from glacic.firewall.match import FAMILY_WORD, Sets, braces, nat_matches, outermost
from glacic.firewall.quoting import quote, remark
from glacic.firewall.ruleset import Chain, Hook, Part, Rule

FORWARDS_CHAIN = "port_forwards"


def prerouting(nats: Sequence[Nat], sets: Sets, zones: Sequence[Zone]) -> list[Part]:
    """The chain that gives forwarded ports their new destination; nothing without any."""
    forwards = [nat for nat in nats if nat.kind is NatKind.DNAT]
    if not forwards:
        return []
    rules = [rule for nat in forwards for rule in (*_rules([nat], sets), *_hairpin(nat, sets, zones))]
    hook = Hook("nat", "prerouting", "dstnat", "accept")
    return [Chain("prerouting", tuple(rules), hook, "Port forwards: where they go")]


def postrouting(nats: Sequence[Nat], sets: Sets, zones: Sequence[Zone]) -> list[Part]:
    """The chain that gives packets a new source on their way out; nothing without any."""
    sources = [nat for nat in nats if nat.kind is not NatKind.DNAT]
    rules = [*_returns(nats, sets, zones), *_rules(sources, sets)]
    if not rules:
        return []
    hook = Hook("nat", "postrouting", "srcnat", "accept")
    return [Chain("postrouting", tuple(rules), hook, "What leaves under another address")]


def accepted(nats: Sequence[Nat], sets: Sets, zones: Sequence[Zone]) -> list[Part]:
    """The chain that lets forwarded ports in, each as it looks once it is translated; nothing without any."""
    rules = []
    for nat in nats:
        if nat.kind is NatKind.DNAT and nat.to_ip is not None:
            ways = (*nat.in_interface, *(inside(zones, nat) if nat.hairpin else ()))
            rules += [
                Rule(f"{match} accept comment {quote(nat.name)}")
                for match in nat_matches(replace(_translated(nat, nat.to_ip), in_interface=ways), sets)
            ]
    if not rules:
        return []
    return [Chain(FORWARDS_CHAIN, tuple(rules), note="Port forwards: what prerouting has translated, and no more")]


def to_accepted(nats: Sequence[Nat]) -> list[Rule]:
    """The rule of a base chain that lets forwarded ports in."""
    if not any(nat.kind is NatKind.DNAT for nat in nats):
        return []
    return [Rule(f"ct status dnat jump {FORWARDS_CHAIN}", "Port forwards")]


def _rules(nats: Iterable[Nat], sets: Sets) -> list[Rule]:
    return [
        Rule(f"{match} {_statement(nat)} comment {quote(nat.name)}".strip(), "" if at else remark(nat.description))
        for nat in nats
        for at, match in enumerate(nat_matches(nat, sets))
    ]


def _hairpin(nat: Nat, sets: Sets, zones: Sequence[Zone]) -> list[Rule]:
    """The same port forward for those inside.

    Without an address to go by, the firewall's own are meant, but for the one that is asked for by its own interface:
    that is the firewall as those inside know it, with services of its own.
    """
    if not nat.hairpin:
        return []
    ours = "" if nat.dest_ip else "fib daddr type local fib daddr . iif type != local "
    matches = nat_matches(replace(nat, in_interface=inside(zones, nat)), sets)
    return [Rule(f"{match} {ours}{_statement(nat)} comment {quote(nat.name)}") for match in matches]


def _returns(nats: Iterable[Nat], sets: Sets, zones: Sequence[Zone]) -> list[Rule]:
    """What takes the answers of hairpins back through the firewall."""
    rules = []
    for nat in nats:
        if nat.hairpin and nat.to_ip is not None:
            for name in outermost(inside(zones, nat)):
                back = replace(_translated(nat, nat.to_ip), in_interface=(name,), out_interface=(name,))
                rules += [
                    Rule(f"{match} ct status dnat masquerade comment {quote(nat.name)}")
                    for match in nat_matches(back, sets)
                ]
    note = "Hairpins: back to where it came from, so the answer has to come back here"
    return [replace(rule, note="" if at else note) for at, rule in enumerate(rules)]


def _statement(nat: Nat) -> str:
    if nat.to_ip is None:
        return "masquerade"
    return f"{nat.kind.value} {FAMILY_WORD[nat.to_ip.version]} to {_target(nat.to_ip, nat)}"


def _target(address: Address, nat: Nat) -> str:
    if nat.to_port is None:
        return str(address)
    first, last = nat.to_port.first, nat.to_port.last
    if first == last:
        return f"[{address}]:{first}" if address.version == 6 else f"{address}:{first}"
    (before,) = (part.first for part in nat.dest_port if isinstance(part, PortRange))
    moved = [f"{before + number} : {first + number}" for number in range(last - first + 1)]
    return f"{address} : th dport map {braces(moved)}"


def _translated(nat: Nat, to_ip: Address) -> Nat:
    """The same port forward as the filter sees it: the new destination, and the new ports where there are any."""
    ports = (nat.to_port,) if nat.to_port else nat.dest_port
    return replace(nat, dest_ip=(AddressRange(to_ip, to_ip),), dest_port=ports)
