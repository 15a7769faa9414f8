"""rule_learning, zones, policies and sets: what each attribute means, and what each refuses."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from glacic.config.model import (
    Action,
    AddressRange,
    Config,
    FailMode,
    Granularity,
    Identity,
    Integrity,
    PortRange,
    Rate,
    RuleLearning,
    SetType,
)

Check = Callable[[str], list[str]]
Valid = Callable[[str], Config]

ZONES = 'zone "lan" {\n  interface = "lan0"\n}\nzone "wan" {\n  interface = "wan0"\n  external = true\n}\n'


def test_without_a_block_nothing_is_learned_and_with_one_it_is(valid: Valid) -> None:
    assert valid(ZONES).rule_learning == RuleLearning()
    assert valid("rule_learning {}").rule_learning == RuleLearning(enabled=True)


def test_every_attribute_of_rule_learning_is_read(valid: Valid) -> None:
    config = valid(
        """
        rule_learning {
          enabled = false
          learning_mode = true
          inline_mode = true
          log_group = 7
          queues = 4
          learn_for = "1h30m"
          learn_max_per_source = 10
          learn_max = 20
          rate_limit = "10/minute"
          ignore_networks = ["224.0.0.0/4", "ff00::/8"]
          retention_days = 3
          durable = true
          fail_open_keep = true
          integrity = "restore"
          cache_size = 16
          fail_mode = "closed"
          queue_full = "open"
          engine_error = "open"
          packet_window = 5
          offload_mark = "0x01000000"
          database = "/srv/flows.db"
        }
        """
    )
    assert config.rule_learning == RuleLearning(
        enabled=False,
        learning_mode=True,
        inline_mode=True,
        log_group=7,
        queues=4,
        learn_for_s=5400,
        learn_max_per_source=10,
        learn_max=20,
        rate_limit=Rate(10, "minute"),
        ignore_networks=(ip_network("224.0.0.0/4"), ip_network("ff00::/8")),
        retention_days=3,
        durable=True,
        fail_open_keep=True,
        integrity=Integrity.RESTORE,
        cache_size=16,
        fail_mode=FailMode.CLOSED,
        queue_full=FailMode.OPEN,
        engine_error=FailMode.OPEN,
        packet_window=5,
        offload_mark=0x0100_0000,
        database=Path("/srv/flows.db"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "log_group = 65536",
        "log_group = -1",
        "queues = 0",
        "queues = 257",
        'learn_for = "soon"',
        'learn_for = "0s"',
        "learn_max = 0",
        "learn_max_per_source = 0",
        'rate_limit = "fast"',
        'ignore_networks = "10.0.0.1/8"',
        "retention_days = 0",
        "cache_size = 15",
        'fail_mode = "opne"',
        'queue_full = "OPEN"',
        "engine_error = true",
        "packet_window = -1",
        "packet_window = 10001",
        'database = "flows.db"',
        'database = "/srv/"',
        'offload_mark = "x"',
        "offload_mark = 0",
        "offload_mark = 4294967296",
        "offload_mark = 8388608",
        'offload_mark = "0x00c00000"',
        "offload_mark = true",
        "offload_mark = [1, 2]",
        "offload_mark = []",
    ],
)
def test_a_value_of_rule_learning_out_of_bounds_is_told_at_it(errors: Check, line: str) -> None:
    (found,) = errors(f"rule_learning {{\n  ¶{line}\n}}")
    assert not found.endswith(": ")


def test_queue_numbers_end_at_65535(errors: Check, valid: Valid) -> None:
    valid("rule_learning {\n  log_group = 65535\n}")
    valid("rule_learning {\n  inline_mode = true\n  log_group = 65533\n  queues = 3\n}")
    errors("rule_learning {\n  log_group = 65534\n  ¶queues = 3\n}")
    limited = 'rule_learning {{\n  inline_mode = {}\n  log_group = 65535\n  {}rate_limit = "1/second"\n}}'
    valid(limited.format("false", ""))
    errors(limited.format("true", "¶"))


def test_a_zone_is_read(valid: Valid) -> None:
    zone = valid(
        """
        zone "Küche" {
          interfaces  = ["lan0", "wl*", "wlan1", "lan0"]
          networks    = ["10.1.0.0/16", "10.1.2.0/24", "fd01::/64", "10.9.0.1"]
          external    = false
          identity    = "ip"
          description = "where the toaster is"
          services {
            dns         = true
            ntp         = false
            dhcp-client = true
          }
          management { ssh = true }
        }
        """
    ).zones[0]
    assert zone.interfaces == ("lan0", "wl*")
    assert zone.networks == tuple(map(ip_network, ("10.1.0.0/16", "fd01::/64", "10.9.0.1/32")))
    assert (zone.external, zone.identity) == (False, Identity.IP)
    assert (zone.services, zone.management) == (("dns", "dhcp_client"), ("ssh",))
    assert zone.description == "where the toaster is"


def test_elements_keep_their_place_when_covered_ones_fall_away(valid: Valid) -> None:
    zone = valid('zone "a" {\n  interfaces = ["wlan0", "wl*", "b0"]\n}').zones[0]
    assert [zone.spans[f"interfaces[{at}]"].text for at in range(2)] == ['"wl*"', '"b0"']
    assert "interfaces[2]" not in zone.spans


def test_interface_and_interfaces_exclude_each_other(errors: Check) -> None:
    errors('zone "a" {\n  interfaces = ["a0"]\n  ¶interface = "b0"\n}')
    errors('zone "a" {\n  interface = "b0"\n  ¶interfaces = ["a0"]\n}')


@pytest.mark.parametrize(
    "line",
    [
        '¶interface = ["lan0"]',
        '¶interface = "*"',
        '¶interface = "lo"',
        '¶interface = "averyveryverylongname"',
        '¶interface = ""',
        "¶interface = 5",
        "¶interfaces = []",
        "¶networks = []",
        'interfaces = ["a0", ¶"b 0"]',
        '¶networks = "10.0.0.1/8"',
        'networks = ["10.0.0.0/8", ¶"10.0.0.0/33"]',
        'interface = "a0"\n  ¶external = "yes"',
        'interface = "a0"\n  ¶identity = "mca"',
        'interface = "a0"\n  ¶description = "a\\nb"',
        'interface = "a0"\n  services { ¶dnss = true }',
        'interface = "a0"\n  services { ¶ssh = true }',
        'interface = "a0"\n  management { ¶dns = true }',
        'interface = "a0"\n  services { ¶dns = "yes" }',
        'interface = "a0"\n  services { ¶dns {} }',
        'interface = "a0"\n  services { dns = true }\n  ¶services { ntp = true }',
    ],
)
def test_a_wrong_line_of_a_zone_is_told_at_it(errors: Check, line: str) -> None:
    (found,) = errors(f'zone "a" {{\n  {line}\n}}')
    assert not found.endswith(": ")


@pytest.mark.parametrize("name", ["firewall", "", " ", " a", "a ", 'a\\"b', "a\\\\b", "a\\nb", "x" * 121])
def test_a_zone_cannot_have_any_name(errors: Check, name: str) -> None:
    errors(f'zone ¶"{name}" {{\n  interface = "a0"\n}}')


def test_a_policy_is_read(valid: Valid) -> None:
    config = valid(
        ZONES
        + """
        policy "lan" "wan" {
          name        = "out"
          action      = "reject"
          learn       = true
          granularity = "destination"
          description = "to the world"
        }
        policy "lan" "firewall" {}
        policy "lan" "lan" { learn = false }
        """
    )
    first, second, third = config.policies
    assert (first.source, first.destination, first.name, first.action) == ("lan", "wan", "out", Action.REJECT)
    assert (first.learn, first.granularity) == (True, Granularity.DESTINATION)
    assert (second.name, second.action, second.learn) == ("lan_firewall", Action.DROP, None)
    assert third.learn is False


@pytest.mark.parametrize(
    "line",
    [
        'name = "DROP_INPUT"',
        'name = "DROP_FORWARD"',
        'name = ""',
        'name = "a\\"b"',
        'name = "a\\tb"',
        f'name = "{"é" * 61}"',
        "name = 5",
        'action = "acept"',
        'learn = "yes"',
        'granularity = "host"',
        "colour = 1",
    ],
)
def test_a_wrong_line_of_a_policy_is_told_at_it(errors: Check, line: str) -> None:
    errors(f'{ZONES}policy "lan" "wan" {{\n  ¶{line}\n}}')


def test_sets_are_read(valid: Valid) -> None:
    config = valid(
        """
        set "hosts" {
          type        = "ipv4_addr"
          elements    = ["10.0.0.0/8", "192.0.2.7", "192.0.2.10-192.0.2.20"]
          description = "some hosts"
        }
        set "v6" {
          type     = "ipv6"
          elements = "fd00::/8"
        }
        set "mixed" {
          type     = "address"
          elements = ["fd00::1", "10.0.0.1"]
        }
        set "ports" {
          type     = "port"
          elements = [80, "6000-6010"]
        }
        set "empty" { type = "inet_service" }
        """
    )
    hosts, v6, mixed, ports, empty = config.sets
    assert hosts.elements[2] == AddressRange(ip_address("192.0.2.10"), ip_address("192.0.2.20"))
    assert (hosts.type, v6.type, mixed.type, ports.type) == (SetType.IPV4, SetType.IPV6, SetType.ADDRESS, SetType.PORT)
    assert ports.elements == (PortRange(80, 80), PortRange(6000, 6010))
    assert empty.elements == ()


@pytest.mark.parametrize(
    "text",
    [
        '¶set "a" {\n  elements = ["10.0.0.1"]\n}',
        'set "a" {\n  ¶type = "ipv5"\n  elements = ["10.0.0.1", 80, "x"]\n}',
        'set "a" {\n  type = "ipv4"\n  elements = ["10.0.0.1", ¶"fd00::1", ¶80, ¶"@b"]\n}',
        'set "a" {\n  type = "port"\n  elements = [80, ¶70000, ¶"10.0.0.1", ¶"@b"]\n}',
        'set ¶"a-b" {\n  type = "port"\n}',
        'set ¶"9" {\n  type = "port"\n}',
        'set "a" {\n  type = "port"\n}\nset ¶"a" {\n  type = "port"\n}',
    ],
)
def test_a_wrong_set_is_told_at_the_place(errors: Check, text: str) -> None:
    errors(text)


def test_integrity_may_stand_in_rule_learning_or_outside_but_not_in_both(errors: Check, valid: Valid) -> None:
    assert valid('zone "a" { interface = "a0" }\nintegrity = "restore"\n').integrity is Integrity.RESTORE
    learning = 'zone "a" { interface = "a0" }\nrule_learning { integrity = "restore" }\n'
    assert valid(learning).integrity is Integrity.RESTORE
    both = 'zone "a" { interface = "a0" }\n¶integrity = "report"\nrule_learning { integrity = "restore" }\n'
    assert errors(both) == ["integrity is written here and in rule_learning: leave one of them out"]
