"""The first look: what is never closed, what does not match, and which bare words are masked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.scan import DEPTH_MAX, scan
from glacic.config.source import Source


def fault(text: str) -> tuple[str, str]:
    found = scan(Source("a.hcl", text))
    assert found.fatal
    (one,) = found.errors
    return f"{one.span.line}:{one.span.column} {one.summary}", one.advice


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('a = "x\nb = "y"\n', "1:5 this string is not closed on its line"),
        ('zone "lan {\n}\n', "1:6 this string is not closed on its line"),
        ('a = "x\\', "1:5 this string is not closed on its line"),
        ('a = "${x"', "1:5 this string is not closed on its line"),
        ("a = 1 /* never\n", "1:7 this comment is never closed"),
        ("a = <<EOT\nx\n", "1:5 this text block is never closed"),
        ("zone {\n", '1:6 this "{" is never closed'),
        ("a = [1, 2\n", '1:5 this "[" is never closed'),
        ("}\n", '1:1 this "}" closes nothing'),
        ("a { }\n}", '2:1 this "}" closes nothing'),
        ("a {\n b = [1\n}", '3:1 "}" where "]" is missing'),
        ("a = \x07", "1:5 control character U+0007"),
        ("a = 1\rb = 2", "1:6 a carriage return without a line feed"),
        ("a = 1\n\ufeffb = 2", "2:1 control character U+FEFF"),
        ("a = \x00", "1:5 control character U+0000"),
    ],
)
def test_what_the_grammar_would_report_elsewhere_is_found_where_it_is(text: str, place: str) -> None:
    assert fault(text)[0] == place


def test_a_missing_brace_is_looked_for_where_the_next_block_begins() -> None:
    place, advice = fault('zone "lan" {\n  a = 1\n\nzone "wan" {\n  a = 1\n}\n')
    assert place == '1:12 this "{" is never closed'
    assert "line 4" in advice


def test_a_missing_brace_is_looked_for_where_indentation_differs() -> None:
    place, advice = fault("zone {\n  services {\n    dns = true\n}\nzone {\n}\n")
    assert place == '2:12 this "{" is never closed'
    assert "above line 4" in advice


def test_nesting_has_an_end() -> None:
    assert scan(Source("a.hcl", "a = " + "[" * DEPTH_MAX + "]" * DEPTH_MAX)).errors == ()
    assert "brackets within each other" in fault("a = " + "[" * 100_000)[0]
    assert "is not closed" in fault('a = "' + "${" * 100_000)[0]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a = 24h", "a = ___"),
        ("a = 10.0.0.0/8 # net", "a = __________ # net"),
        ("a = [80, http, 6000-6010]", "a = [80, ____, _________]"),
        ("a = [\n  x,\n  y\n]", "a = [\n  _,\n  _\n]"),
        ("a = 'it is'\n", "a = _______\n"),
        ("a = \u201clan0\u201d", "a = ______"),
        ("a = my lan b = 2", "a = ______ b = 2"),
        ("a { b = x }", "a { b = _ }"),
        ("a = x // y", "a = _ // y"),
    ],
)
def test_bare_words_become_identifiers_of_the_same_length(text: str, masked: str) -> None:
    assert scan(Source("a.hcl", text)).masked == masked


@pytest.mark.parametrize(
    "text",
    [
        "a = 1",
        "a = -1.5e3",
        "a = true",
        'a = "x, y # z"',
        'a = ["x", 1, null]',
        "zone lan { b = 1 c = false }",
        'a = f("x")',
        "a =\n b = 1",
        "# x = y\n/* z = w */",
        'a = "\\"x" # =y',
    ],
)
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert scan(Source("a.hcl", text)).masked == text


def test_commas_between_attributes_are_told_and_taken_out() -> None:
    found = scan(Source("a.hcl", "s { a = true, b = [1, 2], }\nx = { c = 1, d = 2 }"))
    assert [(one.span.line, one.span.column) for one in found.errors] == [(1, 13), (1, 25)]
    assert found.masked == "s { a = true  b = [1, 2]  }\nx = { c = 1, d = 2 }"
    assert not found.fatal


@given(st.text(alphabet=st.sampled_from("ab1\"\\${}[]()=,#/*<'\n\r \t-%\u201c;:.@é"), max_size=60))
def test_whatever_it_sees_the_length_stays(text: str) -> None:
    found = scan(Source("a.hcl", text))
    assert len(found.masked) == len(text)
    assert found.masked.count("\n") == text.count("\n")
