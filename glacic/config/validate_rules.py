"""Step 4 of road 1, continued: what the attributes of one rule or nat block have to do with each other, with the
sets they name and with the zones they stand between.

An attribute that cannot apply is an error at that attribute: a rule that silently never matches, or matches more
than it says, is the worst that a firewall can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glacic.config.decode_rules import families_of
from glacic.config.model import (
    FIREWALL,
    AddressSpec,
    Config,
    Nat,
    NatKind,
    Policy,
    PortSpec,
    Rule,
    SetRef,
    SetType,
    Spans,
)
from glacic.config.overlap import share
from glacic.config.reader import HEADER, Report, element_key
from glacic.config.services import ICMP_TYPES, PORT_PROTOCOLS, PROTOCOL_FAMILY
from glacic.config.source import Span, did_you_mean, listed

BOTH = frozenset({4, 6})

# Which attributes a kind of nat has: those it cannot be without, and those it may have.
_NAT_NEEDS: Mapping[NatKind, tuple[str, ...]] = {
    NatKind.MASQUERADE: ("out_interface",),
    NatKind.SNAT: ("out_interface", "to_ip"),
    NatKind.DNAT: ("in_interface", "proto", "dest_port", "to_ip"),
}
_NAT_MAY: Mapping[NatKind, tuple[str, ...]] = {
    NatKind.MASQUERADE: ("family", "src_ip", "dest_ip"),
    NatKind.SNAT: ("src_ip", "dest_ip"),
    NatKind.DNAT: ("src_ip", "dest_ip", "to_port"),
}
_NAT_ALL = ("family", "in_interface", "out_interface", "src_ip", "dest_ip", "proto", "dest_port", "to_ip", "to_port")
_NAT_EXAMPLES: Mapping[str, str] = {
    "out_interface": 'out_interface = "wan0"',
    "in_interface": 'in_interface = "wan0"',
    "proto": 'proto = "tcp"',
    "dest_port": "dest_port = 8080",
    "to_ip": 'to_ip = "10.1.0.5"',
}


def validate_rules(config: Config, policy: Policy, report: Report) -> None:
    """Add to `report` what is wrong within the rules of one policy."""
    for rule in policy.rules:
        check = _Check(rule.spans, report)
        _ports(rule, check)
        _icmp(rule, check)
        _references(config, check, {"src_ip": rule.src_ip, "dest_ip": rule.dest_ip}, _port_specs(rule))
        _families(config, rule, check)
        _interfaces(config, policy, rule, check)
        _states(rule, check)


def _port_specs(rule: Rule) -> dict[str, PortSpec]:
    return {"source_port": rule.source_port, "dest_port": rule.dest_port}


class _Check:
    """The places of one block, and where to report."""

    def __init__(self, spans: Spans, report: Report) -> None:
        self.spans = spans
        self.report = report

    def usable(self, *names: str) -> bool:
        """Whether none of the attributes is written and unreadable."""
        return not any(name in self.spans and self.spans[name] in self.report.broken for name in names)

    def written(self, name: str) -> bool:
        """Whether the attribute is written, under its right name, readable or not."""
        return name in self.spans and self.spans[name].text.startswith(name)

    def readable(self, name: str) -> bool:
        """Whether the attribute is written, and readable."""
        return name in self.spans and self.usable(name)

    def error(self, name: str, summary: str, advice: str = "") -> None:
        """Report at an attribute."""
        self.report.error(self.spans[name], summary, advice)

    def element(self, name: str, index: int) -> Span:
        """Where an element stands; the attribute where elements were left out."""
        return self.spans.get(element_key(name, index), self.spans[name])


def _ports(rule: Rule, check: _Check) -> None:
    for name in ("source_port", "dest_port"):
        if not check.written(name) or not check.usable("proto"):
            continue
        without = [proto for proto in rule.protos if proto not in PORT_PROTOCOLS]
        if not rule.protos:
            check.error(
                name, f"{name} needs a protocol that has ports", 'write proto = "tcp", "udp", or a list of both'
            )
        elif without:
            advice = "write a second rule for it" if len(without) < len(rule.protos) else f"leave {name} out"
            if without[0] in ICMP_TYPES:
                advice += "; what ICMP has instead is icmp_type"
            check.error(name, f"{name} cannot apply to proto {listed(without, 'and')}, which has no ports", advice)


def _icmp(rule: Rule, check: _Check) -> None:
    if not check.written("icmp_type") or not check.usable("proto"):
        return
    without = [proto for proto in rule.protos if proto not in ICMP_TYPES]
    if not rule.protos:
        check.error(
            "icmp_type", "icmp_type needs an ICMP protocol", 'write proto = "icmp", "icmpv6", or a list of both'
        )
        return
    if without:
        advice = "write a second rule for it" if len(without) < len(rule.protos) else "leave icmp_type out"
        check.error("icmp_type", f"icmp_type cannot apply to proto {listed(without, 'and')}", advice)
        return
    for index, name in enumerate(rule.icmp_type):
        if not name.isdigit() and not any(name in ICMP_TYPES[proto] for proto in rule.protos):
            others = [proto for proto in ICMP_TYPES if proto not in rule.protos]
            known = {known for proto in rule.protos for known in ICMP_TYPES[proto]}
            advice = (
                f'it is a type of proto "{others[0]}"' if name in ICMP_TYPES[others[0]] else did_you_mean(name, known)
            )
            span = check.element("icmp_type", index)
            check.report.error(span, f'proto {listed(rule.protos, "and")} has no type "{name}"', advice)
    for proto in rule.protos if check.usable("icmp_type") and len(rule.protos) > 1 else ():
        if not any(name.isdigit() or name in ICMP_TYPES[proto] for name in rule.icmp_type):
            check.error("icmp_type", f'proto "{proto}" has none of these types', f"leave {proto} out of proto")


def _references(
    config: Config, check: _Check, addresses: Mapping[str, AddressSpec], ports: Mapping[str, PortSpec]
) -> None:
    """Every @name is a set, and one of the right kind."""
    known = {named.name: named for named in config.sets}
    specs = [(name, spec, False) for name, spec in addresses.items()] + [
        (name, spec, True) for name, spec in ports.items()
    ]
    for name, spec, wants_ports in specs:
        for index, part in enumerate(spec):
            if not isinstance(part, SetRef):
                continue
            span = check.element(name, index)
            if ("set", part.name) in check.report.lost:
                continue
            if part.name not in known:
                advice = did_you_mean(f"@{part.name}", [f"@{other}" for other in known])
                advice = advice or f'write a block: set "{part.name}" {{ ... }}'
                check.report.error(span, f'unknown set "@{part.name}"', advice)
                continue
            named = known[part.name]
            kind = named.spans.get("type")
            if kind is None or kind in check.report.broken or (named.type is SetType.PORT) == wants_ports:
                continue
            holds, wanted = ("addresses", "ports") if wants_ports else ("ports", "addresses")
            advice = f'its type in {named.spans[HEADER].seen_from(span)} is "{named.type}"'
            check.report.error(span, f'set "@{part.name}" holds {holds}, and {name} wants {wanted}', advice)


def _families(config: Config, rule: Rule, check: _Check) -> None:
    """Protocol, source and destination have an address family in common."""
    if not check.usable("proto", "src_ip", "dest_ip"):
        return
    of_proto = [frozenset({PROTOCOL_FAMILY[p]}) if p in PROTOCOL_FAMILY else BOTH for p in rule.protos]
    possible = frozenset().union(*of_proto) if of_proto else BOTH
    named = f"proto {listed(rule.protos, 'and')}"
    for name in sorted(("src_ip", "dest_ip"), key=lambda name: check.spans[name].start if name in check.spans else 0):
        spec = rule.src_ip if name == "src_ip" else rule.dest_ip
        if not spec:
            continue
        families = families_of(spec, config.sets)
        if not families & possible:
            summary = f"{name} is {_family_text(families)}, and {named} is {_family_text(possible)}: no packet is both"
            check.error(name, summary, "write both in one family, or two rules")
            return
        possible &= families
        named = name


def _family_text(families: frozenset[int]) -> str:
    return " and ".join(f"IPv{family}" for family in sorted(families))


def _interfaces(config: Config, policy: Policy, rule: Rule, check: _Check) -> None:
    """An interface of a rule is one of its zone's."""
    sides = (
        ("in_interface", rule.in_interface, policy.source, "sends"),
        ("out_interface", rule.out_interface, policy.destination, "receives"),
    )
    for name, interfaces, zone_name, does in sides:
        if not check.written(name):
            continue
        if zone_name == FIREWALL:
            advice = f"leave it out: what the firewall itself {does} has no {name.replace('_', ' ')}"
            check.error(
                name, f'{name} cannot apply to a policy {"from" if does == "sends" else "to"} "firewall"', advice
            )
            continue
        zone = next((zone for zone in config.zones if zone.name == zone_name), None)
        if zone is None or not zone.interfaces:
            continue
        for index, interface in enumerate(interfaces):
            if not any(share(pattern, interface) for pattern in zone.interfaces):
                span = check.element(name, index)
                known = ", ".join(zone.interfaces)
                advice = did_you_mean(interface, zone.interfaces) or f"it has {known}"
                check.report.error(span, f'"{interface}" is no interface of zone "{zone.name}"', advice)


def _states(rule: Rule, check: _Check) -> None:
    if check.readable("ct_state") and not {"new", "untracked"} & set(rule.ct_state):
        span = check.spans["ct_state"]
        advice = "established and related packets are accepted, invalid ones dropped, before any policy"
        check.report.note(span, "no packet of this state reaches this rule", advice)


def validate_nat(config: Config, nat: Nat, report: Report) -> None:
    """Add to `report` what is wrong within one nat block."""
    check = _Check(nat.spans, report)
    _references(config, check, {"src_ip": nat.src_ip, "dest_ip": nat.dest_ip}, {"dest_port": nat.dest_port})
    if not check.readable("type"):
        return
    needs, may = _NAT_NEEDS[nat.kind], _NAT_MAY[nat.kind]
    for name in needs:
        if name not in nat.spans:
            report.error(nat.spans[HEADER], f"{nat.kind} needs {name}", f"write {_NAT_EXAMPLES[name]}")
    for name in _NAT_ALL:
        if check.written(name) and name not in needs + may:
            check.error(name, f"{name} cannot apply to {nat.kind}", f"{nat.kind} has {', '.join(needs + may)}")
    if nat.kind is NatKind.DNAT:
        _port_forward(nat, check)
    _nat_families(config, nat, check)
    _nat_interfaces(config, nat, check)


def _port_forward(nat: Nat, check: _Check) -> None:
    without = [proto for proto in nat.protos if proto not in PORT_PROTOCOLS]
    if check.readable("proto") and (without or not nat.protos):
        of = listed(without) if without else '"any"'
        check.error("proto", f"dnat forwards ports, and proto {of} has none", f"write {listed(sorted(PORT_PROTOCOLS))}")
    single = [part for part in nat.dest_port if not isinstance(part, SetRef) and part.first == part.last]
    if check.readable("to_port") and check.readable("dest_port") and (len(nat.dest_port), len(single)) != (1, 1):
        advice = "leave to_port out to keep the port, or write one block for each"
        check.error("to_port", "to_port with more than one dest_port", advice)


def _nat_families(config: Config, nat: Nat, check: _Check) -> None:
    """Every address is of the family that is translated."""
    if not check.usable("to_ip", "family") or not nat.family:
        return
    specs: Sequence[tuple[str, AddressSpec]] = (("src_ip", nat.src_ip), ("dest_ip", nat.dest_ip))
    reason = "to_ip" if nat.to_ip is not None else "family"
    for name, spec in specs:
        for index, part in enumerate(spec):
            if nat.family not in families_of((part,), config.sets):
                span = check.element(name, index)
                summary = f"{name} is of another family than {reason}, IPv{nat.family}"
                check.report.error(span, summary, "translation stays within a family: write two nat blocks")


def _nat_interfaces(config: Config, nat: Nat, check: _Check) -> None:
    """A note where an interface is in no zone: nothing is let through there that could be translated.

    A port forward lets its own packets through, wherever they come in.
    """
    if any(not zone.interfaces for zone in config.zones):
        return  # a zone of networks alone may be anywhere
    known = [name for zone in config.zones for name in zone.interfaces]
    for key, interfaces in (("in_interface", nat.in_interface), ("out_interface", nat.out_interface)):
        if nat.kind is NatKind.DNAT:
            continue
        for index, name in enumerate(interfaces):
            if not any(share(other, name) for other in known):
                advice = did_you_mean(name, known) or "name it in a zone, or nothing passes there"
                check.report.note(check.element(key, index), f'"{name}" is in no zone', advice)
