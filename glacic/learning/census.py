"""Road 2, inside the engine: how many flows there are, in all and per source, so that learning can be bounded.

Totals are in memory. A source's counts are kept for the sources seen last, and for every source of which something is
not committed yet; any other's are counted in the database. So they are exact at every moment.

Refuses to know the limits (engine.py does). Every call is made under the lock that orders changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from glacic.learning.flow import FlowState
from glacic.learning.kept import Kept

SOURCES = 8192  # whose counts are kept; a count costs one indexed query, so a miss is cheap too

TOFU = "tofu"  # the origin of a flow that is allowed because learning was on


class SourceCount:
    """Of one source, in all policies."""

    __slots__ = ("learned", "pending")

    def __init__(self, learned: int, pending: int) -> None:
        self.learned = learned
        self.pending = pending


class Census:
    """Flows counted by state, and per source."""

    def __init__(
        self, counts: Mapping[FlowState, int], learned: int, count_source: Callable[[bytes], tuple[int, int]]
    ) -> None:
        """counts, learned: what the database holds now. count_source: (learned, pending) of a source there."""
        self.counts = {state: counts.get(state, 0) for state in FlowState}
        self.learned = learned
        self._count_source = count_source
        self._sources: Kept[bytes, SourceCount] = Kept(SOURCES)

    def source(self, source: bytes) -> SourceCount:
        """The counts of one source. Raises StoreError if they have to be counted and cannot."""
        lru = self._sources.lru
        if source in lru:
            return lru[source]
        count = self._sources.find_unwritten(source) or SourceCount(*self._count_source(source))
        lru[source] = count
        return count

    def move(
        self, source: bytes, before: FlowState | None, before_origin: str, after: FlowState | None, after_origin: str
    ) -> None:
        """A flow of this source changes its state. Raises StoreError, with nothing counted, as `source` does."""
        count = self.source(source)
        self._add(count, before, before_origin, -1)
        self._add(count, after, after_origin, 1)
        self._sources.changed[source] = count

    def swap(self) -> None:
        """What has changed is being written from now on."""
        self._sources.swap()

    def settle(self) -> None:
        """What was being written is committed."""
        self._sources.settle()

    def _add(self, count: SourceCount, state: FlowState | None, origin: str, number: int) -> None:
        if state is None:
            return
        self.counts[state] += number
        if state is FlowState.PENDING:
            count.pending += number
        elif state is FlowState.ALLOWED and origin == TOFU:
            count.learned += number
            self.learned += number
