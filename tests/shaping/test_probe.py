"""glacic.shaping.probe: what the kernel can do is what packets say, not what commands answer."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import glacic
from glacic.errors import GlacicError, KernelRefused
from glacic.shaping import cgroups, probe
from glacic.shaping.bpf.engine import BpfLimits
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Item
from glacic.shaping.scratch import Scratch

KEYS = ["engine", "direction", "available", "missing", "per_cgroup", "accuracy"]


def _row(**more: Any) -> dict[str, Any]:
    row = {"engine": "nft", "direction": UPLOAD, "available": True, "missing": "", "per_cgroup": True, "accuracy": None}
    return {**row, **more}


def _result(ratio: float | None = None, **more: Any) -> dict[str, Any]:
    """A row of the self-test."""
    row = {"engine": "nft", "direction": UPLOAD, "target": 1000, "achieved": ratio and 1000 * ratio, "ratio": ratio}
    return {**row, "available": True, "missing": "", **more}


def test_every_engine_is_tried_in_both_directions_within_seconds() -> None:
    begun = time.monotonic()
    rows = probe.table()
    assert time.monotonic() - begun < 30
    assert all(list(row) == KEYS for row in rows)
    found = {(row["engine"], row["direction"]): row for row in rows}
    assert len(found) == len(rows) == 8
    for engine in ("nft", "bpf"):  # on every kernel that these tests run on
        for direction in (UPLOAD, DOWNLOAD):
            assert found[engine, direction] == _row(engine=engine, direction=direction)
    assert all(bool(row["missing"]) is not row["available"] for row in rows)


ELSEWHERE = """
from glacic.shaping import probe
from glacic.shaping.pieces import attempts
print([row["missing"] for row in probe.table({key: way for key, way in attempts().items() if key[0] == "nft"})])
"""


def test_nft_finds_cgroups_wherever_they_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "cgroups").mkdir()
    mounting = 'umount -l "$1" && mount -t cgroup2 none "$2" && shift 2 && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mounting, "sh", str(cgroups.find().mount), str(tmp_path / "cgroups")]
    done = subprocess.run(
        [*words, sys.executable, "-c", ELSEWHERE],
        cwd=Path(glacic.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("['', '']\n", "")


@contextmanager
def _nothing(_: Scratch) -> Iterator[None]:
    yield


@contextmanager
def _refused(_: Scratch) -> Iterator[None]:
    raise KernelRefused("this kernel\n  lacks it")
    yield


@contextmanager
def _both(made: Scratch) -> Iterator[None]:
    engine = BpfLimits(made.mount)
    engine.put(
        [Item(name=cgroup.path, cgroup=cgroup, upload=1000, download=1000) for cgroup in (made.limited, made.free)]
    )
    yield
    engine.remove()


@pytest.mark.parametrize("direction", [UPLOAD, DOWNLOAD])
def test_what_the_kernel_accepts_and_does_not_do_is_missing(direction: str) -> None:
    (row,) = probe.table({("u32", direction): _nothing})
    assert not row["available"]
    assert row["missing"] == "the kernel takes it and does not limit: 100 of 100 packets came through"


def test_what_the_kernel_refuses_is_missing_in_its_own_words() -> None:
    (row,) = probe.table({("shape", UPLOAD): _refused})
    assert row == _row(engine="shape", available=False, missing="this kernel lacks it", per_cgroup=None)


@pytest.mark.parametrize("direction", [UPLOAD, DOWNLOAD])
def test_what_limits_everybody_is_available_and_not_per_cgroup(direction: str) -> None:
    (row,) = probe.table({("police", direction): _both})
    assert row == _row(engine="police", direction=direction, per_cgroup=False)


def test_the_table_is_kept_with_the_accuracy_that_was_measured_last(tmp_path: Path) -> None:
    path = tmp_path / probe.FILE
    probe.keep(path, [_row(), _row(direction=DOWNLOAD)])
    assert probe.recent(path)
    probe.measured(path, [_result(ratio=0.98), _result(direction=DOWNLOAD, ratio=None)])
    assert probe.kept(path) == [_row(accuracy=0.98), _row(direction=DOWNLOAD)]
    assert probe.recent(path)
    probe.keep(path, [_row(available=False, missing="gone")])
    assert probe.kept(path) == [_row(available=False, missing="gone", accuracy=0.98)]
    assert [entry.name for entry in tmp_path.iterdir()] == [probe.FILE]


def test_what_a_self_test_found_is_kept_also_where_nothing_was_tried_and_the_rest_is_still_to_be_tried(
    tmp_path: Path,
) -> None:
    path = tmp_path / probe.FILE
    probe.measured(path, [_result(ratio=0.98), _result(engine="shape", available=False, missing="no ifb")])
    missing = _row(engine="shape", available=False, missing="no ifb", per_cgroup=None)
    assert probe.kept(path) == [_row(accuracy=0.98, per_cgroup=None), missing]
    assert not probe.recent(path)


def test_what_another_kernel_could_do_is_not_known_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / probe.FILE
    probe.keep(path, [_row(accuracy=0.98)])
    monkeypatch.setattr(platform, "release", lambda: "5.10.0-older")
    assert probe.kept(path) == []
    assert not probe.recent(path)
    probe.keep(path, [_row()])
    assert probe.kept(path) == [_row()]


def test_it_is_tried_again_after_a_boot_and_by_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / probe.FILE
    assert not probe.recent(path)
    probe.keep(path, [_row()])
    assert probe.recent(path)
    with monkeypatch.context() as patched:
        patched.setattr(probe, "__version__", "another")
        assert not probe.recent(path)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(probe, "_BOOT", boot)
    assert not probe.recent(path)
    assert probe.kept(path) == [_row()], "until it was"


def test_a_kept_table_is_read_again_when_it_is_another(tmp_path: Path) -> None:
    kept = probe.Kept(tmp_path / probe.FILE)
    assert kept.rows() == []
    probe.keep(tmp_path / probe.FILE, [_row()])
    first = kept.rows()
    assert first == [_row()]
    assert kept.rows() is first
    probe.keep(tmp_path / probe.FILE, [_row(missing="gone", available=False)])
    assert kept.rows()[0]["missing"] == "gone"
    (tmp_path / probe.FILE).unlink()
    assert kept.rows() == []


@pytest.mark.parametrize("text", ["", "{", "7", "[7]", '{"kernel": "", "engines": []}', "\xff"])
def test_a_file_that_is_missing_or_damaged_says_that_nothing_is_known(text: str, tmp_path: Path) -> None:
    assert probe.kept(tmp_path / probe.FILE) == []
    (tmp_path / probe.FILE).write_text(text, encoding="latin-1")
    assert probe.kept(tmp_path / probe.FILE) == []


def test_a_table_that_cannot_be_kept_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(GlacicError, match=r"cannot be kept in .*limit-engines\.json: No such file"):
        probe.keep(tmp_path / "nowhere" / probe.FILE, [_row()])


def test_what_is_available_is_said_by_what_is_missing(tmp_path: Path) -> None:
    rows = json.loads(json.dumps([_row(), _row(engine="shape", available=False, missing="CONFIG_NET_CLS_FW")]))
    assert probe.available(rows) == {("nft", UPLOAD): "", ("shape", UPLOAD): "CONFIG_NET_CLS_FW"}
