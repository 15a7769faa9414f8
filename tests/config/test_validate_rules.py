"""Within a rule or a nat block: what cannot apply, what can never match, and sets of the wrong kind."""

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


def in_nat(lines: str) -> str:
    return f'{HEAD}nat "n" {{\n  {lines}\n}}'


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
    errors(in_nat('¶type = "dnatt"\nto_ip = "10.0.0.1"'))


@pytest.mark.parametrize(
    "lines",
    [
        'type = "snat"\nout_interface = "wan0"\nto_ip = "192.0.2.1"\nsrc_ip = "@four"',
        'type = "masquerade"\nout_interface = "wan0"\ndest_ip = "@six"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = 80\nto_ip = "10.0.0.5"\nsrc_ip = "@four"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = ["80", 443]\nto_ip = "10.0.0.5"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = "8-9"\nto_ip = "10.0.0.5"\ndest_ip = "@both"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "udp"\ndest_port = "@web"\nto_ip = "fd00::5"',
        'type = "masquerade"\nout_interface = "wan0"\nfamily = "both"\nsrc_ip = ["10.0.0.0/8", "fd00::/8"]',
    ],
)
def test_nat_that_can_be_is_fine(valid: Valid, lines: str) -> None:
    valid(in_nat(lines))


@pytest.mark.parametrize(
    "lines",
    [
        'type = "masquerade"\nout_interface = "wan0"\n¶to_ip = "192.0.2.1"',
        'type = "masquerade"\nout_interface = "wan0"\n¶in_interface = "lan0"\n¶proto = "tcp"',
        'type = "masquerade"\nout_interface = "wan0"\nfamily = "ipv6"\n¶src_ip = "10.0.0.0/8"',
        'type = "snat"\nout_interface = "wan0"\nto_ip = "192.0.2.1"\n¶src_ip = "fd00::/8"\n¶family = "ipv4"',
        'type = "snat"\nout_interface = "wan0"\nto_ip = "192.0.2.1"\nsrc_ip = ["10.0.0.0/8", ¶"@six"]',
        'type = "dnat"\nin_interface = "wan0"\n¶proto = "icmp"\ndest_port = 80\nto_ip = "10.0.0.5"',
        'type = "dnat"\nin_interface = "wan0"\n¶proto = "any"\ndest_port = 80\nto_ip = "10.0.0.5"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = [80, 81]\nto_ip = "10.0.0.5"\n¶to_port = 80',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = "80-81"\nto_ip = "10.0.0.5"\n¶to_port = 80',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = 80\nto_ip = "1.0.0.5"\n¶dest_ip = "fd00::1"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\n¶dest_port = "@four"\nto_ip = "10.0.0.5"',
        'type = "dnat"\nin_interface = "w0"\nproto = "tcp"\ndest_port = 8\nto_ip = "1.0.0.5"\n¶out_interface = "wan0"',
    ],
)
def test_nat_that_cannot_be_is_told_at_the_attribute(errors: Check, lines: str) -> None:
    assert not any(found.endswith(": ") for found in errors(in_nat(lines)))


def test_an_interface_of_nat_that_no_zone_has_is_noted(notes: Check) -> None:
    text = 'nat "n" {\n  type = "masquerade"\n  out_interface = ["wan0", ¶"wna0"]\n}'
    (found,) = notes(f'zone "wan" {{\n  interface = "wan0"\n}}\n{text}')
    assert found == '"wna0" is in no zone: did you mean "wan0"?'
    assert notes(f'zone "far" {{\n  networks = ["10.0.0.0/8"]\n}}\n{text.replace("¶", "")}') == []


def test_nat_tells_what_it_needs(errors: Check) -> None:
    found = errors(f'{HEAD}nat "a" {{\n  type = "masquerade"\n}}\n'.replace("nat", "¶nat"))
    assert found == ['masquerade needs out_interface: write out_interface = "wan0"']
    (found, *more) = errors('¶nat "a" {\n  type = "snat"\n  out_interface = "wan0"\n}\n')
    assert (found, more) == ('snat needs to_ip: write to_ip = "10.1.0.5"', [])
