"""glacic.shaping.selftest: what an engine is said to achieve is what came through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glacic.errors import KernelRefused
from glacic.shaping import selftest
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted, Item
from glacic.shaping.scratch import INTERFACE

KEYS = ["engine", "direction", "target", "achieved", "ratio", "available", "missing"]


class Nothing:
    """An engine that limits nothing, or cannot."""

    name = "nothing"

    def __init__(self, refusal: str = "") -> None:
        self._refusal = refusal
        self.items: list[Item] = []

    def put(self, items: Sequence[Item]) -> None:
        if self._refusal:
            raise KernelRefused(self._refusal)
        assert [item.interface for item in items] == [INTERFACE]

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        return {}

    def adopt(self) -> None: ...

    def remove(self) -> None: ...


def test_an_engine_that_limits_nothing_is_seen_to_miss_its_target_by_far() -> None:
    rows = selftest.run({"nothing": lambda _: Nothing()}, 0.5, 1 << 20)
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [(row["engine"], row["direction"], row["target"]) for row in rows] == [
        ("nothing", UPLOAD, 1 << 20),
        ("nothing", DOWNLOAD, 1 << 20),
    ]
    for row in rows:
        assert row["available"]
        assert row["ratio"] > 5
        assert row["achieved"] > 5 << 20


def test_an_engine_that_cannot_is_a_row_with_the_reason_and_the_others_are_measured() -> None:
    rows = selftest.run({"broken": lambda _: Nothing("no such piece"), "nothing": lambda _: Nothing()}, 0.2, 1000)
    assert [(row["engine"], row["available"], row["missing"]) for row in rows] == [
        ("broken", False, "no such piece"),
        ("broken", False, "no such piece"),
        ("nothing", True, ""),
        ("nothing", True, ""),
    ]
    assert rows[0]["achieved"] is rows[0]["ratio"] is None
