"""Where the two roads meet: the learned sets. A flow's key decides its shape, and that its set, element and lookup.

Every learning policy has, for each shape of key that its flows really have, a set of what is allowed and a set of what
is refused; both are made on need. Hashed, never `interval`, with a counter in every element. The policy's action and
the packet window stay in the chain, so an element is its key and its counter and nothing else.

    source       "mac" where the packet came in on an interface of Ethernet type, else "ip" or "ip6"
    kind         "port" (tcp udp udplite sctp: destination port), "icmp" (both ICMPs: type), "proto" (protocol alone)
    destination  "" or, for granularity "destination", "ip" or "ip6"

A flow key is the tuple (policy name, source, protocol, port, destination), structurally learning.flow.FlowKey.
Refuses to talk to the kernel: learned.py does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from ipaddress import ip_address
from typing import NamedTuple

from glacic.config.model import DROP_FORWARD, DROP_INPUT, Action, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.quoting import identifier
from glacic.firewall.ruleset import Rule, Set

Key = tuple[str, bytes, int, int, bytes]

PORT_PROTOCOLS = (6, 17, 136, 132)  # tcp udp udplite sctp: ports in the first four bytes of the header
ICMP_PROTOCOLS = (1, 58)  # icmp icmpv6: the type in the first byte
PORT_GUARD = "meta l4proto { tcp, udp, udplite, sctp }"  # `th dport` of anything else is bytes the sender chooses
ICMP_GUARD = "meta l4proto { icmp, icmpv6 }"
OTHER_GUARD = "meta l4proto != { tcp, udp, udplite, sctp, icmp, icmpv6 }"
NO_MAC_GUARD = "meta iiftype != ether"  # tun, wg, ppp: only there an address stands in for the MAC

LEARNED = "learned_"  # begins the names of the chains with the lookups, and of no others
ALLOW_CHAIN = "allow_learned"  # where an allowed flow goes: accept, or on to the hook while a packet window is open
REFUSE_CHAIN = "refuse"  # reject, politely: a TCP reset or ICMP "administratively prohibited"

_SOURCE_BY_LENGTH = {6: "mac", 4: "ip", 16: "ip6"}
_DESTINATION_BY_LENGTH = {0: "", 4: "ip", 16: "ip6"}
_SOURCE_MATCH = {"mac": "ether saddr", "ip": "ip saddr", "ip6": "ip6 saddr"}
_KIND_MATCH = {"port": "meta l4proto . th dport", "icmp": "meta l4proto . @th,0,8", "proto": "meta l4proto"}
_KIND_GUARD = {"port": PORT_GUARD, "icmp": ICMP_GUARD, "proto": OTHER_GUARD}
_DESTINATION_MATCH = {"ip": "ip daddr", "ip6": "ip6 daddr"}
_FIELD_LENGTH = {"mac": 6, "ip": 4, "ip6": 16}


class Shape(NamedTuple):
    """What a key consists of."""

    source: str
    kind: str
    destination: str = ""

    def __str__(self) -> str:
        return "_".join(part for part in self if part)

    @property
    def expression(self) -> str:
        """The key as nft reads it from a packet, also the set's `typeof`."""
        parts = [_SOURCE_MATCH[self.source], _KIND_MATCH[self.kind]]
        if self.destination:
            parts.append(_DESTINATION_MATCH[self.destination])
        return " . ".join(parts)

    def guard(self, identity: Identity) -> str:
        """What must hold before a packet of a policy with this `identity` may be read as this shape; "" or nft text."""
        guards = [NO_MAC_GUARD] if identity is Identity.MAC and self.source != "mac" else []
        return " ".join([*guards, _KIND_GUARD[self.kind]])


def shape_of(key: Key) -> Shape:
    """The shape of a flow key. ValueError for lengths that no address has, and for families that cannot meet."""
    _, source, protocol, _, destination = key
    if len(source) not in _SOURCE_BY_LENGTH or len(destination) not in _DESTINATION_BY_LENGTH:
        raise ValueError(f"no shape has a source of {len(source)} and a destination of {len(destination)} bytes")
    if len(source) != 6 and len(destination) not in (0, len(source)):
        raise ValueError("source and destination are of different families")
    kind = "port" if protocol in PORT_PROTOCOLS else "icmp" if protocol in ICMP_PROTOCOLS else "proto"
    return Shape(_SOURCE_BY_LENGTH[len(source)], kind, _DESTINATION_BY_LENGTH[len(destination)])


def shapes_of(policy: LearningPolicy) -> tuple[Shape, ...]:
    """Every shape that a flow of this policy can have, MAC before address, in a fixed order."""
    sources = ("mac", "ip", "ip6") if policy.identity is Identity.MAC else ("ip", "ip6")
    return tuple(
        Shape(source, kind, destination)
        for source in sources
        for kind in ("port", "icmp", "proto")
        for destination in _destinations(source, policy.granularity)
    )


def set_name(policy: str, shape: Shape, allowed: bool) -> str:
    """The name of the learned set for flows of this policy (by its name) and shape."""
    return f"{'allowed' if allowed else 'refused'}_{identifier(policy)}_{shape}"


def chain_name(policy: LearningPolicy) -> str:
    """The chain with the lookups of this policy. The two reserved policies have one for each identity."""
    by_ip = policy.name in (DROP_INPUT, DROP_FORWARD) and policy.identity is Identity.IP
    return f"{LEARNED}{identifier(policy.name)}{'_ip' if by_ip else ''}"


def learned_set(policy: str, shape: Shape, allowed: bool) -> Set:
    """The set's declaration. Its elements are learning's, not the ruleset's."""
    return Set(set_name(policy, shape, allowed), f"typeof {shape.expression}; counter;", kept=True)


def lookup(policy: LearningPolicy, shape: Shape, allowed: bool) -> Rule:
    """The rule that looks a packet up in one learned set; it belongs into the policy's chain `chain_name`."""
    refuse = f"goto {REFUSE_CHAIN}" if policy.action is Action.REJECT else "drop"
    verdict = f"goto {ALLOW_CHAIN}" if allowed else refuse
    return Rule(f"{shape.guard(policy.identity)} {shape.expression} @{set_name(policy.name, shape, allowed)} {verdict}")


def uses_in(policy: LearningPolicy, set_names: Iterable[str]) -> tuple[tuple[Shape, bool], ...]:
    """The (shape, allowed) of this policy whose learned sets are among `set_names`: what a kernel has of it already."""
    present = frozenset(set_names)
    return tuple(
        (shape, allowed)
        for shape in shapes_of(policy)
        for allowed in (False, True)
        if set_name(policy.name, shape, allowed) in present
    )


def ensure_script(policy: LearningPolicy, shape: Shape, allowed: bool) -> str:
    """One transaction that makes a learned set and its lookup, in a running table or in one that has no chains yet.

    Not to be repeated for a set that is there (its rule would stand twice): `rewrite_script` may be repeated at will.
    """
    declared = _declare(policy, [(shape, allowed)])
    return "\n".join([*declared, _add_rule(policy, shape, allowed)]) + "\n"


def rewrite_script(policy: LearningPolicy, uses: Iterable[tuple[Shape, bool]]) -> str:
    """One transaction that makes the policy's lookups exactly these: the sets where missing, and the chain anew."""
    wanted = sorted(set(uses))
    lines = _declare(policy, wanted)
    lines.append(f"flush chain {FAMILY} {TABLE} {chain_name(policy)}")
    lines += [_add_rule(policy, shape, allowed) for shape, allowed in wanted]
    return "\n".join(lines) + "\n"


def element_text(key: Key) -> str:
    """The key as an element of its set, nft text: `02:00:00:00:00:01 . 6 . 443`."""
    _, source, protocol, port, destination = key
    shape = shape_of(key)
    parts = [source.hex(":") if shape.source == "mac" else str(ip_address(source)), str(protocol)]
    if shape.kind != "proto":
        parts.append(str(port))
    if destination:
        parts.append(str(ip_address(destination)))
    return " . ".join(parts)


def kernel_key(key: Key) -> bytes:
    """The key as the kernel stores it: fields in network byte order, each padded to a multiple of 4 bytes."""
    return packer(shape_of(key))(key)


def packer(shape: Shape) -> Callable[[Key], bytes]:
    """`kernel_key` for keys that are known to be of this shape: what runs once per element."""
    pack = _layout(shape).pack
    if shape.kind == "proto":
        return lambda key: pack(key[1], key[2], key[4])
    return lambda key: pack(*key[1:])


def key_length(shape: Shape) -> int:
    """How many bytes a kernel_key of this shape has."""
    return _layout(shape).size


def key_from_kernel(policy: str, shape: Shape, raw: bytes) -> Key:
    """The flow key in an element of this policy and shape. ValueError where `raw` is not such a key."""
    if len(raw) != key_length(shape):
        raise ValueError(f"a key of {len(raw)} bytes is not of shape {shape}")
    return unpacker(policy, shape)(raw)


def unpacker(policy: str, shape: Shape) -> Callable[[bytes], Key]:
    """`key_from_kernel` for keys that are known to have its length: what runs once per counter."""
    unpack = _layout(shape).unpack
    if shape.kind == "proto":

        def without_port(raw: bytes) -> Key:
            source, protocol, destination = unpack(raw)
            return policy, source, protocol, 0, destination

        return without_port
    return lambda raw: (policy, *unpack(raw))


def _destinations(source: str, granularity: Granularity) -> tuple[str, ...]:
    if granularity is Granularity.SERVICE:
        return ("",)
    return ("ip", "ip6") if source == "mac" else (source,)


def _declare(policy: LearningPolicy, uses: Iterable[tuple[Shape, bool]]) -> list[str]:
    """The chains a lookup names, and the sets: `add` leaves alone what is there."""
    refuse = [REFUSE_CHAIN] if policy.action is Action.REJECT else []
    chains = [ALLOW_CHAIN, *refuse, chain_name(policy)]
    lines = [f"add chain {FAMILY} {TABLE} {chain}" for chain in chains]
    for shape, allowed in uses:
        declaration = learned_set(policy.name, shape, allowed)
        lines.append(f"add set {FAMILY} {TABLE} {declaration.name} {{ {declaration.spec} }}")
    return lines


def _add_rule(policy: LearningPolicy, shape: Shape, allowed: bool) -> str:
    return f"add rule {FAMILY} {TABLE} {chain_name(policy)} {lookup(policy, shape, allowed).statement}"


@cache
def _layout(shape: Shape) -> struct.Struct:
    """The fields of a kernel key and their padding."""
    source = _FIELD_LENGTH[shape.source]
    port = {"port": "H 2x", "icmp": "B 3x", "proto": ""}[shape.kind]
    destination = _FIELD_LENGTH.get(shape.destination, 0)
    return struct.Struct(f"! {source}s {-source % 4}x B 3x {port} {destination}s")
