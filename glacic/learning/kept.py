"""Road 2, inside the cache: a bounded map that never loses what is not committed yet.

    lru      what was used last, at most `capacity` values; any of them may be evicted at any moment
    changed  values with changes that nobody has begun to write
    writing  values whose changes are being written; replaced by nothing once they are committed

`find` looks in that order, so a value that was evicted from the lru is found until the database knows everything
about it. That is the invariant everything rests on: a key found nowhere here is in the database as it last was, or
nowhere.

Refuses to lock, to write and to bound `changed`: cache.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(LRUCache[K, V]):
    """An LRUCache that tells which value it lets go of."""

    def __init__(self, capacity: int, on_evict: Callable[[V], None]) -> None:
        super().__init__(capacity)
        self._on_evict = on_evict

    def popitem(self) -> tuple[K, V]:
        """The item used longest ago, which is out."""
        key, value = super().popitem()
        self._on_evict(value)
        return key, value


class Kept(Generic[K, V]):
    """See the module's docstring. The caller holds the lock that guards the whole."""

    __slots__ = ("_on_evict", "changed", "lru", "writing")

    def __init__(self, capacity: int, on_evict: Callable[[V], None] | None = None) -> None:
        """on_evict: told every value that the lru lets go of, before anything can ask for it."""
        self._on_evict = on_evict
        self.lru: LRUCache[K, V] = self._lru(capacity)
        self.changed: dict[K, V] = {}
        self.writing: dict[K, V] = {}

    def find(self, key: K) -> V | None:
        """The value, wherever it is; found in the lru, it counts as used."""
        lru = self.lru
        return lru[key] if key in lru else self.find_unwritten(key)  # a KeyError costs five times as much

    def find_unwritten(self, key: K) -> V | None:
        """The value, if it is held because it is not committed."""
        value = self.changed.get(key)
        return self.writing.get(key) if value is None else value

    def swap(self) -> dict[K, V]:
        """Begin to write: what has changed is now being written. Not before the last writing was settled."""
        if self.writing:
            raise RuntimeError("swap() before settle(): what is being written would be lost")
        self.writing, self.changed = self.changed, {}
        return self.writing

    def settle(self) -> None:
        """What was being written is committed."""
        self.writing = {}

    @property
    def unwritten(self) -> int:
        """How many values are held because they are not committed."""
        return len(self.changed) + len(self.writing)

    def resize(self, capacity: int) -> None:
        """Make the lru larger or smaller; the values used last stay."""
        lru = self._lru(capacity)
        values = []
        while self.lru:
            values.append(self.lru.popitem())  # the one used longest ago first
        for key, value in values:
            lru[key] = value
        self.lru = lru

    def _lru(self, capacity: int) -> LRUCache[K, V]:
        return LRUCache(capacity) if self._on_evict is None else Lru(capacity, self._on_evict)
