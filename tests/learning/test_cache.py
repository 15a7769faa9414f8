"""The flow cache: bounded, and no change is lost between a packet and the database."""

from __future__ import annotations

import pytest

from glacic import native
from glacic.errors import StoreError
from glacic.learning import cache as cache_module
from glacic.learning.cache import MAX_ADDRESSES, Batch, FlowCache, Seen, Written
from glacic.learning.census import Census
from glacic.learning.flow import Flow, FlowKey, FlowState, Transition

MAC = b"\x02\0\0\0\0\x01"


def key(port: int) -> FlowKey:
    return FlowKey("lan_wan", MAC, 6, port)


def became(port: int, after: FlowState | None, at_ns: int, before: FlowState | None = None) -> Transition:
    return Transition(key=key(port), before=before, after=after, at_ns=at_ns, who="user ann", why="test")


def stored(port: int, state: FlowState = FlowState.ALLOWED) -> Flow:
    return Flow(key=key(port), state=state, first_seen_ns=1, last_seen_ns=2, packets=9, origin="user", id=port)


@pytest.fixture(params=["compiled", "python"])
def cache(request: pytest.FixtureRequest) -> FlowCache:
    """With and without the compiled table in front."""
    compiled = request.param == "compiled"
    assert native.road is not None or not compiled, "the compiled part is not built: run make setup, or tools/native"
    return FlowCache(2, Census({}, 0, lambda _source: (0, 0)), compiled=compiled)


def taken(cache: FlowCache) -> Batch:
    batch = cache.take()
    assert batch is not None
    return batch


def test_a_packet_of_a_cached_flow_is_a_hit_and_any_other_a_miss(cache: FlowCache) -> None:
    cache.load(stored(80))
    assert cache.hit(key(80), None, 5) is FlowState.ALLOWED
    assert cache.hit(tuple(key(80)), None, 6) is FlowState.ALLOWED  # type: ignore[arg-type]
    assert cache.hit(key(81), None, 7) is None
    assert (cache.hits, cache.misses, cache.size, cache.capacity) == (2, 1, 1, 2)


def test_the_flow_used_longest_ago_makes_room(cache: FlowCache) -> None:
    for port in (1, 2):
        cache.load(stored(port))
    cache.hit(key(1), None, 5)
    cache.load(stored(3))
    taken(cache)
    cache.settle()
    assert [cache.find(key(port)) is not None for port in (1, 2, 3)] == [True, False, True]


def test_packets_are_added_up_and_handed_over_once(cache: FlowCache) -> None:
    cache.load(stored(80))
    for now_ns in (10, 11, 12):
        cache.hit(key(80), None, now_ns)
    assert taken(cache).seen == [Seen(key(80), 12, 3)]
    cache.settle()
    assert cache.take() is None
    cache.hit(key(80), None, 13)
    assert taken(cache).seen == [Seen(key(80), 13, 1)]


def test_an_evicted_flow_with_changes_is_found_until_they_are_committed(cache: FlowCache) -> None:
    cache.add(became(1, FlowState.DENIED, 5), "user")
    for port in (2, 3):
        cache.load(stored(port))
    assert cache.hit(key(1), None, 6) is FlowState.DENIED
    for port in (4, 5):
        cache.load(stored(port))
    batch = taken(cache)
    assert cache.hit(key(1), None, 7) is FlowState.DENIED  # being written
    assert batch.added == [Written(key(1), FlowState.DENIED, 5, 6, 1, "user")]
    cache.settle()
    assert taken(cache).seen == [Seen(key(1), 7, 1)]


def test_a_change_during_the_writing_of_another_is_in_the_next_batch(cache: FlowCache) -> None:
    entry = cache.add(became(1, FlowState.PENDING, 5), "traffic")
    assert taken(cache).added[0].state is FlowState.PENDING
    cache.change(entry, became(1, FlowState.ALLOWED, 6, FlowState.PENDING), "user")
    cache.settle()
    batch = taken(cache)
    assert (batch.added, batch.deleted) == ([], [])
    assert batch.changed == [Written(key(1), FlowState.ALLOWED, 5, 5, 0, "user")]
    assert [transition.after for transition in batch.transitions] == [FlowState.ALLOWED]


class TestAForgottenFlow:
    def test_is_unknown_at_once_and_deleted_with_the_next_batch(self, cache: FlowCache) -> None:
        entry = cache.load(stored(1))
        cache.change(entry, became(1, None, 6, FlowState.ALLOWED), "user")
        assert cache.hit(key(1), None, 7) is None
        found = cache.find(key(1))
        assert found is not None
        assert found.state is None  # so nobody asks the database, where it still is
        assert taken(cache).deleted == [key(1)]
        cache.settle()
        assert cache.find(key(1)) is None

    def test_that_comes_back_before_that_replaces_its_row(self, cache: FlowCache) -> None:
        entry = cache.load(stored(1))
        cache.change(entry, became(1, None, 6, FlowState.ALLOWED), "user")
        cache.add(became(1, FlowState.PENDING, 8), "traffic")
        batch = taken(cache)
        assert batch.deleted == [key(1)]
        assert batch.added == [Written(key(1), FlowState.PENDING, 8, 8, 0, "traffic")]

    def test_that_was_never_written_leaves_nothing_but_its_history(self, cache: FlowCache) -> None:
        entry = cache.add(became(1, FlowState.PENDING, 5), "traffic")
        cache.change(entry, became(1, None, 6, FlowState.PENDING), "user")
        batch = taken(cache)
        assert (batch.added, batch.changed, batch.seen) == ([], [], [])
        assert [transition.after for transition in batch.transitions] == [FlowState.PENDING, None]


class TestAddresses:
    def test_are_noted_once(self, cache: FlowCache) -> None:
        cache.load(stored(80))
        for now_ns, address in enumerate((b"v4v4", b"v6", b"v4v4"), 10):
            cache.hit(key(80), address, now_ns)
        assert taken(cache).addresses == [(key(80), b"v4v4", 10), (key(80), b"v6", 11)]
        cache.settle()
        cache.hit(key(80), b"v6", 20)
        assert taken(cache).addresses == []

    def test_of_a_flow_with_too_many_the_newest_are_kept(self, cache: FlowCache) -> None:
        entry = cache.load(stored(80))
        for number in range(40):
            cache.hit(key(80), bytes([10, 0, 0, number]), number)
        newest = [bytes([10, 0, 0, number]) for number in range(40 - MAX_ADDRESSES, 40)]
        assert list(entry.addresses) == newest
        assert [address for _, address, _ in taken(cache).addresses] == newest


class TestWhenNobodyWrites:
    @pytest.fixture(autouse=True)
    def little_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache_module, "MAX_UNWRITTEN", 3)

    def test_changes_are_refused_once_too_many_wait(self, cache: FlowCache) -> None:
        for port in (1, 2, 3):
            cache.check_room()
            cache.add(became(port, FlowState.ALLOWED, 5), "tofu")
        with pytest.raises(StoreError, match="cannot be written"):
            cache.check_room()
        taken(cache)
        with pytest.raises(StoreError):  # taken is not committed
            cache.check_room()
        cache.settle()
        cache.check_room()

    def test_a_known_flow_keeps_its_verdict_and_its_count(self, cache: FlowCache) -> None:
        for port in (1, 2, 3):
            cache.add(became(port, FlowState.ALLOWED, 5), "tofu")
        cache.load(stored(80))
        assert cache.hit(key(80), None, 6) is FlowState.ALLOWED
        assert cache.unwritten == 3
        taken(cache)
        cache.settle()
        cache.hit(key(80), None, 7)
        assert taken(cache).seen == [Seen(key(80), 7, 2)]


def test_a_smaller_cache_keeps_what_was_used_last(cache: FlowCache) -> None:
    cache.resize(4)
    for port in (1, 2, 3, 4):
        cache.load(stored(port))
    cache.hit(key(1), None, 9)
    cache.resize(2)
    taken(cache)
    cache.settle()
    assert [cache.find(key(port)) is not None for port in (1, 2, 3, 4)] == [True, False, False, True]
    assert (cache.size, cache.capacity) == (2, 2)


def test_a_flow_is_not_added_without_a_state(cache: FlowCache) -> None:
    with pytest.raises(ValueError, match="in a state"):
        cache.add(became(1, None, 5), "user")
