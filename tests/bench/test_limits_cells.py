"""The table of limits: which cells, what counts as out of bounds, and that nothing is left out silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import limits_guest
from bench.limits_cells import CUBIC, KIB, MIB, TRAFFIC, WIDE, Cell, Measured, Told, bounds, cells, rows
from bench.rows import limits
from glacic.shaping.engine import DOWNLOAD, UPLOAD

FLOOD = next(traffic for traffic in TRAFFIC if traffic.name == "UDP flood")


def measured(steady: float, least: float = 1.0) -> Measured:
    return Measured(steady, first=1.2, wasted=0.1, again=0.05, least=least)


def cell(rate: int = MIB, engine: str = "nft") -> Cell:
    return Cell(engine, UPLOAD, rate, CUBIC)


def test_the_table_is_every_engine_direction_rate_and_kind_of_traffic_once() -> None:
    found = cells(limits.ENGINES)
    assert len(set(found)) == len(found) == 3 * 2 * 3 * 5
    names = {"TCP cubic", "TCP bbr", "UDP flood", "IPv4 and IPv6", "4 flows"}
    assert {one.traffic.name for one in found} == names
    assert {one.rate for one in found} == {50 * KIB, MIB, 20 * MIB}
    assert {one.direction for one in found} == {UPLOAD, DOWNLOAD}


@pytest.mark.parametrize(
    ("rate", "steady", "met"),
    [
        (50 * KIB, 0.899, False),
        (50 * KIB, 0.901, True),
        (50 * KIB, 1.099, True),
        (50 * KIB, 1.101, False),
        (MIB, 0.899, False),
        (MIB, 0.901, True),
        (MIB, 1.049, True),
        (MIB, 1.051, False),
        (20 * MIB, 1.051, False),
    ],
)
def test_a_slow_limit_may_be_a_tenth_too_much_and_others_a_twentieth(rate: int, steady: float, met: bool) -> None:
    summary = rows("limits", "what", {cell(rate): [measured(steady)]})[0]
    assert summary.met is met
    assert ("Missed: nft, upload," in summary.note) is not met


def test_the_middle_round_is_judged() -> None:
    told = {cell(): [measured(0.5), measured(0.95), measured(0.96)]}
    assert rows("limits", "what", told)[0].met
    assert rows("limits", "what", {cell(): [measured(0.5), measured(0.5), measured(0.96)]})[0].met is False


def test_in_the_virtual_machine_bounds_are_wide() -> None:
    assert rows("limits", "what", {cell(): [measured(0.75)]}, WIDE)[0].met
    assert rows("limits", "what", {cell(): [measured(1.2)]}, WIDE)[0].met is False
    assert bounds(cell()) != WIDE


def test_a_flow_that_gets_nothing_is_missed_however_right_the_rate_is() -> None:
    summary = rows("limits", "what", {cell(): [measured(1.0, least=0.0)]})[0]
    assert summary.met is False
    assert "a flow got nothing" in summary.note


def test_what_could_not_be_measured_is_named_with_its_reason_and_judges_nothing() -> None:
    lacking = {one: ["no cls_fw"] for one in cells(["shape"]) if one.direction == DOWNLOAD}
    told: Told = {**lacking, cell(): ["no bbr"], cell(50 * KIB): [measured(1.0)]}
    summary, *tables = rows("limits", "what", told)
    assert summary.note == "Not measured: shape, download: no cls_fw; nft, upload, 1 MiB/s, TCP cubic: no bbr."
    assert summary.met
    assert [row.name for row in tables] == ["limits-nft"]
    assert rows("limits", "what", {cell(): ["nothing"]})[0].met is None


def test_the_summary_has_every_cell_and_tables_have_every_round() -> None:
    flood = Cell("nft", DOWNLOAD, MIB, FLOOD)
    told = {cell(): [measured(0.9), measured(1.0)], flood: [measured(0.99)._replace(again=None)] * 2}
    summary, table = rows("limits", "what", told)
    assert [(figure.contestant, figure.values) for figure in summary.figures] == [("nft, 1 MiB/s", (95.0, 99.0))]
    steady = next(figure for figure in table.figures if figure.contestant == cell().name)
    assert steady.values == (90.0, 100.0)
    assert not any("again" in figure.unit for figure in table.figures if figure.contestant == flood.name)


def test_flows_that_share_a_limit_show_the_smallest_one_s_part() -> None:
    shared = Cell("nft", UPLOAD, MIB, next(traffic for traffic in TRAFFIC if traffic.flows == "46"))
    table = rows("limits", "what", {cell(): [measured(1.0)], shared: [measured(1.0, least=0.4)]})[1]
    assert {figure.contestant for figure in table.figures if "smallest" in figure.unit} == {shared.name}


def test_what_the_guest_writes_is_read_as_it_was(tmp_path: Path) -> None:
    told: Told = {cell(): [measured(1.0), "no bbr"], Cell("police", DOWNLOAD, 50 * KIB, FLOOD): [measured(0.9)]}
    limits_guest.write(told, tmp_path / "told.json")
    assert limits_guest.read(tmp_path / "told.json") == told


def test_a_slow_limit_is_measured_for_longer() -> None:
    assert cell(50 * KIB).seconds(2) > cell(MIB).seconds(2) > cell(20 * MIB).seconds(2) > 0
