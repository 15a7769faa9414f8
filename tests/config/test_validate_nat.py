"""Within a nat block: what cannot apply, what it needs, and sets of the wrong kind."""

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


def in_nat(lines: str) -> str:
    return f'{HEAD}nat "n" {{\n  {lines}\n}}'


def test_a_kind_that_is_unknown_is_the_only_complaint(errors: Check) -> None:
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
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = "8-9"\nto_ip = "10.0.0.5"\nto_port = "18-19"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = 8\nto_ip = "10.0.0.5"\nhairpin = true',
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
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = "8-9"\nto_ip = "1.0.0.5"\n¶to_port = "8-10"',
        'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = "@web"\nto_ip = "1.0.0.5"\n¶to_port = 8',
        'type = "dnat"\nin_interface = ["l*", "w*"]\nproto = "tcp"\ndest_port = 8\nto_ip = "1.0.0.5"\n¶hairpin = true',
        'type = "masquerade"\nout_interface = "wan0"\n¶hairpin = true',
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


def test_a_range_that_is_moved_has_an_end(errors: Check) -> None:
    lines = 'type = "dnat"\nin_interface = "wan0"\nproto = "udp"\ndest_port = "1-1025"\nto_ip = "10.0.0.5"\n'
    (found,) = errors(in_nat(lines + '¶to_port = "2-1026"'))
    assert found == "to_port is 1025 ports: at most 1024 can be moved"
