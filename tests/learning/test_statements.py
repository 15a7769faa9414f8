"""What runs once per packet or per flow finds its row by an index, however many rows there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from glacic.learning import statements
from glacic.learning.schema import MIGRATIONS

TEXTS = {name: text for name, text in vars(statements).items() if name.isupper() and "?" in str(text) and " " in text}
TEXTS.pop("FLOW_KEY")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for step in MIGRATIONS:
            for sql in step:
                connection.execute(sql)
        yield connection


@pytest.mark.parametrize("name", TEXTS)
def test_no_statement_reads_a_whole_table(connection: sqlite3.Connection, name: str) -> None:
    sql = TEXTS[name]
    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")).fetchall()
    steps = [detail for *_, detail in plan]
    assert not [step for step in steps if step.startswith("SCAN ") and step != "SCAN CONSTANT ROW"], steps


def test_the_count_of_a_source_reads_an_index_alone(connection: sqlite3.Connection) -> None:
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statements.COUNT_SOURCE}", [b"", b""]).fetchall()
    assert sum("COVERING INDEX flow_by_source" in detail for *_, detail in plan) == 2
