"""Text from outside, made harmless: strings end where we end them, and identifiers stay apart."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glacic.firewall.quoting import MAX_COMMENT, identifier, printable, quote, quote_prefix, remark, rule_identifier


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("web", '"web"'),
        ('say "hello"', "\"say 'hello'\""),
        ("ends in a backslash \\", '"ends in a backslash /"'),
        ("two\nlines\tand\x00zero", '"two?lines?and?zero"'),
        ("\u2028line separator", '"?line separator"'),
        ("schön ☃", '"schön ☃"'),
    ],
)
def test_what_could_end_a_string_is_replaced(text: str, quoted: str) -> None:
    assert quote(text) == quoted


def test_a_log_prefix_names_no_variable_of_nft() -> None:
    assert quote_prefix('$HOME "x": ') == "\"?HOME 'x': \""
    assert len(quote_prefix("x" * 200)) == 127 + 2


def test_a_string_is_cut_between_characters() -> None:
    assert quote("☃" * 100) == f'"{"☃" * (MAX_COMMENT // 3)}"'
    assert quote("abc", 2) == '"ab"'


@given(st.text())
@example('"; drop; #')
@example("\\\n")
def test_quoted_text_has_its_quotes_at_its_ends_and_is_one_line(text: str) -> None:
    quoted = quote(text)
    assert re.fullmatch(r'"[^"\\]*"', quoted)
    assert len(quoted.splitlines()) == 1
    assert len(quoted.encode()) <= MAX_COMMENT + 2
    assert len(f"#{remark(text)}.".splitlines()) == 1
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize("name", ["lan_wan", "DROP_INPUT", "DROP_FORWARD", "0", "_"])
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    assert identifier(name) == name


@pytest.mark.parametrize("name", ["lan-wan", "lan wan", "x" * 65, "ü", "DROP_INPUT_ip", "lan_wan_0123abcd"])
def test_any_other_name_gets_a_hash(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_]{1,64}_[0-9a-f]{8}", identifier(name))


def test_a_name_made_to_look_like_another_one_hashed_does_not_meet_it() -> None:
    assert identifier(identifier("lan-wan")) != identifier("lan-wan")


@given(st.sets(st.text(alphabet="ab_-DROP_INPUT \"'", min_size=1), max_size=20))
def test_different_names_have_different_identifiers(names: set[str]) -> None:
    assert len({identifier(name) for name in names}) == len(names)


def test_every_rule_of_every_policy_has_an_identifier_of_its_own() -> None:
    names = ["a", "b", "a_of_b", "b_of_a", "a of b", "of", "_of_", "a_of", "of_b"]
    found = [rule_identifier(policy, rule) for policy in names for rule in names]
    assert len(set(found)) == len(found)
    assert rule_identifier("lan_wan", "web") == "web_of_lan_wan"
