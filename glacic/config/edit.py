"""Road 1, backwards: one limit block of a file is changed, added or taken out, and every other character stays.

Text is spliced at the places of nodes, so comments and layout are kept: a comment behind a line that goes gets a line
of its own. Refuses to read or write files, and to know whether what comes out is valid: the caller loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from glacic.config.model import LimitKind
from glacic.config.rates import parse_rate
from glacic.config.source import Source, Span
from glacic.config.syntax import Attribute, Block, Body, Literal, parse
from glacic.config.values import Invalid

LIMIT = "limit"
RATES = ("upload", "download")
ORDER = (*(str(kind) for kind in LimitKind), *RATES, "engine", "traffic", "interface")
_DEFAULTS = {"engine": "auto", "traffic": "all"}

Attributes = Mapping[str, str]  # name -> value as in the file, without quotes; of ORDER. What is left out is not there


def has_limit(source: Source, name: str) -> bool:
    """Whether the file itself, not what it includes, has this limit."""
    return _block(_body(source), name) is not None


def with_limit(source: Source, name: str, wanted: Attributes) -> str:
    """The text with this limit as `wanted`: its block changed where there is one, else a new one behind the last limit.

    A value that means what is written already stays as it is written. Raises ValueError for text that is no HCL."""
    body = _body(source)
    block = _block(body, name)
    if block is None:
        return _added(source, body, name, wanted)
    text = source.text
    for start, end, new in sorted(_changes(source, block, wanted), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def without_limit(source: Source, name: str) -> str:
    """The text without this limit. Raises ValueError where it has none."""
    block = _block(_body(source), name)
    if block is None:
        raise ValueError(f"no limit {name} in {source.name}")
    start, end = _whole_lines(source.text, block.whole)
    before, after = source.text[:start], source.text[end:]
    blank = not before or before.replace("\r", "").endswith("\n\n")
    if blank and after.lstrip(" \t")[:1] in ("\r", "\n"):  # one empty line was for the block
        after = after.lstrip(" \t").removeprefix("\r").removeprefix("\n")
    if not after and before.replace("\r", "").endswith("\n\n"):
        before = before.removesuffix("\n").removesuffix("\r")
    return before + after


def quoted(text: str) -> str:
    """A string as HCL has it."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain.replace("${", "$${").replace("%{", "%%{")}"'


def _body(source: Source) -> Body:
    body, problems = parse(source)
    if body is None:
        raise ValueError(problems[0].summary)
    return body


def _block(body: Body, name: str) -> Block | None:
    """The block of a limit; the first of several."""
    for block in body.blocks:
        if block.type == LIMIT and [label.value for label in block.labels if isinstance(label, Literal)] == [name]:
            return block
    return None


# A block that is there


def _changes(source: Source, block: Block, wanted: Attributes) -> list[tuple[int, int, str]]:
    """(start, end, text) of what is replaced, none within another."""
    written = {found.name: found for found in block.body.attributes}
    kinds = [str(kind) for kind in LimitKind]
    target = next((name for name in kinds if name in wanted), None)
    changes: list[tuple[int, int, str]] = []
    gone = [found for name, found in written.items() if name in ORDER and name not in wanted]
    renamed = next((found for found in gone if found.name in kinds), None)
    for found in gone:
        if found is renamed and target is not None:  # the target is of another kind now: its line is the same
            changes.append((found.span.start, found.span.end, _line(target, wanted[target], _width(found))))
        elif found.name in _DEFAULTS:
            changes += _value(found, _DEFAULTS[found.name])
        else:
            changes.append((*_whole_lines(source.text, found.span), ""))
    missing: dict[int, str] = {}
    for name in (name for name in ORDER if name in wanted):
        if name in written:
            changes += _value(written[name], wanted[name])
        elif not (name == target and renamed) and wanted[name] != _DEFAULTS.get(name):
            at, new = _new_line(source, block, name, wanted[name])
            missing[at] = missing.get(at, "") + new
    return changes + [(at, at, new) for at, new in missing.items()]


def _value(found: Attribute, new: str) -> list[tuple[int, int, str]]:
    """The change of a value, where it means something else."""
    old = found.value.value if isinstance(found.value, Literal) else None
    if old == new:
        return []
    if found.name in RATES and isinstance(old, str):
        with suppress(Invalid):
            if parse_rate(old) == parse_rate(new):
                return []
    return [(found.value.span.start, found.value.span.end, quoted(new))]


def _new_line(source: Source, block: Block, name: str, value: str) -> tuple[int, str]:
    """Where a line for an attribute goes, and the line: behind those that stand before it by ORDER."""
    newline = _newline(source.text)
    ranks = {known: rank for rank, known in enumerate(ORDER)}
    earlier = [found for found in block.body.attributes if ranks.get(found.name, len(ORDER)) < ranks[name]]
    if not block.body.attributes:
        return source.text.index("{", block.span.end) + 1, f"{newline}  {_line(name, value, 0)}"
    beside = max(earlier, key=lambda found: found.span.end) if earlier else block.body.attributes[0]
    first = _line_start(source.text, beside.span.start)
    indent = source.text[first : beside.span.start]
    indent = indent if not indent.strip() else "  "
    new = f"{indent}{_line(name, value, _width(beside))}{newline}"
    return (_line_end(source.text, beside.span.end) if earlier else first), new


def _line(name: str, value: str, width: int) -> str:
    return f"{name.ljust(width)} = {quoted(value)}"


def _width(beside: Attribute) -> int:
    """How far its equals sign is from where its name begins, less one space."""
    return beside.span.text.index("=") - 1


# A block that is not there


def _added(source: Source, body: Body, name: str, wanted: Attributes) -> str:
    """The text with a new block, behind the last limit or at the end."""
    newline = _newline(source.text)
    lines = [(known, wanted[known]) for known in ORDER if known in wanted and wanted[known] != _DEFAULTS.get(known)]
    width = max((len(known) for known, _ in lines), default=0)
    written = [f"limit {quoted(name)} {{", *(f"  {_line(known, value, width)}" for known, value in lines), "}"]
    new = newline.join(written) + newline
    limits = [block for block in body.blocks if block.type == LIMIT]
    at = _line_end(source.text, limits[-1].whole.end) if limits else len(source.text)
    before, after = source.text[:at], source.text[at:]
    if before and not before.endswith("\n"):
        before += newline
    if after and after[0] not in "\r\n":
        new += newline
    return f"{before}{newline if before.strip() else ''}{new}{after}"


# Lines


def _newline(text: str) -> str:
    """How lines of this text end."""
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Behind the line's end."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _whole_lines(text: str, span: Span) -> tuple[int, int]:
    """A span with the lines that it stands on, where there is nothing else on them; or with the blanks around it."""
    start, end = _line_start(text, span.start), _line_end(text, span.end)
    if text[start : span.start].strip():
        return span.start, span.end
    behind = text[span.end : end]
    if behind.strip():  # a comment: it stays, where the line began
        return span.start, span.end + len(behind) - len(behind.lstrip())
    return start, end
