"""The audit trail's lines: a chain of hashes that any change breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane import auditfile
from glacic.ctlplane.auditfile import GENESIS, MAX_LINE, bounded, gap, line_of, parse

ENTRY = {"number": 1, "at": "2026-01-01T00:00:00Z", "who": "user bob", "args": {}, "outcome": "ok", "previous": GENESIS}

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_read_and_its_hash_holds(value: Any) -> None:
    line = line_of({**ENTRY, "args": bounded(value)})
    assert len(line) <= MAX_LINE
    assert line.count(b"\n") == 1
    entry = parse(line)
    assert entry is not None
    assert auditfile.digest(entry) == entry["hash"]


@given(values)
def test_arguments_are_printable_whatever_they_are(value: Any) -> None:
    def look(part: Any) -> None:
        if isinstance(part, str):
            assert part.isprintable()
            assert len(part) <= auditfile.MAX_TEXT
        elif isinstance(part, dict):
            for name, inner in part.items():
                look(name)
                look(inner)
        elif isinstance(part, list):
            assert len(part) <= auditfile.MAX_ITEMS + 1
            for inner in part:
                look(inner)

    look(bounded(value))


@given(st.binary(max_size=200))
def test_any_line_is_an_entry_or_none(line: bytes) -> None:
    assert parse(line) is None


def test_an_entry_that_is_too_long_loses_its_arguments() -> None:
    entry = parse(line_of({**ENTRY, "args": {"a": "x" * MAX_LINE}}))
    assert entry is not None
    assert "bytes" in entry["args"]["left_out"]


def test_entries_follow_each_other() -> None:
    first = parse(line_of(ENTRY))
    assert first is not None
    assert gap(None, first) == ""
    assert gap(first, {"number": 2, "previous": first["hash"]}) == ""
    assert "does not follow" in gap(first, {"number": 2, "previous": GENESIS})
    assert "missing" in gap(first, {"number": 3, "previous": first["hash"]})
    assert gap(None, {"number": 1, "previous": "x"})


def test_the_last_entry_is_found_without_reading_the_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b"junk\n" * 100_000 + line_of(ENTRY) + b"half")
    entry, torn = auditfile.last_entry(path)
    assert entry is not None
    assert (entry["number"], torn) == (1, 4)
