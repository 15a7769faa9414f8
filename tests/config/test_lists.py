"""Lists: a line is an element, every mistake has its place, and the short way finds what the long way finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glacic.config import lists, values
from glacic.config.files import Kept
from glacic.config.lists import LINES_MAX, TOLD_MAX, Lists, address, elements
from glacic.config.model import AddressRange, Network, PortRange
from glacic.config.source import Source
from glacic.config.values import Invalid

WHOLE = ("10.1.0.0", "10.1.0.5", "0.0.0.0", "2001:db8::", "::", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4")
PARTS = ("/", "/0", "/24", "/32", "/33", "/64", "/128", "/129", "/08", "-", " ", "%lan0", ".", ":", "1", "f", "é", "\0")
PIECES = st.sampled_from(WHOLE + PARTS)


def interval(found: Network | AddressRange) -> tuple[int, int, int]:
    if isinstance(found, AddressRange):
        return found.first.version, int(found.first), int(found.last)
    return found.version, int(found.network_address), int(found.broadcast_address)


def outcome(parse: Callable[[str], Network | AddressRange], text: str) -> object:
    try:
        return interval(parse(text))
    except Invalid as invalid:
        return invalid.summary, invalid.advice


def told(text: str) -> list[str]:
    return [f"{one.span}: {one.summary}: {one.advice}" for one in elements(Source("a.txt", text), address)[1]]


def test_comments_and_empty_lines_are_nothing_and_line_ends_are_either() -> None:
    text = "# blocked\r\n\r\n10.1.0.0/24\r\n  10.2.0.1 # one\n\t2001:db8::/64#\n10.3.0.1 - 10.3.0.9\n#"
    found, wrong = elements(Source("a.txt", text), address)
    assert wrong == []
    assert [interval(one) for one in found] == [
        interval(values.addresses(one)) for one in ("10.1.0.0/24", "10.2.0.1", "2001:db8::/64", "10.3.0.1-10.3.0.9")
    ]
    assert elements(Source("a.txt", ""), address) == ([], [])
    ports = elements(Source("a.txt", "80\n6000-6010 # range\n"), values.port)
    assert ports == ([PortRange(80, 80), PortRange(6000, 6010)], [])


def test_mistakes_are_told_at_line_and_column() -> None:
    assert told("10.1.0.0/24\r\n# x\r\n   10.1.0.5/24  # y\r\nexample.org\n@other\n10.0.0.1 10.0.0.2\n") == [
        'a.txt:3:4: "10.1.0.5/24" is an address within a network: '
        'write "10.1.0.0/24" for the network, or "10.1.0.5" for one host',
        'a.txt:4:1: "example.org" is not an IP address or network: '
        'names are not resolved: write an address, a network, or a set as "@name"',
        'a.txt:5:1: "@other" is not an IP address or network: write "192.0.2.0/24", "192.0.2.7", "2001:db8::/64"',
        'a.txt:6:1: "10.0.0.1 10.0.0.2" is not an IP address or network: '
        'write "192.0.2.0/24", "192.0.2.7", "2001:db8::/64"',
    ]


def test_of_many_mistakes_the_first_are_told_and_the_rest_counted() -> None:
    found = told("x\n" * TOLD_MAX)
    assert len(found) == TOLD_MAX
    assert found[-1].startswith(f"a.txt:{TOLD_MAX}:1: ")
    found = told("10.0.0.1\n" + "x\n" * (TOLD_MAX + 7) + "10.0.0.1\n")
    assert len(found) == TOLD_MAX + 1
    assert found[-1] == f"a.txt:{TOLD_MAX + 8}:1: and 7 more lines like these: this is the last one"


@given(st.lists(PIECES, max_size=5).map("".join))
@example("10.1.0.0/24")
@example("2001:db8::/33")
@example("::ffff:0:0/96")
@example("::/0")
@example("0.0.0.0/0")
@example("10.1.0.0/032")
def test_the_short_way_finds_what_the_long_way_finds(text: str) -> None:
    assert outcome(address, text) == outcome(values.addresses, text)


def test_the_lines_of_all_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "LINES_MAX", 5)
    files = Lists(Kept({"a": b"10.0.0.1\n10.0.0.2\n10.0.0.3\n", "b": b"#\n#\n#\n"}))
    assert len(files.read(Path("a"), address)[0]) == 3
    with pytest.raises(Invalid, match="more than 5 lines of elements"):
        files.read(Path("b"), address)
    assert LINES_MAX == 1_000_000


def test_a_hundred_thousand_lines_are_read_in_less_than_a_second_of_this_processs_time() -> None:
    text = "".join(f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}\n" for at in range(100_000))
    before = time.process_time()
    found, _ = elements(Source("a.txt", text), address)
    assert len(found) == 100_000
    assert time.process_time() - before < 1
