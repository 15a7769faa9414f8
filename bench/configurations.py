"""Configurations of any size, always the same for the same size: what the rows about `check` and compile are fed with.

Eight zones, and a policy for each pair that people write down; the rules are shared out among the policies, in a
mixture as grown configurations have it: mostly one port, then lists, networks, named sets, ICMP, a limit, a log line.
Refuses to measure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network

ZONES = ("lan", "iot", "guest", "voice", "dmz", "servers", "vpn", "wan")
_NUMBERS = {zone: number for number, zone in enumerate(ZONES, 1)}
_SERVICES = ("dhcp", "dns", "ntp", "mdns", "syslog", "smtp")
_PORTS = (22, 25, 53, 80, 110, 123, 143, 389, 443, 445, 465, 514, 587, 636, 873, 993, 995, 1194, 1433, 1883, 2049)
_MORE_PORTS = (3128, 3306, 3389, 5060, 5061, 5222, 5432, 5671, 6379, 8080, 8443, 8883, 9000, 9090, 9100, 9200, 27017)
PORTS = _PORTS + _MORE_PORTS
_SETS = 12
SEED = 20

LEARNING = """\
rule_learning {
  enabled       = true
  learning_mode = true
  inline_mode   = true
  log_group     = 100
  learn_for     = "24h"

  ignore_networks = ["224.0.0.0/4", "ff00::/8"]
}
"""


def configuration(rules: int) -> str:
    """A valid configuration in HCL with so many rules."""
    numbers = random.Random(SEED)  # noqa: S311 -- the same every time is the point
    pairs = _pairs()
    shares = [rules // len(pairs) + (at < rules % len(pairs)) for at in range(len(pairs))]
    blocks = [
        LEARNING,
        *(_zone(zone) for zone in ZONES),
        *(_set(number, numbers) for number in range(_SETS)),
        *(_policy(source, to, count, numbers) for (source, to), count in zip(pairs, shares, strict=True)),
        _nat(),
    ]
    return "\n".join(blocks)


def _pairs() -> list[tuple[str, str]]:
    """From where to where there are policies: inside out, inside to what serves, and everybody to the firewall."""
    inside = [zone for zone in ZONES if zone != "wan"]
    serving = ("dmz", "servers")
    return [
        *((zone, "wan") for zone in inside),
        *((zone, server) for zone in inside for server in serving if zone != server),
        *((zone, "firewall") for zone in ZONES),
        ("wan", "dmz"),
    ]


def _zone(zone: str) -> str:
    number = _NUMBERS[zone]
    external = "  external  = true\n" if zone == "wan" else ""
    identity = '  identity  = "ip"\n' if zone == "vpn" else ""
    services = "".join(f"    {service} = true\n" for service in _SERVICES[: number % 5 + 1])
    offers = "" if zone == "wan" else f"  services {{\n{services}  }}\n"
    return f'zone "{zone}" {{\n  interface = "eth{number}"\n{external}{identity}{offers}}}\n'


def _set(number: int, numbers: random.Random) -> str:
    if number % 3 == 2:
        ports = ", ".join(str(port) for port in sorted(numbers.sample(PORTS, 8)))
        return f'set "ports_{number}" {{\n  type     = "inet_service"\n  elements = [{ports}]\n}}\n'
    elements = ", ".join(f'"{_network(numbers, family)}"' for family in (4, 4, 4, 6, 4, 6))
    return f'set "hosts_{number}" {{\n  type     = "address"\n  elements = [{elements}]\n}}\n'


def _policy(source: str, to: str, rules: int, numbers: random.Random) -> str:
    action = "reject" if to in ("dmz", "servers") else "drop"
    text = "\n".join(_rule(number, numbers) for number in range(rules))
    return f'policy "{source}" "{to}" {{\n  action = "{action}"\n\n{text}}}\n'


def _rule(number: int, numbers: random.Random) -> str:
    """One rule: its kind by weight, its values at random."""
    kinds, weights = zip(*_KINDS, strict=True)
    kind: Callable[[random.Random], Iterator[tuple[str, str]]] = numbers.choices(kinds, weights)[0]
    attributes = dict(kind(numbers))
    attributes.setdefault("action", '"accept"' if numbers.random() < 0.85 else '"drop"')
    if numbers.random() < 0.15:
        attributes["comment"] = f'"ticket {numbers.randrange(10_000)}, until somebody asks"'
    width = max(map(len, attributes))
    lines = "".join(f"    {name:<{width}} = {value}\n" for name, value in attributes.items())
    return f'  rule "rule {number}" {{\n{lines}  }}\n'


def _one_port(numbers: random.Random) -> Iterator[tuple[str, str]]:
    yield "proto", numbers.choice(('"tcp"', '"tcp"', '"udp"'))
    yield "dest_port", str(numbers.choice(PORTS))


def _ports(numbers: random.Random) -> Iterator[tuple[str, str]]:
    yield "proto", '["tcp", "udp"]'
    first = numbers.randrange(20_000, 60_000)
    listed = [str(port) for port in numbers.sample(PORTS, numbers.randrange(2, 6))]
    yield "dest_port", f'[{", ".join(listed)}, "{first}-{first + 99}"]'


def _networks(numbers: random.Random) -> Iterator[tuple[str, str]]:
    yield from _one_port(numbers)
    family = numbers.choice((4, 4, 4, 6))
    yield "src_ip", f'"{_network(numbers, family)}"'
    yield "dest_ip", f'["{_network(numbers, family)}", "{_network(numbers, family)}"]'


def _named(numbers: random.Random) -> Iterator[tuple[str, str]]:
    yield "proto", '"tcp"'
    yield "dest_port", f'"@ports_{numbers.choice([at for at in range(_SETS) if at % 3 == 2])}"'
    yield "src_ip", f'"@hosts_{numbers.choice([at for at in range(_SETS) if at % 3 != 2])}"'


def _icmp(_: random.Random) -> Iterator[tuple[str, str]]:
    yield "proto", '["icmp", "icmpv6"]'
    yield "icmp_type", '"echo-request"'
    yield "limit", '"5/second"'


def _logged(numbers: random.Random) -> Iterator[tuple[str, str]]:
    yield from _one_port(numbers)
    yield "log", "true"
    yield "limit", '"10/minute"'
    yield "action", '"reject"'


_KINDS = ((_one_port, 45), (_ports, 15), (_networks, 18), (_named, 12), (_icmp, 4), (_logged, 6))


def _network(numbers: random.Random, family: int) -> str:
    if family == 4:
        bits = numbers.choice((16, 24, 24, 28, 32))
        return str(IPv4Network(((10 << 24 | numbers.getrandbits(24)) >> (32 - bits) << (32 - bits), bits)))
    return str(IPv6Network(((0xFD << 120 | numbers.getrandbits(72) << 48) >> 64 << 64, 64)))


def _nat() -> str:
    return f'nat "internet" {{\n  type          = "masquerade"\n  out_interface = "eth{_NUMBERS["wan"]}"\n}}\n'
