"""Blocks among each other: overlapping zones, names that are taken, unknown zones, and where learning cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glacic.config.model import MAX_LEARNING_POLICIES, Config, Policy, RuleLearning, Zone
from glacic.config.reader import HEADER, Report
from glacic.config.source import Source
from glacic.config.validate import validate

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

ZONES = (
    'zone "lan" {\n  interface = "lan0"\n}\nzone "wan" {\n  interface = "wan0"\n  external = true\n}\n'
    'zone "vpn" {\n  interface = "wg0"\n  external = true\n  identity = "ip"\n}\n'
)


def test_a_zone_is_made_of_something(errors: Check) -> None:
    (found,) = errors('¶zone "a" {\n  external = true\n}')
    assert found.startswith('zone "a" has neither interfaces nor networks: write interface = "lan0"')


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('interface = "a0"', '¶interface = "a0"'),
        ('interface = "a0"', 'interfaces = ["b0", ¶"a0"]'),
        ('interfaces = ["a0", "wl*"]', '¶interface = "wlan0"'),
        ('interface = "wlan0"', '¶interface = "wl*"'),
        ('networks = ["10.0.0.0/8"]', 'networks = ["192.0.2.0/24", ¶"10.1.0.0/16"]'),
        ('networks = ["10.1.0.0/16", "10.2.0.0/16"]', '¶networks = "10.0.0.0/8"'),
        ('networks = ["fd00::/8"]', 'networks = [¶"fd00::/8"]'),
        ('interface = "a0"\n  networks = ["10.0.0.0/8"]', 'interface = "a*"\n  networks = [¶"10.1.0.0/16"]'),
    ],
)
def test_zones_that_overlap_are_told_at_the_later_one(errors: Check, first: str, second: str) -> None:
    (found,) = errors(f'zone "a" {{\n  {first}\n}}\nzone "b" {{\n  {second}\n}}')
    assert found.startswith('zone "b" overlaps zone "a"')


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('interface = "a0"', 'interface = "a1"'),
        ('interface = "a0"', 'interface = "a0"\n  networks = ["10.0.0.0/8"]'),
        ('networks = ["10.0.0.0/8"]', 'interface = "a0"\n  networks = ["10.0.0.0/8"]'),
        ('networks = ["10.0.0.0/9"]', 'networks = ["10.128.0.0/9", "fd00::/8"]'),
        ('interface = "a0"\n  networks = ["10.0.0.0/8"]', 'interface = "a1"\n  networks = ["10.0.0.0/8"]'),
        ('interface = "a0"\n  networks = ["10.0.0.0/8"]', 'interface = "a0"\n  networks = ["192.0.2.0/24"]'),
    ],
)
def test_zones_of_which_a_packet_can_be_in_one_only_are_fine(valid: Valid, first: str, second: str) -> None:
    valid(f'zone "a" {{\n  {first}\n}}\nzone "b" {{\n  {second}\n}}')


def test_names_are_given_once(errors: Check) -> None:
    found = errors(
        f'{ZONES}zone ¶"lan" {{\n  interface = "lan0"\n}}\n'
        'nat "n" {\n  type = "masquerade"\n  out_interface = "wan0"\n}\n'
        'nat ¶"n" {\n  type = "masquerade"\n  out_interface = "wan0"\n}\n'
        'policy "lan" "wan" {\n  rule "r" {\n    action = "drop"\n  }\n  rule ¶"r" {\n    action = "drop"\n  }\n}\n'
        '¶policy "lan" "wan" {\n}\n'
        'policy "lan" "firewall" {\n  ¶name = "lan_wan"\n}\n'
    )
    assert found[0] == 'a second zone "lan": choose another name, or merge the two; the first is in line 1'


def test_default_names_that_meet_are_told(errors: Check) -> None:
    zones = "".join(f'zone "{name}" {{\n  interface = "{name}"\n}}\n' for name in ("a", "b", "a_b", "b_c", "c"))
    errors(f'{zones}policy "a_b" "c" {{\n}}\n¶policy "a" "b_c" {{\n}}\n')


def test_a_default_name_has_to_be_a_name(errors: Check) -> None:
    long = "x" * 70
    zones = "".join(f'zone "{name}" {{\n  interface = "{name[0]}"\n}}\n' for name in ("DROP", "INPUT", long))
    errors(f'{zones}¶policy "DROP" "INPUT" {{\n}}\n¶policy "{long}" "{long}" {{\n}}\n')


def test_unknown_zones_are_told_at_the_label(errors: Check) -> None:
    found = errors(f'{ZONES}policy ¶"lna" "wan" {{\n}}\npolicy "lan" ¶"kitchen" {{\n}}\npolicy ¶"Lan" ¶"x" {{\n}}')
    assert found[0] == 'unknown zone "lna": did you mean "lan"?'
    assert found[1].startswith('unknown zone "kitchen": known are "firewall", "lan", "wan", "vpn"')
    assert found[2] == 'unknown zone "Lan": did you mean "lan"?'


def test_the_firewall_does_not_talk_to_itself(errors: Check, valid: Valid) -> None:
    errors('¶policy "firewall" "firewall" {\n}')
    valid(f'{ZONES}policy "lan" "lan" {{\n}}\npolicy "firewall" "wan" {{\n}}')


def test_nothing_is_learned_from_outside_by_mac(errors: Check, valid: Valid) -> None:
    learning = "rule_learning {\n}\n"
    (found,) = errors(f'{learning}{ZONES}policy "wan" "lan" {{\n  ¶learn = true\n}}')
    assert 'cannot learn from the external zone "wan"' in found
    assert "one MAC stands for everybody" in found
    assert 'identity = "ip"' in found
    valid(f'{learning}{ZONES}policy "vpn" "lan" {{\n  learn = true\n  granularity = "destination"\n}}')
    valid(f'{learning}{ZONES}policy "wan" "lan" {{\n}}')


def test_an_identity_that_cannot_be_read_is_told_and_nothing_else(errors: Check) -> None:
    errors(
        'zone "wan" {\n  interface = "wan0"\n  external = true\n  ¶identity = "pi"\n}\n'
        'policy "wan" "firewall" {\n  learn = true\n}\n'
    )


@pytest.mark.parametrize(
    "lines",
    [
        'action = "accept"\n  ¶learn = true',
        '¶granularity = "destination"\n  action = "accept"',
        '¶granularity = "destination"\n  learn = false',
    ],
)
def test_what_cannot_apply_to_a_policy_is_told_at_it(errors: Check, lines: str) -> None:
    errors(f'rule_learning {{\n}}\n{ZONES}policy "lan" "wan" {{\n  {lines}\n}}')


def test_granularity_cannot_apply_to_an_outside_that_does_not_learn(errors: Check) -> None:
    errors(f'rule_learning {{\n}}\n{ZONES}policy "wan" "lan" {{\n  ¶granularity = "destination"\n}}')


def test_what_belongs_to_inline_mode_is_noted_without_it(notes: Check, valid: Valid) -> None:
    lines = (
        'fail_mode = "open"\n  {0}queue_full = "open"\n  {0}engine_error = "open"\n  {0}queues = 2\n'
        '  {0}packet_window = 5\n  {0}offload_mark = "0x01000000"'
    )
    marked = lines.format("¶")
    found = notes(f"rule_learning {{\n  ¶{marked}\n}}")
    assert found[0] == "fail_mode has no effect while inline_mode = false: "
    assert notes(f"rule_learning {{\n  inline_mode = true\n  {lines.format('')}\n}}") == []
    valid(f"rule_learning {{\n  {lines.format('')}\n}}")


def test_what_has_no_effect_without_learning_is_noted(notes: Check) -> None:
    policy = 'policy "lan" "wan" {\n  ¶learn = true\n}'
    notes(f"rule_learning {{\n  enabled = false\n  ¶learning_mode = true\n}}\n{ZONES}{policy}")
    notes(f"{ZONES}{policy}")
    notes('rule_learning {\n  inline_mode = true\n  ¶offload_mark = "0x01000000"\n}')


def test_there_are_no_more_policies_than_the_packet_mark_can_number() -> None:
    span = Source("a.hcl", "x").span(0, 1)
    spans = {HEADER: span, "label[0]": span, "label[1]": span, "networks": span, "interface": span}
    zones = tuple(Zone(name=f"z{n}", interfaces=(f"i{n}",), spans={**spans, "interface[0]": span}) for n in range(129))
    policies = [
        Policy(source=a.name, destination=b.name, name=f"{a.name}{b.name}", spans=spans) for a in zones for b in zones
    ]
    for count, wrong in ((MAX_LEARNING_POLICIES - 2, False), (MAX_LEARNING_POLICIES - 1, True)):
        report = Report()
        made = Config(
            path=Path("a.hcl"),
            rule_learning=RuleLearning(enabled=True),
            zones=zones,
            policies=tuple(policies[:count]),
        )
        validate(made, report)
        told = [found for found in report.diagnostics if "policies that learn" in found.summary]
        assert bool(told) == wrong


def test_antispoof_needs_interfaces(errors: Check) -> None:
    (found,) = errors('zone "far" {\n  networks = ["10.0.0.0/8"]\n  ¶antispoof = true\n}')
    assert found.startswith("antispoof needs interfaces: name the interfaces")
    errors('zone "both" {\n  interface = "a0"\n  networks = ["10.0.0.0/8"]\n  antispoof = true\n}')


def test_a_flow_table_needs_interfaces(errors: Check) -> None:
    text = 'zone "far" {\n  networks = ["10.0.0.0/8"]\n}'
    (found,) = errors(f"{text}\n¶flowtable = true")
    assert found.startswith("flowtable without a zone that has interfaces: ")
    errors(f"{text}\nflowtable = false")
