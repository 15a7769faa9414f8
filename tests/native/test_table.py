"""The table of flows against a dictionary, its slow twin: nothing is lost, nothing counted twice, nothing kept."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic import native

from .conftest import (
    ALLOWED,
    CLIENT,
    DENIED,
    GUESTS,
    LAN,
    MAC,
    MARKS,
    NOT_BUILT,
    PENDING,
    SERVER,
    STATES,
    TCP,
    VPN,
    Asked,
    syn,
)

Key = tuple[str, bytes, int, int, bytes]


class Entry:
    """What the cache puts in."""


@dataclass
class Known:
    """What the twin knows of a flow. addresses: the newest four."""

    entry: Entry
    state: int
    addresses: tuple[bytes, ...]
    packets: int = 0
    last_seen_ns: int = 0


def drained(table: Any) -> list[tuple[Entry, int, int]]:
    """All that it has counted."""
    found = []
    while rows := table.drain():
        assert len(rows) <= 64
        found += rows
    return found


class Arrival:
    """A packet, and the key of its flow under three policies."""

    def __init__(self, number: int) -> None:
        self.source = bytes([10, 0, number % 3, number >> 3 & 255])
        self.mac = bytes([2, 0, 0, 0, 0, number & 3])
        port = 1 + number // 7
        self.payload = syn(port, self.source)
        self.policy = (LAN, GUESTS, VPN)[number % 3]
        self.by_mac = self.policy != VPN
        name = {LAN: "lan_wan", GUESTS: "guest_wan", VPN: "vpn_wan"}[self.policy]
        destination = SERVER if self.policy == GUESTS else b""
        self.key: Key = (name, self.mac if self.by_mac else self.source, TCP, port, destination)


class Twins:
    """A table and its slow twin. Every step makes the same change to both, and compares what they say."""

    def __init__(self, road: ModuleType, capacity: int) -> None:
        self.asked = Asked(road, capacity)
        self.table = self.asked.table
        self.capacity = capacity
        self.known: OrderedDict[Key, Known] = OrderedDict()
        self.now_ns = self.hits = 0

    def put(self, key: Key, state: int, addresses: tuple[bytes, ...]) -> None:
        entry = Entry()
        self.table.put(key, entry, state, addresses)
        if key in self.known:
            known = self.known[key]
            known.entry, known.state, known.addresses = entry, state, addresses[-4:]
        elif len(self.known) < self.capacity:
            self.known[key] = Known(entry, state, addresses[-4:])

    def hit(self, arrival: Arrival) -> None:
        self.now_ns += 1
        found = self.asked.rules.state(MARKS[arrival.policy], arrival.payload, arrival.mac, self.now_ns)
        known = self.known.get(arrival.key)
        if known is None or (arrival.by_mac and arrival.source not in known.addresses):
            assert found == 0
            return
        assert found == known.state
        known.packets += 1
        known.last_seen_ns = self.now_ns
        self.hits += 1

    def counted(self, key: Key, *, remove: bool) -> None:
        packets, last_seen_ns = (self.table.remove if remove else self.table.collect)(key)
        known = self.known.get(key)
        assert packets == (known.packets if known else 0)
        if known and packets:
            assert last_seen_ns == known.last_seen_ns
            known.packets = 0
        if remove:
            self.known.pop(key, None)

    def drain(self) -> None:
        found = [(id(entry), packets, last_seen_ns) for entry, packets, last_seen_ns in drained(self.table)]
        assert sorted(found) == sorted(
            (id(known.entry), known.packets, known.last_seen_ns) for known in self.known.values() if known.packets
        )
        for known in self.known.values():
            known.packets = 0

    def resize(self, capacity: int) -> None:
        if self.known:
            with pytest.raises(RuntimeError, match="empty"):
                self.table.resize(capacity)
            return
        self.table.resize(capacity)
        self.capacity = capacity

    def empty(self) -> None:
        for key in list(self.known):
            self.counted(key, remove=True)

    def check(self) -> None:
        assert len(self.table) == len(self.known) <= self.capacity
        assert self.table.hits == self.hits


def step(twins: Twins, choose: random.Random, arrivals: list[Arrival]) -> None:
    """One thing of those that can happen, packets most often."""
    arrival = choose.choice(arrivals)
    kind = choose.random()
    if kind < 0.55:
        twins.hit(arrival)
    elif kind < 0.80:
        others = tuple(bytes([10, 0, last, choose.randrange(32)]) for last in range(choose.randrange(7)))
        addresses = (*others, arrival.source) if choose.random() < 0.7 else others
        twins.put(arrival.key, choose.choice(STATES), addresses if arrival.by_mac else ())
    elif kind < 0.90:
        twins.counted(arrival.key, remove=True)
    elif kind < 0.96:
        twins.counted(arrival.key, remove=False)
    elif choose.random() < 10 / (10 + twins.capacity):
        twins.empty()
        twins.resize(choose.choice([twins.capacity, max(1, twins.capacity - 1), twins.capacity + 1]))
    else:
        twins.drain()
        if twins.known:
            twins.resize(1)  # refused


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 5, 6, 7, 8, 1000])
def test_after_any_steps_it_is_as_its_slow_twin(road: ModuleType, capacity: int) -> None:
    choose = random.Random(capacity)
    twins = Twins(road, capacity)
    arrivals = [Arrival(number) for number in range(max(2 * capacity, 12))]
    for _ in range(10_000 + 50 * capacity):
        step(twins, choose, arrivals)
        twins.check()
    twins.drain()
    twins.empty()
    twins.check()
    assert twins.hits > 500


steps = st.lists(
    st.tuples(
        st.sampled_from(["hit", "hit", "put", "remove", "collect", "drain", "empty", "resize"]),
        st.integers(0, 11),
        st.sampled_from(STATES),
    ),
    max_size=60,
)


@given(st.integers(1, 5), steps)
def test_after_a_few_steps_it_is_as_its_slow_twin(capacity: int, steps: list[tuple[str, int, int]]) -> None:
    assert native.road is not None, NOT_BUILT
    twins = Twins(native.road, capacity)
    for name, number, state in steps:
        arrival = Arrival(number)
        actions: dict[str, Callable[[], Any]] = {
            "hit": lambda arrival=arrival: twins.hit(arrival),
            "put": lambda arrival=arrival, state=state: twins.put(arrival.key, state, (arrival.source,)),
            "remove": lambda arrival=arrival: twins.counted(arrival.key, remove=True),
            "collect": lambda arrival=arrival: twins.counted(arrival.key, remove=False),
            "drain": twins.drain,
            "empty": twins.empty,
            "resize": lambda number=number: twins.resize(number + 1),
        }
        actions[name]()
        twins.check()
    twins.drain()


def test_no_packet_is_lost_or_doubled_whoever_collects_it(road: ModuleType) -> None:
    """Counted by whoever answers, collected by drain, collect, remove in any order: the sums are the same."""
    choose = random.Random(1)
    asked = Asked(road, 50)
    arrivals = [arrival for arrival in map(Arrival, range(300)) if not arrival.by_mac]
    answered = collected = 0
    for number in range(30_000):
        arrival = choose.choice(arrivals)
        answered += asked.rules.state(MARKS[VPN], arrival.payload, None, number) != 0
        if not number % 3:
            asked.table.put(arrival.key, Entry(), ALLOWED, ())
        if not number % 7:
            collected += asked.table.remove(choose.choice(arrivals).key)[0]
        if not number % 11:
            collected += asked.table.collect(choose.choice(arrivals).key)[0]
        if not number % 97:
            collected += sum(packets for _, packets, _ in drained(asked.table))
    collected += sum(packets for _, packets, _ in drained(asked.table))
    assert answered == collected == asked.table.hits > 5000


def test_who_collects_is_not_kept_by_a_flood(road: ModuleType) -> None:
    """Packets go on coming while what they were is collected."""
    asked = Asked(road)
    for port in range(1, 81):
        asked.know(port, ALLOWED)
    rounds = collected = sent = 0

    def flood() -> None:
        nonlocal sent
        for port in range(1, 81):
            sent += asked.rules.state(MARKS[VPN], syn(port), None, port) == ALLOWED

    flood()
    while rows := asked.table.drain():
        collected += sum(packets for _, packets, _ in rows)
        rounds += 1
        flood()
        assert rounds <= 2
    assert 80 <= collected < sent
    assert collected + sum(packets for _, packets, _ in drained(asked.table)) == sent


def test_what_was_counted_first_is_collected_first(road: ModuleType) -> None:
    asked = Asked(road, 4)
    entries = {port: Entry() for port in range(1, 5)}
    for port, entry in entries.items():
        asked.table.put(("vpn_wan", CLIENT, TCP, port, b""), entry, ALLOWED, ())
    for order in ([3, 1, 4, 2], [2, 3], [4, 1, 2, 3]):  # around the ring
        for port in order:
            asked.rules.state(MARKS[VPN], syn(port), None, 1)
        assert [entry for entry, _, _ in drained(asked.table)] == [entries[port] for port in order]


def test_of_many_addresses_the_newest_four_are_answered(asked: Asked) -> None:
    addresses = tuple(bytes([10, 0, 0, number]) for number in range(9))
    asked.table.put(("lan_wan", MAC, TCP, 80, b""), Entry(), DENIED, addresses)
    answered = [asked.rules.state(MARKS[LAN], syn(80, address), MAC, 1) for address in addresses]
    assert answered == [0] * 5 + [DENIED] * 4


def test_what_is_no_address_is_left_out(asked: Asked) -> None:
    addresses = (CLIENT, "text", None, bytes(17), bytearray(4), b"")
    asked.table.put(("lan_wan", MAC, TCP, 80, b""), Entry(), ALLOWED, addresses)
    assert asked.rules.state(MARKS[LAN], syn(80), MAC, 1) == ALLOWED


def test_an_address_of_one_family_is_not_the_other_s(asked: Asked) -> None:
    """The four bytes of an IPv4 address are not the first four of an IPv6 one."""
    asked.table.put(("lan_wan", MAC, TCP, 80, b""), Entry(), ALLOWED, (CLIENT + bytes(12),))
    assert asked.rules.state(MARKS[LAN], syn(80), MAC, 1) == 0


def test_keys_that_differ_anywhere_are_other_flows(road: ModuleType) -> None:
    table = road.Table(100)
    keys = [
        ("lan_wan", MAC, 6, 80, b""),
        ("lan_wa", MAC, 6, 80, b""),
        ("lan_wan", MAC[:5] + b"\2", 6, 80, b""),
        ("lan_wan", MAC[:4], 6, 80, b""),
        ("lan_wan", MAC + bytes(10), 6, 80, b""),
        ("lan_wan", MAC, 17, 80, b""),
        ("lan_wan", MAC, 6, 81, b""),
        ("lan_wan", MAC, 6, 80, bytes(4)),
        ("lan_wan", MAC, 6, 80, bytes(16)),
        ("lan_wan", b"", 6, 80, b""),
    ]
    for key in keys:
        table.put(key, Entry(), ALLOWED, ())
    assert len(table) == len(keys)
    for number, key in enumerate(keys, 1):
        table.remove(key)
        assert len(table) == len(keys) - number


def test_full_it_leaves_new_flows_to_python_and_keeps_what_it_has(road: ModuleType) -> None:
    asked = Asked(road, 2)
    for port in (1, 2, 3):
        asked.know(port, ALLOWED)
    asked.know(2, DENIED)
    assert [asked.rules.state(MARKS[VPN], syn(port), None, 1) for port in (1, 2, 3)] == [ALLOWED, DENIED, 0]
    asked.table.remove(("vpn_wan", CLIENT, TCP, 1, b""))
    asked.know(3, PENDING)
    assert [asked.rules.state(MARKS[VPN], syn(port), None, 1) for port in (1, 2, 3)] == [0, DENIED, PENDING]


class TestAnEntryIsLetGo:
    @pytest.fixture
    def entry(self) -> Entry:
        return Entry()

    @pytest.fixture
    def alive(self, entry: Entry) -> Callable[[], bool]:
        reference = weakref.ref(entry)
        return lambda: bool(gc.collect() is not None and reference() is not None)

    KEY = ("vpn_wan", CLIENT, TCP, 80, b"")

    def test_when_its_flow_is_removed(self, asked: Asked, entry: Entry) -> None:
        before = sys.getrefcount(entry)
        asked.table.put(self.KEY, entry, ALLOWED, ())
        assert sys.getrefcount(entry) == before + 1
        asked.table.collect(self.KEY)
        assert sys.getrefcount(entry) == before + 1
        asked.table.remove(self.KEY)
        assert sys.getrefcount(entry) == before

    def test_when_another_takes_its_place(self, asked: Asked, entry: Entry) -> None:
        before = sys.getrefcount(entry)
        for _ in range(10):
            asked.table.put(self.KEY, entry, ALLOWED, ())
        assert sys.getrefcount(entry) == before + 1
        asked.table.put(self.KEY, Entry(), ALLOWED, ())
        assert sys.getrefcount(entry) == before

    def test_when_what_was_drained_is(self, asked: Asked, entry: Entry) -> None:
        asked.table.put(self.KEY, entry, ALLOWED, ())
        before = sys.getrefcount(entry)
        for _ in range(10):
            asked.rules.state(MARKS[VPN], syn(80), None, 1)
            assert len(drained(asked.table)) == 1
        assert sys.getrefcount(entry) == before

    def test_when_the_table_is(self, road: ModuleType, entry: Entry) -> None:
        before = sys.getrefcount(entry)
        asked = Asked(road)
        for port in range(20):
            asked.table.put(("vpn_wan", CLIENT, TCP, port, b""), entry, ALLOWED, ())
        for port in range(5):
            asked.table.remove(("vpn_wan", CLIENT, TCP, port, b""))
        assert sys.getrefcount(entry) == before + 15
        del asked  # the rules held it too
        assert sys.getrefcount(entry) == before

    @pytest.mark.parametrize("wrong", [(KEY, 0, ()), (KEY, 5, ()), (("x",), 1, ()), (KEY, 1, [])])
    def test_when_it_was_not_taken(self, asked: Asked, entry: Entry, wrong: tuple[Any, Any, Any]) -> None:
        before = sys.getrefcount(entry)
        key, state, addresses = wrong
        with pytest.raises((ValueError, TypeError)):
            asked.table.put(key, entry, state, addresses)
        assert sys.getrefcount(entry) == before

    def test_and_may_use_the_table_as_it_goes(self, asked: Asked) -> None:
        """No lock is held while an entry ends."""
        table, key = asked.table, self.KEY

        class Last(Entry):
            def __del__(self) -> None:
                table.collect(key)
                seen.append(len(table))

        seen: list[int] = []
        table.put(key, Last(), ALLOWED, ())
        table.put(key, Last(), ALLOWED, ())
        table.remove(key)
        assert seen == [1, 0]


class TestWhatIsNoKey:
    @pytest.mark.parametrize(
        "key",
        [
            None,
            ["vpn_wan", CLIENT, 6, 80, b""],
            (),
            ("vpn_wan", CLIENT, 6, 80),
            ("vpn_wan", CLIENT, 6, 80, b"", b""),
            (b"vpn_wan", CLIENT, 6, 80, b""),
            ("vpn_wan", "10.0.0.1", 6, 80, b""),
            ("vpn_wan", bytearray(4), 6, 80, b""),
            ("vpn_wan", bytes(17), 6, 80, b""),
            ("vpn_wan", CLIENT, 6, 80, bytes(17)),
            ("vpn_wan", CLIENT, -1, 80, b""),
            ("vpn_wan", CLIENT, 256, 80, b""),
            ("vpn_wan", CLIENT, 6, -1, b""),
            ("vpn_wan", CLIENT, 6, 65536 + 80, b""),
            ("vpn_wan", CLIENT, 6, 80.0, b""),
            ("vpn_wan", CLIENT, 6, 1 << 80, b""),
        ],
    )
    def test_is_refused_and_taken_for_no_other(self, asked: Asked, key: Any) -> None:
        asked.know(80, ALLOWED)
        asked.rules.state(MARKS[VPN], syn(80), None, 1)
        for call in (asked.table.collect, asked.table.remove, lambda key: asked.table.put(key, Entry(), ALLOWED, ())):
            with pytest.raises((TypeError, ValueError, OverflowError)):
                call(key)
        assert len(asked.table) == 1
        assert asked.table.remove(("vpn_wan", CLIENT, TCP, 80, b"")) == (1, 1)


@pytest.mark.parametrize("capacity", [0, -1, (1 << 30) + 1, 1 << 64, 1.0, None, "5"])
def test_a_capacity_is_a_number_of_flows(road: ModuleType, capacity: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        road.Table(capacity)
    table = road.Table(1)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        table.resize(capacity)
    table.put(("p", CLIENT, 6, 80, b""), Entry(), ALLOWED, ())


def test_an_index_stays_short_whatever_counts_up_in_the_keys(road: ModuleType) -> None:
    """Ports, addresses and MACs in order, as a scan makes them: found as fast as any."""
    table = road.Table(1 << 14)
    for number in range(1 << 14):
        source = (b"\2\0\0\0" + number.to_bytes(2, "big"), bytes([10, 0]) + number.to_bytes(2, "big"))[number & 1]
        table.put(("p", source, 6, number, b""), None, ALLOWED, ())
    assert len(table) == 1 << 14
