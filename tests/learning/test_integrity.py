"""A sound flow database is told from a damaged one, and a damaged one from one that is not ours to judge."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from glacic.learning import integrity
from glacic.learning.cache import Batch, Written
from glacic.learning.database import Database
from glacic.learning.flow import FlowKey, FlowState, Transition
from glacic.learning.integrity import examine, examine_log, open_read_only
from glacic.learning.store import Store

PAGE = 4096


def batch(first: int, count: int) -> Batch:
    made = Batch()
    for port in range(first, first + count):
        key = FlowKey("lan_wan", b"\x02\0\0\0\0\x01", 6, port)
        made.added.append(Written(key, FlowState.ALLOWED, 5, 5, 1, "tofu"))
        made.transitions.append(Transition(key, None, FlowState.ALLOWED, 5, "tofu", "test"))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flows.db"
    with Store.open(path) as store:
        store.write(batch(0, 2000))
    return path


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A database as a kill leaves it: twenty commits in the log, none of them in the file."""
    live, path = tmp_path / "live.db", tmp_path / "flows.db"
    with Store.open(live) as store:
        for number in range(20):
            store.write(batch(number, 1))
        for ending in ("", "-wal"):
            shutil.copyfile(f"{live}{ending}", f"{path}{ending}")
    return path


def damaged(path: Path) -> str | None:
    found = examine(path)
    return None if found is None else found.what


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flows(path: Path) -> int:
    with Store.open(path) as store:
        return store.count()


def test_a_sound_database_and_none_at_all(path: Path, tmp_path: Path) -> None:
    assert examine(path) is None
    assert examine(tmp_path / "none.db") is None
    (tmp_path / "empty.db").touch()
    assert examine(tmp_path / "empty.db") is None


@pytest.mark.parametrize("at", [0, PAGE, 10 * PAGE])
def test_a_page_of_garbage(path: Path, at: int) -> None:
    overwrite(path, at, os.urandom(PAGE))
    assert damaged(path)


def test_a_file_that_ends_too_soon(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    assert damaged(path) == "database disk image is malformed"


def test_a_newer_version_and_another_programs_database_are_not_damaged(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert examine(path) is None
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    assert examine(tmp_path / "other.db") is None


def test_a_file_that_database_names_by_mistake_is_left_alone(tmp_path: Path, path: Path) -> None:
    text = tmp_path / "passwd"
    text.write_text("root:x:0:0:root:/root:/bin/bash\n" * 4000)
    assert examine(text) is None
    mine = path.rename(tmp_path / "of another name")
    overwrite(mine, 0, os.urandom(PAGE))
    assert damaged(mine) == "file is not a database"


def test_a_locked_database_is_not_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert examine(path) is None


def test_a_check_that_takes_too_long_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_STEPS", 1)
    overwrite(path, path.stat().st_size - PAGE, os.urandom(PAGE))
    assert examine(path, limit_s=-1) is None
    assert damaged(path)


class TestTheLog:
    def test_of_a_killed_process_is_sound(self, killed: Path) -> None:
        assert examine(killed) is None
        assert flows(killed) == 20

    def test_that_ends_in_the_middle_of_a_page_is_sound(self, killed: Path) -> None:
        log = killed.with_name("flows.db-wal")
        os.truncate(log, log.stat().st_size - 100)
        assert examine(killed) is None

    def test_with_a_garbage_beginning(self, killed: Path) -> None:
        overwrite(killed.with_name("flows.db-wal"), 0, os.urandom(32))
        found = examine(killed)
        assert found is not None
        assert found.log
        assert found.what == "the write-ahead log has no valid beginning"

    def test_with_garbage_before_a_commit(self, killed: Path) -> None:
        overwrite(killed.with_name("flows.db-wal"), 32 + 30 * (24 + PAGE) + 500, b"garbage")
        found = examine(killed)
        assert found is not None
        assert found.log
        assert "was committed and cannot be read" in found.what
        assert flows(killed) < 20

    def test_with_a_page_that_was_written_and_not_told_is_sound(self, killed: Path) -> None:
        """A process that is killed between the two: SQLite drops the page, and nobody was told that it is there."""
        with closing(open_read_only(killed)) as connection:
            connection.execute("SELECT count(*) FROM flow").fetchall()
            index = killed.with_name("flows.db-shm")
            frames = int.from_bytes(index.read_bytes()[16:20], "little")
            with index.open("r+b") as file:
                file.seek(16)
                file.write((frames - 1).to_bytes(4, "little"))
            assert examine_log(killed) == ""


def test_damage_that_is_met_at_work_has_a_name_of_its_own(path: Path) -> None:
    with closing(Database(path)) as database:
        assert database.damage == ""
    overwrite(path, PAGE, os.urandom(PAGE))
    with Store.open(path) as store:
        with pytest.raises(Exception, match="malformed"):
            store.list()
        assert store.damage == "database disk image is malformed"
