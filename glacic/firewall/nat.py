"""Road 1: address translation: the two nat chains, and the way in for forwarded ports.

Refuses to open anything but exactly what a port forward translates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from glacic.config.model import Address, AddressRange, Nat, NatKind, PortRange
from glacic.firewall.match import FAMILY_WORD, Sets, nat_matches
from glacic.firewall.quoting import quote, remark
from glacic.firewall.ruleset import Chain, Hook, Part, Rule

FORWARDS_CHAIN = "port_forwards"


def prerouting(nats: Sequence[Nat], sets: Sets) -> list[Part]:
    """The chain that gives forwarded ports their new destination; nothing without any."""
    forwards = [nat for nat in nats if nat.kind is NatKind.DNAT]
    if not forwards:
        return []
    hook = Hook("nat", "prerouting", "dstnat", "accept")
    return [Chain("prerouting", tuple(_rules(forwards, sets)), hook, "Port forwards: where they go")]


def postrouting(nats: Sequence[Nat], sets: Sets) -> list[Part]:
    """The chain that gives packets a new source on their way out; nothing without any."""
    sources = [nat for nat in nats if nat.kind is not NatKind.DNAT]
    if not sources:
        return []
    hook = Hook("nat", "postrouting", "srcnat", "accept")
    return [Chain("postrouting", tuple(_rules(sources, sets)), hook, "What leaves under another address")]


def accepted(nats: Sequence[Nat], sets: Sets) -> list[Part]:
    """The chain that lets forwarded ports in, each as it looks once it is translated; nothing without any."""
    rules = []
    for nat in nats:
        if nat.kind is NatKind.DNAT and nat.to_ip is not None:
            rules += [
                Rule(f"{match} accept comment {quote(nat.name)}")
                for match in nat_matches(_translated(nat, nat.to_ip), sets)
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


def _statement(nat: Nat) -> str:
    if nat.to_ip is None:
        return "masquerade"
    address = str(nat.to_ip)
    if nat.to_port:
        address = f"[{address}]:{nat.to_port}" if nat.to_ip.version == 6 else f"{address}:{nat.to_port}"
    return f"{nat.kind.value} {FAMILY_WORD[nat.to_ip.version]} to {address}"


def _translated(nat: Nat, to_ip: Address) -> Nat:
    """The same port forward as the filter sees it: the new destination, and the new port where there is one."""
    ports = (PortRange(nat.to_port, nat.to_port),) if nat.to_port else nat.dest_port
    return replace(nat, dest_ip=(AddressRange(to_ip, to_ip),), dest_port=ports)
