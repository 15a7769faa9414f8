"""The flow cache with the compiled table in front, against the one without, its slow twin.

Packets are put to the native rules first, as the compiled readers do, and to the cache only where these do not answer.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glacic import native
from glacic.firewall import claims
from glacic.learning import cache as cache_module
from glacic.learning.cache import TABLE_STATES, Batch, FlowCache
from glacic.learning.census import Census
from glacic.learning.flow import Flow, FlowKey, FlowState, Transition

LAN, VPN = 1, 2  # policies: by MAC and by address
MACS = (b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
ADDRESSES = tuple(bytes([10, 0, 0, last]) for last in range(1, 8))
SERVER = bytes([192, 0, 2, 1])
STATES = {number: state for state, number in TABLE_STATES.items()}


def syn(source: bytes, port: int) -> bytes:
    """IPv4, 40 bytes, TCP, from port 40000."""
    return (
        bytes.fromhex("4500 0028 0001 0000 4006 0000")
        + source
        + SERVER
        + bytes.fromhex("9c40")
        + port.to_bytes(2, "big")
        + bytes.fromhex("00000000 00000000 5002 0000 0000 0000")
    )


class Arrival:
    """A packet, and its flow's key. number: one of 2 x 3 flows by MAC, 3 by address. address: where it comes from."""

    def __init__(self, number: int, address: int) -> None:
        by_mac = number < 6
        self.policy = LAN if by_mac else VPN
        source = ADDRESSES[address] if by_mac else ADDRESSES[number % 3]
        self.mac = MACS[number // 3] if by_mac else None
        self.seen_from = source if by_mac else None
        self.payload = syn(source, 80 + number % 3)
        name = "lan_wan" if by_mac else "vpn_wan"
        self.key = FlowKey(name, self.mac if self.mac is not None else source, 6, 80 + number % 3)


class Side:
    """A cache with the database under it, and what an engine does with both."""

    def __init__(self, capacity: int, *, compiled: bool) -> None:
        assert native.road is not None, "the compiled part is not built: run make setup, or tools/native"
        self.cache = FlowCache(capacity, Census({}, 0, lambda _source: (0, 0)), compiled=compiled)
        self.rules = native.road.Rules()
        if compiled:
            self.rules.set(
                self.cache.table,
                ((LAN, "lan_wan", True, False, False), (VPN, "vpn_wan", False, False, False)),
                highest_number=2,
                window=False,
                field=claims.field(2),
                asked=claims.ASKED,
                reject=claims.REJECT,
                number_low=claims.NUMBER_LOW,
                low_numbers=claims.LOW_NUMBERS,
            )
        self.stored: dict[FlowKey, list[Any]] = {}  # key -> [state, packets, last seen, addresses]
        self.writing: Batch | None = None

    def packet(self, arrival: Arrival, now_ns: int) -> FlowState | None:
        """The state of its flow; None: no such flow. One that the database has not either is not made."""
        found = self.rules.state(claims.mark_of(arrival.policy), arrival.payload, arrival.mac, now_ns)
        if found:
            entry = self.cache._flows.lru.get(arrival.key)
            assert entry is not None
            assert entry.state is STATES[found]
            assert arrival.seen_from is None or arrival.seen_from in entry.addresses
            return STATES[found]
        state = self.cache.hit(tuple(arrival.key), arrival.seen_from, now_ns)  # type: ignore[arg-type]
        if state is None:
            with self.cache.order:
                entry = self.look_up(arrival.key)
                if entry is None or entry.state is None:
                    return None
                self.cache.note(entry, arrival.seen_from, now_ns)
                return FlowState(entry.state)
        return state

    def look_up(self, key: FlowKey) -> Any:
        entry = self.cache.find(key)
        if entry is None and key in self.stored:
            state, packets, last_seen_ns, _ = self.stored[key]
            entry = self.cache.load(
                Flow(key=key, state=state, first_seen_ns=1, last_seen_ns=last_seen_ns, packets=packets)
            )
        return entry

    def set(self, key: FlowKey, after: FlowState | None, now_ns: int) -> None:
        with self.cache.order:
            entry = self.look_up(key)
            before = None if entry is None else entry.state
            if before is after:
                return
            change = Transition(key=key, before=before, after=after, at_ns=now_ns, who="user ann", why="")
            if before is None:
                self.cache.add(change, "user")
            else:
                self.cache.change(entry, change, "user")

    def take(self) -> None:
        if self.writing is None:
            self.writing = self.cache.take()

    def commit(self) -> None:
        """Writes what was taken, in the order of Batch's fields."""
        batch, self.writing = self.writing, None
        if batch is None:
            return
        for key in batch.deleted:
            self.stored.pop(key, None)
        for row in batch.added:
            assert row.key not in self.stored
            self.stored[row.key] = [row.state, row.packets, row.last_seen_ns, set()]
        for row in batch.changed:
            self.stored[row.key][0] = row.state
        for seen in [*batch.changed, *batch.seen]:
            self.stored[seen.key][1] += seen.packets
            self.stored[seen.key][2] = max(self.stored[seen.key][2], seen.last_seen_ns)
        for key, address, _ in batch.addresses:
            self.stored[key][3].add(address)
        self.cache.settle()

    def write_everything(self) -> None:
        self.commit()
        self.take()
        self.commit()


class Sides:
    """Both, kept in step."""

    def __init__(self, capacity: int) -> None:
        self.fast, self.slow = Side(capacity, compiled=True), Side(capacity, compiled=False)
        self.now_ns = 10

    def packet(self, number: int, address: int) -> None:
        self.now_ns += 1
        arrival = Arrival(number, address)
        assert self.fast.packet(arrival, self.now_ns) == self.slow.packet(arrival, self.now_ns)

    def set(self, number: int, state: FlowState | None) -> None:
        self.now_ns += 1
        key = Arrival(number, 0).key
        for side in (self.fast, self.slow):
            side.set(key, state, self.now_ns)
        self.packet(number, 0)  # never of the time before

    def look(self, number: int) -> None:
        """Whoever looks at an entry's counts has the table's share in them."""
        key = Arrival(number, 0).key
        fast, slow = (side.cache.find(key) for side in (self.fast, self.slow))
        if fast is not None and slow is not None:
            assert (fast.state, fast.last_seen_ns) == (slow.state, slow.last_seen_ns)
            assert set(fast.addresses) == set(slow.addresses)

    def take(self) -> None:
        self.fast.take()
        self.slow.take()

    def commit(self) -> None:
        self.fast.commit()
        self.slow.commit()
        assert {key: row[0] for key, row in self.fast.stored.items()} == {
            key: row[0] for key, row in self.slow.stored.items()
        }

    def resize(self, capacity: int) -> None:
        for side in (self.fast, self.slow):
            side.cache.resize(capacity)

    def check(self) -> None:
        fast, slow = self.fast.cache, self.slow.cache
        assert len(fast.table) <= fast.size <= fast.capacity == slow.capacity
        assert fast.hits + fast.misses == slow.hits + slow.misses

    def end(self) -> None:
        """Everything written: no packet, no address was lost or counted twice."""
        for side in (self.fast, self.slow):
            side.write_everything()
        assert self.fast.stored == self.slow.stored


numbers = st.integers(0, 8)
packets = st.tuples(st.just("packet"), numbers, st.integers(0, len(ADDRESSES) - 1))
steps = st.lists(
    st.one_of(
        packets,
        packets,
        packets,
        st.tuples(st.just("packets"), numbers, st.integers(1, 6)),
        st.tuples(st.just("set"), numbers, st.sampled_from([None, *FlowState])),
        st.tuples(st.just("look"), numbers),
        st.tuples(st.just("take")),
        st.tuples(st.just("commit")),
        st.tuples(st.just("resize"), st.integers(1, 12)),
    ),
    max_size=80,
)


def walk(sides: Sides, steps: list[tuple[Any, ...]]) -> None:
    for name, *arguments in steps:
        if name == "packets":
            for _ in range(arguments[1]):
                sides.packet(arguments[0], 0)
        else:
            getattr(sides, name)(*arguments)
        sides.check()


@given(st.integers(1, 5), steps)
@settings(max_examples=600)
def test_after_any_steps_both_know_the_same(capacity: int, steps: list[tuple[Any, ...]]) -> None:
    """So small that nearly everything is evicted, and by each at other moments: what is used in the table is moved to
    the front only when it is collected."""
    sides = Sides(capacity)
    walk(sides, steps)
    sides.end()


@given(steps)
def test_where_nothing_is_evicted_they_agree_to_the_hit(steps: list[tuple[Any, ...]]) -> None:
    sides = Sides(20)
    walk(sides, [step for step in steps if step[0] != "resize"])
    sides.end()
    fast, slow = sides.fast.cache, sides.slow.cache
    assert (fast.hits, fast.misses) == (slow.hits, slow.misses)
    assert {key: entry.state for key, entry in fast._flows.lru.items()} == {
        key: entry.state for key, entry in slow._flows.lru.items()
    }


@given(steps)
def test_when_nobody_writes_no_verdict_is_lost(steps: list[tuple[Any, ...]]) -> None:
    """And no count of a flow that stays cached: with its next packet, when there is room again, it is written."""
    sides = Sides(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "MAX_UNWRITTEN", 2)
        walk(sides, [step for step in steps if step[0] != "resize"])
    for number in range(9):
        sides.packet(number, 0)
    sides.end()


# ---- one thing at a time


@pytest.fixture
def side() -> Side:
    side = Side(2, compiled=True)
    side.stored = {Arrival(number, 0).key: [FlowState.ALLOWED, 0, 1, set()] for number in range(9)}
    return side


def answered(side: Side, number: int, address: int = 0) -> bool:
    """Whether the table answers."""
    arrival = Arrival(number, address)
    return bool(side.rules.state(claims.mark_of(arrival.policy), arrival.payload, arrival.mac, 5))


def test_a_flow_is_in_the_table_from_its_second_packet_on(side: Side) -> None:
    side.packet(Arrival(6, 0), 1)
    assert not answered(side, 6)
    side.packet(Arrival(6, 0), 2)
    assert answered(side, 6)
    assert (side.cache.hits, side.cache.misses) == (2, 1)


def test_a_flow_seen_from_another_address_is_python_s_once(side: Side) -> None:
    for address in (0, 0, 1):
        assert not answered(side, 0, address)
        side.packet(Arrival(0, address), 1)
    assert answered(side, 0, 0)
    assert answered(side, 0, 1)


def test_a_flow_seen_from_many_addresses_is_python_s_for_the_older_ones(side: Side) -> None:
    for address in (0, 0, 1, 2, 3, 4, 5):
        side.packet(Arrival(0, address), 1)
    assert [answered(side, 0, address) for address in range(7)] == [False, False, True, True, True, True, False]


@pytest.mark.parametrize("how", ["denied", "forgotten", "evicted", "resized"])
def test_a_flow_leaves_the_table_with(side: Side, how: str) -> None:
    key = Arrival(6, 0).key
    for now_ns in (1, 2, 3):
        side.packet(Arrival(6, 0), now_ns)
    if how == "evicted":
        side.packet(Arrival(7, 0), 4)
        side.packet(Arrival(8, 0), 5)
    elif how == "resized":
        side.cache.resize(5)
    else:
        side.set(key, FlowState.DENIED if how == "denied" else None, 4)
    assert not answered(side, 6)
    assert len(side.cache.table) == 0
    side.write_everything()
    assert side.stored.get(key, [None, 0])[1] == (0 if how == "forgotten" else 3)


def test_a_flow_that_only_the_table_answers_for_stays_cached(side: Side) -> None:
    """It counts as used when it is collected."""
    for now_ns in (1, 2):
        side.packet(Arrival(6, 0), now_ns)
    side.packet(Arrival(7, 0), 3)
    assert answered(side, 6)
    side.write_everything()
    side.packet(Arrival(8, 0), 4)
    assert answered(side, 6)


def test_a_flood_does_not_keep_the_writer_from_writing(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of a known flow come between any two looks at the table."""
    for now_ns in (1, 2):
        side.packet(Arrival(6, 0), now_ns)
    collect_some, rounds = FlowCache._collect_some, 0

    def flooded(cache: FlowCache) -> bool:
        nonlocal rounds
        rounds += 1
        assert rounds < 10
        assert answered(side, 6)
        return collect_some(cache)

    monkeypatch.setattr(FlowCache, "_collect_some", flooded)
    assert answered(side, 6)
    side.write_everything()
    side.write_everything()
    assert side.stored[Arrival(6, 0).key][1] + side.cache.table.collect(Arrival(6, 0).key)[0] == 3 + rounds


def test_a_table_that_is_too_small_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="flows"):
        FlowCache(0, Census({}, 0, lambda _source: (0, 0)), compiled=True)
