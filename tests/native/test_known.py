"""The filter in front of the database: its "no" is certain, whatever was put into it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.native import road

ADDRESS = st.one_of(*(st.binary(min_size=size, max_size=size) for size in (4, 6, 16)))
KEY = st.tuples(
    st.text(max_size=300),
    ADDRESS,
    st.integers(0, 255),
    st.integers(0, 65535),
    st.one_of(st.just(b""), st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
)


def known(keys: int) -> Any:
    assert road is not None, "the compiled part is not built: make setup, or tools/native"
    return road.Known(keys)


@given(st.lists(KEY, max_size=50), st.integers(0, 10))
def test_what_was_added_may_be_there_also_where_it_is_too_small(keys: list[tuple[Any, ...]], size: int) -> None:
    filled = known(size)
    for key in keys:
        filled.add(key)
    assert all(filled.may_have(key) for key in keys)


def test_of_what_was_not_added_it_denies_nearly_all() -> None:
    filled = known(20_000)
    for number in range(20_000):
        filled.add(("lan_wan", number.to_bytes(6, "big"), 6, 443, b""))
    wrong = sum(filled.may_have(("lan_wan", number.to_bytes(6, "big"), 17, 443, b"")) for number in range(20_000))
    assert wrong < 400  # 2 in 100; it is made for 1 in 500


def test_every_part_of_a_key_counts() -> None:
    key = ("lan_wan", b"\2\0\0\0\0\1", 6, 443, b"")
    others = [
        ("lan_war", *key[1:]),
        (key[0], b"\2\0\0\0\0\2", *key[2:]),
        (*key[:2], 17, *key[3:]),
        (*key[:3], 444, b""),
        (*key[:4], b"\x0a\0\0\1"),
    ]
    filled = known(1000)
    filled.add(key)
    assert filled.may_have(key)
    assert not any(filled.may_have(other) for other in others)


@pytest.mark.parametrize("key", [None, (), ("a", b"", 1), ("a", "b", 1, 1, b""), ["a", b"", 1, 1, b""]])
def test_what_is_no_key_is_refused(key: Any) -> None:
    filled = known(10)
    with pytest.raises(TypeError):
        filled.add(key)
    with pytest.raises(TypeError):
        filled.may_have(key)
