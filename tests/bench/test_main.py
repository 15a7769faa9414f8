"""The command line: which modules run, what the guard lets pass and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import bounds, main, runs
from bench.bounds import Bound
from bench.effort import Effort
from bench.result import Figure, Results, Row
from glacic.errors import LabError


def row(ratio: float, name: str = "cpu") -> Row:
    figure = Figure(contestant="Glacic", unit="us", values=(1.0,))
    return Row(name=name, what="w", figures=(figure,), ratio=(ratio,), ratio_of="Glacic / floor", met=True, target="t")


class Module:
    NAME, TITLE, INTRO = "fake", "Fake", "Nothing."

    def __init__(self, *answers: Results | Exception) -> None:
        self.answers = list(answers)
        self.efforts: list[Effort | None] = []

    def measure(self, effort: Effort) -> Results:
        self.efforts.append(effort)
        return self._next()

    def quick(self) -> Results:
        self.efforts.append(None)
        return self._next()

    def _next(self) -> Results:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


Having = Callable[[Module, dict[str, Bound]], None]


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Having:
    """Replaces all modules by one, and the bounds; results go to a folder of the test."""

    def have(module: Module, known: dict[str, Bound]) -> None:
        monkeypatch.setattr(main, "modules", lambda: [module])
        monkeypatch.setattr(bounds, "load", lambda: known)
        monkeypatch.setattr(main, "ROOT", tmp_path)
        monkeypatch.setattr(runs, "DOCS", tmp_path / "docs")
        monkeypatch.setattr(runs, "TRIAL", tmp_path / "trial")

    return have


@pytest.mark.parametrize(
    ("ratio", "bound", "worse", "failed"),
    [
        (1.0, Bound(1.0, "lower"), 1.0, False),
        (2.0, Bound(1.0, "lower"), 2.0, False),
        (2.1, Bound(1.0, "lower"), 2.1, True),
        (0.1, Bound(1.0, "lower"), 0.1, False),
        (0.5, Bound(1.0, "higher"), 2.0, False),
        (0.4, Bound(1.0, "higher"), 2.5, True),
        (9.0, Bound(1.0, "higher"), 1 / 9, False),
        (0.0, Bound(1.0, "higher"), float("inf"), True),
    ],
)
def test_only_a_loss_by_more_than_two_fails(ratio: float, bound: Bound, worse: float, failed: bool) -> None:
    judged = bounds.judge([row(ratio)], {"cpu": bound})
    assert judged[0].worse == pytest.approx(worse)
    assert judged[0].failed is failed


def test_neither_a_row_without_a_bound_nor_a_bound_without_a_row_fails() -> None:
    judged = bounds.judge([row(5.0, "new")], {"old": Bound(1.0, "lower")})
    assert [(one.name, one.worse, one.failed) for one in judged] == [("new", None, False), ("old", None, False)]
    assert "not measured" in bounds.table(judged)


def test_a_row_without_a_ratio_is_not_judged() -> None:
    absolute = Row(name="cpu", what="w", figures=())
    assert bounds.judge([absolute], {"cpu": Bound(1.0, "lower")})[0].measured is None


def test_the_bounds_that_are_checked_in_can_be_read() -> None:
    assert all(bound.ratio > 0 and bound.better in ("lower", "higher") for bound in bounds.load().values())


def test_quick_is_fine_where_a_ratio_holds(having: Having, capsys: pytest.CaptureFixture[str]) -> None:
    having(Module(Results([row(1.9)])), {"cpu": Bound(1.0, "lower")})
    assert main.main(["--quick"]) == 0
    assert "1.90 x" in capsys.readouterr().out


def test_quick_asks_twice_before_it_fails(having: Having, capsys: pytest.CaptureFixture[str]) -> None:
    module = Module(Results([row(9.0)]), Results([row(2.5)]))
    having(module, {"cpu": Bound(1.0, "lower")})
    assert main.main(["--quick"]) == 1
    assert "Lost by more than a factor of 2: cpu." in capsys.readouterr().out
    assert not module.answers


def test_quick_believes_the_second_answer(having: Having) -> None:
    having(Module(Results([row(9.0)]), Results([row(1.5)])), {"cpu": Bound(1.0, "lower")})
    assert main.main(["--quick"]) == 0


def test_quick_fails_where_it_cannot_measure(having: Having) -> None:
    having(Module(LabError("needs root"), LabError("needs root")), {})
    assert main.main(["--quick"]) == 1


def test_quick_tries_twice_to_measure(having: Having) -> None:
    having(Module(LabError("too busy"), Results([row(1.0)])), {"cpu": Bound(1.0, "lower")})
    assert main.main(["--quick"]) == 0


def test_a_full_run_is_kept_in_docs_with_its_report(having: Having, tmp_path: Path) -> None:
    module = Module(Results([row(1.0)]))
    having(module, {})
    assert main.main(["--only", "fake"]) == 0
    assert module.efforts == [Effort()]
    assert (tmp_path / "docs" / "benchmarks" / "fake.json").exists()
    assert "## Fake" in (tmp_path / "docs" / "benchmarks.md").read_text()


def test_a_trial_is_kept_apart(having: Having, tmp_path: Path) -> None:
    module = Module(Results([row(1.0)]))
    having(module, {})
    assert main.main(["--rounds", "2", "--seconds", "0.5"]) == 0
    assert module.efforts == [Effort(rounds=2, seconds=0.5)]
    assert not (tmp_path / "docs").exists()


def test_what_fails_is_said_and_what_was_measured_before_stays(
    having: Having, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    having(Module(Results([row(1.0)]), ValueError("boom")), {})
    assert main.main([]) == 0
    assert main.main([]) == 1
    assert "Not measured: fake." in capsys.readouterr().out
    assert "## Fake" in (tmp_path / "docs" / "benchmarks.md").read_text()


def test_a_missed_target_fails_where_it_is_judged_and_is_named(
    having: Having, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = Results([replace(row(3.0), met=False, note="Missed: nft, upload.")])
    having(Module(missed, missed, Results([row(1.0)])), {})
    assert main.main([]) == 0
    assert main.main(["--judge", "fake"]) == 1
    assert "cpu is missed: Missed: nft, upload." in capsys.readouterr().out
    assert main.main(["--judge", "fake"]) == 0


def test_the_report_alone_measures_nothing(having: Having) -> None:
    module = Module()
    having(module, {})
    assert main.main(["--report"]) == 0
    assert not module.efforts


def test_an_unknown_module_is_refused(having: Having, capsys: pytest.CaptureFixture[str]) -> None:
    having(Module(), {})
    with pytest.raises(SystemExit):
        main.main(["--only", "other"])
    assert "invalid choice: 'other'" in capsys.readouterr().err


def test_every_module_says_what_it_is() -> None:
    known = main.modules()
    names = [module.NAME for module in known]
    assert len(set(names)) == len(names)
    assert all(module.TITLE and module.INTRO for module in known)
    assert [name for name in names if name in main.ORDER] == [name for name in main.ORDER if name in names]
