"""Places and diagnostics: where a line begins, and how an error looks in a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.source import NOTE, Diagnostic, Source, Span, closest, did_you_mean, in_order, listed, printable


def shown(text: str, start: int, end: int, summary: str = "wrong") -> list[str]:
    return Diagnostic(Source("a.hcl", text).span(start, end), summary).render().split("\n")


def test_lines_and_columns_count_from_one() -> None:
    source = Source("a.hcl", "one\ntwo\r\nthree")
    assert [source.line(number) for number in range(5)] == ["", "one", "two", "three", ""]
    assert str(source.span(0, 1)) == "a.hcl:1:1"
    assert str(source.span(5, 6)) == "a.hcl:2:2"
    assert str(source.span(9, 10)) == "a.hcl:3:1"
    assert source.span(9, 99).text == "three"


def test_only_a_line_feed_ends_a_line() -> None:
    source = Source("a.hcl", "a\x0bb\u2028c\nd")
    assert source.line(1) == "a\x0bb\u2028c"
    assert source.span(6, 7).line == 2


def test_a_caret_stands_under_the_place() -> None:
    assert shown('zone "lna" {', 5, 10) == ["a.hcl:1:6: error: wrong", 'zone "lna" {', "     ^~~~~"]


def test_advice_follows_the_caret() -> None:
    source = Source("a.hcl", "x = 1")
    text = Diagnostic(source.span(0, 5), "no x here", "remove it", NOTE).render()
    assert text == "a.hcl:1:1: note: no x here\nx = 1\n^~~~~\n  = remove it"


def test_a_tab_stays_a_tab_above_and_below() -> None:
    assert shown("\t\tx = 1", 2, 7)[1:] == ["\t\tx = 1", "\t\t^~~~~"]


def test_wide_and_combining_characters_keep_the_caret_in_place() -> None:
    assert shown('"日本" x', 5, 6)[2] == "       ^"
    assert shown('"e\u0301" x', 5, 6)[2] == "    ^"


def test_a_long_line_is_shown_around_the_place() -> None:
    line, caret = shown("a" * 500 + "HERE" + "b" * 500, 500, 504)[1:]
    assert len(line) < 200
    assert line.startswith("...")
    assert line.endswith("...")
    assert line[caret.index("^") :].startswith("HERE")
    assert caret.strip() == "^~~~"


def test_a_span_over_several_lines_is_underlined_on_its_first() -> None:
    assert shown("x = [\n 1\n]", 0, 10)[1:] == ["x = [", "^~~~~"]


def test_nothing_that_moves_a_cursor_is_printed() -> None:
    diagnostic = Diagnostic(Source("\x1b[2Ja.hcl", 'x = "\x1b[31m"').span(0, 5), "no \x1b", "\u202eevil\x07")
    text = diagnostic.render()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\x07" not in text
    assert '\nx = "\\x1b[31m"\n' in text
    assert diagnostic.as_dict()["advice"] == "\\u202eevil\\x07"


def test_a_file_that_cannot_be_read_has_no_line() -> None:
    nowhere = Span(Source("a.hcl", ""), 0, 0, 0, 0)
    assert Diagnostic(nowhere, "cannot read", "look").render() == "a.hcl: error: cannot read\n  = look"


def test_as_data_it_has_everything() -> None:
    found = Diagnostic(Source("a.hcl", "x = 1").span(4, 5), "s", "a")
    assert found.as_dict() == {
        "file": "a.hcl",
        "line": 1,
        "column": 5,
        "severity": "error",
        "summary": "s",
        "advice": "a",
    }


def test_diagnostics_come_in_file_order_and_once() -> None:
    source = Source("a.hcl", "x = 1\ny = 2")
    first, second = Diagnostic(source.span(0, 1), "b"), Diagnostic(source.span(6, 7), "a")
    assert in_order([second, first, second]) == (first, second)


@pytest.mark.parametrize(
    ("word", "known", "advice"),
    [
        ("lna", ["lan", "wan"], 'did you mean "lan"?'),
        ("LAN", ["lan", "wan"], 'did you mean "lan"?'),
        ("xyzzy", ["lan", "wan"], ""),
        ("x", [], ""),
    ],
)
def test_a_close_name_is_proposed(word: str, known: list[str], advice: str) -> None:
    assert did_you_mean(word, known) == advice
    assert bool(closest(word, known)) == bool(advice)


def test_all_there_is_can_be_listed() -> None:
    assert listed(["a"]) == '"a"'
    assert listed(["a", "b", "c"]) == '"a", "b" or "c"'
    assert listed([]) == ""


@given(st.text(), st.integers(0, 50), st.integers(0, 50))
def test_any_text_at_any_place_can_be_shown(text: str, start: int, length: int) -> None:
    source = Source("a.hcl", text)
    span = source.span(start, start + length)
    assert source.text[: span.start].count("\n") == span.line - 1
    rendered = Diagnostic(span, text, text).render()
    assert all(char.isprintable() or char in "\n\t" for char in rendered)


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert printable(text).isprintable()
