"""A backup is the database of one moment, whoever writes meanwhile; a restore trusts nothing, and keeps what was."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from glacic.errors import StoreError
from glacic.learning import backup as backup_module
from glacic.learning.backup import backup, check_prepared, prepare, swap
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.store import Store


def batch(first: int, count: int) -> Batch:
    keys = (FlowKey("lan_wan", number.to_bytes(6, "big"), 6, 80) for number in range(first, first + count))
    return Batch(added=[Written(key, FlowState.ALLOWED, 5, 5, 1, "tofu") for key in keys])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flows.db"
    with Store.open(path) as store:
        store.write(batch(0, 3000))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder / "backup.db"


def count(path: Path) -> int:
    with Store.open(path) as store:
        return store.count()


def names(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


class TestBackup:
    def test_is_one_private_file(self, path: Path, target: Path) -> None:
        assert backup(path, target) == 3000
        assert names(target) == {"backup.db"}
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert count(target) == 3000

    def test_is_of_one_moment_while_others_write(
        self, path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every batch of the writer has 10 flows, and it goes on as long as the copy takes: no batch is torn."""
        monkeypatch.setattr(backup_module, "STEP_PAGES", 2)
        done, written = threading.Event(), 0
        with Store.open(path) as store:
            first = threading.Event()

            def write() -> None:
                nonlocal written
                while not done.is_set():
                    store.write(batch(10_000 + 10 * written, 10))
                    written += 1
                    first.set()

            thread = threading.Thread(target=write)
            thread.start()
            first.wait()
            try:
                copied = backup(path, target)
            finally:
                done.set()
                thread.join()
            assert copied % 10 == 0
            assert 3000 < copied < store.count() == 3000 + 10 * written

    def test_does_not_overwrite_unasked(self, path: Path, target: Path) -> None:
        target.write_text("dear")
        with pytest.raises(StoreError, match="is there already; --force replaces it"):
            backup(path, target)
        assert (target.read_text(), names(target)) == ("dear", {"backup.db"})
        assert backup(path, target, force=True) == 3000
        assert count(target) == 3000

    def test_says_what_it_cannot_do(self, path: Path, target: Path) -> None:
        with pytest.raises(StoreError, match="there is no flow database"):
            backup(path.with_name("none.db"), target)
        with pytest.raises(StoreError, match="that is a directory"):
            backup(path, target.parent)
        with pytest.raises(StoreError, match="cannot back up"):
            backup(path, target.parent / "missing" / "backup.db")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(4096))
        with pytest.raises(StoreError):
            backup(path, target)
        assert names(target) == set()


class TestRestore:
    def test_replaces_the_database_and_keeps_what_was_there(self, path: Path, target: Path) -> None:
        backup(path, target)
        with Store.open(path) as store:
            store.write(batch(5000, 7))
        before = target.read_bytes()
        assert prepare(target, path) == check_prepared(path) == 3000
        kept = swap(path)
        assert kept is not None
        assert kept.name.startswith("flows.db.before-restore-")
        assert (count(path), count(kept)) == (3000, 3007)
        assert target.read_bytes() == before
        assert "flows.db.restoring" not in names(path)

    def test_makes_a_database_where_there_is_none(self, path: Path, target: Path) -> None:
        backup(path, target)
        path.unlink()
        prepare(target, path)
        assert swap(path) is None
        assert count(path) == 3000

    def test_refuses_what_is_no_sound_backup_of_ours(self, path: Path, target: Path) -> None:
        backup(path, target)
        good = target.read_bytes()
        with pytest.raises(StoreError, match="no such file"):
            prepare(target.with_name("none.db"), path)
        for edit, words in (
            ("PRAGMA user_version = 99", "newer Glacic"),
            ("PRAGMA application_id = 7", "another program"),
        ):
            with closing(sqlite3.connect(target)) as connection:
                connection.execute(edit)
            with pytest.raises(StoreError, match=rf"cannot restore .*{words}"):
                prepare(target, path)
            target.write_bytes(good)
        target.write_bytes(good[: len(good) // 2])
        with pytest.raises(StoreError, match="cannot restore"):
            prepare(target, path)
        target.write_text("no database")
        with pytest.raises(StoreError, match="cannot restore"):
            prepare(target, path)
        assert count(path) == 3000
        assert not [name for name in names(path) if "restoring" in name]

    def test_finds_an_index_that_lies(self, path: Path, target: Path) -> None:
        """What the quick check would let pass."""
        backup(path, target)
        with closing(sqlite3.connect(target)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'state, origin', 'origin, state')")
            connection.commit()
        with pytest.raises(StoreError, match="is damaged"):
            prepare(target, path)

    def test_nothing_is_swapped_that_was_not_prepared(self, path: Path) -> None:
        with pytest.raises(StoreError, match="nothing was prepared"):
            swap(path)
        assert count(path) == 3000
