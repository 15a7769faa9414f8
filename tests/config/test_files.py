"""Files: what was read once can be read again, whatever became of the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from glacic.config.files import DISK, Kept, Recorder
from glacic.config.load import load
from glacic.errors import ConfigError


def test_what_was_recorded_can_be_read_when_the_files_are_gone(tmp_path: Path) -> None:
    file = tmp_path / "a.hcl"
    file.write_text("one")
    recorder = Recorder(DISK)
    assert recorder.read(file, 100) == b"one"
    file.unlink()
    kept = Kept(recorder.contents)
    assert kept.read(file, 100) == b"one"
    assert kept.read(file, 2) == b"on"
    with pytest.raises(FileNotFoundError):
        kept.read(tmp_path / "b.hcl", 100)


def test_a_pattern_finds_the_same_files_on_disk_and_among_those_that_were_kept(tmp_path: Path) -> None:
    for name in ("b.hcl", "a.hcl", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.hcl").mkdir()
    recorder = Recorder(DISK)
    pattern = tmp_path / "*.hcl"
    found = recorder.matching(pattern)
    assert [path.name for path in found] == ["a.hcl", "b.hcl"]
    for path in found:
        recorder.read(path, 10)
    assert Kept(recorder.contents).matching(pattern) == found
    assert Kept(recorder.contents).matching(tmp_path.parent / "*.hcl") == []


def test_a_configuration_is_loaded_from_what_was_kept(tmp_path: Path) -> None:
    file = tmp_path / "glacic.hcl"
    file.write_text('zone "lan" {\n  interface = "lan0"\n}\n')
    recorder = Recorder(DISK)
    config = load(file, recorder)
    file.write_text("broken {")
    assert load(file, Kept(recorder.contents)) == config
    with pytest.raises(ConfigError):
        load(file)
