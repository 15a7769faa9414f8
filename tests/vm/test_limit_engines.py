"""The probe of the limit engines on a distribution's kernel, which has every piece: with packets, as everywhere."""

from __future__ import annotations

from glacic.shaping import probe, selftest
from glacic.shaping.bpf.engine import BpfLimits
from glacic.shaping.engine import DOWNLOAD, UPLOAD


def test_every_engine_limits_in_both_directions_and_police_alone_limits_the_whole_interface() -> None:
    rows = probe.table()
    assert [row["missing"] for row in rows] == [""] * 8, rows
    per_cgroup = {(row["engine"], row["direction"]): row["per_cgroup"] for row in rows}
    assert per_cgroup == {
        (engine, direction): engine != "police"
        for engine in ("nft", "bpf", "shape", "police")
        for direction in (UPLOAD, DOWNLOAD)
    }


def test_the_programs_pass_its_older_verifier_and_hold_a_transfer_to_its_rate() -> None:
    """Bounds are for an emulated processor: far from unlimited, and far from nothing."""
    rows = selftest.run({"bpf": lambda made: BpfLimits(made.mount)}, 8, 256 << 10)
    assert all(0.5 < row["ratio"] < 1.5 for row in rows), rows
