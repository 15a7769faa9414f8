"""Step 4 of road 1, the geometry: which networks lie in which, which interface names mean the same interface.

CIDR networks nest or are disjoint, so "overlaps" is "one contains the other", and that is a dictionary lookup per
prefix length: a zone may have thousands of networks. Refuses to know zones: owners are opaque.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from glacic.config.model import Nat, Network, Zone
from glacic.config.source import Span

T = TypeVar("T")


class NetworkIndex(Generic[T]):
    """Networks with their owners, asked for those that contain another one."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int, int], list[T]] = {}
        self._lengths: dict[int, set[int]] = {4: set(), 6: set()}

    def add(self, network: Network, owner: T) -> None:
        """Enter one network."""
        self._owners.setdefault(self._key(network, network.prefixlen), []).append(owner)
        self._lengths[network.version].add(network.prefixlen)

    def containing(self, network: Network) -> Iterator[T]:
        """The owners of all networks that contain `network`, itself among them, the widest first."""
        for length in sorted(self._lengths[network.version]):
            if length > network.prefixlen:
                return
            yield from self._owners.get(self._key(network, length), ())

    def narrowest(self, address: bytes) -> T | None:
        """The owner of the smallest network that has this address (4 or 16 bytes), the first that was entered; or
        None."""
        version, bits, number = 4 if len(address) == 4 else 6, len(address) * 8, int.from_bytes(address, "big")
        for length in sorted(self._lengths[version], reverse=True):
            owners = self._owners.get((version, length, number >> (bits - length)))
            if owners:
                return owners[0]
        return None

    @staticmethod
    def _key(network: Network, length: int) -> tuple[int, int, int]:
        return network.version, length, int(network.network_address) >> (network.max_prefixlen - length)


def intersect(first: Network, second: Network) -> bool:
    """Whether two networks have an address in common."""
    if first.version != second.version:
        return False
    shift = first.max_prefixlen - min(first.prefixlen, second.prefixlen)
    return int(first.network_address) >> shift == int(second.network_address) >> shift


def covers(pattern: str, other: str) -> bool:
    """Whether `pattern` names every interface that `other` names; both may end in `*`."""
    if pattern.endswith("*"):
        return other.removesuffix("*").startswith(pattern[:-1])
    return pattern == other


def share(first: str, second: str) -> bool:
    """Whether two interface patterns can name the same interface."""
    return covers(first, second) or covers(second, first)


def outermost_networks(found: Sequence[tuple[Network, Span]]) -> list[tuple[Network, Span]]:
    """Without those that lie in another of them; of equal ones the first stays."""
    index: NetworkIndex[int] = NetworkIndex()
    for number, (network, _) in enumerate(found):
        index.add(network, number)
    return [pair for number, pair in enumerate(found) if next(index.containing(pair[0])) == number]


def outermost_interfaces(found: Sequence[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """Without those that another pattern covers; of equal ones the first stays."""
    kept: list[tuple[str, Span]] = []
    for name, span in found:
        if not any(covers(other, name) for other, _ in kept):
            kept = [pair for pair in kept if not covers(name, pair[0])]
            kept.append((name, span))
    return kept


def inside(zones: Iterable[Zone], nat: Nat) -> tuple[str, ...]:
    """The interfaces that a forwarded port is reached by from within: those of internal zones, but for its own."""
    names = (name for zone in zones if not zone.external for name in zone.interfaces)
    return tuple(dict.fromkeys(name for name in names if not any(share(name, own) for own in nat.in_interface)))
