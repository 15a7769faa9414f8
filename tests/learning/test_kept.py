"""A bounded map that never loses what is not committed: against a twin that loses nothing at all."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.learning.kept import Kept

KEYS = st.integers(0, 7)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS),
    st.tuples(st.just("change"), KEYS),
    st.tuples(st.just("find"), KEYS),
    st.tuples(st.just("swap"), st.just(0)),
    st.tuples(st.just("settle"), st.just(0)),
    st.tuples(st.just("resize"), st.integers(1, 5)),
)


class Slow:
    """The twin: what was used last in a list, and every change with the batch it belongs to."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.values: OrderedDict[int, str] = OrderedDict()
        self.changed: dict[int, str] = {}
        self.writing: dict[int, str] = {}
        self.gone: list[str] = []

    def put(self, key: int, value: str) -> None:
        self.values[key] = value
        self.values.move_to_end(key)
        self.trim()

    def trim(self) -> None:
        while len(self.values) > self.capacity:
            self.gone.append(self.values.popitem(last=False)[1])

    def find(self, key: int) -> str | None:
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key) or self.changed.get(key) or self.writing.get(key)


@given(st.integers(1, 4), st.lists(STEPS, max_size=80), st.booleans())
def test_it_finds_what_its_slow_twin_finds(capacity: int, steps: list[tuple[str, int]], told: bool) -> None:
    """Also where somebody is told what the lru lets go of: by then it has, and the value is found nowhere else."""
    evicted: list[str] = []

    def on_evict(value: str) -> None:
        assert int(value.partition(",")[0]) not in kept.lru  # values() would make all of them used
        evicted.append(value)

    kept: Kept[int, str] = Kept(capacity, on_evict if told else None)
    slow = Slow(capacity)
    for number, (step, key) in enumerate(steps):
        value = f"{key}, step {number}"
        if step == "put":
            kept.lru[key] = value
            slow.put(key, value)
        elif step == "change":
            kept.lru[key] = kept.changed[key] = value
            slow.changed[key] = value
            slow.put(key, value)
        elif step == "find":
            assert kept.find(key) == slow.find(key)
        elif step == "swap" and not slow.writing:
            assert kept.swap() == slow.changed
            slow.writing, slow.changed = slow.changed, {}
        elif step == "settle":
            kept.settle()
            slow.writing = {}
        elif step == "resize":
            kept.resize(key)
            slow.capacity = key
            slow.trim()
        assert len(kept.lru) <= slow.capacity
        assert kept.unwritten == len(slow.changed) + len(slow.writing)
        if told:  # a resize lets go of all of them, and takes some back
            assert set(evicted) >= set(slow.gone) if step == "resize" else evicted == slow.gone
        slow.gone.clear()
        evicted.clear()
    assert {key: kept.find(key) for key in range(8)} == {key: slow.find(key) for key in range(8)}


def test_what_is_being_written_is_not_dropped_for_the_next_batch() -> None:
    kept: Kept[str, int] = Kept(1)
    kept.changed["a"] = 1
    kept.swap()
    kept.changed["b"] = 2
    with pytest.raises(RuntimeError, match="before settle"):
        kept.swap()
    assert kept.find("a") == 1
