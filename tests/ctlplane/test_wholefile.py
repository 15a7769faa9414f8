"""Files of the state directory: whole or as they were, one writer at a time, and the directory's owner's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glacic.ctlplane import wholefile as module
from glacic.ctlplane.wholefile import like_its_folder, locked, write_whole
from glacic.errors import GlacicError


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(GlacicError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_what_root_makes_in_somebody_elses_folder_is_theirs(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    write_whole(tmp_path / "a", b"")
    made = (tmp_path / "a").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (12345, 12346, 0o600)
    (tmp_path / "b").touch()
    like_its_folder(tmp_path / "b")
    assert (tmp_path / "b").stat().st_uid == 12345


def test_nobody_waits_for_a_lock_without_end(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", 1.0),
        pytest.raises(GlacicError, match="another glacic"),
        locked(tmp_path / "lock", 0.1),
    ):
        pass
    with locked(tmp_path / "lock", 0.1):  # it was let go of
        pass
