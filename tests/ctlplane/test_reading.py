"""What the readers share: the histogram against a sorted list, its slow twin."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane.reading import Latency, tally
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
