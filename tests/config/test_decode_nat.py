"""Nat blocks: what each attribute means, and what each refuses by itself."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from glacic.config.model import Config, Nat, NatKind, PortRange

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

HEAD = (
    'zone "lan" {\n  interface = "lan0"\n}\nzone "wan" {\n  interface = "wan0"\n  external = true\n}\n'
    'set "bad" {\n  type = "ipv4"\n}\nset "six" {\n  type = "ipv6"\n}\nset "web" {\n  type = "port"\n}\n'
)


def nat(valid: Valid, *lines: str) -> Nat:
    body = "\n".join(lines)
    return valid(f'{HEAD}nat "n" {{\n{body}\n}}').nats[0]


def test_nat_blocks_are_read(valid: Valid) -> None:
    assert nat(valid, 'type = "masquerade"', 'out_interface = "wan0"') == Nat(
        name="n", kind=NatKind.MASQUERADE, out_interface=("wan0",)
    )
    assert nat(
        valid, 'type = "snat"', 'out_interface = ["wan0", "wl*"]', 'src_ip = "10.0.0.0/8"', 'to_ip = "192.0.2.1"'
    ) == Nat(
        name="n",
        kind=NatKind.SNAT,
        out_interface=("wan0", "wl*"),
        src_ip=(ip_network("10.0.0.0/8"),),
        to_ip=ip_address("192.0.2.1"),
    )
    forward = nat(
        valid,
        'type = "port_forward"',
        'in_interface = "wan0"',
        'dest_ip = "2001:db8::1"',
        'proto = ["tcp", "udp"]',
        "dest_port = 8080",
        'to_ip = "fd00::5"',
        "to_port = 80",
        'description = "the web server"',
    )
    assert (forward.kind, forward.family, forward.protos) == (NatKind.DNAT, 6, ("tcp", "udp"))
    assert (forward.to_port, forward.hairpin) == (PortRange(80, 80), False)
    assert (forward.dest_port, forward.to_ip) == ((PortRange(8080, 8080),), ip_address("fd00::5"))


@pytest.mark.parametrize(
    ("line", "family"),
    [
        ("", 4),
        ('family = "ipv6"', 6),
        ('family = "both"', 0),
        ('src_ip = "fd00::/8"', 6),
        ('src_ip = ["fd00::/8", "10.0.0.0/8"]', 0),
        ('src_ip = "@bad"', 4),
        ('src_ip = "@six"', 6),
    ],
)
def test_a_masquerade_is_of_the_family_that_it_says_or_its_sources_have(valid: Valid, line: str, family: int) -> None:
    assert nat(valid, 'type = "masquerade"', 'out_interface = "wan0"', line).family == family


@pytest.mark.parametrize(
    "line",
    [
        '¶type = "nat"',
        'type = "masquerade"\n¶family = "ipv5"',
        'type = "masquerade"\n¶out_interface = 5',
        'type = "snat"\n¶to_ip = "10.0.0.0/8"',
        'type = "snat"\n¶to_ip = "server"',
    ],
)
def test_a_wrong_line_of_a_nat_block_is_told_at_it(errors: Check, line: str) -> None:
    out = "" if "out_interface" in line else 'out_interface = "wan0"'
    errors(f'{HEAD}nat "n" {{\n{line}\n{out}\n}}')


def test_a_nat_block_needs_a_type(errors: Check) -> None:
    (found,) = errors(f'{HEAD}¶nat "n" {{\n}}')
    assert found == 'nat "n" has no type: write type = "masquerade", "snat" or "dnat"'


@pytest.mark.parametrize(
    "line", ["to_port = 0", 'to_port = "@web"', "to_port = [80, 81]", "to_port = []", "hairpin = 1"]
)
def test_a_wrong_line_of_a_port_forward_is_told_at_it(errors: Check, line: str) -> None:
    needed = 'type = "dnat"\nin_interface = "wan0"\nproto = "tcp"\ndest_port = 80\nto_ip = "10.0.0.5"'
    (found,) = errors(f'{HEAD}nat "n" {{\n{needed}\n¶{line}\n}}')
    assert not found.endswith(": ")
