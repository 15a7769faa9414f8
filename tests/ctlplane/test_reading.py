"""What the readers share: the histogram against a sorted list, its slow twin."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from glacic.config.model import Action, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.reading import Holder, Latency, Rules, reasons, tally
from glacic.firewall import claims
from glacic.learning.cache import TABLE_STATES, FlowCache
from glacic.learning.census import Census
from glacic.learning.engine import Engine
from glacic.learning.flow import Why


@given(st.lists(st.lists(st.integers(0, 10**10), max_size=40), min_size=1, max_size=3))
def test_percentiles_are_those_of_a_sorted_list_to_an_eighth(parts: list[list[int]]) -> None:
    latencies = [Latency() for _ in parts]
    for latency, durations in zip(latencies, parts, strict=True):
        for duration in durations:
            latency.add(duration)
    summary = Latency.summary(latencies)
    durations = sorted(duration for part in parts for duration in part)
    if not durations:
        assert summary == {"p50": 0, "p99": 0, "max": 0}
        return
    assert summary["max"] == round(durations[-1] / 1000, 1)
    for name, part in (("p50", 0.50), ("p99", 0.99)):
        rank = next(at for at in range(len(durations)) if at + 1 >= part * len(durations))
        exact = durations[rank] / 1000
        assert exact - 0.06 <= summary[name] <= exact * 1.125 + 0.06


def test_reasons_are_counted_by_their_phrase() -> None:
    assert tally(Counter({Why.PENDING: 2})) == {"pending": 2}


@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 10**10), st.integers(0, (1 << 63) - 1)), max_size=60))
def test_what_a_compiled_reader_has_added_up_is_read_as_its_own(durations: list[int]) -> None:
    own = Latency()
    for duration in durations:
        own.add(duration)
    assert max(own._steps, default=0) < 512  # LATENCY_STEPS in glacic/native/road.h
    copied = Latency(dict(own._steps), max(durations, default=0))
    assert Latency.summary([copied]) == Latency.summary([own])


def test_the_counters_of_a_compiled_reader_are_reasons() -> None:
    """By state; the first is "none", which is what Python was asked."""
    assert reasons((7, 1, 2, 3, 4)) == {Why.PENDING: 1, Why.CACHED_ALLOW: 2, Why.DENIED: 3, Why.IGNORED: 4}
    assert reasons((7, 0, 0, 0, 0)) == {}
    assert set(TABLE_STATES.values()) == {1, 2, 3, 4}
    assert {str(state): number for state, number in TABLE_STATES.items()} == {
        "pending": 1,
        "allowed": 2,
        "denied": 3,
        "ignored": 4,
    }


class TestAHolder:
    """Hands its rules to the compiled readers in the same moment."""

    POLICIES = (
        LearningPolicy(name="lan_wan", number=2),
        LearningPolicy(name="guest_wan", number=70, action=Action.REJECT, granularity=Granularity.DESTINATION),
        LearningPolicy(name="vpn_wan", number=3, identity=Identity.IP),
    )
    MAC, ADDRESS, SERVER = b"\2\0\0\0\0\1", bytes([10, 0, 0, 1]), bytes([192, 0, 2, 1])
    SYN = (
        bytes.fromhex("4500 0028 0001 0000 4006 0000")  # IPv4, 40 bytes, TCP
        + ADDRESS
        + SERVER
        + bytes.fromhex("9c40 0050 00000000 00000000 5002 0000 0000 0000")  # ports 40000, 80; SYN
    )

    @staticmethod
    def rules(*policies: LearningPolicy, cache: FlowCache | None = None, packet_window: int = 0) -> Rules:
        cache = cache or FlowCache(10, Census({}, 0, lambda _source: (0, 0)))
        engine = SimpleNamespace(policies={policy.number: policy for policy in policies}, cache=cache)
        return Rules(engine=cast(Engine, engine), highest_number=70, packet_window=packet_window)

    def state(self, holder: Holder, number: int, mac: bytes | None = MAC) -> int:
        assert holder.compiled is not None
        return int(holder.compiled.state(claims.mark_of(number), self.SYN, mac, 1))

    def put(self, rules: Rules, name: str, source: bytes, destination: bytes = b"") -> None:
        assert rules.engine.cache.table is not None
        rules.engine.cache.table.put((name, source, 6, 80, destination), None, 2, (self.ADDRESS,))

    def test_with_what_each_policy_goes_by(self) -> None:
        rules = self.rules(*self.POLICIES)
        holder = Holder(rules)
        self.put(rules, "lan_wan", self.MAC)
        self.put(rules, "guest_wan", self.MAC, self.SERVER)
        self.put(rules, "vpn_wan", self.ADDRESS)
        assert [self.state(holder, number) for number in (2, 70, 3, 4)] == [2, 2, 2, 0]

    def test_the_new_ones_for_the_old(self) -> None:
        old, other = self.rules(*self.POLICIES), self.rules(*self.POLICIES[1:])
        holder = Holder(old)
        self.put(old, "lan_wan", self.MAC)
        holder.rules = other
        assert holder.engine is other.engine
        assert self.state(holder, 2) == 0
        holder.rules = old
        assert self.state(holder, 2) == 2

    def test_or_nothing_where_the_cache_has_no_table(self) -> None:
        old = self.rules(*self.POLICIES)
        holder = Holder(old)
        self.put(old, "lan_wan", self.MAC)
        holder.rules = self.rules(*self.POLICIES, cache=FlowCache(10, Census({}, 0, lambda _: (0, 0)), compiled=False))
        assert self.state(holder, 2) == 0
