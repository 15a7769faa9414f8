"""The token bucket: a burst at once, then the rate, and never more than a burst saved up."""

from __future__ import annotations

from glacic.ctlplane.pace import LONGEST_S, Bucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(2, 5, clock)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now = 1.0
    assert [bucket.take() for _ in range(4)] == [True, True, False, False]
    clock.now = 1000.0
    assert sum(bucket.take() for _ in range(100)) == 5


def test_on_credit_it_says_how_long_to_wait() -> None:
    clock = Clock()
    bucket = Bucket(2, 1, clock)
    assert [bucket.owe() for _ in range(3)] == [0.0, 0.5, 1.0]
    clock.now = 1.5
    assert bucket.owe() == 0.0
    assert bucket.owe(100) == LONGEST_S
    clock.now += 1 + LONGEST_S
    assert bucket.owe() == 0.0
