"""The tables as queries know them are the tables that the migrations make."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from glacic.learning import schema
from glacic.learning.flow import FlowState


@pytest.fixture
def migrated() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for step in schema.MIGRATIONS:
            for sql in step:
                connection.execute(sql)
        yield connection


@pytest.fixture
def declared() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for table in schema.metadata.sorted_tables:
            connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
            for index in table.indexes:
                connection.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
        yield connection


def described(connection: sqlite3.Connection) -> dict[str, object]:
    """Table -> its columns (name, type, not null, default, place in the key), and its indexes with their columns."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
    description: dict[str, object] = {}
    for table in tables:
        columns = [row[1:] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        indexes = {}
        for _, name, unique, origin, _ in connection.execute(f'PRAGMA index_list("{table}")').fetchall():
            indexes[name] = (unique, origin, [row[2] for row in connection.execute(f'PRAGMA index_info("{name}")')])
        description[table] = ([(name, kind, null, default, pk) for name, kind, null, default, pk in columns], indexes)
    return description


def test_both_ways_to_write_the_tables_say_the_same(migrated: sqlite3.Connection, declared: sqlite3.Connection) -> None:
    assert described(migrated) == described(declared)


def test_ids_are_never_used_again(migrated: sqlite3.Connection) -> None:
    add = "INSERT INTO flow VALUES (NULL, 'p', x'01', 6, ?, x'', 1, 0, 0, 0, 0, 'user')"
    first = migrated.execute(add, (80,)).lastrowid
    migrated.execute("DELETE FROM flow")
    assert migrated.execute(add, (81,)).lastrowid != first


def test_every_state_has_a_number_of_its_own() -> None:
    assert {schema.STATES[schema.STATE_CODES[state]] for state in FlowState} == set(FlowState)
