"""Text to nodes: constants with their escapes, spans, and words for what is no HCL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.source import Source
from glacic.config.syntax import Body, ListOf, Literal, Unusable, Value, parse


def body(text: str) -> Body:
    found, problems = parse(Source("a.hcl", text))
    assert found is not None, problems
    return found


def value(text: str) -> Value:
    (attribute,) = body(f"a = {text}\n").attributes
    return attribute.value


def fault(text: str) -> str:
    found, problems = parse(Source("a.hcl", text))
    assert found is None
    (one,) = problems
    return f"{one.span.line}:{one.span.column} {one.summary}"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("1", 1),
        ("-1", -1),
        ("- 1", None),
        ("(5)", 5),
        ("1.5", 1.5),
        ("true", True),
        ("false", False),
        ('"x"', "x"),
        ('""', ""),
        (r'"a\n\t\"\\"', 'a\n\t"\\'),
        (r'"\u00e9\U0001F600"', "é😀"),
        ('"$${x} %%{y} $5 100%"', "${x} %{y} $5 100%"),
        ('"é # // /*"', "é # // /*"),
    ],
)
def test_a_constant_means_what_it_says(text: str, meaning: object) -> None:
    found = value(text)
    if meaning is None:
        assert isinstance(found, Unusable)
    else:
        assert isinstance(found, Literal)
        assert (found.value, type(found.value)) == (meaning, type(meaning))


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("lan0", "unquoted word lan0"),
        ("24h", "unquoted word 24h"),
        ("10.0.0.0/8", "unquoted word 10.0.0.0/8"),
        ("@set", "unquoted word @set"),
        ("yes", "unquoted word yes"),
        ("my lan", "unquoted words my lan"),
        ("'lan0'", "'lan0' is not quoted as HCL does it"),
        ("true; b", "unquoted words true; b"),
        ("true;", "a semicolon behind a value"),
        ("null", "null is no value here"),
        ("007", "a number with a leading zero"),
        ("9" * 30, "a number of more than 20 digits"),
        ('"${x}"', "templates are not evaluated here"),
        ('"%{if x}y%{endif}"', "templates are not evaluated here"),
        (r'"\q"', "unknown escape \\q in this string"),
        (r'"\ud800"', "unknown escape \\ud800 in this string"),
        (r'"\u12"', "unknown escape \\u in this string"),
        ('f("x")', "only constants can stand here"),
        ('"a" == "b"', "only constants can stand here"),
        ("{ b = 1 }", "braces where a value belongs"),
        ("<<EOT\nx\nEOT", "a text block over several lines"),
        ('-"x"', "only constants can stand here"),
    ],
)
def test_what_is_no_constant_says_why(text: str, summary: str) -> None:
    found = value(text)
    assert isinstance(found, Unusable)
    assert found.summary == summary
    assert found.advice


def test_a_list_keeps_the_place_of_each_element() -> None:
    found = value('[\n  "a", # one\n  lan0,\n  3,\n]')
    assert isinstance(found, ListOf)
    assert [(item.span.line, item.span.column, item.span.text) for item in found.items] == [
        (2, 3, '"a"'),
        (3, 3, "lan0"),
        (4, 3, "3"),
    ]


def test_blocks_have_types_labels_and_header_spans() -> None:
    (block,) = body('policy "lan" wan {\r\n  a = 1\r\n  rule "x" {}\r\n}\r\n').blocks
    assert block.type == "policy"
    assert [label.value for label in block.labels if isinstance(label, Literal)] == ["lan", "wan"]
    assert block.span.text == 'policy "lan" wan'
    assert block.body.attributes[0].span.text == "a = 1"
    assert block.body.blocks[0].span.column == 3


def test_two_attributes_may_share_a_line() -> None:
    assert [found.name for found in body("s { dns = true ntp = false }").blocks[0].body.attributes] == ["dns", "ntp"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a {\n b true\n c = 1\n}", "2:2 neither an attribute nor a block"),
        ("a\n", "1:1 neither an attribute nor a block"),
        ('zone "x" = 3', "1:1 neither an attribute nor a block"),
        ("a {\n b =\n}", "2:2 no value behind the equals sign"),
        ("a = \nb = 1", "1:1 no value behind the equals sign"),
        ("a: 1", '1:2 ":" does not belong here'),
        ("a.b = 1", '1:2 "." does not belong here'),
        ('"a" = 1', '1:1 "a" where a name belongs'),
        ('a = "x" "y"', '1:9 "y" behind a value'),
        ('a = "x" y\nb = 1', "1:9 y behind a value"),
        ('a = ["x"\n"y"]', '2:1 "y" where a comma belongs'),
        ("a = [1,,2]", "1:8 a comma too many"),
        ("= 1", "1:1 = does not belong here"),
        ("{}", "1:1 { does not belong here"),
    ],
)
def test_what_is_no_hcl_is_told_in_words(text: str, place: str) -> None:
    assert fault(text) == place


@given(st.text(alphabet=st.sampled_from("ab1\"\\${}[]()=,#/*<'\n\r \t-%;:.@é!?<>&|+"), max_size=60))
def test_any_text_is_nodes_or_a_located_mistake(text: str) -> None:
    found, problems = parse(Source("a.hcl", text))
    assert (found is not None) or problems


@given(st.text(max_size=40))
def test_a_string_comes_back_as_it_was_written(text: str) -> None:
    escaped = "".join(f"\\U{ord(char):08x}" for char in text)
    found = value(f'"{escaped}"')
    assert isinstance(found, Literal)
    assert found.value == text
