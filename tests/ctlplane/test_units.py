"""The units that a machine knows, by the names of their files."""

from __future__ import annotations

import os
from pathlib import Path

from glacic.ctlplane.units import known_units


def test_units_with_processes_are_known_by_their_files_and_links(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    for name in ("a.service", "b@.service", "c.timer", "d.slice", "e.service.d", "f.mount"):
        (first / name).touch()
    (second / "alias.service").symlink_to(first / "a.service")
    (second / "masked.service").symlink_to(os.devnull)
    found = known_units([first, second, tmp_path / "missing", first / "a.service"])
    assert found == {"a.service", "b@.service", "d.slice", "f.mount", "alias.service", "masked.service"}


def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert known_units([tmp_path / "missing"]) == frozenset()
