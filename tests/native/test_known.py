"""The filter of keys against a set: "no" is always right, "yes" nearly."""

from __future__ import annotations

import random
import tracemalloc
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic import native
from glacic.learning.flow import FlowKey

from .conftest import (
    NOT_BUILT,
)

keys = st.builds(
    FlowKey,
    st.sampled_from(["lan_wan", "DROP_INPUT", "", "ö", "x" * 300, "x" * 301, "a\0b"]),
    st.one_of(st.sampled_from([b"", bytes(4), bytes(6), bytes(16)]), st.binary(max_size=20)),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.sampled_from([b"", bytes(4), bytes(16), b"\1" * 16]),
)


@given(st.lists(keys, max_size=200), st.sampled_from([0, 1, 100, 10_000]))
def test_what_was_added_it_may_have(added: list[FlowKey], made_for: int) -> None:
    """Also when it has more than it was made for, and whatever kind of tuple asks."""
    assert native.road is not None, NOT_BUILT
    known = native.road.Known(made_for)
    for key in added:
        known.add(tuple(key))
    assert all(known.may_have(key) for key in added)


def any_key(choose: random.Random) -> FlowKey:
    return FlowKey("lan_wan", choose.randbytes(6), 6, choose.randrange(65536), b"")


def test_what_was_not_added_it_hardly_ever_has(road: ModuleType) -> None:
    choose = random.Random(1)
    known = road.Known(20_000)
    assert not any(known.may_have(any_key(choose)) for _ in range(1000))
    added = {any_key(choose) for _ in range(20_000)}
    for key in added:
        known.add(key)
    others = [key for key in (any_key(choose) for _ in range(20_000)) if key not in added]
    assert sum(known.may_have(key) for key in others) < len(others) / 100


def test_keys_in_order_are_told_apart_as_well(road: ModuleType) -> None:
    """As a scan makes them: of a MAC every port, of a port every MAC."""
    known = road.Known(20_000)
    for number in range(10_000):
        known.add(("lan_wan", bytes(6), 6, number, b""))
        known.add(("lan_wan", number.to_bytes(6, "big"), 17, 53, b""))
    wrong = sum(known.may_have(("lan_wan", bytes(6), 6, number, b"")) for number in range(10_000, 20_000))
    wrong += sum(
        known.may_have(("lan_wan", number.to_bytes(6, "big"), 17, 53, b"")) for number in range(10_000, 20_000)
    )
    assert wrong < 200


@pytest.mark.parametrize(
    "key",
    [
        None,
        ["p", b"", 6, 80, b""],
        (),
        ("p", b"", 6, 80),
        ("p", b"", 6, 80, b"", b""),
        (5, b"", 6, 80, b""),
        ("p", "text", 6, 80, b""),
        ("p", b"", 256, 80, b""),
        ("p", b"", 6, None, b""),
        ("p", b"", 6, 65_536 + 80, b""),
        ("p", b"", 6, -1, b""),
        ("\ud800", b"", 6, 80, b""),
    ],
)
def test_what_is_no_key_is_refused(road: ModuleType, key: Any) -> None:
    known = road.Known(10)
    for call in (known.add, known.may_have):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            call(key)


@pytest.mark.parametrize("made_for", [-1, (1 << 32) + 1, 1 << 64, None, "5", 1.5])
def test_it_is_made_for_a_number_of_keys(road: ModuleType, made_for: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        road.Known(made_for)


def test_nothing_is_kept_of_a_key(road: ModuleType) -> None:
    known = road.Known(1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            known.add(("p", number.to_bytes(6, "big"), 6, 80, b""))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5000
