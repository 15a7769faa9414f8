"""The report tells what was measured, what was missed, what was not measured, and on what machine; nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import report, runs
from bench.effort import Effort
from bench.result import Figure, Plot, Results, Row, paired
from bench.runs import Run
from bench.targets import TARGETS

EFFORT = Effort(rounds=3, seconds=2.0)


class Verdicts:
    NAME, TITLE, INTRO = "queue", "Verdicts", "How it was done."


class Commands:
    NAME, TITLE, INTRO = "commands", "Commands", "Whole processes."


def run(idle: float = 0.99, processor: str = "a fast one", queue: str = "yes") -> Run:
    return Run("2026-01-31", "1.0", EFFORT, idle, {"processor": processor, "nftables' queue statement": queue})


def cpu_row(ours: float = 1.1) -> Row:
    glacic, floor = (ours * 2, ours * 1.8, ours * 2.2), (2.0, 2.0, 2.0)
    return Row(
        name="cpu-per-verdict",
        what="CPU time per verdict",
        figures=(
            Figure(contestant="C floor", unit="us CPU per packet", values=floor),
            Figure(contestant="Glacic", unit="us CPU per packet", values=glacic),
            Figure(contestant="Glacic", unit="verdicts/s", values=(500_000.0, 400_000.0, 600_000.0)),
        ),
        target="<= 1.20 x",
        ratio=paired(glacic, floor),
        ratio_of="Glacic / C floor",
        met=ours <= 1.2,
        note="A note.",
    )


def rendered(results: dict[str, Results], run_of: Run | None = None, charts: set[str] | None = None) -> str:
    told = {name: run_of or run() for name in results}
    return report.render([Verdicts(), Commands()], results, told, charts or set())


def line_of(text: str, begin: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {begin}"))


def test_a_target_that_is_met_has_its_ratio_and_both_figures() -> None:
    line = line_of(rendered({"queue": Results([cpu_row()])}), "CPU per verdict")
    assert "**1.10 (0.99-1.21) x** (Glacic / C floor)" in line
    assert "Glacic: 2.20 us CPU per packet (1.98-2.42)" in line
    assert "C floor: 2.00 us CPU per packet (2.00-2.00)" in line
    assert line.endswith("| met |")


def test_a_target_that_is_missed_says_so_in_both_places() -> None:
    text = rendered({"queue": Results([cpu_row(ours=1.5)])})
    assert line_of(text, "CPU per verdict").endswith("| **missed** |")
    assert "Glacic / C floor: **1.50 (1.35-1.65) x**. Target <= 1.20 x: **missed**." in text


def test_a_target_without_a_row_was_not_measured() -> None:
    text = rendered({"queue": Results([cpu_row()])})
    missing = [target for target in TARGETS if target.row != "cpu-per-verdict"]
    assert text.count("| not measured |") == len(missing)
    assert line_of(text, "start to ready with 1,000,000").endswith("| <= 20 s |  | not measured |")


def test_targets_stand_in_their_order_once_each() -> None:
    text = rendered({})
    places = [text.index(f"| {target.what} |") for target in TARGETS]
    assert places == sorted(places)
    assert len({target.row for target in TARGETS}) == len(TARGETS)


def test_an_absolute_target_shows_its_figures() -> None:
    row = Row(
        name="stats-command",
        what="stats",
        figures=(
            Figure(contestant="glacic stats", unit="s", values=(0.12, 0.11, 0.2)),
            Figure(contestant="the interpreter", unit="s", values=(0.02,)),
        ),
        target="<= 0.15 s",
        met=True,
    )
    line = line_of(rendered({"commands": Results([row])}), "`glacic stats`")
    assert "glacic stats: 0.12 s (0.11-0.20)<br>the interpreter: 0.02 s" in line


def test_a_module_has_its_words_its_run_and_a_table_by_contestant() -> None:
    text = rendered({"queue": Results([cpu_row()])})
    assert "## Verdicts\n\nHow it was done.\n\n2026-01-31, Glacic 1.0, 3 rounds of 2 s each.\n" in text
    assert "| C floor | 2.00 | 2.00-2.00 |  |  | 1.00 |" in text
    assert "| Glacic | 2.20 | 1.98-2.42 | 500,000 | 400,000-600,000 | 1.10 |" in text
    assert "\nA note.\n" in text


def test_a_module_that_was_not_measured_is_named() -> None:
    assert "## Not measured\n\nCommands.\n" in rendered({"queue": Results([cpu_row()])})


def test_a_kernel_without_the_statement_is_a_caveat() -> None:
    lacking = run(queue="no: packets are handed over")
    caveat = "This kernel has no `queue` statement"
    assert caveat in rendered({"queue": Results([cpu_row()])}, lacking)
    assert caveat not in rendered({"queue": Results([cpu_row()])})


def test_a_busy_machine_is_a_caveat() -> None:
    assert "not idle when these began: queue." in rendered({"queue": Results([cpu_row()])}, run(idle=0.5))


def test_modules_from_different_machines_say_which() -> None:
    told = {"queue": run(), "commands": run(processor="a slow one")}
    text = report.render([Verdicts(), Commands()], {}, told, set())
    assert "For queue:" in text
    assert "For commands:" in text
    assert "| processor | a slow one |" in text


def test_charts_are_drawn_and_old_ones_go(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gone.svg").write_text("")
    plot = Plot(name="scaling", title="Scaling", x_label="x", y_label="y", series={"a": [(1.0, 1.0, 1.0, 1.0)]})
    path = report.write([Verdicts()], {"queue": Results([cpu_row()], [plot])}, {"queue": run()}, tmp_path)
    drawn = {file.name for file in (tmp_path / "benchmarks").iterdir()}
    assert drawn == {"ratios.svg", "cpu-per-verdict.svg", "scaling.svg"}
    assert all(f"(benchmarks/{name})" in path.read_text() for name in drawn)


def test_what_is_kept_is_found_again_and_the_rest_stays(tmp_path: Path) -> None:
    first, second = Results([cpu_row()]), Results([cpu_row(1.5)])
    runs.keep(tmp_path, "queue", first, run())
    runs.keep(tmp_path, "commands", second, run(idle=0.5))
    assert runs.results(tmp_path, "queue") == first
    assert runs.runs(tmp_path) == {"queue": run(), "commands": run(idle=0.5)}
    assert runs.results(tmp_path, "other") is None


@pytest.mark.parametrize(("effort", "home"), [(Effort(), runs.DOCS), (Effort(rounds=2), runs.TRIAL)])
def test_a_trial_does_not_touch_the_docs(effort: Effort, home: Path) -> None:
    assert runs.home(effort) == home
