"""Step 3 of road 1, for long lists: a text file becomes elements of a set, one to a line.

    192.0.2.0/24            # a comment
    198.51.100.7
    203.0.113.10-203.0.113.19

Empty lines and comments are nothing. What an element may be is what it may be in the configuration (values.py), with a
short way past it for what such files consist of: a hundred thousand addresses in a third of a second. Refuses more
lines than a kernel should be given at once.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import TypeVar

from glacic.config import values
from glacic.config.files import Files
from glacic.config.model import AddressRange, Network
from glacic.config.source import Diagnostic, Source
from glacic.config.texts import Texts
from glacic.config.values import Invalid

T = TypeVar("T")

SIZE_MAX = 64 << 20  # bytes of all files
LINES_MAX = 1_000_000  # of all files; nft takes 1.6 KB and 17 us for each while it loads them (measured)
TOLD_MAX = 20  # mistakes of one file

_HOSTS_4 = {str(length): (1 << (32 - length)) - 1 for length in range(33)}
_HOSTS_6 = {str(length): (1 << (128 - length)) - 1 for length in range(129)}
_MAPPED = 0xFFFF  # the first 96 bits of ::ffff:0:0/96, RFC 4291 section 2.5.5.2


class Lists:
    """The list files of one configuration."""

    def __init__(self, files: Files) -> None:
        self._texts = Texts(files, "what elements_file names", SIZE_MAX)
        self._left = LINES_MAX

    def read(self, path: Path, parse: Callable[[str], T]) -> tuple[list[T], list[Diagnostic]]:
        """The elements of one file, and what is wrong in it. Raises Invalid where it cannot be read or is too long,
        NotText."""
        source = self._texts.read(path)
        self._left -= source.text.count("\n")
        if self._left < 0:
            raise Invalid(
                f"more than {LINES_MAX} lines of elements", "merge addresses into networks, or leave some out"
            )
        return elements(source, parse)


def elements(source: Source, parse: Callable[[str], T]) -> tuple[list[T], list[Diagnostic]]:
    """The elements of a text, and the first TOLD_MAX mistakes in it with a word about the rest."""
    found: list[T] = []
    wrong: list[Diagnostic] = []
    more = offset = 0
    for line in source.text.split("\n"):
        text = line.partition("#")[0].strip()
        if text:
            try:
                found.append(parse(text))
            except Invalid as invalid:
                at = offset + line.index(text)
                if len(wrong) < TOLD_MAX:
                    wrong.append(Diagnostic(source.span(at, at + len(text)), invalid.summary, invalid.advice))
                else:
                    more += 1
                    last = source.span(at, at + len(text))
        offset += len(line) + 1
    if more:
        wrong.append(
            Diagnostic(last, f"and {more} more line{'s' if more > 1 else ''} like these", "this is the last one")
        )
    return found, wrong


def address(text: str) -> Network | AddressRange:
    """What values.addresses makes of it, if need be as a range from first to last address. Raises Invalid."""
    written, slash, length = text.partition("/")
    six = ":" in written
    try:
        first = int.from_bytes(inet_pton(AF_INET6 if six else AF_INET, written))
    except (OSError, ValueError):  # ValueError: a NUL, or a character that no file has
        return values.addresses(text)
    hosts = (_HOSTS_6 if six else _HOSTS_4).get(length) if slash else 0
    if hosts is None or first & hosts or (six and first >> 32 == _MAPPED):
        return values.addresses(text)
    make = IPv6Address if six else IPv4Address
    return AddressRange(make(first), make(first | hosts))
