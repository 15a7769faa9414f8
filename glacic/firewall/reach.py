"""Beside road 1: what a rule or a port forward matches, asked in user space about one packet.

The other half of match.py: what that one writes as nft text is a `Reach` here. Whatever a rule matches by that is not
known here (a field of the model that this module does not name, and that is set) may match or not: `certain` is False.

Refuses to decide anything: simulate.py follows the chains.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, NamedTuple

from glacic.config.model import AddressRange, AddressSpec, NamedSet, Nat, PortRange, PortSpec, Rule, SetRef, Zone
from glacic.config.overlap import inside
from glacic.config.services import ICMP_TYPES, PORT_PROTOCOLS, PROTOCOLS, Opening
from glacic.config.zones import Patterns
from glacic.firewall.match import merged_intervals

PORTED = frozenset(PROTOCOLS[name] for name in PORT_PROTOCOLS)
ICMP = {name: PROTOCOLS[name] for name in ICMP_TYPES}

# What this module understands, or what does not say which packets are meant. Everything else may match or not.
_RULE = (
    "name action protos dest_port source_port src_ip dest_ip ct_state icmp_type in_interface out_interface translated "
    "limit limit_per_source connections_per_source log log_group log_level reject_with counter comment disabled spans"
)
_NAT = (
    "name kind family in_interface out_interface src_ip dest_ip protos dest_port to_ip to_port hairpin description "
    "spans"
)
# antispoof: a Probe is taken to come in where the way back to its source leads.
_ZONE = "name interfaces networks external antispoof identity services management description spans"


class Probe(NamedTuple):
    """The first packet of a connection, as the filter chains see it: behind any DNAT, before any SNAT.

    hook: "input", "forward" or "output". iif, oif: names; "" where there is none (input has no oif, output no iif).
    Addresses of 4 or 16 bytes. port: the destination port, or the type for icmp and icmpv6. forwarded_port: whether
    prerouting has given it its destination (`ct status dnat`).
    """

    hook: str
    iif: str
    oif: str
    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    port: int = 0
    forwarded_port: bool = False


class Intervals:
    """Numbers in ranges, both ends included."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        merged = merged_intervals(ranges)
        self._firsts = [first for first, _ in merged]
        self._lasts = [last for _, last in merged]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]


class Addresses:
    """Addresses of both families; `spec` may name sets."""

    def __init__(self, spec: AddressSpec, sets: Mapping[str, NamedSet]) -> None:
        ranges: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for item in _resolved(spec, sets):
            if isinstance(item, AddressRange):
                ranges[len(item.first.packed)].append((int(item.first), int(item.last)))
            elif not isinstance(item, PortRange):
                ends = (int(item.network_address), int(item.broadcast_address))
                ranges[len(item.network_address.packed)].append(ends)
        self._families = {length: Intervals(found) for length, found in ranges.items()}

    def __contains__(self, address: bytes) -> bool:
        return int.from_bytes(address, "big") in self._families[len(address)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What has to fit; None stands for anything."""

    incoming: Patterns | None = None
    outgoing: Patterns | None = None
    family: int = 0  # 4, 6, or 0 for both
    protocols: frozenset[int] | None = None
    types: Mapping[int, frozenset[int] | None] | None = None  # ICMP protocols of the rule -> types, None for all
    source: Addresses | None = None
    destination: Addresses | None = None
    source_ports: Intervals | None = None
    ports: Intervals | None = None
    forwarded_port: bool = False  # only what prerouting has given its destination
    never: bool = False
    certain: bool = True

    def matches(self, probe: Probe) -> bool:
        """Whether everything that is known of the rule fits this packet."""
        return (
            not self.never
            and (probe.forwarded_port or not self.forwarded_port)
            and self._transport(probe)
            and (not self.family or len(probe.destination) == (4 if self.family == 4 else 16))
            and (self.incoming is None or (bool(probe.iif) and self.incoming.match(probe.iif)))
            and (self.outgoing is None or (bool(probe.oif) and self.outgoing.match(probe.oif)))
            and (self.source is None or probe.source in self.source)
            and (self.destination is None or probe.destination in self.destination)
        )

    def _transport(self, probe: Probe) -> bool:
        if self.types is not None and probe.protocol in self.types:
            types = self.types[probe.protocol]
            return types is None or probe.port in types
        if self.protocols is not None and probe.protocol not in self.protocols:
            return False
        return (self.source_ports is None or probe.source_port in self.source_ports) and (
            self.ports is None or probe.port in self.ports
        )


def of_rule(rule: Rule, sets: Mapping[str, NamedSet]) -> Reach:
    """What a policy's rule matches. Limits are taken as not exceeded."""
    with_ports = bool(rule.dest_port or rule.source_port)
    others = [PROTOCOLS[name] for name in rule.protos if name not in ICMP]
    return Reach(
        incoming=_patterns(rule.in_interface),
        outgoing=_patterns(rule.out_interface),
        protocols=frozenset() if rule.protos and not others else _protocols(others, with_ports),
        types={ICMP[name]: _types(name, rule.icmp_type) for name in rule.protos if name in ICMP},
        source=_addresses(rule.src_ip, sets),
        destination=_addresses(rule.dest_ip, sets),
        source_ports=_ports(rule.source_port, sets),
        ports=_ports(rule.dest_port, sets),
        forwarded_port=rule.translated,
        never=bool(rule.ct_state) and "new" not in rule.ct_state,
        certain=not conditions(rule, _RULE),
    )


def of_forward(nat: Nat, sets: Mapping[str, NamedSet], zones: Sequence[Zone] = ()) -> Reach:
    """What a port forward lets in: what it matches, with the destination that it gives."""
    assert nat.to_ip is not None  # noqa: S101 - of a port forward (validate.py)
    ports: PortSpec = (nat.to_port,) if nat.to_port else nat.dest_port
    return Reach(
        incoming=_patterns((*nat.in_interface, *(inside(zones, nat) if nat.hairpin else ()))),
        outgoing=_patterns(nat.out_interface),
        family=nat.family,
        protocols=_protocols([PROTOCOLS[name] for name in nat.protos], bool(ports)),
        source=_addresses(nat.src_ip, sets),
        destination=_addresses((AddressRange(nat.to_ip, nat.to_ip),), sets),
        ports=_ports(ports, sets),
        certain=not conditions(nat, _NAT),
    )


def of_opening(opening: Opening) -> Reach:
    """What a service or management name opens."""
    if opening.protos[0] in ICMP:
        return Reach(types={ICMP[opening.protos[0]]: frozenset(opening.ports)}, protocols=frozenset())
    return Reach(
        family=opening.family,
        protocols=_protocols([PROTOCOLS[name] for name in opening.protos], bool(opening.ports)),
        ports=Intervals((port, port) for port in opening.ports) if opening.ports else None,
    )


def zone_conditions(zone: Zone) -> list[str]:
    """What a zone says about its packets that is not known here."""
    return conditions(zone, _ZONE)


def conditions(block: Any, known: str) -> list[str]:
    """The names of a block's fields that are set to something, and not among the known ones."""
    names = set(known.split())
    return [
        field.name for field in fields(block) if field.name not in names and getattr(block, field.name) != _unset(field)
    ]


def _unset(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _resolved(spec: Sequence[Any], sets: Mapping[str, NamedSet]) -> Iterable[Any]:
    for item in spec:
        if isinstance(item, SetRef):
            yield from sets[item.name].elements
        else:
            yield item


def _patterns(names: Sequence[str]) -> Patterns | None:
    return Patterns(names) if names else None


def _addresses(spec: AddressSpec, sets: Mapping[str, NamedSet]) -> Addresses | None:
    return Addresses(spec, sets) if spec else None


def _ports(spec: PortSpec, sets: Mapping[str, NamedSet]) -> Intervals | None:
    return Intervals((item.first, item.last) for item in _resolved(spec, sets)) if spec else None


def _protocols(named: Sequence[int], with_ports: bool) -> frozenset[int] | None:
    """A match by port is one of those protocols that have ports."""
    if not with_ports:
        return frozenset(named) or None
    return PORTED & frozenset(named) if named else PORTED


def _types(proto: str, types: Sequence[str]) -> frozenset[int] | None:
    if not types:
        return None
    known = ICMP_TYPES[proto]
    return frozenset(
        int(name) if name.isdecimal() else known[name] for name in types if name.isdecimal() or name in known
    )
