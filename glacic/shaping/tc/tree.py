"""Limits, shape: from items to HTB classes. Pure: no kernel, no clock.

    number 1..255    one per item; its connection mark (marks.py), and in its classes' minors
    16 + number      the leaf that its packets go to
    4096 + number    above that, only where limits of cgroups inside it have to share its rate

A limit inside another holds within it: its class lends from the outer one's, so that both rates hold. That needs the
outer limit to see all that the inner one sees, on the same interfaces; anything else is refused, with the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Item

MIN_RATE = 1024  # bytes per second: below, tc's tables of transmission times (32 bits of 64 ns) run over
DEFAULT = 1  # minor of the class for what no limit is for
MOST = 255  # numbers: what the field in the connection mark can name

_LEAF, _ABOVE = 0x10, 0x1000
_LENT_RATE = 64  # bytes per second that a class inside another has of its own: the rest is lent from the outer one
_LENT_BURST = 1600
_MIN_BURST = 32 << 10  # bytes: HTB lets a larger packet go too, and makes the next ones wait for it
_BURST_S = 0.05  # how late a queue may be served without losing rate
_QUANTUM = range(1514, 200_000)  # bytes that a class sends before the next one's turn (HTB warns of others)
_MIN_QUEUE = 72 << 10  # bytes: one of the largest packets; what more does to slow downloads: decision 0013
_MAX_QUEUE = 1 << 30  # what a message to bfifo can say has 31 bits
_QUEUE_S = 0.5


@dataclass(frozen=True, slots=True)
class Bucket:
    """An HTB class as it shall be. parent: a minor, 0 for the root. Rates in bytes per second. queue: bytes that may
    wait in a leaf; 0 in a class above others."""

    minor: int
    parent: int
    rate: int
    ceil: int
    burst: int
    ceil_burst: int
    queue: int

    @property
    def quantum(self) -> int:
        """Bytes per turn."""
        return min(max(self.ceil // 10, _QUANTUM.start), _QUANTUM.stop)


_MOST_RATE = 1 << 37  # bytes per second, a terabit: more than any interface
UNLIMITED = Bucket(DEFAULT, 0, rate=_MOST_RATE, ceil=_MOST_RATE, burst=1 << 20, ceil_burst=1 << 20, queue=0)


def rate_of(item: Item, direction: str) -> int:
    """Bytes per second, 0 where there is no limit."""
    return item.upload if direction == UPLOAD else item.download


def leaf(number: int) -> int:
    """The minor that an item's packets go to."""
    return _LEAF + number


def is_limit(minor: int) -> bool:
    """Whether this is the minor of a class of a limit."""
    return minor - _LEAF in range(1, MOST + 1) or minor - _ABOVE in range(1, MOST + 1)


def counting(minors: frozenset[int], number: int) -> int:
    """The minor that counts all of an item's packets, of the classes there are; 0 where it has none."""
    return next((minor for minor in (_ABOVE + number, _LEAF + number) if minor in minors), 0)


def check(items: Sequence[Item]) -> None:
    """Refuses what this engine cannot hold, with KernelRefused."""
    if len(items) > MOST:
        raise KernelRefused(f'the shape engine holds {MOST} limits, not {len(items)}: write engine = "nft"')
    seen: dict[int, Item] = {}
    for item in items:
        for direction in (UPLOAD, DOWNLOAD):
            if 0 < rate_of(item, direction) < MIN_RATE:
                raise KernelRefused(
                    f"{item.name}: the shape engine holds no {direction} below 1 KiB/s: write a higher one"
                )
        other = seen.setdefault(item.cgroup.id, item)
        if other is not item:
            raise KernelRefused(f"{item.name} and {other.name} limit the same cgroup, {item.cgroup.path}: remove one")


def inside(inner: Item, outer: Item) -> bool:
    """Whether the cgroup of one is below that of the other."""
    return inner.cgroup.path.startswith(f"{outer.cgroup.path}/")


def applies(item: Item, scope: Traffic) -> bool:
    """Whether a limit is for this traffic; a limit on all of it is for any, and the other way round."""
    return item.traffic is scope or Traffic.ALL in (item.traffic, scope)


def nearest(item: Item, items: Sequence[Item], direction: str, scope: Traffic, *, itself: bool) -> Item | None:
    """The innermost limit of this direction and traffic that an item is inside of, or (itself) that it is."""
    found = [
        other
        for other in items
        if rate_of(other, direction) and applies(other, scope) and ((itself and other is item) or inside(item, other))
    ]
    return max(found, key=lambda other: other.cgroup.level, default=None)


def outer_of(item: Item, items: Sequence[Item], direction: str) -> Item | None:
    """The limit whose rate an item shares. Raises KernelRefused where it does so with a part of its traffic only."""
    outer = nearest(item, items, direction, item.traffic, itself=False)
    if outer is None or outer.traffic in (Traffic.ALL, item.traffic):
        return outer
    raise KernelRefused(
        f"{item.name} is inside of {outer.name}, and a queue cannot be inside of another for"
        f' {outer.traffic} traffic only: give both the same traffic, or write engine = "nft"'
    )


def buckets(items: Sequence[Item], numbers: Mapping[str, int], direction: str) -> dict[int, Bucket]:
    """The classes of one interface and direction by minor, outer ones before inner ones."""
    limited = sorted((item for item in items if rate_of(item, direction)), key=lambda item: item.cgroup.level)
    outers = {item.name: outer_of(item, limited, direction) for item in limited}
    shared = {outer.name for outer in outers.values() if outer is not None}
    found: dict[int, Bucket] = {}
    for item in limited:
        outer, number = outers[item.name], numbers[item.name]
        parent = _ABOVE + numbers[outer.name] if outer else 0
        rate = rate_of(item, direction)
        if item.name in shared:
            found[_ABOVE + number] = _bucket(_ABOVE + number, parent, rate, queue=False)
            parent = _ABOVE + number
        found[leaf(number)] = _bucket(leaf(number), parent, rate, queue=True)
    return found


def _bucket(minor: int, parent: int, rate: int, *, queue: bool) -> Bucket:
    burst = max(_MIN_BURST, int(rate * _BURST_S))
    return Bucket(
        minor=minor,
        parent=parent,
        rate=_LENT_RATE if parent else rate,
        ceil=rate,
        burst=_LENT_BURST if parent else burst,
        ceil_burst=burst,
        queue=min(max(_MIN_QUEUE, int(rate * _QUEUE_S)), _MAX_QUEUE) if queue else 0,
    )
