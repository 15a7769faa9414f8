"""Road 1: what a configuration matches by, as nft text: a policy rule, an opened service, addresses, ports, interfaces.

One rule of the configuration may need several of nftables: a match has one family, and a literal set cannot be mixed
with a named one. `matches()` answers with all of them; the caller puts the verdict behind each. Literal addresses and
ports are merged here, so that overlapping ones never become a conflict in the kernel.

Refuses to decide anything: no verdict is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from glacic.config.model import (
    AddressRange,
    AddressSpec,
    NamedSet,
    Nat,
    Network,
    PortRange,
    PortSpec,
    Rule,
    SetRef,
    SetType,
)
from glacic.config.services import ICMP_TYPES, PORT_PROTOCOLS, PROTOCOL_FAMILY, PROTOCOLS, Opening
from glacic.firewall.quoting import quote

FAMILY_WORD = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
# What nft knows as words of its own; for the rest it would ask /etc/protocols, which a small system lacks.
_NFT_PROTOCOLS = frozenset({"tcp", "udp", "udplite", "sctp", "icmp", "icmpv6", "igmp", "gre", "esp", "ah"})
_ICMP_FAMILY = {"icmp": 4, "icmpv6": 6}
_NFPROTO = {0: "", 4: "meta nfproto ipv4", 6: "meta nfproto ipv6"}
_ADDRESS_BITS = {4: 32, 6: 128}
MAX_WIDTH = 110  # of a line of the script, without its indentation


class Sets:
    """The named sets of a configuration, and what they are called in the kernel."""

    def __init__(self, sets: Iterable[NamedSet]) -> None:
        self._types = {named.name: named.type for named in sets}

    def ports(self, name: str) -> str:
        """The kernel's name for a set of ports."""
        return f"ports_{name}"

    def addresses(self, name: str, family: int) -> str | None:
        """The kernel's name for the part of a set of addresses in this family; None where it has no such part."""
        other = {4: SetType.IPV6, 6: SetType.IPV4}[family]
        return None if self._types[name] is other else f"{'addresses' if family == 4 else 'addresses6'}_{name}"


def matches(rule: Rule, sets: Sets) -> list[str]:
    """The nft matches that together mean what `rule` says, without its limit; `""` matches everything."""
    interfaces = _interfaces(rule.in_interface, rule.out_interface)
    return [
        _joined(interfaces, addresses, transport, _ct(rule))
        for family, protos in _protocol_groups(rule)
        for addresses in _addresses(family, rule.src_ip, rule.dest_ip, sets)
        for transport in _transports(protos, rule, sets)
    ]


def families(rule: Rule, sets: Sets) -> list[int]:
    """The address families that a packet which `rule` matches can be of."""
    return [
        family
        for family in (4, 6)
        if _address_parts(family, rule.src_ip, sets)
        and _address_parts(family, rule.dest_ip, sets)
        and (not rule.protos or any(PROTOCOL_FAMILY.get(proto, family) == family for proto in rule.protos))
    ]


def nat_matches(nat: Nat, sets: Sets) -> list[str]:
    """The nft matches for what a `nat` block applies to, each of one family, and of one protocol where it has any."""
    return [
        _joined(_interfaces(nat.in_interface, nat.out_interface), addresses or _NFPROTO[family], transport)
        for family in ((4, 6) if nat.family == 0 else (nat.family,))
        for addresses in _addresses(family, nat.src_ip, nat.dest_ip, sets)
        for proto in (nat.protos or ("",))
        for transport in _with_ports((proto,) if proto else (), (), nat.dest_port, sets)
    ]


def opening_match(opening: Opening) -> str:
    """The nft match for what a service or management name opens."""
    protos = opening.protos
    if protos[0] in _ICMP_FAMILY:
        names = {number: name for name, number in ICMP_TYPES[protos[0]].items()}
        return f"{protos[0]} type {braces([names.get(port, str(port)) for port in opening.ports])}"
    family = _NFPROTO[opening.family]
    if not opening.ports:
        return _joined(family, l4proto(protos))
    ports = braces([str(port) for port in opening.ports])
    return _joined(family, f"{_port_words(protos)} dport {ports}")


def interface_match(direction: str, names: Sequence[str], negated: bool = False) -> str:
    """`iifname` or `oifname` (the direction) against names that may end in `*`; "" for none."""
    if not names:
        return ""
    return f"{direction} {'!= ' if negated else ''}{braces([quote(name) for name in outermost(names)])}"


def outermost(names: Iterable[str]) -> list[str]:
    """Interface names without those that another one with a `*` covers: the kernel refuses overlapping ones."""
    unique = list(dict.fromkeys(names))
    prefixes = [name[:-1] for name in unique if name.endswith("*")]

    def covered(name: str) -> bool:
        return any(name.rstrip("*").startswith(prefix) and name != f"{prefix}*" for prefix in prefixes)

    return [name for name in unique if not covered(name)]


def l4proto(protos: Sequence[str]) -> str:
    """A match by protocol alone."""
    return f"meta l4proto {braces([_proto_word(proto) for proto in protos])}" if protos else ""


def braces(elements: Sequence[str]) -> str:
    """One element as it is, several as an anonymous set; broken into lines where they are long."""
    if len(elements) == 1:
        return elements[0]
    one_line = "{ " + ", ".join(elements) + " }"
    return one_line if len(one_line) <= MAX_WIDTH else "{\n" + indented(filled(elements)) + "\n}"


def filled(elements: Sequence[str]) -> str:
    """Elements in lines of at most MAX_WIDTH characters, separated by commas."""
    lines: list[str] = []
    for element in elements:
        if lines and len(lines[-1]) + len(element) + 3 <= MAX_WIDTH:
            lines[-1] += f", {element}"
        else:
            lines.append(element)
    return ",\n".join(lines)


def indented(text: str) -> str:
    """Every line one tab further in."""
    return "\n".join(f"\t{line}" if line else line for line in text.split("\n"))


def network_elements(family: int, spec: Iterable[Network | AddressRange]) -> list[str]:
    """The addresses of one family, merged and in order, as elements of an interval set."""
    bits = _ADDRESS_BITS[family]
    intervals = [
        (int(item.first), int(item.last))
        if isinstance(item, AddressRange)
        else (int(item.network_address), int(item.broadcast_address))
        for item in spec
        if _version(item) == family
    ]
    return [_interval_text(family, bits, first, last) for first, last in merged_intervals(intervals)]


def port_elements(spec: Iterable[PortRange]) -> list[str]:
    """Ports and ranges, merged and in order."""
    merged = merged_intervals((item.first, item.last) for item in spec)
    return [str(first) if first == last else f"{first}-{last}" for first, last in merged]


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _interfaces(incoming: Sequence[str], outgoing: Sequence[str]) -> str:
    return _joined(interface_match("iifname", incoming), interface_match("oifname", outgoing))


def _ct(rule: Rule) -> str:
    state = f"ct state {','.join(rule.ct_state)}" if rule.ct_state else ""
    return _joined(state, "ct status dnat" if rule.translated else "")


def _protocol_groups(rule: Rule) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(family or 0, protocols) for every group of protocols that can share one match."""
    icmp = [proto for proto in rule.protos if proto in _ICMP_FAMILY]
    others = tuple(proto for proto in rule.protos if proto not in _ICMP_FAMILY)
    if others or not icmp:
        yield 0, others
    for proto in icmp:
        if not rule.icmp_type or _icmp_types(proto, rule.icmp_type):
            yield _ICMP_FAMILY[proto], (proto,)


def _icmp_types(proto: str, types: Sequence[str]) -> list[str]:
    """Those of the rule's ICMP types that this protocol has."""
    return [name for name in types if name.isdecimal() or name in ICMP_TYPES[proto]]


def _transports(protos: tuple[str, ...], rule: Rule, sets: Sets) -> Iterator[str]:
    if protos and protos[0] in _ICMP_FAMILY and rule.icmp_type:
        yield f"{protos[0]} type {braces(_icmp_types(protos[0], rule.icmp_type))}"
    else:
        yield from _with_ports(protos, rule.source_port, rule.dest_port, sets)


def _with_ports(protos: tuple[str, ...], source: PortSpec, destination: PortSpec, sets: Sets) -> Iterator[str]:
    if not source and not destination:
        yield l4proto(protos)
        return
    header = _port_words(protos)
    bare = "th" if header.startswith("meta") else header  # the protocols are matched once
    for sport, dport in product(_port_parts(source, sets), _port_parts(destination, sets)):
        first = f"{header} sport {sport}" if sport else ""
        second = f"{bare if sport else header} dport {dport}" if dport else ""
        yield _joined(first, second)


def _port_words(protos: Sequence[str]) -> str:
    """What stands before `sport` or `dport`: the header's name, or a guard and the anonymous header."""
    ported = [proto for proto in protos if proto in PORT_PROTOCOLS]
    return ported[0] if len(ported) == 1 else f"{l4proto(ported)} th"


def _port_parts(spec: PortSpec, sets: Sets) -> list[str]:
    """What can stand behind `dport`: the literal ports as one, each named set as another; [""] for no ports at all."""
    literal = port_elements(item for item in spec if isinstance(item, PortRange))
    named = [f"@{sets.ports(item.name)}" for item in spec if isinstance(item, SetRef)]
    return ([braces(literal)] if literal else []) + named or [""]


def _addresses(family: int, source: AddressSpec, destination: AddressSpec, sets: Sets) -> Iterator[str]:
    """The address matches for every combination of one family; `family` 4 or 6 allows no other."""
    if not source and not destination:
        yield ""
        return
    for version in (4, 6) if family == 0 else (family,):
        word = FAMILY_WORD[version]
        for from_, to in product(_address_parts(version, source, sets), _address_parts(version, destination, sets)):
            yield _joined(f"{word} saddr {from_}" if from_ else "", f"{word} daddr {to}" if to else "")


def _address_parts(family: int, spec: AddressSpec, sets: Sets) -> list[str]:
    """What can stand behind `ip saddr`; [""] for any address, [] where the spec has none of this family."""
    if not spec:
        return [""]
    literal = network_elements(family, (item for item in spec if not isinstance(item, SetRef)))
    named = [sets.addresses(item.name, family) for item in spec if isinstance(item, SetRef)]
    return ([braces(literal)] if literal else []) + [f"@{name}" for name in named if name]


def _proto_word(proto: str) -> str:
    return proto if proto in _NFT_PROTOCOLS else str(PROTOCOLS[proto])


def _version(item: Network | AddressRange) -> int:
    return item.first.version if isinstance(item, AddressRange) else item.version


def merged_intervals(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals in order, those that touch or overlap made one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _interval_text(family: int, bits: int, first: int, last: int) -> str:
    """An address, a network in CIDR where the interval is one, or a range."""
    make: type[IPv4Address] | type[IPv6Address] = IPv4Address if family == 4 else IPv6Address
    if first == last:
        return str(make(first))
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return f"{make(first)}/{bits - size.bit_length() + 1}"
    return f"{make(first)}-{make(last)}"
