"""The compiled rules: which policy asks, and under which key its packet is looked up."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic import native
from glacic.firewall import claims

from .conftest import (
    ALLOWED,
    CLIENT,
    DENIED,
    GUESTS,
    IGNORED,
    LAN,
    MAC,
    MARKS,
    NOT_BUILT,
    PENDING,
    POLICIES,
    SERVER,
    SERVER6,
    SETTINGS,
    TCP,
    UDP,
    UNKNOWN,
    VPN,
    Asked,
    ipv4,
    ipv6,
    syn,
    tcp,
    udp,
)


def numbered(number: int) -> tuple[int, str, bool, bool, bool]:
    return (number, f"p{number}", False, False, False)


def state_of(number: int) -> int:
    return 1 + number % 4


@pytest.fixture(scope="module")
def all_numbers() -> Asked:
    """As many policies as there can be, and a flow of each to port 80."""
    assert native.road is not None, NOT_BUILT
    asked = Asked(native.road, claims.MAX_POLICIES)
    for number in range(1, claims.MAX_POLICIES + 1):
        asked.table.put((f"p{number}", CLIENT, TCP, 80, b""), None, state_of(number), ())
    return asked


def set_up_to(asked: Asked, highest: int) -> None:
    asked.set(tuple(numbered(number) for number in range(1, highest + 1)), highest)


@pytest.mark.parametrize("highest", [claims.MAX_POLICIES, 64, claims.LOW_NUMBERS, 1])
def test_every_number_is_read_as_claims_says(all_numbers: Asked, highest: int) -> None:
    """Also where fewer policies make the field narrower, and a mark of the time before names another."""
    set_up_to(all_numbers, highest)
    packet = syn(80)
    for number in range(1, claims.MAX_POLICIES + 1):
        mark = claims.mark_of(number)
        named = claims.number_in(mark, highest)
        assert all_numbers.rules.state(mark, packet, None, 1) == (state_of(named) if 0 < named <= highest else 0)


@given(st.integers(0, 0xFFFF_FFFF), st.sampled_from([claims.MAX_POLICIES, 200, 64, 63, 5]))
def test_any_mark_is_read_as_claims_says(mark: int, highest: int) -> None:
    assert native.road is not None, NOT_BUILT
    asked = Asked(native.road)
    named = claims.number_in(mark, highest)
    present = named if 0 < named <= highest else 1
    asked.set((numbered(present),), highest)
    asked.table.put((f"p{present}", CLIENT, TCP, 80, b""), None, ALLOWED, ())
    assert asked.rules.state(mark, syn(80), None, 1) == (ALLOWED if named == present else 0)


class TestAFlow:
    @pytest.mark.parametrize(
        ("number", "key", "mac"),
        [
            (LAN, ("lan_wan", MAC, TCP, 80, b""), MAC),
            (LAN, ("lan_wan", CLIENT, TCP, 80, b""), None),
            (GUESTS, ("guest_wan", MAC, TCP, 80, SERVER), MAC),
            (GUESTS, ("guest_wan", CLIENT, TCP, 80, SERVER), None),
            (VPN, ("vpn_wan", CLIENT, TCP, 80, b""), MAC),
            (VPN, ("vpn_wan", CLIENT, TCP, 80, b""), None),
        ],
    )
    def test_is_found_by_what_its_policy_goes_by(
        self, asked: Asked, number: int, key: tuple[str, bytes, int, int, bytes], mac: bytes | None
    ) -> None:
        asked.table.put(key, None, DENIED, (CLIENT,))
        found = {
            (other, given): asked.rules.state(MARKS[other], syn(80), given, 1)
            for other in MARKS
            for given in (MAC, None)
        }
        expected = {(number, given) for given in ((MAC, None) if number == VPN else (mac,))}
        assert {case for case, state in found.items() if state} == expected
        assert found[number, mac] == DENIED

    def test_of_ipv6_and_udp_too(self, asked: Asked) -> None:
        packet = ipv6(UDP, udp(53))
        asked.table.put(("guest_wan", MAC, UDP, 53, SERVER6), None, IGNORED, (packet[8:24],))
        assert asked.rules.state(MARKS[GUESTS], packet, MAC, 1) == IGNORED

    @pytest.mark.parametrize("mac", [b"", MAC[:5], MAC + b"\0", bytes(8)])
    def test_is_not_looked_for_by_what_is_no_mac(self, asked: Asked, mac: bytes) -> None:
        asked.table.put(("lan_wan", MAC, TCP, 80, b""), None, ALLOWED, (CLIENT,))
        asked.table.put(("lan_wan", CLIENT, TCP, 80, b""), None, ALLOWED, (CLIENT,))
        assert asked.rules.state(MARKS[LAN], syn(80), mac, 1) == 0

    @pytest.mark.parametrize("mark", [0, UNKNOWN, claims.ASKED, MARKS[VPN] & ~claims.ASKED, claims.mark_of(64)])
    def test_is_nobody_s_where_no_policy_asked(self, asked: Asked, mark: int) -> None:
        asked.know(80, ALLOWED)
        assert asked.rules.state(mark, syn(80), None, 1) == 0

    @pytest.mark.parametrize("payload", [b"", b"\x45", syn(80)[:30], ipv4(TCP, tcp(80), fragment=1), ipv4(1, bytes(8))])
    def test_is_python_s_where_its_packet_is_not_plain(self, asked: Asked, payload: bytes) -> None:
        asked.know(80, ALLOWED)
        asked.know(0, ALLOWED)
        assert asked.rules.state(MARKS[VPN], payload, None, 1) == 0


class TestNewRules:
    def test_without_any_every_packet_is_python_s(self, road: ModuleType, asked: Asked) -> None:
        asked.know(80, ALLOWED)
        assert road.Rules().state(MARKS[VPN], syn(80), None, 1) == 0
        asked.rules.clear()
        assert asked.rules.state(MARKS[VPN], syn(80), None, 1) == 0
        asked.set()
        assert asked.rules.state(MARKS[VPN], syn(80), None, 1) == ALLOWED

    def test_may_name_the_same_policies_otherwise(self, asked: Asked) -> None:
        asked.know(80, ALLOWED)
        asked.set(((8, "vpn_wan", False, False, True), (VPN, "other", False, False, False)))
        assert asked.rules.state(claims.mark_of(8), syn(80), None, 1) == ALLOWED
        assert asked.rules.state(MARKS[VPN], syn(80), None, 1) == 0

    def test_may_have_two_of_a_name(self, asked: Asked) -> None:
        asked.set(((1, "DROP_INPUT", True, False, False), (2, "DROP_INPUT", False, False, False)))
        asked.table.put(("DROP_INPUT", CLIENT, TCP, 80, b""), None, PENDING, ())
        assert asked.rules.state(claims.mark_of(1), syn(80), MAC, 1) == 0
        assert asked.rules.state(claims.mark_of(2), syn(80), MAC, 1) == PENDING

    def test_may_have_another_table(self, road: ModuleType, asked: Asked) -> None:
        asked.know(80, ALLOWED)
        old, asked.table = asked.table, road.Table(5)
        before = sys.getrefcount(old)
        asked.set()
        assert sys.getrefcount(old) == before - 1
        assert asked.rules.state(MARKS[VPN], syn(80), None, 1) == 0

    @pytest.mark.parametrize("name", ["", "ö", "☃" * 40, "a\0b", "x" * 5000])
    def test_may_have_any_name(self, asked: Asked, name: str) -> None:
        asked.set(((1, name, False, False, False),))
        asked.table.put((name, CLIENT, TCP, 80, b""), None, ALLOWED, ())
        assert asked.rules.state(claims.mark_of(1), syn(80), None, 1) == ALLOWED


GOOD = {"highest_number": 9, "field": claims.field(9), **SETTINGS}


@pytest.mark.parametrize(
    ("policies", "settings"),
    [
        ([*POLICIES], {}),
        ((None,), {}),
        ((list(POLICIES[0]),), {}),
        (((),), {}),
        ((POLICIES[0][:4],), {}),
        (((3, b"lan_wan", True, False, False),), {}),
        (((3, "\ud800", True, False, False),), {}),
        (((0, "zero", True, False, False),), {}),
        (((-1, "negative", True, False, False),), {}),
        (((10, "above the highest", True, False, False),), {}),
        ((((1 << 32) + 3, "once around", True, False, False),), {}),
        (((3.0, "no integer", True, False, False),), {}),
        ((POLICIES[0], (4, None, True, False, False)), {}),
        ((POLICIES[0], (4, "whose truth nobody knows", NotImplemented, object, 5, 6)), {}),
        (POLICIES, {"highest_number": (1 << 16) + 1}),
        (POLICIES, {"highest_number": 2}),
        (POLICIES, {"highest_number": -1}),
        (POLICIES, {"highest_number": 1 << 32}),
        (POLICIES, {"number_low": 0}),
        (POLICIES, {"number_low": 1 << 32}),
        (POLICIES, {"field": -1}),
        (POLICIES, {"asked": "text"}),
        (POLICIES, {"reject": None}),
        (POLICIES, {"low_numbers": 1 << 40}),
        (POLICIES, {"more": 1}),
        (POLICIES, {"table": None}),
    ],
)
def test_what_is_wrong_leaves_the_old_rules_in_force(asked: Asked, policies: Any, settings: dict[str, Any]) -> None:
    asked.know(80, ALLOWED)
    before = sys.getrefcount(asked.table)
    arguments = {"table": asked.table, **GOOD, **settings}
    with pytest.raises((TypeError, ValueError, OverflowError)):
        asked.rules.set(arguments.pop("table"), policies, **arguments)
    del arguments
    after = sys.getrefcount(asked.table)
    assert after == before
    assert asked.rules.state(MARKS[VPN], syn(80), None, 1) == ALLOWED


@pytest.mark.parametrize(
    "arguments",
    [
        (-1, b"", None, 1),
        (1 << 32, b"", None, 1),
        (0, "text", None, 1),
        (0, b"", None, None),
        (0, b"", None),
        (0, None, None, 1),
    ],
)
def test_what_is_no_packet_is_refused(asked: Asked, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        asked.rules.state(*arguments)


def test_nothing_is_kept_of_rules_that_are_over(asked: Asked) -> None:
    """Good ones and wrong ones, ten thousand times."""
    many = tuple(numbered(number) for number in range(1, 40))
    wrong = ((*POLICIES, (99, "above the highest", True, False, False)), (*POLICIES, None), (*POLICIES, (4, "short")))

    def set_many(times: int) -> None:
        choose = random.Random(5)
        for _ in range(times):
            asked.set(many, 63)
            asked.set()
            with pytest.raises((TypeError, ValueError)):
                asked.set(choose.choice(wrong))
        gc.collect()

    set_many(10)
    references = [sys.getrefcount(thing) for thing in (asked.table, many[0][1], POLICIES[0][1], POLICIES[0])]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        set_many(3300)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000  # one `set` is some 2,000 bytes
    assert references == [sys.getrefcount(thing) for thing in (asked.table, many[0][1], POLICIES[0][1], POLICIES[0])]
