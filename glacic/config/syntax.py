"""Step 2 of road 1: HCL text becomes nodes with spans. The only importer of hcl2.

A file is a Body of attributes and blocks; a value is a constant (bool, int, float, str), a list of values, or
Unusable with the reason, because this configuration has no variables, functions or templates. A mistake of grammar
stops here, with words for it; everything else is left to decode.py, so that all mistakes are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from glacic.config.scan import Scan, Token, scan
from glacic.config.source import Diagnostic, Source, Span

if TYPE_CHECKING:
    from lark import Tree

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.?))|\$\$(?=\{)|%%(?=\{)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Unusable:
    """A value that is grammatical and still none: why, and what to write."""

    span: Span
    summary: str
    advice: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    span: Span
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    span: Span
    items: tuple[Value, ...]


Value = Literal | ListOf | Unusable


@dataclass(frozen=True, slots=True)
class Attribute:
    """`name = value`; the span runs from the name to the end of the value."""

    name: str
    span: Span
    value: Value


@dataclass(frozen=True, slots=True)
class Body:
    """What stands between braces, or the whole file; in file order."""

    attributes: tuple[Attribute, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """`type "label" { body }`; the span is the header, from the type to the last label; `whole` goes to the brace."""

    type: str
    span: Span
    labels: tuple[Literal | Unusable, ...]
    body: Body
    whole: Span


def parse(source: Source) -> tuple[Body | None, tuple[Diagnostic, ...]]:
    """The nodes of a source, or None where a mistake makes it no HCL; and the mistakes of grammar."""
    import hcl2  # the grammar costs 0.1 s: only where a configuration is read
    from lark.exceptions import UnexpectedInput

    look = scan(source)
    if look.fatal:
        return None, look.errors
    try:
        tree = hcl2.parses_to_tree(look.masked)
    except UnexpectedInput as error:
        position = min(error.pos_in_stream or 0, len(source.text))
        expected = frozenset(getattr(error, "expected", None) or getattr(error, "allowed", None) or ())
        return None, (*look.errors, _explain(source, look, position, expected))
    return _body(source, tree.children[0]), look.errors


# Tree to nodes


def _body(source: Source, tree: Tree[Any]) -> Body:
    attributes = tuple(_attribute(source, child) for child in tree.children if child.data == "attribute")
    blocks = tuple(_block(source, child) for child in tree.children if child.data == "block")
    return Body(attributes, blocks)


def _span(source: Source, tree: Tree[Any]) -> Span:
    return source.span(tree.meta.start_pos, tree.meta.end_pos)


def _attribute(source: Source, tree: Tree[Any]) -> Attribute:
    name, _, value = tree.children
    return Attribute(_span(source, name).text, _span(source, tree), _value(source, value))


def _block(source: Source, tree: Tree[Any]) -> Block:
    parts = [child for child in _trees(tree) if child.data != "new_line_or_comment"]
    *header, body = parts
    labels = tuple(_label(source, part) for part in header[1:])
    kind = _span(source, header[0])
    return Block(
        kind.text, source.span(kind.start, header[-1].meta.end_pos), labels, _body(source, body), _span(source, tree)
    )


def _label(source: Source, tree: Tree[Any]) -> Literal | Unusable:
    span = _span(source, tree)
    return _string(span) if tree.data == "string" else Literal(span, span.text)


def _trees(tree: Tree[Any]) -> Iterator[Tree[Any]]:
    """The children that are no tokens."""
    return (child for child in tree.children if hasattr(child, "data"))


def _value(source: Source, tree: Tree[Any]) -> Value:
    """One expression. Nesting is bounded by scan.DEPTH_MAX."""
    span = _span(source, tree)
    children = [child for child in _trees(tree) if child.data != "new_line_or_comment"]
    if tree.data == "unary_op" and str(tree.children[0]) == "-":
        return _negative(span, _value(source, children[0]))
    if tree.data != "expr_term" or len(children) != 1:
        return _not_constant(span)
    inner = children[0]
    match inner.data:
        case "tuple":
            items = (child for child in _trees(inner) if child.data != "new_line_or_comment")
            return ListOf(span, tuple(_value(source, item) for item in items))
        case "expr_term" | "unary_op":
            return _value(source, inner)  # parentheses
        case "object" | "for_object_expr":
            return Unusable(span, "braces where a value belongs", "write it as a block, without the equals sign")
        case _:
            read = _CONSTANTS.get(str(inner.data), _not_constant)
            return read(_span(source, inner))


def _negative(span: Span, value: Value) -> Value:
    if isinstance(value, Literal) and isinstance(value.value, int | float) and not isinstance(value.value, bool):
        return Literal(span, -value.value)
    return _not_constant(span)


def _integer(span: Span) -> Value:
    digits = span.text.lstrip("-")
    if len(digits) > 20:  # more than 64 bits: nothing here is that big, and int() of a book takes its time
        return Unusable(span, "a number of more than 20 digits", "write a smaller one")
    if len(digits) > 1 and digits.startswith("0"):
        return Unusable(span, "a number with a leading zero", f"write {int(span.text)}")
    return Literal(span, int(span.text))


def _keyword(span: Span) -> Value:
    if span.text == "null":
        return Unusable(span, "null is no value here", "leave the attribute out to get its default")
    return Literal(span, span.text == "true")


def _unquoted(span: Span) -> Unusable:
    word = span.text
    if word[0] in "'\u2018\u201c":
        return Unusable(span, f"{word} is not quoted as HCL does it", f'write "{word[1:-1]}", in double quotes')
    if word.endswith(";"):
        return Unusable(span, "a semicolon behind a value", "begin a new line instead")
    if word.lower() in {"yes", "on", "no", "off"}:
        meant = "true" if word.lower() in {"yes", "on"} else "false"
        return Unusable(span, f"unquoted word {word}", f'write {meant}, or did you mean quotes, "{word}"?')
    if " " in word:
        return Unusable(span, f"unquoted words {word}", f'did you mean quotes, "{word}", or a list with commas?')
    return Unusable(span, f"unquoted word {word}", f'did you mean quotes, "{word}"? There are no variables here')


def _not_constant(span: Span) -> Unusable:
    text = " ".join(span.text.split())
    if re.fullmatch(r"[\w.:/*@-]+", text):
        return _unquoted(span)
    return Unusable(span, "only constants can stand here", "there are no variables, functions or calculations")


def _string(span: Span) -> Literal | Unusable:
    """A quoted string, its escapes resolved."""
    raw = span.text[1:-1]
    if re.search(r"(?<!\$)\$\{|(?<!%)%\{", raw):
        start = "$${" if "${" in raw else "%%{"
        return Unusable(
            span, "templates are not evaluated here", f"write the text itself; {start} stands for {start[1:]}"
        )
    problem: list[str] = []

    def resolve(found: re.Match[str]) -> str:
        if found[0] in {"$$", "%%"}:
            return found[0][0]
        code = found[1] or found[2]
        if code is None and found[3] in _ESCAPED:
            return _ESCAPED[found[3]]
        if code is not None and int(code, 16) < 0x11_0000 and not 0xD800 <= int(code, 16) < 0xE000:
            return chr(int(code, 16))
        problem.append(found[0])
        return ""

    text = _ESCAPE.sub(resolve, raw)
    if problem:
        advice = r"known are \n \r \t \" \\ \uNNNN \UNNNNNNNN; a backslash itself is written \\"
        return Unusable(span, f"unknown escape {problem[0]} in this string", advice)
    return Literal(span, text)


def _heredoc(span: Span) -> Unusable:
    return Unusable(span, "a text block over several lines", "write the text in quotes, on one line")


_CONSTANTS: Mapping[str, Callable[[Span], Value]] = MappingProxyType(
    {
        "int_lit": _integer,
        "float_lit": lambda span: Literal(span, float(span.text)),
        "literal_value": _keyword,
        "string": _string,
        "identifier": _unquoted,
        "heredoc_template": _heredoc,
        "heredoc_template_trim": _heredoc,
    }
)


# Words for what the grammar refuses


def _explain(source: Source, look: Scan, position: int, expected: frozenset[str]) -> Diagnostic:
    """What a person would say is wrong, where the grammar stopped at `position` and wanted one of `expected`."""
    before = [token for token in look.tokens if token.start < position]
    here = next((token for token in look.tokens if token.end > position), None)
    statement = _statement(before)
    if here is None or here.kind in {"newline", "close"} or expected == {"LBRACE"}:
        return _unfinished(source, statement, here)
    char = source.text[position]
    at = source.span(max(position, here.start), here.end)
    if char in ":;.":
        return _punctuation(source.span(position, position + 1))
    if here.kind == "equals" and statement:
        return _unfinished(source, statement, here)
    if here.kind == "comma":
        return Diagnostic(at, "a comma too many", "elements have one comma between them")
    if any(token.kind == "equals" for token in statement):
        return Diagnostic(at, f"{at.text} behind a value", "an attribute has one value: a list is written [a, b]")
    if _within_list(source, before):
        return Diagnostic(at, f"{at.text} where a comma belongs", "elements of a list are separated by commas")
    if here.kind == "string":
        return Diagnostic(at, f"{at.text} where a name belongs", "names of attributes and blocks stand without quotes")
    return Diagnostic(at, f"{at.text} does not belong here", "expected `name = value`, or a block: `name { ... }`")


def _punctuation(span: Span) -> Diagnostic:
    advice = {
        ":": "an attribute is written with an equals sign: `name = value`",
        ";": "begin a new line instead",
        ".": "names have no dots: what belongs to a block is written inside its braces",
    }
    return Diagnostic(span, f'"{span.text}" does not belong here', advice[span.text])


def _within_list(source: Source, before: list[Token]) -> bool:
    """Whether the innermost bracket that is still open behind these tokens is a list's."""
    open_ = 0
    for token in reversed(before):
        open_ += {"open": 1, "close": -1}.get(token.kind, 0)
        if open_ > 0:
            return source.text[token.start] == "["
    return False


def _statement(before: list[Token]) -> list[Token]:
    """The tokens of the last line that has any, from the last brace or bracket on."""
    while before and before[-1].kind == "newline":
        before = before[:-1]
    first = len(before)
    while first and before[first - 1].kind not in {"newline", "open", "close"}:
        first -= 1
    return before[first:]


def _unfinished(source: Source, statement: list[Token], here: Token | None) -> Diagnostic:
    """A line that ends, or goes on with an equals sign, before it is an attribute or a block."""
    if not statement:
        end = len(source.text) if here is None else here.start
        return Diagnostic(source.span(end, end), "something is missing here", "expected `name = value`, or a block")
    span = source.span(statement[0].start, statement[-1].end)
    kinds = [token.kind for token in statement]
    if kinds[-1] == "equals":
        return Diagnostic(span, "no value behind the equals sign", "write one on the same line")
    if "equals" in kinds:
        rest = statement[min(kinds.index("equals") + 2, len(statement) - 1)]
        at = source.span(rest.start, statement[-1].end)
        return Diagnostic(at, f"{at.text} behind a value", "an attribute has one value: a list is written [a, b]")
    first, *words = [source.text[token.start : token.end] for token in statement]
    if not words:
        return Diagnostic(span, "neither an attribute nor a block", f"write `{first} = value`, or `{first} {{ ... }}`")
    advice = f"an attribute is `{first} = {' '.join(words)}`, a block `{span.text} {{ ... }}`"
    return Diagnostic(span, "neither an attribute nor a block", advice)
