"""Road 1, for people: what a new script changes in an old one, chain by chain and set by set.

Both are scripts of render.py, whose layout is known: a part of the table is one block, indented once, and opened and
closed by lines of their own. Refuses to parse nft: a line is a line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

ADDED = "added"
REMOVED = "removed"
CHANGED = "changed"

_PART = re.compile(r"^\t(chain|set|counter|map|flowtable) (\S+) \{")
TIMES = "time_"  # begins the name of a set of moments
_CONTEXT = 2  # unchanged lines around a change
_ELEMENTS = "elements = {"
_ELEMENTS_MAX = 40  # of one set that are shown; a list may have a hundred thousand, and a person reads none of them


@dataclass(frozen=True, slots=True)
class PartChange:
    """One chain, set or counter that is not as it was. lines: of a unified diff, " ", "+", "-" or "@" first."""

    kind: str
    name: str
    change: str
    lines: tuple[str, ...]


def difference(old: str, new: str) -> tuple[PartChange, ...]:
    """What changes from one script to the other, in the new one's order; what is only in the old one comes last."""
    before, after = dict(_parts(old)), dict(_parts(new))
    found = []
    for key in [*after, *(key for key in before if key not in after)]:
        was, becomes = before.get(key), after.get(key)
        if was != becomes:
            change = ADDED if was is None else REMOVED if becomes is None else CHANGED
            compare = _set_lines if key[0] == "set" and was and becomes else _lines
            found.append(PartChange(*key, change, _bounded(compare(was or [], becomes or []), key[0])))
    return tuple(found)


def as_rows(changes: tuple[PartChange, ...]) -> list[dict[str, Any]]:
    """JSON-ready."""
    return [{**asdict(change), "lines": list(change.lines)} for change in changes]


def _parts(script: str) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """(kind, name) and the lines of each part. Comments are for readers of the script: they change nothing.

    But for the times at which a rule holds: their moments are others each week, and it is the comment that says what
    they mean (hours.py).
    """
    key: tuple[str, str] | None = None
    lines: list[str] = []
    remarks: list[str] = []
    for line in script.splitlines():
        if key is None:
            opened = _PART.match(line)
            if opened is None:
                remarks = [*remarks, line.strip()] if line.startswith("\t#") else []
                continue
            key, lines = (opened[1], opened[2]), []
            if line.endswith("}"):  # a part of one line
                yield key, [line.strip()]
                key = None
        elif line == "\t}":
            yield key, remarks[:1] if key[1].startswith(TIMES) else lines
            key, remarks = None, []
        elif line.strip() and not line.lstrip("\t").startswith("#"):
            lines.append(line.removeprefix("\t\t").expandtabs(4))


def _lines(was: list[str], becomes: list[str]) -> Iterator[str]:
    """Of a unified diff, without its two lines of header and without line numbers, which nobody sees in the kernel."""
    for number, line in enumerate(difflib.unified_diff(was, becomes, lineterm="", n=_CONTEXT)):
        if number >= 2:
            yield "@@" if line.startswith("@@") else line


def _set_lines(was: list[str], becomes: list[str]) -> Iterator[str]:
    """Of the same set: element by element, since one more of them moves all that stand behind it to other lines."""
    (frame_was, before), (frame_becomes, after) = _elements(was), _elements(becomes)
    yield from _lines(frame_was, frame_becomes)
    yield "@@"
    there, stay = set(before), set(after)
    yield from (f"-{element}" for element in before if element not in stay)
    yield from (f"+{element}" for element in after if element not in there)


def _elements(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines of a set without its elements, and these."""
    at = next((at for at, line in enumerate(lines) if line.startswith(_ELEMENTS)), len(lines))
    text = " ".join(line.strip() for line in lines[at:]).removeprefix(_ELEMENTS).removesuffix("}")
    return lines[:at], [element.strip() for element in text.split(",") if element.strip()]


def _bounded(lines: Iterator[str], kind: str) -> tuple[str, ...]:
    """All lines; of a set the first ones, and how many more there are."""
    found = tuple(lines)
    more = len(found) - _ELEMENTS_MAX
    return (*found[:_ELEMENTS_MAX], f"@@ and {more} more") if kind == "set" and more > 0 else found
