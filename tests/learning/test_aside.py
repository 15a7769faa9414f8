"""A database changes places with its log, nothing of it is lost, and only the last few that were set aside are kept."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from glacic.errors import StoreError
from glacic.learning import aside
from glacic.learning.aside import BEFORE_RESTORE, DAMAGED, KEPT, finish, kept, put_there, set_aside, set_aside_log
from glacic.learning.database import Database

NOW = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flows.db"
    path.write_bytes(b"old")
    path.with_name("flows.db-wal").write_bytes(b"its log")
    return path


def test_it_goes_with_its_log_and_the_new_one_comes_without(path: Path, tmp_path: Path) -> None:
    name = set_aside(path, DAMAGED, NOW)
    assert name.name == "flows.db.damaged-20260301T123005Z"
    assert path.read_bytes() == b"old"  # at no moment is there no database
    new = tmp_path / "new.db"
    new.write_bytes(b"new")
    put_there(new, path)
    assert path.read_bytes() == b"new"
    assert name.read_bytes() == b"old"
    assert name.with_name(f"{name.name}-wal").read_bytes() == b"its log"
    assert not path.with_name("flows.db-wal").exists()


def test_two_in_one_second_have_two_names(path: Path) -> None:
    assert set_aside(path, DAMAGED, NOW) != set_aside(path, DAMAGED, NOW)


def test_the_oldest_go_and_those_of_another_kind_stay(path: Path) -> None:
    other = set_aside(path, BEFORE_RESTORE, NOW)
    names = [set_aside(path, DAMAGED, NOW + timedelta(hours=hour)) for hour in range(KEPT + 2)]
    assert kept(path, DAMAGED) == names[-KEPT:]
    assert kept(path, BEFORE_RESTORE) == [other]


def test_a_log_alone_is_kept_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    with closing(Database(path)) as database:
        with database.transaction() as run:
            run("INSERT INTO setting VALUES ('a', 'x')", [()])
        log = path.with_name("flows.db-wal").read_bytes()
        name = set_aside_log(path, DAMAGED, NOW)
        assert name.with_name(f"{name.name}-wal").read_bytes() == log
        assert path.with_name("flows.db-wal").stat().st_size == 0
        assert database.rows("SELECT key FROM setting") == [("a",)]


def test_a_finished_file_is_private(path: Path) -> None:
    path.chmod(0o644)
    finish(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_root_makes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    path = tmp_path / "flows.db"
    with closing(Database(path)) as database:
        with database.transaction() as run:
            run("INSERT INTO setting VALUES ('a', 'x')", [()])
        expected = tmp_path.stat().st_uid
        assert {file.name: file.stat().st_uid for file in tmp_path.iterdir()} == {
            "flows.db": expected,
            "flows.db-wal": expected,
            "flows.db-shm": expected,
        }


def test_what_cannot_be_moved_is_said(path: Path) -> None:
    with pytest.raises(StoreError, match=r"flows.db cannot be replaced: No such file"):
        put_there(path.with_name("missing"), path)
    aside.remove(path)
    with pytest.raises(StoreError, match="cannot be set aside"):
        set_aside(path, DAMAGED, NOW)
