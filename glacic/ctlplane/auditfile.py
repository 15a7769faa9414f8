"""The audit trail's lines: how an entry is written, bounded and chained, and how the chain is checked. No locks, no
names of people.

Each line is a JSON object that holds the hash of the line before it (`previous`) and its own (`hash`: sha256 over all
the rest of it, keys in order). So a line that was changed, taken out or put in between shows, as do lines taken from
the front of a file that is not the oldest. Lines cut off at the end show once another is written by a service that
remembers more (audit.py), and in the journal, where every hash stands too. Who can write the file can write all of it
anew, with hashes: against root only a copy elsewhere helps. Refuses to repair anything.
"""

from __future__ import annotations

import gzip
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from glacic.config.source import printable

GENESIS = "0" * 64  # what the first entry of all has for a previous hash
MAX_LINE = 16 * 1024  # bytes of one entry
MAX_TEXT = 200  # characters of one argument
MAX_OUTCOME = 1000
MAX_ITEMS = 20  # of a list of arguments; the rest is counted
MAX_LEVELS = 4
MAX_PROBLEMS = 20  # that are told of one trail

SHOWN = ("number", "at", "who", "uid", "pid", "source", "action", "args", "outcome")


def line_of(entry: dict[str, Any]) -> bytes:
    """The entry's line, with its hash. One that would be too long loses its arguments, and says so."""
    line = _sealed(entry)
    if len(line) > MAX_LINE:
        line = _sealed({**entry, "args": {"left_out": f"{len(line)} bytes"}})
    return line


def digest(entry: dict[str, Any]) -> str:
    """The hash of an entry over everything in it but the hash itself."""
    rest = {name: value for name, value in entry.items() if name != "hash"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None where it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    wanted = {"number": int, "at": str, "who": str, "previous": str, "hash": str}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind in wanted.items()):
        return None
    return entry


def bounded(value: Any, levels: int = MAX_LEVELS) -> Any:
    """An argument as it is kept: printable, and no longer than anybody wants to read."""
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 1 << 64 else "a large number"
    if isinstance(value, str):
        return text(value, MAX_TEXT)
    if levels == 0:
        return "..."
    if isinstance(value, dict):
        kept = {text(str(name), MAX_TEXT): bounded(value[name], levels - 1) for name in list(value)[:MAX_ITEMS]}
        return kept if len(value) <= MAX_ITEMS else {**kept, "more": len(value) - MAX_ITEMS}
    if isinstance(value, list | tuple):
        items = [bounded(item, levels - 1) for item in value[:MAX_ITEMS]]
        return items if len(value) <= MAX_ITEMS else [*items, f"and {len(value) - MAX_ITEMS} more"]
    return text(str(value), MAX_TEXT)


def text(value: str, most: int) -> str:
    """Printable, and at most `most` characters long."""
    cut = printable(value[: most + 1])
    return cut if len(cut) <= most else f"{cut[: most - 3]}..."


@dataclass(slots=True)
class Reading:
    """What one or more files of the trail say: the entries that were asked for, oldest first, and what is wrong."""

    entries: deque[dict[str, Any]]
    problems: list[str] = field(default_factory=list)
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None

    def say(self, problem: str) -> None:
        """Keep a problem, unless there are many already."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def read(path: Path, wanted: Callable[[dict[str, Any]], bool], limit: int | None) -> Reading:
    """One file, checked line by line; the last `limit` entries that are wanted. Raises OSError."""
    found = Reading(deque(maxlen=limit))
    junk: tuple[int, int] | None = None  # line number and bytes of a line that is no entry
    for number, line in enumerate(_lines(path), 1):
        entry = parse(line) if line.endswith(b"\n") else None
        if entry is None:
            if junk:
                found.say(f"{path.name}:{junk[0]}: no entry")
            junk = (number, len(line.rstrip(b"\n")))
            continue
        if junk and entry.get("torn") != junk[1]:
            found.say(f"{path.name}:{junk[0]}: no entry")
        junk = None
        where = f"{path.name}:{number}: entry {entry['number']}"
        if digest(entry) != entry["hash"]:
            found.say(f"{where} was changed")
        if problem := gap(found.last, entry):
            found.say(f"{where}: {problem}")
        found.first = found.first or entry
        found.last = entry
        if wanted(entry):
            found.entries.append(entry)
    if junk:
        found.say(f"{path.name}:{junk[0]}: no entry")
    return found


def gap(before: dict[str, Any] | None, entry: dict[str, Any]) -> str:
    """What is wrong between two entries that follow each other; "" where nothing is."""
    if before is None:
        return (
            "it is said to be the first, and was not" if entry["number"] == 1 and entry["previous"] != GENESIS else ""
        )
    if entry["number"] != before["number"] + 1:
        return f"it follows entry {before['number']}: what was between is missing"
    return "" if entry["previous"] == before["hash"] else "it does not follow the one before it"


def last_entry(path: Path) -> tuple[dict[str, Any] | None, int]:
    """The last entry of a file, and how many bytes of a torn line stand behind it (0: none). Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 3 * MAX_LINE))
        *lines, torn = file.read().split(b"\n")
    for line in reversed(lines):
        if (entry := parse(line)) is not None:
            return entry, len(torn)
    return None, len(torn)


def first_number(path: Path) -> int:
    """The number of the first entry that a file has; -1 where it has none."""
    try:
        return next((entry["number"] for line in _lines(path) if (entry := parse(line)) is not None), -1)
    except (OSError, EOFError):
        return -1


def _sealed(entry: dict[str, Any]) -> bytes:
    return json.dumps({**entry, "hash": digest(entry)}, separators=(",", ":")).encode() + b"\n"


def _lines(path: Path) -> Iterator[bytes]:
    with _opened(path) as file:
        while line := file.readline(4 * MAX_LINE):
            yield line


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
