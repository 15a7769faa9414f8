"""The command: it runs targets for a while, counts, keeps what it finds, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz import main as command
from fuzz.targets import TARGETS

RESULTS = [
    command.Result("packet", "it holds", "atheris", 60, 1_234_567, ()),
    command.Result("hcl", "this too", "atheris", 61, 5, ("build/fuzz/hcl/crash-1",)),
]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "BUILD", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # by chance
    return tmp_path


def test_a_run_counts_its_inputs(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seconds", "1", "packet"]) == 0
    (result,) = json.loads((build / "results.json").read_text())
    assert (result["target"], result["engine"], result["findings"]) == ("packet", "chance", [])
    assert result["inputs"] > 0
    assert "0 findings" in capsys.readouterr().out


def test_what_other_targets_came_to_is_kept(build: Path) -> None:
    assert command.keep(RESULTS) == RESULTS
    again = [command.Result("hcl", "this too", "chance", 5, 7, ())]
    assert command.keep(again) == [RESULTS[0], again[0]]


def test_a_process_that_dies_is_a_finding(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = command.Target("nothing", "nowhere", "")
    (result,) = [command.fuzz(broken, 1)]
    assert result.findings == (str(build / "nothing" / "log"),)


def test_results_are_recorded_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "fuzzing.md"
    document.write_text(f"before\n{command.BEGIN}\nearlier\n{command.END}\nafter\n")
    monkeypatch.setattr(command, "DOCUMENT", document)
    command.record(RESULTS, "2026-01-02")
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "earlier" not in text
    assert "| `packet` | it holds | 60 | 1,234,567 | 0 |" in text
    assert "| `hcl` | this too | 61 | 5 | 1 |" in text


def test_the_document_has_room_for_them_and_names_every_target() -> None:
    text = command.DOCUMENT.read_text()
    assert text.index(command.BEGIN) < text.index(command.END)
    assert all(f"`{target.name}`" in text for target in TARGETS)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(SystemExit):
        command.main(["nothing"])


def test_one_input_is_replayed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"\x45")
    assert command.main(["--replay", str(file), "packet"]) == 0
