"""Which zone an address is of, worked out in user space: for a packet of which nobody asks the kernel.

As the compiled ruleset does it (`of`): interface and network together, then the interface alone, then the network
alone, and that only on interfaces that no zone names. Or by address alone (`by_address`), for a capture, which has no
interfaces: the longest prefix counts, and of equal ones that of a zone that names interfaces too.

Refuses to know policies, and what a host's own addresses are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from glacic.config.model import Zone
from glacic.config.overlap import NetworkIndex, covers

NAMES = 1024  # interface names whose patterns are remembered


class Patterns:
    """Interface names that may end in `*`, asked for one name at a time."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self.match = lru_cache(maxsize=NAMES)(self._match)

    def _match(self, name: str) -> bool:
        return any(covers(pattern, name) for pattern in self._patterns)


class Zones:
    """The zones of a valid configuration. Addresses are 4 or 16 bytes, network byte order."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._both = [
            (Patterns(zone.interfaces), _index([zone])) for zone in zones if zone.interfaces and zone.networks
        ]
        self._interfaces = [
            (Patterns(zone.interfaces), zone) for zone in zones if zone.interfaces and not zone.networks
        ]
        self._named = Patterns(name for zone in zones for name in zone.interfaces)
        self._networks = _index(zone for zone in zones if zone.networks and not zone.interfaces)
        self._all = _index(sorted(zones, key=lambda zone: not zone.interfaces))

    def of(self, interface: str, address: bytes) -> Zone | None:
        """The zone of a packet that comes from (or goes to) this address by this interface; None where it has none."""
        for patterns, networks in self._both:
            if patterns.match(interface):
                zone = networks.narrowest(address)
                if zone is not None:
                    return zone
        if not self._named.match(interface):
            return self._networks.narrowest(address)
        return next((zone for patterns, zone in self._interfaces if patterns.match(interface)), None)

    def by_address(self, address: bytes) -> Zone | None:
        """The zone that has this address among its networks, whatever interfaces it names; None where none has."""
        return self._all.narrowest(address)


def _index(zones: Iterable[Zone]) -> NetworkIndex[Zone]:
    index: NetworkIndex[Zone] = NetworkIndex()
    for zone in zones:
        for network in zone.networks:
            index.add(network, zone)
    return index
