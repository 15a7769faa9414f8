"""Counts, and how they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.probes import Packet
from faults.result import EITHER, PASS, STOP, Case, Count, Measured, load, save, together


@pytest.mark.parametrize(
    ("promised", "dropped", "lost", "wrong"), [(PASS, 0, 2, 0), (STOP, 2, 0, 1), (EITHER, 2, 0, 0)]
)
def test_what_an_unanswered_packet_is_depends_on_what_was_promised(
    promised: str, dropped: int, lost: int, wrong: int
) -> None:
    packets = [Packet("unknown", 1, 0.0, 0.1), Packet("unknown", 2, 0.0), Packet("unknown", 3, 0.0)]
    count = Count.of(promised, packets)
    assert (count.sent, count.answered, count.dropped, count.lost, count.wrong) == (3, 1, dropped, lost, wrong)


def measured(kernel: str) -> Measured:
    case = Case(
        setting='fail_mode = "open"',
        kernel=kernel,
        traffic={"learned": Count(PASS, 10, 10)},
        said={"worker ended": 1},
        status=("degraded: because", "running"),
        recovered_s=0.5,
        lost_flows=0,
        learned_before=7,
        numbers={"let in": "3"},
        broken=("all of it",),
    )
    return Measured("killed", "2026-01-31", "1.0", 12.5, (case,))


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    save(measured("here"), tmp_path)
    assert load(tmp_path / "killed.json") == measured("here")


def test_two_places_make_one() -> None:
    both = together([measured("here"), measured("there")])
    assert [case.kernel for case in both.cases] == ["here", "there"]
    assert both.seconds == 25.0
