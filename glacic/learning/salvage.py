"""Beside road 2: the rows of a damaged flow database, as far as they can be read, into a new one.

    the table       row by row in the order of ids; where a page cannot be read, the range is halved until what is
                    behind the damage is reached
    the indexes     of flows whose row is lost: one index has their key, the other their state and origin
    the first page  where that is damaged, SQLite reads nothing at all. It holds the schema, which is known: a copy of
                    the file gets the first page of a new database

A row that holds what no flow can have is left out. Ids are kept. Refuses to change the damaged file, and to guess.
"""

# ruff: noqa: S608 -- what is put into the texts are constants of this program

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from glacic.errors import StoreError
from glacic.learning import aside
from glacic.learning.database import Database, Row
from glacic.learning.integrity import open_read_only
from glacic.learning.schema import STATES

MAX_FAILURES = 50_000  # reads in a row that fail before a table is given up: more than a lost inner page takes; 2 s
_BATCH = 5_000
_PAGE = 4096
_ROW_MIN = 8  # bytes; where nothing says how many rows a table has, it has no more than fit the file

_ADDRESS_LENGTHS = (4, 16)
_SOURCE_LENGTHS = (6, *_ADDRESS_LENGTHS)

_FLOW = "id, policy, source, protocol, port, destination, state, first_seen, last_seen, packets, kernel_packets, origin"
_TRANSITION = "id, policy, source, protocol, port, destination, before, after, at, who, why"


@dataclass(slots=True)
class Salvaged:
    """How many rows were read. flows: in all; from_indexes: those of them whose row was lost. complete: whether every
    read succeeded."""

    flows: int = 0
    from_indexes: int = 0
    transitions: int = 0
    complete: bool = True


def salvage(damaged: Path, into: Path, now_ns: int) -> Salvaged:
    """Write everything that can be read of `damaged` into the new database `into`, which is closed and on disk then.

    now_ns: when flows whose row is lost are said to have been seen. Raises StoreError if `into` cannot be written.
    """
    aside.remove(into)
    repaired = aside.beside(into, ".page")
    try:
        with closing(Database(into, throw_away=True)) as new:
            done = _read_all(_readable(damaged, repaired), new, now_ns)
            new.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    except OSError as error:
        raise StoreError(f"{damaged} cannot be recovered: {error.strerror}") from error
    finally:
        aside.remove(repaired)
    aside.finish(into)
    return done


def _readable(damaged: Path, repaired: Path) -> Path:
    """The file to read from: the damaged one, or a copy with another first page."""
    try:
        with closing(open_read_only(damaged)) as connection:
            connection.execute("SELECT id FROM flow LIMIT 0").close()
    except sqlite3.DatabaseError:
        _transplant(damaged, repaired)
        return repaired
    else:
        return damaged


def _transplant(damaged: Path, repaired: Path) -> None:
    """A copy of the damaged file with the first page of a new database."""
    for ending in ("", "-wal"):
        if aside.beside(damaged, ending).exists():
            shutil.copyfile(aside.beside(damaged, ending), aside.beside(repaired, ending))
    donor = aside.beside(repaired, ".new")
    try:
        Database(donor, throw_away=True).close()
        page = bytearray(donor.read_bytes()[:_PAGE])
    finally:
        aside.remove(donor)
    # https://sqlite.org/fileformat2.html#the_database_header: pages in all; no free ones are known
    struct.pack_into(">I", page, 28, repaired.stat().st_size // _PAGE)
    struct.pack_into(">II", page, 32, 0, 0)
    with repaired.open("r+b") as file:
        file.write(page)


def _read_all(source: Path, new: Database, now_ns: int) -> Salvaged:
    done = Salvaged()
    with closing(open_read_only(source)) as old:
        old.text_factory = lambda text: text.decode(errors="replace")
        old.execute("BEGIN")  # else every read that fails reads the log anew

        def take(table: str, columns: str, sound: Callable[[Row], bool]) -> int:
            width = columns.count(",") + 1
            sql = f'INSERT OR IGNORE INTO "{table}" ({columns}) VALUES ({", ".join("?" * width)})'
            return _insert(new, sql, filter(sound, _rows(old, table, columns, done)))

        take("flow", _FLOW, _is_flow)
        done.from_indexes = _take_from_indexes(old, new, now_ns) if not done.complete else 0
        take("flow_address", "flow, address, seen", lambda row: len(row) == 3 and _is_bytes(row[1], _ADDRESS_LENGTHS))
        done.transitions = take("transition", _TRANSITION, _is_transition)
        take("learning", 'policy, "on", since, until, who', lambda row: _is_text(row[0], empty=True))
        take("setting", "key, value", lambda row: _is_text(row[0]) and _is_text(row[1]))
    done.flows = int(new.rows("SELECT count(*) FROM flow")[0][0])
    return done


def _rows(old: sqlite3.Connection, table: str, columns: str, done: Salvaged) -> Iterator[Row]:
    """Every row that can be read; done.complete says whether any could not."""
    sql = f'SELECT rowid, {columns} FROM "{table}" WHERE rowid BETWEEN ? AND ? ORDER BY rowid'
    ranges, failures = [(1, _highest(old, table))], 0
    while ranges and failures < MAX_FAILURES:
        low, high = ranges.pop()
        try:
            for rowid, *row in old.execute(sql, (low, high)):
                low, failures = rowid + 1, 0
                yield tuple(row)
        except sqlite3.Error:
            done.complete = False
            failures += 1
            if low < high:
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]


def _highest(old: sqlite3.Connection, table: str) -> int:
    highest = 0
    for sql in (f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'", f'SELECT max(rowid) FROM "{table}"'):
        with suppress(sqlite3.Error):
            highest = max([highest, *(int(row[0]) for row in old.execute(sql) if row[0])])
    return highest or _size(old) // _ROW_MIN


def _size(old: sqlite3.Connection) -> int:
    _, _, name = old.execute("PRAGMA database_list").fetchone()
    return Path(name).stat().st_size


def _take_from_indexes(old: sqlite3.Connection, new: Database, now_ns: int) -> int:
    """Flows without a row, of which both indexes can be read."""
    before = int(new.rows("SELECT count(*) FROM flow")[0][0])
    key = "policy, source, protocol, port, destination"
    with suppress(StoreError):
        new.rows("CREATE TEMP TABLE lost_key (id INTEGER PRIMARY KEY, policy, source, protocol, port, destination)")
        new.rows("CREATE TEMP TABLE lost_state (id INTEGER PRIMARY KEY, state, origin)")
    missing = "NOT EXISTS (SELECT 1 FROM flow WHERE flow.id = column1)"
    for order in ("", "DESC"):
        by_key = ", ".join(f"{name} {order}" for name in key.split(", "))
        _insert(
            new,
            f"INSERT OR IGNORE INTO lost_key SELECT * FROM (VALUES (?, ?, ?, ?, ?, ?)) WHERE {missing}",
            _until_damaged(old, f"SELECT id, {key} FROM flow INDEXED BY sqlite_autoindex_flow_1 ORDER BY {by_key}"),
        )
        _insert(
            new,
            f"INSERT OR IGNORE INTO lost_state SELECT * FROM (VALUES (?, ?, ?)) WHERE {missing}",
            _until_damaged(
                old,
                f"SELECT id, state, origin FROM flow INDEXED BY flow_by_source ORDER BY source {order}, state {order}",
            ),
        )
    rows = new.rows(f"SELECT id, {key}, state, origin FROM lost_key JOIN lost_state USING (id)")
    found = ((*row[:7], now_ns, now_ns, 0, 0, row[7]) for row in rows)
    _insert(
        new,
        f"INSERT OR IGNORE INTO flow ({_FLOW}) VALUES ({', '.join('?' * 12)})",
        filter(_is_flow, found),
    )
    return int(new.rows("SELECT count(*) FROM flow")[0][0]) - before


def _until_damaged(old: sqlite3.Connection, sql: str) -> Iterator[Row]:
    with suppress(sqlite3.Error):
        yield from old.execute(sql)


def _insert(new: Database, sql: str, rows: Iterable[Row]) -> int:
    """Write rows in batches. Returns how many there were."""
    rest, count = iter(rows), 0
    while batch := list(islice(rest, _BATCH)):
        with new.transaction() as run:
            run(sql, batch)
        count += len(batch)
    return count


# ---- what a row may hold


def _is_flow(row: Row) -> bool:
    _, policy, source, protocol, port, destination, state, *numbers, origin = row
    return (
        _is_key(policy, source, protocol, port, destination)
        and state in STATES
        and _is_text(origin)
        and all(isinstance(number, int) for number in numbers)
    )


def _is_transition(row: Row) -> bool:
    _, policy, source, protocol, port, destination, before, after, at, who, why = row
    states = all(state is None or state in STATES for state in (before, after))
    told = isinstance(at, int) and _is_text(who) and _is_text(why)
    return _is_key(policy, source, protocol, port, destination) and states and told


def _is_key(policy: Any, source: Any, protocol: Any, port: Any, destination: Any) -> bool:
    return (
        _is_text(policy)
        and _is_bytes(source, _SOURCE_LENGTHS)
        and isinstance(protocol, int)
        and 0 <= protocol <= 0xFF
        and isinstance(port, int)
        and 0 <= port <= 0xFFFF
        and _is_bytes(destination, (0, *_ADDRESS_LENGTHS))
    )


def _is_text(value: Any, *, empty: bool = False) -> bool:
    return isinstance(value, str) and (empty or bool(value)) and "\ufffd" not in value


def _is_bytes(value: Any, lengths: tuple[int, ...]) -> bool:
    return isinstance(value, bytes) and len(value) in lengths
