"""Limits, the nft engine's text: what `inet glacic_limits` holds, and the lines that make one of another. Pure.

    chain input, output     one rule per level in use, deepest first: `socket cgroupv2 level N vmap @download_N`
    map download_N          cgroup id -> jump to the chain of its limit
    chain download_NAME     the limit's bucket: over the rate is counted and dropped, the rest is counted

Loopback is accepted first. Every name but ours goes through firewall/quoting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from glacic.config.model import Traffic
from glacic.config.rates import BURST_MIN
from glacic.firewall.claims import FAMILY, LIMITS_PRIORITY, LIMITS_TABLE
from glacic.firewall.quoting import identifier, quote
from glacic.shaping.engine import DOWNLOAD, UPLOAD

_BUCKET_MAX = (1 << 64) // 10**9 - 1  # rate + burst, bytes: the kernel counts that in ns, in 64 bits (nft_limit_init)

# Where the other end counts as local (Traffic): RFC 1918, 3927, 6598, multicast, broadcast; RFC 4193, 4291
LOCAL_4 = "10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/4, 255.255.255.255"
LOCAL_6 = "fc00::/7, fe80::/10, ff00::/8"

_HOOKS = {UPLOAD: ("output", "oif", "daddr"), DOWNLOAD: ("input", "iif", "saddr")}  # hook, loopback, the other end
T = f"{FAMILY} {LIMITS_TABLE}"


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """What one limit is in one direction. Its rules follow from it. rate: bytes per second."""

    direction: str
    name: str
    rate: int
    traffic: Traffic

    @property
    def chain(self) -> str:
        """Its chain's name."""
        return f"{self.direction}_{identifier(self.name)}"


@dataclass(frozen=True, slots=True, order=True)
class Element:
    """One cgroup, by its id, whose packets go to a bucket's chain."""

    direction: str
    level: int
    id: int
    chain: str

    @property
    def map(self) -> str:
        """The name of the map that it is in."""
        return f"{self.direction}_{self.level}"


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that is ours."""

    buckets: Mapping[str, Bucket]  # by chain
    elements: Mapping[tuple[str, int], Element]  # by direction and cgroup id

    def levels(self, direction: str) -> list[int]:
        """Deepest first: what the deepest drops does not use up the rates above it."""
        found = {element.level for element in self.elements.values() if element.direction == direction}
        return sorted(found, reverse=True)


EMPTY = Table({}, {})

Place = Callable[[int], str]  # a cgroup's id -> its path as nft takes it, without the mount it knows


def whole(table: Table, place: Place) -> Iterator[str]:
    """The lines that make the table, whatever was there, in one transaction."""
    yield f"add table {T}"
    yield f"delete table {T}"
    yield f'add table {T} {{ comment "bandwidth limits; glacic limits list shows them"; }}'
    yield f"add set {T} local_4 {{ type ipv4_addr; flags interval; elements = {{ {LOCAL_4} }}; }}"
    yield f"add set {T} local_6 {{ type ipv6_addr; flags interval; elements = {{ {LOCAL_6} }}; }}"
    yield from difference(EMPTY, table, place)


def difference(before: Table, after: Table, place: Place) -> Iterator[str]:
    """The lines that make one table of the other. What is the same is not touched."""
    yield from _buckets(before, after)
    for element in _only_in(before, after):
        yield f"delete element {T} {element.map} {{ {_key(element, place)} }}"
    for direction in _HOOKS:
        yield from _lookups(direction, before.levels(direction), after.levels(direction))
    for element in _only_in(after, before):
        yield f"add element {T} {element.map} {{ {_key(element, place)} : jump {element.chain} }}"
    for chain in sorted(before.buckets.keys() - after.buckets.keys()):  # nothing leads to it any more
        yield f"delete chain {T} {chain}"
        yield f"delete counter {T} passed_{chain}"
        yield f"delete counter {T} dropped_{chain}"


def _buckets(before: Table, after: Table) -> Iterator[str]:
    """New chains, and other rules for those whose rate changed. Their counters go on."""
    for chain, bucket in sorted(after.buckets.items()):
        if chain not in before.buckets:
            yield f"add counter {T} passed_{chain}"
            yield f"add counter {T} dropped_{chain}"
            yield f"add chain {T} {chain} {{ comment {quote(bucket.name)}; }}"
        if before.buckets.get(chain) != bucket:
            yield f"flush chain {T} {chain}"
            yield from _rules(bucket)


def _lookups(direction: str, old: list[int], new: list[int]) -> Iterator[str]:
    """One map for each level in use, and the rules that look into them. A level that nobody uses costs nothing."""
    if old == new:
        return
    hook, loopback, _ = _HOOKS[direction]
    for level in new:
        if level not in old:
            yield f"add map {T} {direction}_{level} {{ type cgroupsv2 : verdict; }}"
    yield f"add chain {T} {hook} {{ type filter hook {hook} priority {LIMITS_PRIORITY}; policy accept; }}"
    yield f"flush chain {T} {hook}"
    if new:
        yield f"add rule {T} {hook} {loopback} lo accept"
        for level in new:
            yield f"add rule {T} {hook} socket cgroupv2 level {level} vmap @{direction}_{level}"
    else:
        yield f"delete chain {T} {hook}"
    for level in old:
        if level not in new:
            yield f"delete map {T} {direction}_{level}"


def _only_in(one: Table, other: Table) -> list[Element]:
    return sorted(element for key, element in one.elements.items() if other.elements.get(key) != element)


def _key(element: Element, place: Place) -> str:
    return f'"{place(element.id)}"'


def _rules(bucket: Bucket) -> Iterator[str]:
    """What happens to a packet of the limit's cgroups."""
    chain, end = f"{T} {bucket.chain}", _HOOKS[bucket.direction][2]
    if bucket.traffic != Traffic.ALL:
        unless = "" if bucket.traffic == Traffic.INTERNET else "!= "
        yield f"add rule {chain} ip {end} {unless}@local_4 return"
        yield f"add rule {chain} ip6 {end} {unless}@local_6 return"
    rate = f"rate over {bucket.rate} bytes/second burst {burst_of(bucket.rate)} bytes"
    yield f"add rule {chain} limit {rate} counter name dropped_{bucket.chain} drop"
    yield f"add rule {chain} counter name passed_{bucket.chain}"


def burst_of(rate: int) -> int:
    """What nft is told: bytes that may pass at once besides a second's worth, which the kernel puts into every bucket
    (nft_limit_init). rate: bytes/s. So the bucket holds BURST_MIN or one and a quarter seconds' worth.

    A packet larger than the bucket would never pass, and those of GSO are 64 KiB. More would only be a worse first
    second: at 50 KiB/s with BURST_MIN on top, 3.6 times the rate, and a flood of twice the rate was let through for as
    many seconds."""
    return min(max(BURST_MIN - rate, rate // 4), _BUCKET_MAX - rate)
