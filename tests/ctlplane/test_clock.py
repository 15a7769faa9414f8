"""A clock that is set is noticed; one that is corrected, or a machine that slept, is not."""

from __future__ import annotations

from glacic.ctlplane.clock import LEAST_NS, Jumps, since_boot_ns

YEAR_NS = 365 * 86_400 * 1_000_000_000


def test_how_far_the_clock_was_set() -> None:
    wall, steady = [1000 * YEAR_NS], [5]
    jumps = Jumps(lambda: wall[0], lambda: steady[0])
    assert jumps.jumped_ns() == 0
    wall[0] += 3600 * 10**9  # an hour goes by, asleep or not
    steady[0] += 3600 * 10**9
    assert jumps.jumped_ns() == 0
    wall[0] -= 3 * YEAR_NS
    assert jumps.jumped_ns() == -3 * YEAR_NS
    assert jumps.jumped_ns() == 0
    wall[0] += LEAST_NS
    assert jumps.jumped_ns() == LEAST_NS


def test_small_corrections_do_not_add_up() -> None:
    wall = [0]
    jumps = Jumps(lambda: wall[0], lambda: 0)
    for _ in range(100):
        wall[0] += LEAST_NS // 2
        assert jumps.jumped_ns() == 0


def test_of_this_machine() -> None:
    assert Jumps().jumped_ns() == 0
    assert 0 < since_boot_ns() <= since_boot_ns()
