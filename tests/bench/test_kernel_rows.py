"""Rows about the kernel, the log path and the rule path: what is made of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest

from bench import lanes
from bench.lanes import Lane, Sent
from bench.rows import kernel, logpath, opensnitch, rulepath
from glacic.lab.net import Host


def lane(name: str) -> Lane:
    host = Host(name, name)  # never made
    return Lane(name, host, host, host)


def test_lanes_take_turns_and_each_slice_is_numbered() -> None:
    seen: list[tuple[str, int]] = []

    def send(one: Lane, part: int) -> Sent:
        seen.append((one.name, part))
        return Sent(100, 2.0 if one.name == "a" else 4.0, 1.0)

    assert lanes.interleaved([lane("a"), lane("b")], send, 2) == [[50.0, 50.0], [25.0, 25.0]]
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]


def test_a_slice_in_which_others_had_the_core_is_sent_again() -> None:
    slices = iter([Sent(1, 1.0, 0.5), Sent(2, 1.0, 0.7), Sent(3, 1.0, 0.99), Sent(4, 1.0, 1.0)])
    assert lanes.interleaved([lane("a")], lambda _, __: next(slices), 1) == [[3.0]]


def test_on_a_machine_that_is_never_quiet_the_best_slice_counts() -> None:
    tried = [Sent(n, 1.0, n / 100) for n in range(lanes.TRIES)]
    slices = iter(tried)
    assert lanes.interleaved([lane("a")], lambda _, __: next(slices), 1) == [[float(lanes.TRIES - 1)]]


def test_a_rounds_value_is_the_median_of_its_slices() -> None:
    rates = iter([9.0, 1.0, 2.0, 3.0, 10.0, 20.0, 30.0])  # the first warms up
    values = kernel._rounds([lane("a")], lambda _, __: Sent(int(next(rates)), 1.0, 1.0), 2, 3)
    assert values == {"a": [2.0, 20.0]}


@pytest.mark.parametrize(("ours", "met"), [(97.0, True), (96.0, False)])
def test_the_kernel_rows_are_judged_by_the_ratio_to_the_static_set(ours: float, met: bool) -> None:
    values = {kernel.INLINE: [ours], kernel.STATIC: [100.0]}
    row = kernel._against_static("name", "what", values, "packets/s")
    assert row.met is met
    assert row.ratio == (ours / 100,)
    assert row.ratio_of.startswith(f"{kernel.INLINE} / {kernel.STATIC}")


class Reader:
    """Takes so many packets a second, and no more."""

    def __init__(self, most: float, sender: float = 1e9) -> None:
        self.most, self.sender = most, sender
        self.tried: list[float] = []

    def holds(self, rate: float) -> float | None:
        self.tried.append(rate)
        return min(rate, self.sender) if min(rate, self.sender) <= self.most else None


@pytest.mark.parametrize(
    ("most", "first", "found"),
    [(1000.0, 100.0, 800.0), (90.0, 100.0, 50.0), (100.0, 100.0, 100.0)],
    ids=["upwards", "downwards", "where it began"],
)
def test_the_highest_rate_that_holds_is_found_from_both_sides(most: float, first: float, found: float) -> None:
    assert logpath.highest_rate(Reader(most).holds, first, 2.0) == found


def test_above_what_the_sender_can_give_nothing_is_tried() -> None:
    reader = Reader(1e9, sender=300)
    assert logpath.highest_rate(reader.holds, 100, 2.0) == 300
    assert reader.tried == [100, 200, 400]


def test_the_log_row_compares_with_the_better_ulogd() -> None:
    rates = {name: [150_000.0] for name in logpath.NAMES} | {logpath.TUNED: [200_000.0], logpath.GLACIC: [300_000.0]}
    row = logpath._row(rates, {name: [1.0] for name in logpath.NAMES})
    assert row.ratio == (1.5,)
    assert row.ratio_of == f"{logpath.GLACIC} / {logpath.TUNED}"
    assert row.met
    slow = logpath._row(rates | {logpath.GLACIC: [199_000.0]}, {name: [1.0] for name in logpath.NAMES})
    assert slow.met is False


def test_fresh_flows_never_come_twice() -> None:
    flows = list(islice(rulepath._fresh(), 70_000))
    assert len(set(flows)) == 70_000
    assert all(1 <= flow[3] <= 65_535 for flow in flows)


def test_adding_ends_when_the_time_is_over_and_adds_one_at_least() -> None:
    added: list[Sequence[object]] = []
    flows = list(islice(rulepath._fresh(), 3))
    assert rulepath._each(added.append, [flows, flows], until=0.0) == 1
    assert rulepath._each(added.append, [flows, flows], until=1e12) == 2
    assert len(added) == 3


def test_what_a_daemon_holds_a_connection_for_is_what_it_takes_more_than_unasked() -> None:
    took = {opensnitch.OPENSNITCH: 600.0, opensnitch.GLACIC: 100.0, opensnitch.NOBODY: 20.0}
    said = {name: [{"p50_us": took.get(name, 50.0), "p99_us": 1.0}] for name in opensnitch.NAMES}
    row = opensnitch._verdict_row(said)
    assert f"{opensnitch.OPENSNITCH} 580 us" in row.note
    assert f"{opensnitch.GLACIC} 80 us" in row.note
    assert row.ratio == (100 / 600,)
