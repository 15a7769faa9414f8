"""Beside road 2: whether a flow database's file is what was written into it. Asked before anybody opens it to work.

    examine   None for a sound database, or none, or one that is not ours to judge; else what is wrong with it

SQLite's own quick check reads every page of tables and indexes once (0.4 s for a million flows, measured) and is ended
after LIMIT_S. What it cannot see is a damaged write-ahead log: SQLite takes the log up to the first page whose checksum
is wrong and calls the rest uncommitted. So the log is looked at too: a commit behind the last page that SQLite takes,
of the same log, was one, and is lost. What came before it in the log, and the file, are as sound as ever.

A database of a newer program, or another program's, is not damaged. Refuses to change anything.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from glacic.learning.database import is_damage

LIMIT_S = 5.0  # then the rest is taken on trust; a damaged page is still found when it is read
DEFAULT_NAME = "flows.db"

_STEPS = 100_000  # of SQLite's machine between two looks at the clock
_PAGE_TYPES = frozenset({0, 2, 5, 10, 13})  # first byte of a page: overflow or free; kinds of b-tree pages
_PAGE = 4096  # bytes; SQLite's default, and ours
_LOOKED_AT = 1000  # pages

# https://sqlite.org/fileformat2.html#the_write_ahead_log
_LOG_MAGIC = (0x377F0682, 0x377F0683)
_LOG_HEADER = struct.Struct(">IIIIIIII")  # magic, version, page size, sequence, salt, salt, checksum, checksum
_FRAME = struct.Struct(">IIIIII")  # page, pages after this commit or 0, salt, salt, checksum, checksum
_INDEX_LAST_FRAME = (16, struct.Struct("=I"))  # mxFrame in the log's index (-shm), https://sqlite.org/walformat.html


class Damage(NamedTuple):
    """what: in SQLite's words or our own. log: only the end of the write-ahead log is lost."""

    what: str
    log: bool = False


def examine(path: Path, limit_s: float = LIMIT_S) -> Damage | None:
    """What is damaged. Raises nothing: what opening the database would say, opening it will say."""
    try:
        if not path.stat().st_size:
            return None
        with closing(open_read_only(path)) as connection:
            ends = time.monotonic() + limit_s
            connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
            if found != ["ok"]:
                return Damage(found[0].replace("\n", ", ") if found else "the quick check says nothing")
            lost = examine_log(path)
            return Damage(lost, log=True) if lost else None
    except sqlite3.Error as error:
        return Damage(str(error)) if is_damage(error) and _is_ours(path) else None
    except OSError:
        return None


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. Raises sqlite3.Error."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def examine_log(path: Path) -> str:
    """What is damaged in the write-ahead log of a database that is open; "" if nothing is."""
    log, index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _LOG_HEADER.size:
                return ""
            magic, _, page, _, *salts, _, _ = _LOG_HEADER.unpack(file.read(_LOG_HEADER.size))
            if magic not in _LOG_MAGIC or page != _PAGE:
                return "the write-ahead log has no valid beginning"
            taken, frame_size = _last_frame(index), _FRAME.size + page
            sound = True  # whether every page since the last one that SQLite takes is
            for number in range(taken, (size - _LOG_HEADER.size) // frame_size):
                file.seek(_LOG_HEADER.size + number * frame_size)
                _, commit, *own, _, _ = _FRAME.unpack(file.read(_FRAME.size))
                sound = sound and own == salts and _goes_on(file, number, frame_size, magic)
                if own == salts and commit:
                    if sound:  # of a process that was killed before it could say so
                        return ""
                    return f"page {number + 1} of the write-ahead log was committed and cannot be read"
    except (OSError, struct.error):
        pass  # it has just gone: another process has closed the database
    return ""


def _last_frame(index: Path) -> int:
    at, number = _INDEX_LAST_FRAME
    with index.open("rb") as file:
        file.seek(at)
        found: int = number.unpack(file.read(number.size))[0]
        return found


def _goes_on(file: BinaryIO, number: int, frame_size: int, magic: int) -> bool:
    """Whether the page behind the first `number` of the log has the checksum that it should have."""
    file.seek(_LOG_HEADER.size + (number - 1) * frame_size if number else 0)
    before = file.read(_FRAME.size if number else _LOG_HEADER.size)[-8:]
    file.seek(_LOG_HEADER.size + number * frame_size)
    frame = file.read(frame_size)
    if len(frame) < frame_size:
        return False
    first, second = struct.unpack(">II", before)
    summed = frame[:8] + frame[_FRAME.size :]
    words = struct.unpack(f"{'>' if magic & 1 else '<'}{len(summed) // 4}I", summed)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return (first, second) == _FRAME.unpack(frame[: _FRAME.size])[4:]


def _is_ours(path: Path) -> bool:
    """Whether what SQLite cannot read was a flow database, and not a file that `database` names by mistake."""
    if path.name == DEFAULT_NAME:
        return True
    count = 0
    pages = range(1, min(path.stat().st_size // _PAGE, _LOOKED_AT))
    with path.open("rb") as file:
        for page in pages:
            file.seek(page * _PAGE)
            count += file.read(1)[0] in _PAGE_TYPES
    return 2 * count > len(pages)
