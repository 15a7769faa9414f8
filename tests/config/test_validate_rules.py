"""Within a rule: what cannot apply, what can never match, and sets of the wrong kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glacic.config.model import Config

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

HEAD = (
    'zone "lan" {\n  interfaces = ["lan0", "wl*"]\n}\nzone "wan" {\n  interface = "wan0"\n  external = true\n}\n'
    'zone "far" {\n  networks = ["10.0.0.0/8"]\n}\n'
    'set "four" {\n  type = "ipv4"\n}\nset "six" {\n  type = "ipv6"\n}\nset "both" {\n  type = "address"\n}\n'
    'set "web" {\n  type = "port"\n}\n'
)


def in_rule(lines: str, policy: str = '"lan" "wan"') -> str:
    return f'{HEAD}policy {policy} {{\n  rule "r" {{\n    action = "accept"\n    {lines}\n  }}\n}}'


@pytest.mark.parametrize(
    "lines",
    [
        'proto = "icmp"\n¶dest_port = 80',
        '¶dest_port = 80\nproto = "icmpv6"',
        'proto = ["tcp", "gre"]\n¶source_port = 80',
        "¶dest_port = 80",
        'proto = "any"\n¶dest_port = 80',
        'proto = "tcp"\n¶icmp_type = "echo-request"',
        '¶icmp_type = "echo-request"',
        'proto = ["icmp", "tcp"]\n¶icmp_type = 8',
        'proto = "icmp"\n¶icmp_type = "packet-too-big"',
        'proto = "icmpv6"\nicmp_type = ["echo-request", ¶"source-quench"]',
        '¶icmp_type = "packet-too-big"\nproto = ["icmp", "icmpv6"]',
        'proto = "icmp"\n¶src_ip = "fd00::/8"',
        'proto = "icmpv6"\n¶dest_ip = ["10.0.0.0/8", "@four"]',
        'src_ip = "10.0.0.0/8"\n¶dest_ip = "fd00::/8"',
        'dest_ip = "fd00::/8"\n¶src_ip = "10.0.0.0/8"',
        'src_ip = "@four"\n¶dest_ip = "@six"',
        '¶src_ip = "@fuor"',
        'proto = "tcp"\ndest_port = [80, ¶"@wbe"]',
        '¶src_ip = "@web"',
        'proto = "tcp"\n¶dest_port = "@four"',
        '¶in_interface = "wan0"',
        'in_interface = ["lan0", "wlan3", "w*", ¶"eth0"]',
        '¶out_interface = "lan0"',
    ],
)
def test_what_cannot_apply_is_told_at_the_attribute(errors: Check, lines: str) -> None:
    (found,) = errors(in_rule(lines))
    assert not found.endswith(": ")


@pytest.mark.parametrize(
    "lines",
    [
        'proto = ["tcp", "udp", "sctp", "udplite"]\ndest_port = "@web"\nsource_port = [1, "2-3"]',
        'proto = ["icmp", "icmpv6"]\nicmp_type = ["echo-request", "packet-too-big", 13]',
        'src_ip = ["10.0.0.0/8", "fd00::/8"]\ndest_ip = "@both"',
        'src_ip = "@both"\ndest_ip = ["@six", "@four"]',
        'proto = ["icmp", "tcp"]\nsrc_ip = "fd00::/8"',
        'in_interface = ["wlan0", "lan0"]\nout_interface = "wan0"',
        'in_interface = "w*"',
    ],
)
def test_what_can_apply_is_fine(valid: Valid, lines: str) -> None:
    valid(in_rule(lines))


def test_the_advice_names_what_is_meant(errors: Check) -> None:
    assert errors(in_rule('¶src_ip = "@fuor"')) == ['unknown set "@fuor": did you mean "@four"?']
    assert errors(in_rule('¶in_interface = "lan1"'))[0].startswith('"lan1" is no interface of zone "lan": did you mean')
    assert "icmp_type" in errors(in_rule('proto = "icmp"\n¶dest_port = 80'))[0]
    assert errors(in_rule('proto = "icmp"\n¶icmp_type = "packet-too-big"')) == [
        'proto "icmp" has no type "packet-too-big": it is a type of proto "icmpv6"'
    ]


def test_the_firewall_has_no_interface_towards_itself(errors: Check, valid: Valid) -> None:
    errors(in_rule('¶out_interface = "lan0"', '"lan" "firewall"'))
    errors(in_rule('¶in_interface = "lan0"', '"firewall" "lan"'))
    valid(in_rule('in_interface = "lan0"', '"lan" "firewall"'))
    valid(in_rule('in_interface = "anything0"', '"far" "firewall"'))


def test_a_state_that_never_gets_there_is_noted(notes: Check) -> None:
    notes(in_rule('¶ct_state = ["established", "related"]'))
    assert notes(in_rule('ct_state = ["new", "related"]')) == []


def test_what_is_broken_is_not_complained_about_twice(errors: Check) -> None:
    errors(in_rule('¶proto = "tpc"\ndest_port = 80\nicmp_type = 8'))
    errors(in_rule('¶src_ip = "10.0.0.1/8"\ndest_ip = "fd00::/8"'))
    errors(in_rule('¶prto = "tcp"\ndest_port = 80'))
    errors(
        f'{HEAD}set "x" {{\n  ¶type = "prot"\n}}\npolicy "lan" "wan" {{\n  rule "r" {{\n    action = "drop"\n'
        '    src_ip = "@x"\n    proto = "tcp"\n    dest_port = "@x"\n  }\n}'
    )
