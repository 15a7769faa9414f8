"""Step 0 of road 1: places in a source file, and what can be wrong there.

A Span is a half-open stretch of text; a Diagnostic is data (located, summary, what to do), rendered in one place.
Whatever it quotes is made harmless for a terminal on the way out. Refuses to read files: text comes in as an
argument.
"""

from __future__ import annotations

import difflib
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ERROR = "error"
WARNING = "warning"
NOTE = "note"

MAX_SHOWN = 2000  # characters of one text from outside, wherever it is shown; an advice that lists all names is shorter

_LINE_MAX = 160  # longer source lines are shown around the place only
_LINE_LEAD = 60  # how much of them is shown before it


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one file, and the name it is reported under. Lines end in LF or CR LF."""

    name: str
    text: str = field(repr=False)
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [0]
        found = self.text.find("\n")
        while found >= 0:
            starts.append(found + 1)
            found = self.text.find("\n", found + 1)
        object.__setattr__(self, "_starts", tuple(starts))

    def line(self, number: int) -> str:
        """The text of line `number` (1-based), without its line end; "" past the end."""
        if not 0 < number <= len(self._starts):
            return ""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end].removesuffix("\r")

    def span(self, start: int, end: int) -> Span:
        """The stretch from character offset `start` up to, not including, `end`; both are kept within the text."""
        start = min(max(start, 0), len(self.text))
        line = bisect_right(self._starts, start)
        return Span(self, line, start - self._starts[line - 1] + 1, start, min(max(end, start), len(self.text)))


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a source. Lines and columns are 1-based and count characters; `start`/`end` are character offsets.

    Line 0 stands for the file as a whole, where no text of it could be read.
    """

    source: Source = field(repr=False)
    line: int
    column: int
    start: int
    end: int

    @property
    def text(self) -> str:
        """What stands there."""
        return self.source.text[self.start : self.end]

    def seen_from(self, other: Span) -> str:
        """Where it stands, in words, for a message about `other`: its line, and its file where that is another."""
        return f"line {self.line}" + ("" if self.source.name == other.source.name else f" of {self.source.name}")

    def __str__(self) -> str:
        name = printable(self.source.name)
        return f"{name}:{self.line}:{self.column}" if self.line else name


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong with a configuration, or worth a note.

    summary: what is wrong, one line. advice: what to do about it ("" where the summary says it).
    severity: "error" stops; "warning", what holds in another way than is likely meant, and "note" are only told (by
    `glacic check`).
    """

    span: Span
    summary: str
    advice: str = ""
    severity: str = ERROR

    def render(self) -> str:
        """`file:line:col: error: summary`, the source line, a caret under the place, and the advice."""
        lines = [f"{self.span}: {self.severity}: {printable(self.summary)}"]
        if self.span.line:
            lines += _snippet(self.span)
        if self.advice:
            lines.append(f"  = {printable(self.advice)}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data: file, line, column, severity, summary, advice."""
        return {
            "file": printable(self.span.source.name),
            "line": self.span.line,
            "column": self.span.column,
            "severity": self.severity,
            "summary": printable(self.summary),
            "advice": printable(self.advice),
        }


def in_order(diagnostics: Iterable[Diagnostic], sources: Iterable[Source] = ()) -> tuple[Diagnostic, ...]:
    """As a reader meets them, each once: file by file as in `sources`, other files behind them by name."""
    ranks = {source.name: rank for rank, source in enumerate(sources)}

    def place(found: Diagnostic) -> tuple[int, str, int, str, int, str]:
        name, span = found.span.source.name, found.span
        return ranks.get(name, len(ranks)), name, span.start, found.severity, span.end, found.summary

    return tuple(sorted(dict.fromkeys(diagnostics), key=place))


def closest(word: str, known: Iterable[str]) -> list[str]:
    """The one of `known` that `word` is most likely to mean; [] where none is close."""
    by_lower = {name.lower(): name for name in sorted(known)}
    return [by_lower[close] for close in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "lan"?` where one of `known` is close to `word`, else ""."""
    return "".join(f'did you mean "{name}"?' for name in closest(word, known))


def listed(words: Iterable[str], last: str = "or") -> str:
    """`"a", "b" or "c"`: for advice that names all there is."""
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}" if quoted else ""


def printable(text: str, most: int = MAX_SHOWN) -> str:
    """`text` with everything that could move a cursor or hide text written as an escape, and no longer than `most`
    characters. Source text is hostile."""
    cut = text[: most + 1]
    shown = cut if cut.isprintable() else "".join(map(_escape, cut))
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _width(char: str) -> int:
    """Columns that a terminal gives one printable character."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _snippet(span: Span) -> list[str]:
    """The source line and the caret line. A tab stays a tab in both, so they line up whatever its width."""
    line = span.source.line(span.line)
    first = span.column - 1
    after = min(first + max(span.end - span.start, 1), max(len(line), first + 1))
    lead = ""
    if len(line) > _LINE_MAX:
        cut = max(0, min(first - _LINE_LEAD, len(line) - _LINE_MAX))
        lead = "..." if cut else ""
        tail = "..." if cut + _LINE_MAX < len(line) else ""
        line, first, after = line[cut : cut + _LINE_MAX], first - cut, min(after - cut, _LINE_MAX)
    else:
        tail = ""
    cells = ["\t" if char == "\t" else _escape(char) for char in line]
    pad = "".join(cell if cell == "\t" else " " * sum(map(_width, cell)) for cell in cells[:first])
    marked = sum(_width(char) for cell in cells[first:after] for char in cell)
    caret = " " * len(lead) + pad + "^" + "~" * (max(marked, 1) - 1)
    return [lead + "".join(cells) + tail, caret]
