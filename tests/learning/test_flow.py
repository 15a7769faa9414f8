"""Which times move when the clock is set: those that the old clock gave."""

from __future__ import annotations

import pytest

from glacic.learning.flow import Jump


@pytest.mark.parametrize(
    ("jump", "moving", "staying"),
    [
        (Jump(by_ns=100, now_ns=150), (0, 49, 50), (51, 149, 151)),  # 50 -> 150: what is later than 50 was right before
        (Jump(by_ns=-100, now_ns=50), (51, 150, 9999), (0, 49, 50)),  # 150 -> 50: what is not in the future may stay
    ],
    ids=["forward", "back"],
)
def test_a_jump_moves(jump: Jump, moving: tuple[int, ...], staying: tuple[int, ...]) -> None:
    assert all(jump.moves(time_ns) for time_ns in moving)
    assert not any(jump.moves(time_ns) for time_ns in staying)
