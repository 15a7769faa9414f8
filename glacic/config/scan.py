"""Step 1 of road 1: a first look at the text, for what a grammar reports badly or far away.

Finds, each at its place: control characters, a quote, comment or heredoc that is never closed, brackets that do not
match, nesting without end. And it masks: a bare word where a value belongs (`24h`, `10.0.0.0/8`, 'lan0') becomes an
identifier of the same length, so that the grammar goes on and the mistake is told together with all others. Every
offset stays what it was.

Refuses to understand: names, blocks and values are for syntax.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from glacic.config.source import Diagnostic, Source, Span

DEPTH_MAX = 64  # brackets within brackets; a configuration needs five

_CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\x80-\U0010ffff]|[\x7f-\x9f\ufeff]|\r(?!\n)")
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+)
      | (?P<newline>\n)
      | (?P<comment>\#[^\n]*|//[^\n]*|/\*[\s\S]*?\*/)
      | (?P<unclosed>/\*)
      | (?P<heredoc><<-?(?P<marker>[A-Za-z][\w.-]*)\r?\n)
      | (?P<quote>")
      | (?P<open>[\[{(])
      | (?P<close>[\]})])
      | (?P<equals>=(?![=>]))
      | (?P<comma>,)
      | (?P<single>'[^'\n]*'|\u2018[^\u2019\n]*\u2019|\u201c[^\u201d"\n]*\u201d)
      | (?P<word>(?:(?!//|/\*|<<)[^\s"'\u2018\u2019\u201c\u201d\[\]{}(),\#=])+)
      | (?P<other>[\s\S])
    """,
    re.VERBOSE,
)
_LITERAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null|-|!")
_VALUE_ENDS = {"word", "single", "string", "heredoc", "close"}
_PAIRS = {"[": "]", "{": "}", "(": ")"}


class Token(NamedTuple):
    """One token that is neither space nor comment: its kind (a group of _TOKEN, or "string"), and offsets."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What the first look found.

    masked: the text for the grammar, as long as the source. tokens: without space and comments, line ends kept.
    errors: what is wrong. fatal: the grammar has nothing to add.
    """

    masked: str
    tokens: tuple[Token, ...]
    errors: tuple[Diagnostic, ...] = ()
    fatal: bool = False


class _Stop(Exception):
    def __init__(self, span: Span, summary: str, advice: str) -> None:
        super().__init__(summary)
        self.diagnostic = Diagnostic(span, summary, advice)


def scan(source: Source) -> Scan:
    """Look over a whole source once. Never raises."""
    try:
        _refuse_control_characters(source)
        tokens = _tokens(source)
        _match_brackets(source, tokens)
    except _Stop as stop:
        return Scan(source.text, (), (stop.diagnostic,), fatal=True)
    commas = _block_commas(source, tokens)
    errors = [
        Diagnostic(source.span(at, at + 1), "a comma between attributes", "begin a new line instead") for at in commas
    ]
    return Scan(_mask(source.text, tokens, commas), tuple(tokens), tuple(errors))


def _refuse_control_characters(source: Source) -> None:
    found = _CONTROL.search(source.text)
    if found is None:
        return
    span = source.span(found.start(), found.end())
    if found[0] == "\r":
        raise _Stop(span, "a carriage return without a line feed", "end lines with LF, or with CR LF")
    raise _Stop(span, f"control character U+{ord(found[0]):04X}", "remove it: the file holds text only")


def _tokens(source: Source) -> list[Token]:
    text = source.text
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None  # "other" takes any character  # noqa: S101
        kind, end = str(found.lastgroup), found.end()
        if kind == "quote":
            kind, end = "string", _string_end(source, at)
        elif found["heredoc"] is not None:
            kind, end = "heredoc", _heredoc_end(source, at, found["marker"], end)
        elif kind == "unclosed":
            raise _Stop(source.span(at, end), "this comment is never closed", 'end it with "*/"')
        if kind not in {"space", "comment"}:
            tokens.append(Token(kind, at, end))
        at = end
    return tokens


def _string_end(source: Source, start: int) -> int:
    """Just behind the quote that closes the string at `start`. Strings nest inside `${...}`."""
    text = source.text
    within = ['"']  # what has to be closed: a string, or a template's brace
    at = start + 1
    while at < len(text) and text[at] != "\n":
        char = text[at]
        at += 1
        if within[-1] == "}":
            if char in '"{}':
                within = within[:-1] if char == "}" else [*within, char.replace("{", "}")]
        elif char == "\\":
            at += 1 if text[at : at + 1] not in {"\n", "\r"} else 0
        elif char == '"':
            within.pop()
            if not within:
                return at
        elif char in "$%" and text[at : at + 1] == "{" and text[at - 2 : at - 1] != char:
            within.append("}")
            at += 1
        if len(within) > DEPTH_MAX:
            break
    span = source.span(start, min(at, len(text)))
    raise _Stop(
        span, "this string is not closed on its line", 'end it with a double quote (\\" is one inside the string)'
    )


def _heredoc_end(source: Source, start: int, marker: str, body: int) -> int:
    found = re.compile(rf"^[ \t]*{re.escape(marker)}\r?$", re.MULTILINE).search(source.text, body)
    if found is None:
        raise _Stop(
            source.span(start, body), "this text block is never closed", "write the text in quotes, on one line"
        )
    return found.end()


def _match_brackets(source: Source, tokens: list[Token]) -> None:
    """Every bracket has its counterpart."""
    opened: list[Token] = []
    suspect: tuple[Token, str] | None = None  # a bracket whose end is likely missing, and why
    for token in tokens:
        span = source.span(token.start, token.end)
        if token.kind == "open":
            opened.append(token)
            if len(opened) > DEPTH_MAX:
                raise _Stop(span, f"more than {DEPTH_MAX} brackets within each other", "a configuration is flat")
        elif token.kind == "close":
            start = _opening(source, opened, token)
            hint = _indentation_hint(source, start, token)
            suspect = suspect or ((start, hint) if hint else None)
        elif token.kind == "word" and span.column == 1 and opened:
            hint = f'a "{_closing(source, opened[-1])}" may be missing above line {span.line}, which begins a new block'
            suspect = suspect or (opened[-1], hint)
    if opened:
        last, hint = suspect or (opened[-1], f'add the "{_closing(source, opened[-1])}"')
        at = source.span(last.start, last.end)
        raise _Stop(at, f'this "{at.text}" is never closed', hint)


def _opening(source: Source, opened: list[Token], closing: Token) -> Token:
    """The bracket that this one closes, taken off the list of those that are open."""
    span = source.span(closing.start, closing.end)
    if not opened:
        raise _Stop(span, f'this "{span.text}" closes nothing', "remove it, or look above for one that came too early")
    start = opened.pop()
    wanted = _closing(source, start)
    if wanted != span.text:
        line = source.span(start.start, start.end).line
        raise _Stop(span, f'"{span.text}" where "{wanted}" is missing', f"the bracket of line {line} is still open")
    return start


def _closing(source: Source, opening: Token) -> str:
    return _PAIRS[source.text[opening.start]]


def _indentation_hint(source: Source, opening: Token, closing: Token) -> str:
    close = source.span(closing.start, closing.end)
    line = source.line(close.line)
    start = source.line(source.span(opening.start, opening.end).line)
    if line[: close.column - 1].strip() or _indentation(line) == _indentation(start):
        return ""
    return f'a "}}" may be missing above line {close.line}: the one there closes `{start.strip()[:60]}`'


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _block_commas(source: Source, tokens: list[Token]) -> list[int]:
    """Offsets of commas behind an attribute of a block, as in `services { dns = true, ntp = true }`."""
    found = []
    brackets: list[str] = []
    last = None
    for token in tokens:
        if token.kind == "open":
            char = source.text[token.start]
            is_object = char == "{" and last is not None and (last.kind != "word" and last.kind != "string")
            brackets.append("object" if is_object or "object" in brackets[-1:] else char)
        elif token.kind == "close":
            brackets.pop()
        elif (
            token.kind == "comma"
            and brackets[-1:] == ["{"]
            and last is not None
            and last.kind not in {"comma", "equals"}
        ):
            found.append(token.start)
        last = token
    return found


def _mask(text: str, tokens: list[Token], commas: list[int]) -> str:
    """`text`, with bare words where a value belongs replaced by identifiers of the same length, `commas` by spaces."""
    pieces: list[str] = []
    done = 0
    brackets: list[str] = []
    blanks = set(commas)
    for index, token in enumerate(tokens):
        if token.start in blanks:
            pieces += [text[done : token.start], " "]
            done = token.end
        elif token.kind == "open":
            brackets.append(text[token.start])
        elif token.kind == "close":
            brackets.pop()
        in_list = brackets[-1:] == ["["]
        if token.kind == "equals" or (in_list and token.kind in {"comma", "open"}):
            run = _bare_words(tokens, index + 1, in_list and token.kind != "equals")
            if run is not None and not _LITERAL.fullmatch(text, *run):
                pieces += [text[done : run[0]], "_" * (run[1] - run[0])]
                done = run[1]
    return "".join(pieces) + text[done:]


def _bare_words(tokens: list[Token], first: int, in_list: bool) -> tuple[int, int] | None:
    """Offsets of the bare words from token `first` on, on one line, up to what begins the next attribute or block."""
    while in_list and first < len(tokens) and tokens[first].kind == "newline":
        first += 1
    after = first
    while after < len(tokens) and tokens[after].kind in {"word", "single", "other"}:
        after += 1
    follows = tokens[after].kind if after < len(tokens) else "newline"
    if follows == "open" and after == first + 1:
        return None  # a function call, or an index: the grammar knows them
    if follows in {"equals", "open", "string"} and after > first + 1:
        after -= 1
    return (tokens[first].start, tokens[after - 1].end) if after > first else None
