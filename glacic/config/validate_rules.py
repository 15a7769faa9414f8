"""Step 4 of road 1, continued: what the attributes of one rule have to do with each other, with the sets they
name and with the zones they stand between.

An attribute that cannot apply is an error at that attribute: a rule that silently never matches, or matches more
than it says, is the worst that a firewall can do.
"""

from __future__ import annotations

from collections.abc import Mapping

from glacic.config.check import Check
from glacic.config.decode_rules import families_of
from glacic.config.model import (
    FIREWALL,
    AddressSpec,
    Config,
    Policy,
    PortSpec,
    Rule,
    SetRef,
    SetType,
)
from glacic.config.overlap import share
from glacic.config.reader import HEADER, Report
from glacic.config.services import ICMP_TYPES, PORT_PROTOCOLS, PROTOCOL_FAMILY
from glacic.config.source import did_you_mean, listed
from glacic.config.validate_effects import validate_effects

BOTH = frozenset({4, 6})


def validate_rules(config: Config, policy: Policy, report: Report) -> None:
    """Add to `report` what is wrong within the rules of one policy."""
    for rule in policy.rules:
        check = Check(rule.spans, report)
        _ports(rule, check)
        _icmp(rule, check)
        references(config, check, {"src_ip": rule.src_ip, "dest_ip": rule.dest_ip}, _port_specs(rule))
        _families(config, rule, check)
        _interfaces(config, policy, rule, check)
        _states(rule, check)
        validate_effects(config, policy, rule, check)


def _port_specs(rule: Rule) -> dict[str, PortSpec]:
    return {"source_port": rule.source_port, "dest_port": rule.dest_port}


def _ports(rule: Rule, check: Check) -> None:
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


def _icmp(rule: Rule, check: Check) -> None:
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


def references(
    config: Config, check: Check, addresses: Mapping[str, AddressSpec], ports: Mapping[str, PortSpec]
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


def _families(config: Config, rule: Rule, check: Check) -> None:
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


def _interfaces(config: Config, policy: Policy, rule: Rule, check: Check) -> None:
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


def _states(rule: Rule, check: Check) -> None:
    if check.readable("ct_state") and not {"new", "untracked"} & set(rule.ct_state):
        span = check.spans["ct_state"]
        advice = "established and related packets are accepted, invalid ones dropped, before any policy"
        check.report.note(span, "no packet of this state reaches this rule", advice)
