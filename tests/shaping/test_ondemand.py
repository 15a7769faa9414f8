"""glacic.shaping.ondemand: an engine that nobody needs is not made, and one that a killed run used is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from glacic.errors import KernelRefused
from glacic.shaping.engine import UPLOAD, Cgroup, Counted, Item
from glacic.shaping.ondemand import OnDemand, note_of

ITEM = Item(name="backup", cgroup=Cgroup("backup.service", 7, 1), upload=1 << 20)


class Told:
    """An engine that writes down what it is told."""

    name = "told"

    def __init__(self, told: list[str]) -> None:
        self.told = told
        told.append("made")

    def put(self, items: Sequence[Item]) -> None:
        self.told.append(f"put {len(items)}")

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        return {("backup", UPLOAD): Counted(bytes=1)}

    def adopt(self) -> None:
        self.told.append("adopt")

    def remove(self) -> None:
        self.told.append("remove")


def engine_in(folder: Path) -> tuple[OnDemand, list[str]]:
    told: list[str] = []
    return OnDemand("told", lambda: Told(told), note_of(folder, "told")), told


def test_without_a_limit_nothing_is_made(tmp_path: Path) -> None:
    engine, told = engine_in(tmp_path)
    engine.adopt()
    engine.put([])
    assert engine.counters() == {}
    engine.remove()
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_it_is_made_once_and_removes_all_with_its_last_limit(tmp_path: Path) -> None:
    engine, told = engine_in(tmp_path)
    engine.put([ITEM])
    engine.put([ITEM])
    assert engine.counters()["backup", UPLOAD].bytes == 1
    engine.put([])
    engine.put([])
    assert told == ["made", "put 1", "put 1", "remove"]
    assert list(tmp_path.iterdir()) == []
    engine.put([ITEM])
    assert told[4:] == ["put 1"]


def test_what_a_killed_run_left_is_cleaned_although_no_limit_needs_the_engine_now(tmp_path: Path) -> None:
    killed, _ = engine_in(tmp_path)
    killed.put([ITEM])
    engine, told = engine_in(tmp_path)
    engine.adopt()
    engine.put([])
    assert told == ["made", "adopt", "remove"]
    assert list(tmp_path.iterdir()) == []


def test_where_no_note_can_be_left_no_interface_is_taken(tmp_path: Path) -> None:
    engine, told = engine_in(tmp_path / "gone")
    with pytest.raises(KernelRefused, match=r"cannot note in .*gone/limits-by-told"):
        engine.put([ITEM])
    assert told == []
