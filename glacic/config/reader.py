"""Step 3 of road 1, the tool of decode.py: takes the attributes and blocks of one block, by name and type.

A Reader knows which names were asked for, so what is left over is unknown; it reports everything at its place and
goes on. What could not be read is remembered as broken, so that nobody complains about its absence. Refuses to know
any name of the configuration itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from glacic.config.source import NOTE, WARNING, Diagnostic, Span, closest, did_you_mean, listed
from glacic.config.syntax import Attribute, Block, Body, ListOf, Literal, Unusable, Value
from glacic.config.values import Invalid

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

HEADER = ""  # the key of a block's header in its spans


def label_key(index: int) -> str:
    """The key of a block's label in its spans."""
    return f"label[{index}]"


def element_key(name: str, index: int) -> str:
    """The key of one element of a list in its block's spans."""
    return f"{name}[{index}]"


@dataclass(slots=True)
class Report:
    """All that was found so far. The one thing that decoding and validating change."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    broken: set[Span] = field(default_factory=set)
    lost: set[tuple[str, str]] = field(default_factory=set)  # type and label of blocks that could not be read at all

    def error(self, span: Span, summary: str, advice: str = "") -> None:
        """Something that stops."""
        self.diagnostics.append(Diagnostic(span, summary, advice))

    def warn(self, span: Span, summary: str, advice: str = "") -> None:
        """Something that holds, and not as is likely meant."""
        self.diagnostics.append(Diagnostic(span, summary, advice, WARNING))

    def note(self, span: Span, summary: str, advice: str = "") -> None:
        """Something worth knowing."""
        self.diagnostics.append(Diagnostic(span, summary, advice, NOTE))


@dataclass(frozen=True, slots=True)
class Located:
    """A constant of an attribute, with the place to complain about: the attribute, or the element of its list."""

    value: bool | int | float | str
    span: Span


class Reader:
    """The attributes and blocks of one body. Ask for every known name, then call `finish`."""

    def __init__(self, body: Body, header: Span, report: Report, where: str) -> None:
        self._report = report
        self._where = where
        self._attributes: dict[str, Attribute] = {}
        self._blocks = body.blocks
        self._names: set[str] = set()
        self._types: set[str] = set()
        self._required: dict[str, str] = {}
        self.spans: dict[str, Span] = {HEADER: header}
        for attribute in body.attributes:
            self._keep(attribute)

    def _keep(self, attribute: Attribute) -> None:
        first = self._attributes.get(attribute.name)
        if first is not None:
            summary = f"{attribute.name} is written twice"
            place = first.span.seen_from(attribute.span)
            self._report.error(attribute.span, summary, f"remove one of them; the first is in {place}")
            return
        self._attributes[attribute.name] = attribute
        self.spans[attribute.name] = attribute.span

    # Attributes

    def has(self, name: str) -> bool:
        """Whether the attribute is written, readable or not."""
        return name in self._attributes

    def broken(self, name: str) -> bool:
        """Whether the attribute is written and could not be read."""
        return name in self.spans and self.spans[name] in self._report.broken

    def refuse(self, name: str, summary: str, advice: str = "") -> None:
        """Report a written attribute as wrong."""
        self._report.error(self.spans[name], summary, advice)
        self._report.broken.add(self.spans[name])

    def taken(self, name: str) -> None:
        """An attribute that somebody else has read, and taken out."""
        self._names.add(name)

    def require(self, name: str, advice: str) -> None:
        """Let `finish` report the attribute at the header, should it be absent."""
        self._names.add(name)
        self._required[name] = advice

    def flag(self, name: str, default: bool = False) -> bool:
        """`true` or `false`."""
        found = self._scalar(name, "true or false")
        if found is None:
            return default
        if isinstance(found, bool):
            return found
        advice = f"write {found}, without quotes" if found in ("true", "false") else "write true or false"
        self.refuse(name, f"{name} must be true or false, not {describe(found)}", advice)
        return default

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number, low..high."""
        found = self._scalar(name, "a number")
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int):
            whole = isinstance(found, str) and found.strip().isascii() and found.strip().isdigit()
            advice = f"write {int(str(found)[:20])}, without quotes" if whole else f"write {low} to {high}"
            self.refuse(name, f"{name} must be a whole number, not {describe(found)}", advice)
        elif not low <= found <= high:
            self.refuse(name, f"{name} = {found} is out of range", f"write {low} to {high}")
        else:
            return found
        return default

    def text(
        self, name: str, parse: Callable[[str], T], what: str = "text in quotes", *, number: str = 'write "{}"'
    ) -> T | None:
        """A string, through `parse`; None where it is absent or broken. number: of a bare one above zero."""
        found = self._scalar(name, what)
        if found is None:
            return None
        if not isinstance(found, str):
            quoted = (
                number.format(found)
                if isinstance(found, int | float) and not isinstance(found, bool) and found > 0
                else f"write {what}"
            )
            self.refuse(name, f"{name} must be a string, not {describe(found)}", quoted)
            return None
        try:
            return parse(found)
        except Invalid as invalid:
            self.refuse(name, invalid.summary, invalid.advice)
            return None

    def choice(self, name: str, kind: type[E], default: E, aliases: Mapping[str, E] | None = None) -> E:
        """One of the values of an enumeration."""
        known = {str(member): member for member in kind} | dict(aliases or {})

        def parse(text: str) -> E:
            if text not in known:
                raise Invalid(f'"{text}" is no {name}', did_you_mean(text, known) or f"write {listed(map(str, kind))}")
            return known[text]

        found = self.text(name, parse, listed(map(str, kind)))
        return default if found is None else found

    def items(self, name: str, parse: Callable[[Located], T], *, empty: str = "") -> list[tuple[T, Span]]:
        """The elements of a list, or a single value, each through `parse`.

        empty: why a list of none is refused; "" allows it. Where an element is wrong it is reported and left out, and
        the attribute counts as broken. The spans of the kept elements are in `spans` under element_key().
        """
        kept: list[tuple[T, Span]] = []
        for located in self._located(name, empty):
            try:
                kept.append((parse(located), located.span))
            except Invalid as invalid:
                self._report.error(located.span, invalid.summary, invalid.advice)
                self._report.broken.add(self.spans[name])
        self.keep_elements(name, kept)
        return kept

    def keep_elements(self, name: str, kept: Iterable[tuple[object, Span]]) -> None:
        """Remember where the elements of an attribute stand."""
        for key in [key for key in self.spans if key.startswith(f"{name}[")]:
            del self.spans[key]
        self.spans |= {element_key(name, index): span for index, (_, span) in enumerate(kept)}

    def _located(self, name: str, empty: str) -> list[Located]:
        self._names.add(name)
        attribute = self._attributes.get(name)
        if attribute is None:
            return []
        if not isinstance(attribute.value, ListOf):
            found = self._constant(name, attribute.value, attribute.span)
            return [] if found is None else [found]
        if not attribute.value.items and empty:
            self.refuse(name, f"{name} is an empty list", empty)
        located = [self._constant(name, item, item.span) for item in attribute.value.items]
        return [found for found in located if found is not None]

    def _constant(self, name: str, value: Value, place: Span) -> Located | None:
        if isinstance(value, Literal):
            return Located(value.value, place)
        if isinstance(value, Unusable):
            self._report.error(place, f"{name}: {value.summary}", value.advice)
        else:
            self._report.error(place, f"{name} has a list within its list", "write one list")
        self._report.broken.add(self.spans[name])
        return None

    def _scalar(self, name: str, what: str) -> bool | int | float | str | None:
        self._names.add(name)
        attribute = self._attributes.get(name)
        if attribute is None:
            return None
        if isinstance(attribute.value, ListOf):
            self.refuse(name, f"{name} must be one value, not a list", f"write {what}")
            return None
        found = self._constant(name, attribute.value, attribute.span)
        return None if found is None else found.value

    def flags(self) -> list[tuple[str, Span, bool]]:
        """Every attribute there is, as `name = true|false`; for blocks whose names come from a vocabulary."""
        return [(name, attribute.span, self.flag(name)) for name, attribute in self._attributes.items()]

    # Blocks

    def blocks(self, type_: str) -> list[Block]:
        """The blocks of this type, in file order."""
        self._types.add(type_)
        return [block for block in self._blocks if block.type == type_]

    def only(self, type_: str) -> list[Block]:
        """The blocks of a type of which there may be one; every further one is an error, and still worth reading."""
        found = self.blocks(type_)
        for block in found[1:]:
            advice = f"merge it into the one of {found[0].span.seen_from(block.span)}"
            self._report.error(block.span, f"a second {type_} block in {self._where}", advice)
        return found

    def finish(self) -> None:
        """Report what nobody asked for, then what is missing. A misspelt name counts as written, and broken."""
        for name, attribute in self._attributes.items():
            if name in self._types:
                self._report.error(
                    attribute.span, f"{name} is a block", f"write `{name} {{ ... }}`, without the equals sign"
                )
            elif name not in self._names:
                self._unknown("attribute", name, attribute.span, self._names, self._types)
                self._count_as_written(name, attribute.span)
        for block in self._blocks:
            if block.type in self._types:
                continue
            if block.type in self._names:
                self._report.error(block.span, f"{block.type} is an attribute", f"write `{block.type} = ...`")
            else:
                self._unknown("block", block.type, block.span, self._types, self._names)
                for type_ in closest(block.type, self._types):
                    self._report.lost |= {(type_, text) for text in label_texts(block)}
        for name, advice in self._required.items():
            if name not in self.spans:
                self._report.error(self.spans[HEADER], f"{self._where} has no {name}", advice)

    def _count_as_written(self, name: str, span: Span) -> None:
        meant = closest(name, self._names)
        if meant and meant[0] not in self.spans:
            self.spans[meant[0]] = span
            self._report.broken.add(span)

    def _unknown(self, kind: str, name: str, span: Span, alike: set[str], others: set[str]) -> None:
        advice = did_you_mean(name, alike) or did_you_mean(name, others)
        if not advice:
            known = sorted(alike)
            advice = f"known here: {', '.join(known)}" if known else f"{self._where} has no {kind}s"
        self._report.error(span, f"unknown {kind} {name} in {self._where}", advice)


def label_texts(block: Block) -> list[str]:
    """The labels that are readable."""
    return [str(label.value) for label in block.labels if isinstance(label, Literal)]


def describe(value: bool | int | float | str) -> str:
    """A constant in words, short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{value[:40]}"'
    return f"the number {value}"


def labels(block: Block, names: tuple[str, ...], report: Report, parse: Callable[[str], str]) -> tuple[str, ...] | None:
    """The labels of a block, or None where their number is wrong. One that `parse` refuses is reported and returned.

    So a zone with a bad name is known by it, and nobody who means it is told that there is no such zone.
    """
    if len(block.labels) != len(names):
        wanted = " ".join([block.type, *(f'"{name}"' for name in names)])
        count = f"{len(block.labels) or 'no'} label{'s' if len(block.labels) != 1 else ''}"
        report.error(block.span, f"{block.type} has {count}", f"write `{wanted} {{ ... }}`")
        report.lost |= {(block.type, text) for text in label_texts(block)}
        return None
    found: list[str] = []
    for label in block.labels:
        if isinstance(label, Unusable):
            report.error(label.span, label.summary, label.advice)
            continue
        found.append(str(label.value))
        try:
            parse(found[-1])
        except Invalid as invalid:
            report.error(label.span, invalid.summary, invalid.advice)
    return tuple(found) if len(found) == len(names) else None
