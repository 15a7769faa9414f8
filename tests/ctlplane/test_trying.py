"""Engines are tried by a process of its own, which leaves its table where the service reads it."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from glacic.ctlplane import trying
from glacic.shaping import probe


def test_the_table_is_there_afterwards(tmp_path: Path) -> None:
    assert trying.may()
    trying.try_engines(tmp_path)
    rows = {(row["engine"], row["direction"]): row for row in probe.kept(tmp_path / probe.FILE)}
    assert len(rows) == 8
    assert rows["nft", "download"]["available"] is True


def test_where_it_cannot_be_kept_the_log_says_so(tmp_path: Path) -> None:
    with capture_logs() as logs:
        trying.try_engines(tmp_path / "gone")
    (entry,) = logs
    assert entry["event"] == "the limit engines could not be tried"
    assert f"cannot be kept in {tmp_path}/gone" in entry["error"]
