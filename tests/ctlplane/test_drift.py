"""What is different, in words."""

from __future__ import annotations

import struct

import pytest

from glacic.ctlplane import netlink
from glacic.ctlplane.drift import MAX_TEXT, MAX_TOLD, differences, key_text, learned_text, rule_text
from glacic.ctlplane.structure import Parts, RuleSeen
from glacic.ctlplane.tablecodec import Key

TABLE = {Key("table", ""): netlink.attribute(2, bytes(4))}


def number(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, struct.pack("!i", value))


def hooked(hook: int = 1, priority: int = 0, policy: int = 0) -> bytes:
    """A base chain's definition: hook (number, priority), policy."""
    return netlink.attribute(4, number(1, hook) + number(2, priority)) + number(5, policy)


def rule(text: str, handle: int = 0, comment: str = "") -> RuleSeen:
    return RuleSeen(text.encode(), (), handle, tuple(text.split()), comment)


def words(before: Parts, after: Parts) -> list[str]:
    return [what for _, what in differences({**TABLE, **before}, {**TABLE, **after})]


def element(raw: bytes, flags: int = 0) -> bytes:
    return netlink.attribute(1, netlink.attribute(1, raw)) + (number(3, flags) if flags else b"")


CHAIN, RULES, SET, ELEMENTS = Key("chain", "input"), Key("rule", "input"), Key("set", "s"), Key("element", "s")
ADDRESSES = number(4, 7)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({CHAIN: hooked()}, {CHAIN: hooked(policy=1)}, ["chain input: policy changed from drop to accept"]),
        ({CHAIN: hooked()}, {CHAIN: hooked(priority=-5)}, ["chain input: priority changed from 0 to -5"]),
        ({CHAIN: hooked()}, {CHAIN: hooked(hook=3)}, ["chain input: hook changed from input to output"]),
        ({CHAIN: hooked()}, {CHAIN: b""}, ["chain input: no longer hooked"]),
        ({CHAIN: b""}, {CHAIN: hooked()}, ["chain input: hooked to input"]),
        ({}, {CHAIN: b"", RULES: (rule("accept"),)}, ["chain added: input", "rule added to chain input: (accept)"]),
        ({CHAIN: b"", RULES: (rule("accept"),)}, {}, ["chain deleted: input"]),
        ({Key("object", "fail_open"): b""}, {}, ["counter deleted: fail_open"]),
        ({}, {Key("flowtable", "f"): b""}, ["flowtable added: f"]),
        ({SET: b"a"}, {SET: b"b"}, ["set changed: s"]),
        ({SET: b"a", ELEMENTS: frozenset({b"x"})}, {}, ["set deleted: s"]),
        (
            {SET: ADDRESSES, ELEMENTS: frozenset()},
            {SET: ADDRESSES, ELEMENTS: frozenset({element(bytes([10, 0, 0, 0])), element(bytes([11, 0, 0, 0]), 1)})},
            ["element added to set s: 10.0.0.0"],
        ),
    ],
)
def test_each_kind_of_difference_has_its_words(before: Parts, after: Parts, said: list[str]) -> None:
    assert words(before, after) == said
    assert words(before, before) == words(after, after) == []


def rules(*texts: str) -> Parts:
    return {CHAIN: hooked(), RULES: tuple(rule(text, at) for at, text in enumerate(texts))}


def test_rules_are_told_by_their_place() -> None:
    assert words(rules("a", "b", "c"), rules("a", "x", "b", "c")) == ["rule added to chain input: (x)"]
    assert words(rules("a", "b", "c"), rules("a", "c")) == ["rule deleted from chain input (number 2 of 3)"]
    replaced = ["rule replaced in chain input (number 2 of 3), it is now: (x)"]
    assert words(rules("a", "b", "c"), rules("a", "x", "c")) == replaced
    many = words(rules(), rules(*"abcdefgh"))
    assert many[MAX_TOLD:] == ["chain input: 3 more rules added, deleted or replaced"]


def test_a_rule_that_comes_back_under_another_handle_is_the_same() -> None:
    assert words({CHAIN: b"", RULES: (rule("a", 7),)}, {CHAIN: b"", RULES: (rule("a", 9),)}) == []


def test_a_table_that_is_empty_or_gone_is_one_difference() -> None:
    full: Parts = {**TABLE, **rules("a"), Key("chain", "b"): b"", Key("rule", "b"): (rule("x"),)}
    empty: Parts = {**full, RULES: (), Key("rule", "b"): ()}
    assert [what for _, what in differences(full, empty)] == ["table flushed: every chain is empty"]
    assert [what for _, what in differences(full, {})] == ["table deleted"]
    dormant: Parts = {**full, Key("table", ""): number(2, 1)}
    assert [what for _, what in differences(full, dormant)] == ["table made dormant: nothing is filtered"]


def test_text_of_others_is_one_harmless_line() -> None:
    hostile = "accept\x1b[31m\u202e\n" + "x" * 70_000
    for text in (rule_text(rule("a", 7), {7: hostile}), rule_text(rule("a", comment=hostile), {})):
        assert text.isprintable()
        assert len(text) <= MAX_TEXT + 3
    (what,) = words({}, {Key("chain", hostile[:50]): b""})
    assert what.isprintable()


def test_keys_are_read_where_their_type_is_known() -> None:
    assert key_text(bytes([10, 0, 0, 1]), 7) == "10.0.0.1"
    assert key_text(bytes(15) + b"\1", 8) == "::1"
    assert key_text(b"\1\xbb", 13) == "443"
    assert key_text(b"\1\xbb", 99) == "0x01bb"


def test_learned_keys_are_read_by_the_name_of_their_set() -> None:
    raw = bytes.fromhex("020000000010 0000 06 000000 1f41 0000".replace(" ", ""))
    assert learned_text("allowed_lan_wan_mac_port", raw) == "02:00:00:00:00:10 . 6 . 8001"
    assert learned_text("allowed_lan_wan_ip_port", raw) == f"0x{raw.hex()}"
    assert learned_text("allowed_lan_wan_ip_proto", bytes([10, 0, 0, 1, 47, 0, 0, 0])) == "10.0.0.1 . 47"
