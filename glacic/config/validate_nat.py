"""Step 4 of road 1, continued: what the attributes of one nat block have to do with each other, with the sets they name
and with the zones of their interfaces.

An attribute that cannot apply is an error at that attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glacic.config.check import Check
from glacic.config.decode_rules import families_of
from glacic.config.model import AddressSpec, Config, Nat, NatKind, PortRange, PortSpec
from glacic.config.overlap import inside, share
from glacic.config.reader import HEADER, Report
from glacic.config.services import PORT_PROTOCOLS
from glacic.config.source import did_you_mean, listed
from glacic.config.validate_rules import references

# Which attributes a kind of nat has: those it cannot be without, and those it may have.
_NAT_NEEDS: Mapping[NatKind, tuple[str, ...]] = {
    NatKind.MASQUERADE: ("out_interface",),
    NatKind.SNAT: ("out_interface", "to_ip"),
    NatKind.DNAT: ("in_interface", "proto", "dest_port", "to_ip"),
}
_NAT_MAY: Mapping[NatKind, tuple[str, ...]] = {
    NatKind.MASQUERADE: ("family", "src_ip", "dest_ip"),
    NatKind.SNAT: ("src_ip", "dest_ip"),
    NatKind.DNAT: ("src_ip", "dest_ip", "to_port", "hairpin"),
}
_NAT_ALL = tuple(dict.fromkeys(name for names in (*_NAT_NEEDS.values(), *_NAT_MAY.values()) for name in names))
_NAT_EXAMPLES: Mapping[str, str] = {
    "out_interface": 'out_interface = "wan0"',
    "in_interface": 'in_interface = "wan0"',
    "proto": 'proto = "tcp"',
    "dest_port": "dest_port = 8080",
    "to_ip": 'to_ip = "10.1.0.5"',
}


MOVED_MAX = 1024  # ports of a range that gets other numbers: each is an element of a map in the rule


def validate_nat(config: Config, nat: Nat, report: Report) -> None:
    """Add to `report` what is wrong within one nat block."""
    check = Check(nat.spans, report)
    references(config, check, {"src_ip": nat.src_ip, "dest_ip": nat.dest_ip}, {"dest_port": nat.dest_port})
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
        _hairpin(config, nat, check)
    _nat_families(config, nat, check)
    _nat_interfaces(config, nat, check)


def _port_forward(nat: Nat, check: Check) -> None:
    without = [proto for proto in nat.protos if proto not in PORT_PROTOCOLS]
    if check.readable("proto") and (without or not nat.protos):
        of = listed(without) if without else '"any"'
        check.error("proto", f"dnat forwards ports, and proto {of} has none", f"write {listed(sorted(PORT_PROTOCOLS))}")
    if check.readable("to_port") and check.readable("dest_port") and nat.to_port is not None:
        _moved(nat.dest_port, nat.to_port, check)


def _moved(ports: PortSpec, to: PortRange, check: Check) -> None:
    """Every port has one to go to."""
    first = ports[0] if ports else None
    if len(ports) != 1 or not isinstance(first, PortRange):
        advice = "leave to_port out to keep the port, or write one block for each"
        check.error("to_port", "to_port with more than one dest_port", advice)
        return
    before, after = first.last - first.first + 1, to.last - to.first + 1
    if before != after:
        summary = f"to_port is {_counted(after)}, and dest_port {_counted(before)}"
        check.error("to_port", summary, "write as many on both sides, or leave to_port out to keep the port")
    elif after > MOVED_MAX:
        check.error("to_port", f"to_port is {_counted(after)}", f"at most {MOVED_MAX} can be moved")


def _counted(ports: int) -> str:
    return f"{ports} port{'s' if ports > 1 else ''}"


def _hairpin(config: Config, nat: Nat, check: Check) -> None:
    if nat.hairpin and check.readable("in_interface") and not inside(config.zones, nat):
        advice = "name an interface in a zone that is not external, and not in in_interface"
        check.error("hairpin", "hairpin needs an internal zone with an interface", advice)


def _nat_families(config: Config, nat: Nat, check: Check) -> None:
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


def _nat_interfaces(config: Config, nat: Nat, check: Check) -> None:
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
