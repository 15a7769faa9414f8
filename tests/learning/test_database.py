"""The flow database's file: made, opened, refused with words that help."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.errors import StoreError
from glacic.learning import database as database_module
from glacic.learning.database import Database
from glacic.learning.schema import VERSION
from glacic.learning.statements import Many


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows ?#%.db"  # signs that mean something in a URI


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with closing(Database(path)) as database:
        yield database


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for sql in statements:
            connection.execute(sql)
        connection.commit()


def keep(database: Database, key: str) -> None:
    with database.transaction() as run:
        run("INSERT INTO setting VALUES (?, 'x')", [(key,)])


def kept(database: Database) -> list[str]:
    return [key for (key,) in database.rows("SELECT key FROM setting ORDER BY key")]


def test_a_new_file_is_private_and_of_the_present_version(database: Database, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert database.rows("PRAGMA user_version") == [(VERSION,)]
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert [file.name for file in path.parent.iterdir() if not file.name.startswith(path.name)] == []


def test_opening_again_finds_what_was_written(path: Path) -> None:
    for number in range(3):
        with closing(Database(path)) as database:
            keep(database, str(number))
    with closing(Database(path, read_only=True)) as database:
        assert kept(database) == ["0", "1", "2"]


def test_a_reader_in_another_connection_sees_every_commit_and_nothing_before(database: Database, path: Path) -> None:
    with closing(Database(path, read_only=True)) as reader:
        assert kept(reader) == []
        with database.transaction() as run:
            run("INSERT INTO setting VALUES ('a', 'x')", [()])
            assert kept(reader) == []
        assert kept(reader) == ["a"]


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    with pytest.raises(StoreError, match="UNIQUE"), database.transaction() as run:
        run("INSERT INTO setting VALUES (?, 'x')", [("a",), ("b",), ("a",)])
    assert kept(database) == []
    with pytest.raises(KeyError), database.transaction() as run:
        run("INSERT INTO setting VALUES (?, 'x')", ({"c": ("c",)}[name] for name in "cd"))
    assert kept(database) == []
    keep(database, "d")
    assert kept(database) == ["d"]


def test_every_thread_has_a_connection_of_its_own(database: Database) -> None:
    connections = [database.connection(), database.connection()]
    thread = threading.Thread(target=lambda: connections.append(database.connection()))
    thread.start()
    thread.join()
    assert connections[0] is connections[1]
    assert connections[0] is not connections[2]


class TestIsRefused:
    def test_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"there is no directory .*/nowhere"):
            Database(tmp_path / "nowhere" / "flows.db")

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="name a file in it"):
            Database(tmp_path)

    def test_a_file_that_is_not_there_for_reading(self, path: Path) -> None:
        with pytest.raises(StoreError, match=r"no flow database .* yet; the service makes it"):
            Database(path, read_only=True)
        assert not path.exists()

    def test_a_file_that_is_no_database(self, path: Path) -> None:
        path.write_bytes(b"once upon a time " * 999)
        with pytest.raises(StoreError, match=r"file is not a database; .*or move it away"):
            Database(path)
        assert path.read_bytes().startswith(b"once upon")

    def test_another_programs_database(self, path: Path) -> None:
        edit(path, "CREATE TABLE moz_places (id)")
        with pytest.raises(StoreError, match="another program's database"):
            Database(path)
        edit(path, "PRAGMA application_id = 77")
        with pytest.raises(StoreError, match="another program's database"):
            Database(path, read_only=True)

    @pytest.mark.parametrize("read_only", [True, False])
    def test_a_newer_version(self, path: Path, read_only: bool) -> None:
        Database(path).close()
        edit(path, f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(StoreError, match=rf"version {VERSION + 1}.*up to {VERSION}.*newer Glacic"):
            Database(path, read_only=read_only)

    def test_an_older_version_for_reading(self, path: Path) -> None:
        path.touch()
        with pytest.raises(StoreError, match="starting the service brings it up to date"):
            Database(path, read_only=True)
        assert path.stat().st_size == 0

    def test_a_write_while_another_program_holds_the_lock(
        self, database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "WRITE_WAIT_S", 0.01)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="database is locked; another program holds it"):
                keep(database, "a")
            assert kept(database) == []  # reading goes on
        keep(database, "b")
        assert kept(database) == ["b"]

    def test_a_write_to_a_file_that_was_opened_for_reading(self, database: Database, path: Path) -> None:
        with (
            closing(Database(path, read_only=True)) as reader,
            pytest.raises(StoreError, match="must be allowed to write"),
        ):
            keep(reader, "a")

    def test_anything_after_close(self, path: Path) -> None:
        database = Database(path)
        database.close()
        with pytest.raises(StoreError):
            kept(database)
        refused = []

        def ask() -> None:
            try:
                database.connection()
            except StoreError as error:
                refused.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert "closed" in refused[0]


def test_a_migration_that_another_process_has_done_meanwhile_is_not_done_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate = Database._migrate

    def late(database: Database) -> None:
        monkeypatch.setattr(Database, "_migrate", migrate)
        Database(path).close()
        migrate(database)

    monkeypatch.setattr(Database, "_migrate", late)
    with closing(Database(path)) as database:
        assert database.rows("PRAGMA user_version") == [(VERSION,)]


@given(st.lists(st.tuples(st.integers(-9, 9), st.binary(max_size=3)), max_size=200))
def test_a_statement_for_many_rows_does_what_one_for_each_does(rows: list[tuple[int, bytes]]) -> None:
    add = "INSERT INTO t (number, bytes) "
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, number, bytes)")
        database_module._run(connection, f"{add}VALUES (?, ?)", rows)
        singly = connection.execute("SELECT * FROM t ORDER BY id").fetchall()
        connection.execute("DELETE FROM t")
        database_module._run(connection, Many(add, 2, ""), iter(rows))
        assert connection.execute("SELECT * FROM t ORDER BY id").fetchall() == singly
