"""What a rule does besides matching: where it can have no effect, and what it would clash with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glacic.config.model import Config, LogLevel, Rate, RejectWith

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

ZONES = 'zone "lan" {\n  interface = "lan0"\n}\nzone "wan" {\n  interface = "wan0"\n}\n'
NFLOG = "rule_learning {\n  log_group = 5\n}\n"
INLINE = "rule_learning {\n  inline_mode = true\n  log_group = 5\n}\n"


def in_rule(lines: str, policy: str = '"lan" "wan"') -> str:
    return f'{ZONES}policy {policy} {{\n  rule "r" {{\n    {lines}\n  }}\n}}'


def test_what_a_rule_does_is_read(valid: Valid) -> None:
    lines = 'action = "accept"\nlimit_per_source = "10/minute"\nconnections_per_source = 20\ncounter = true'
    (rule,) = valid(in_rule(lines)).policies[0].rules
    assert (rule.limit_per_source, rule.connections_per_source, rule.counter) == (Rate(10, "minute"), 20, True)
    lines = 'action = "reject"\nproto = "tcp"\nreject_with = "tcp-reset"\nlog = true\nlog_level = "warning"'
    (rule,) = valid(in_rule(lines)).policies[0].rules
    assert (rule.reject_with, rule.log_level, rule.log_group) == (RejectWith.TCP_RESET, LogLevel.WARN, None)
    (rule,) = valid(in_rule('action = "drop"\nlog = "x "\nlog_group = 0')).policies[0].rules
    assert (rule.log_group, rule.log_level, rule.reject_with, rule.counter) == (0, None, None, False)


@pytest.mark.parametrize(
    "lines",
    [
        '¶limit_per_source = "10/fortnight"',
        "¶connections_per_source = 0",
        "¶connections_per_source = 65536",
        "log = true\n¶log_group = 65536",
        'log = true\n¶log_level = "loud"',
        '¶reject_with = "anger"',
        '¶counter = "yes"',
    ],
)
def test_a_wrong_value_is_told_at_it_and_once(errors: Check, lines: str) -> None:
    (found,) = errors(in_rule(f'action = "accept"\n{lines}'))
    assert not found.endswith(": ")


@pytest.mark.parametrize("line", ['¶limit_per_source = "10/minute"', "¶connections_per_source = 20"])
def test_a_limit_per_source_needs_a_rule_that_accepts_and_more_than_one_source(errors: Check, line: str) -> None:
    (found,) = errors(in_rule(f'action = "reject"\n{line}'))
    assert "let this rule accept what is within it, and the next one, or the policy, reject the rest" in found
    (found,) = errors(in_rule(f'action = "accept"\n{line}', '"firewall" "wan"'))
    assert 'cannot apply to a policy from "firewall"' in found
    errors(in_rule(f'¶action = "acept"\n{line.replace("¶", "")}'))


def test_a_log_group_or_level_needs_a_log_and_not_each_other(errors: Check) -> None:
    found = errors(in_rule('action = "drop"\nlog = true\nlog_group = 3\n¶log_level = "info"'))
    assert found == [
        "log_level cannot apply to a log group: a log group gets packets, not lines: leave one of them out"
    ]
    found = errors(in_rule('action = "drop"\n¶log_group = 3\nlog = false'))
    assert found[0] == "log_group without a log: write log = true, or a prefix in quotes"


def test_a_log_group_that_is_learned_from_is_refused(errors: Check, valid: Valid) -> None:
    text = in_rule('action = "drop"\nlog = true\n¶log_group = 5')
    (found,) = errors(NFLOG + text)
    assert found.startswith("log group 5 is the one that Glacic learns from: choose another")
    valid(INLINE + text.replace("¶", ""))  # there the number is a queue's
    valid(text.replace("¶", ""))


def test_a_way_to_reject_needs_a_rule_that_rejects_and_a_reset_needs_tcp(errors: Check, valid: Valid) -> None:
    (found,) = errors(in_rule('action = "drop"\n¶reject_with = "port-unreachable"'))
    assert found == 'reject_with cannot apply to action drop: write action = "reject", or leave it out'
    for proto in ('["tcp", "udp"]', '"udp"', '"any"'):
        (found,) = errors(in_rule(f'action = "reject"\nproto = {proto}\n¶reject_with = "tcp-reset"'))
        assert found.startswith('a TCP reset can only answer TCP: write proto = "tcp"')
    valid(in_rule('action = "reject"\nreject_with = "no-route"'))
