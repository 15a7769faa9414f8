"""What runs once per packet or per flow finds its row by an index, however many rows there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from glacic.learning import statements
from glacic.learning.schema import MIGRATIONS
from glacic.learning.statements import Many

SINGLE = {name: text for name, text in vars(statements).items() if name.isupper() and isinstance(text, str)}
TEXTS = {name: text for name, text in SINGLE.items() if "?" in text}
TEXTS |= {name: many.text(3) for name, many in vars(statements).items() if isinstance(many, Many)}
TEXTS.pop("FLOW_KEY")
GIVEN = {"SCAN CONSTANT ROW", "SCAN 3 CONSTANT ROWS"}  # the rows that come with the statement


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
    scans = {step for step in steps if step.startswith("SCAN ")} - GIVEN
    assert all(step.startswith("SCAN (subquery-") for step in scans), steps


@pytest.mark.parametrize("name", ["SEE_FLOW", "ADD_KERNEL_COUNT", "ADD_ADDRESS"])
def test_rows_that_are_joined_find_their_flows_by_its_index(connection: sqlite3.Connection, name: str) -> None:
    text = vars(statements)[name].text(64)
    plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?"))]
    assert any(
        re.match("SEARCH flow USING (COVERING )?INDEX sqlite_autoindex_flow_1 .*destination=", step) for step in plan
    )


def test_the_count_of_a_source_reads_an_index_alone(connection: sqlite3.Connection) -> None:
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statements.COUNT_SOURCE}", [b"", b""]).fetchall()
    assert sum("COVERING INDEX flow_by_source" in detail for *_, detail in plan) == 2
