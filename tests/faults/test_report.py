"""docs/reliability.md as text, and whether it says what was measured."""

from __future__ import annotations

import re
from pathlib import Path

from faults import report
from faults.main import KEPT, modules
from faults.result import Case, Count, Measured, load

DOCS = Path(__file__).resolve().parents[2] / "docs"


class Fault:
    NAME = "fault"
    TITLE = "A fault, or two"
    PROMISE = "Nothing happens."
    ADVICE = "Wait."


class Other(Fault):
    NAME = "other"
    TITLE = "Another one"


def case(**more: object) -> Case:
    traffic = {
        "unknown": Count("pass", 10, 8),
        "learned": Count("pass", 5, 5),
        "denied": Count("stop", 6, 0),
        "outside": Count("stop", 4, 1),
    }
    return Case(**{"setting": "x = 1", "kernel": "Linux 1.0, emulated", "traffic": traffic, **more})  # type: ignore[arg-type]


def rendered(*cases: Case) -> str:
    return report.render([Fault, Other], {"fault": Measured("fault", "2026-01-31", "1.0", 3.0, cases)})  # type: ignore[list-item]


def test_a_row_says_what_was_accepted_dropped_lost_and_wrongly_passed() -> None:
    text = rendered(case(recovered_s=1.25, lost_flows=2, learned_before=9, broken=("it leaks",)))
    row = next(line for line in text.splitlines() if line.startswith("| [A fault"))
    assert "| accepted | 8 / 0 / 2 | 5 / 0 | 10 / 1 | 1.2 s | 2 of 9 | **broken** |" in row
    assert "**Broken** (x = 1, VM): it leaks." in text


def test_what_was_not_measured_is_named() -> None:
    assert "## Not measured\n\nAnother one." in rendered(case())


def test_text_of_programs_does_not_break_the_table() -> None:
    text = rendered(case(said={"a | b\n<script>": 2}, status=("degraded: c|d",)))
    assert "2 x a \\| b &lt;script>" in text
    assert "c\\|d" in text


def test_links_of_the_table_lead_to_sections() -> None:
    text = rendered(case())
    headings = {report._anchor(line.removeprefix("## ")) for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_the_document_is_what_was_measured() -> None:
    measured = {path.stem: load(path) for path in KEPT.glob("*.json")}
    assert (DOCS / "reliability.md").read_text() == report.render(modules(), measured)
