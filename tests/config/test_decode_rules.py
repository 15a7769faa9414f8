"""Rules: what each attribute means, and what each refuses by itself."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from glacic.config.model import Action, AddressRange, Config, PortRange, Rate, Rule, SetRef

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

HEAD = (
    'zone "lan" {\n  interface = "lan0"\n}\nzone "wan" {\n  interface = "wan0"\n  external = true\n}\n'
    'set "bad" {\n  type = "ipv4"\n}\nset "six" {\n  type = "ipv6"\n}\nset "web" {\n  type = "port"\n}\n'
)


def rule(valid: Valid, *lines: str) -> Rule:
    body = "\n".join(lines)
    return valid(f'{HEAD}policy "lan" "wan" {{\n  rule "r" {{\n{body}\n  }}\n}}').policies[0].rules[0]


def test_every_attribute_of_a_rule_is_read(valid: Valid) -> None:
    found = rule(
        valid,
        'action = "reject"',
        'proto = ["tcp", "udp", "tcp"]',
        'dest_port = [80, "6000-6010", "@web"]',
        'source_port = "1024-65535"',
        'src_ip = ["10.0.0.0/8", "fd00::/8", "@bad"]',
        'dest_ip = "192.0.2.1-192.0.2.9"',
        'ct_state = ["new", "untracked"]',
        'in_interface = "lan0"',
        'out_interface = ["wan0"]',
        'limit = "10/second"',
        'log = "seen: "',
        'comment = "why \\"not\\""',
        "disabled = true",
    )
    assert found == Rule(
        name="r",
        action=Action.REJECT,
        protos=("tcp", "udp"),
        dest_port=(PortRange(80, 80), PortRange(6000, 6010), SetRef("web")),
        source_port=(PortRange(1024, 65535),),
        src_ip=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"), SetRef("bad")),
        dest_ip=(AddressRange(ip_address("192.0.2.1"), ip_address("192.0.2.9")),),
        ct_state=("new", "untracked"),
        in_interface=("lan0",),
        out_interface=("wan0",),
        limit=Rate(10, "second"),
        log="seen: ",
        comment='why "not"',
        disabled=True,
    )


def test_a_rule_without_words_matches_everything(valid: Valid) -> None:
    assert rule(valid, 'action = "drop"') == Rule(name="r", action=Action.DROP)
    assert rule(valid, 'action = "drop"', 'proto = "any"').protos == ()


def test_a_log_is_off_on_or_a_prefix(valid: Valid) -> None:
    assert rule(valid, 'action = "drop"', "log = false").log is None
    assert rule(valid, 'action = "drop"', "log = true").log == ""


def test_a_protocol_may_be_a_number_that_has_a_name(valid: Valid) -> None:
    assert rule(valid, 'action = "drop"', "proto = [47, 6]").protos == ("gre", "tcp")


def test_icmp_types_are_names_or_numbers(valid: Valid) -> None:
    found = rule(
        valid, 'action = "drop"', 'proto = ["icmp", "icmpv6"]', 'icmp_type = ["echo-request", 3, "packet-too-big"]'
    )
    assert found.icmp_type == ("echo-request", "3", "packet-too-big")


@pytest.mark.parametrize(
    "line",
    [
        '¶action = "acept"',
        '¶proto = "tpc"',
        '¶proto = "dccp"',
        '¶proto = "icmp6"',
        "¶proto = 254",
        "¶proto = []",
        "¶proto = true",
        '¶proto = ["any", "tcp"]',
        'proto = "tcp"\n¶dest_port = []',
        'proto = "tcp"\n¶dest_port = 70000',
        'proto = "tcp"\n¶dest_port = "http"',
        'proto = "tcp"\ndest_port = [80, ¶"90-80", ¶true]',
        'proto = "tcp"\n¶source_port = 1.5',
        '¶src_ip = "10.0.0.1/8"',
        'src_ip = ["10.0.0.0/8", ¶"fe80::1%lan0"]',
        "¶src_ip = 10",
        "¶dest_ip = []",
        '¶dest_ip = "@"',
        '¶ct_state = "news"',
        'proto = "icmp"\n¶icmp_type = "echo"',
        'proto = "icmp"\n¶icmp_type = 256',
        '¶in_interface = "lan 0"',
        '¶limit = "10/sekunde"',
        "¶limit = 10",
        "¶log = 5",
        '¶log = ""',
        '¶log = "a\\"b"',
        f'¶log = "{"x" * 128}"',
        f'¶comment = "{"x" * 129}"',
        '¶comment = "a\\nb"',
        '¶disabled = "no"',
        "¶dport = 80",
    ],
)
def test_a_wrong_line_of_a_rule_is_told_at_it(errors: Check, line: str) -> None:
    action = "" if "action" in line else 'action = "drop"'
    found = errors(f'{HEAD}policy "lan" "wan" {{\n  rule "r" {{\n{line}\n{action}\n  }}\n}}')
    assert not any(one.endswith(": ") for one in found)


def test_a_rule_needs_a_name_and_an_action(errors: Check) -> None:
    found = errors(f'{HEAD}policy "lan" "wan" {{\n  ¶rule {{\n  action = "drop"\n  }}\n  ¶rule "b" {{\n  }}\n}}')
    assert found == [
        'rule has no labels: write `rule "NAME" { ... }`',
        'rule "b" has no action: write action = "accept", "drop" or "reject"',
    ]
