"""The bed for limits, for real: a cell of each engine, its two ends, and the packets of those who have no limit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench import idle_bed, limits_bed, limits_end
from bench.limits_bed import Lane
from bench.limits_cells import MIB, TRAFFIC, Cell, Measured
from bench.rows import limits, limits_idle
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted

KIND = {traffic.name: traffic for traffic in TRAFFIC}
NEVER = KIND["TCP cubic"]._replace(congestion="nowhere")


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[Lane]]:
    with limits_bed.lanes(6) as made:
        yield made


def test_every_engine_holds_a_transfer_to_its_limit(lanes: list[Lane]) -> None:
    """Bounds are for a busy machine; docs/benchmarks.md has the figures."""
    wanted = [
        Cell("nft", DOWNLOAD, MIB, KIND["TCP cubic"]),
        Cell("nft", UPLOAD, MIB, KIND["IPv4 and IPv6"]),
        Cell("bpf", DOWNLOAD, MIB, KIND["UDP flood"]),
        Cell("bpf", UPLOAD, MIB, KIND["4 flows"]),
        Cell("shape", UPLOAD, MIB, KIND["UDP flood"]),
        Cell("shape", UPLOAD, MIB, KIND["TCP cubic"]),
    ]
    told = limits_bed.table(lanes, wanted, 1, 0.4, alone=2 * MIB)
    for cell, (found,) in told.items():
        assert isinstance(found, Measured), (cell.name, found)
        assert 0.75 < found.steady < 1.20, (cell, found)
        assert found.least > 0
        assert (found.again is None) == (cell.traffic.name == "UDP flood")
        if cell.traffic.name == "UDP flood":
            assert 0.25 < found.wasted < 0.75, cell  # twice the limit was sent
            assert found.first > 0.75


def test_what_this_kernel_lacks_is_said_in_place_of_a_figure(lanes: list[Lane]) -> None:
    said = limits_bed.measure(lanes[0], Cell("nft", UPLOAD, MIB, NEVER), 1.0)
    assert said == "this kernel has no tcp_nowhere"
    told = limits_bed.table(lanes[:1], [Cell("nft", UPLOAD, MIB, NEVER)], 2, 1.0, alone=MIB)
    assert list(told.values()) == [[said, said]]


def test_the_guard_asks_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Cell] = []

    def answer(_: Lane, cell: Cell, __: float) -> Measured | str:
        seen.append(cell)
        return "no such thing" if cell.engine == "shape" else Measured(0.5, 1.0, 0.0, 0.0, 1.0)

    monkeypatch.setattr(limits_bed, "measure", answer)
    monkeypatch.setattr(limits_bed, "lanes", lambda count: contextlib.nullcontext([None] * count))
    found = {row.name: row.ratio for row in limits.quick().rows}
    assert sorted(cell.engine for cell in seen) == ["bpf", "nft", "shape"]
    assert found == {"limit-off-nft": (2.0,), "limit-off-bpf": (2.0,)}


@pytest.mark.parametrize(
    ("counted", "part"),
    [
        (Counted(300, 3, 100, 1), 0.25),
        (Counted(300, 6, 0, 2), 0.25),  # an engine that knows no bytes of what it dropped
        (Counted(0, 3, 0, 1), 0.25),
        (Counted(), 0.0),
    ],
)
def test_what_was_thrown_away_is_a_part_of_what_came(counted: Counted, part: float) -> None:
    assert limits_bed.wasted(counted) == part


def test_bytes_are_counted_by_the_tenth_of_a_second_that_they_came_in() -> None:
    near, far = socket.socketpair()
    with near, far:

        def send() -> None:
            near.send(bytes(1000))
            time.sleep(0.25)
            near.send(bytes(500))

        sender = threading.Thread(target=send)
        sender.start()
        said = limits_end.taken([far], 1.0)
        sender.join()
    assert said["bins"][0] == 1000
    assert len(said["bins"]) == 10
    assert sum(said["bins"]) == 1500
    assert sum(said["bins"][:2]) == 1000  # nobody is early
    assert said["flows"] == [1500]


def test_packets_of_a_cgroup_without_a_limit_are_sent_through_everything_that_is_measured() -> None:
    with idle_bed.idle_bed() as bed:
        for direction in (UPLOAD, DOWNLOAD):
            found = idle_bed.pairs(bed, direction, limits_idle.VARIANTS, 0.02)
            assert set(found) == set(limits_idle.VARIANTS)
            assert all(pair.having > 0 and pair.without > 0 for pair in found.values())
        shape = idle_bed.pairs(bed, UPLOAD, limits_idle.UPLOADS, 0.02)[limits_idle.SHAPE]
        assert shape.having > 0
        listed = bed.lane.near.run(["nft", "list", "tables"]).stdout
    assert listed == ""


@pytest.mark.parametrize(("ours", "met"), [(1.01, True), (1.1, False)])
def test_the_default_engine_is_judged_and_the_one_that_costs_nothing_is_named(ours: float, met: bool) -> None:
    values = {limits_idle.NFT: [ours], limits_idle.BPF: [1.0], limits_idle.AGAIN: [1.0]}
    row = limits_idle.row(UPLOAD, {n: [idle_bed.Pair(700 * v, 700) for v in each] for n, each in values.items()})
    assert row.met is met
    assert "bpf" in row.note
    assert "700 ns" in row.note
