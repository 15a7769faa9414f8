"""Fuzz target: configurations that are mostly right. Each byte of an input is a choice: a mutation of text never comes
that far into what may be written together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fuzz.configuration import hcl
from fuzz.targets import Check

ZONES = ("lan", "wan {}", "dmz'; accept", "☃ drop")
INTERFACES = (("lan0", "lan1"), ("wan0", "wan*"), ("br-a.b", "d*"), ("tun0", "ü+$"))  # of each zone
NETWORKS = (("10.1.0.0/24", "fd01::/64"), ("10.2.0.0/16",), ("192.0.2.0/31", "2001:db8::/127"), ("10.1.1.0/24",))
ADDRESSES = (
    ("10.1.0.0/24", "10.1.0.7", "10.1.0.5-10.1.0.9", "0.0.0.0/0", "255.255.255.255", "0.0.0.0-9.0.0.1", "@a", "@b"),
    ("2001:db8::/32", "fd01::10", "::/0", "fe80::1-fe80::9", "ff02::/16", "2001:db8::-2001:db8::7", "@a"),
)
PORTS = ("80", "443", '"6000-6010"', '"6005-7000"', "0", "65535", '"0-65535"', "6000", '"65000-65535"')
PORTED = ("tcp", "udp", "udplite", "sctp")
OTHERS = ("igmp", "gre", "esp", "ah", "ospf", "any", "vrrp", "icmp", "icmpv6")
ICMP = (("echo-request", "echo-reply", "8", "255", "time-exceeded"), ("packet-too-big", "nd-redirect", "128", "0"))
NAMES = ("plain", "'; accept; #", "}}", "a" * 90, "☃☃☃", "%s {} ;", "drop", "DROP_INPUT_x", "é", "@a", "x_0123abcd")
TEXTS = (*NAMES, '\\" accept; #', "x\\\\", "$x $(reboot)")
STATES = ("new", "untracked", "established")
RATES = ("1/second", "1000000/day", "10/minute", "3/hour")
ACTIONS = ("accept", "drop", "reject")


class _Choices:
    """The bytes of an input, one after the other; zeroes behind its end."""

    def __init__(self, data: bytes) -> None:
        self._rest = iter(data)

    def number(self, count: int) -> int:
        return next(self._rest, 0) % count

    def one(self, of: Sequence[str]) -> str:
        return of[self.number(len(of))]

    def yes(self) -> bool:
        return self.number(4) == 1

    def some(self, of: Sequence[str]) -> str:
        """A list of one to three, each in quotes where it has none."""
        chosen = [self.one(of) for _ in range(1 + self.number(3))]
        return "[" + ", ".join(one if one[0] == '"' else f'"{one}"' for one in chosen) + "]"


def text_of(data: bytes) -> str:
    """The configuration that an input stands for."""
    choices = _Choices(data)
    parts = [_learning(choices)]
    zones = 1 + choices.number(len(ZONES))
    parts += [_zone(choices, at) for at in range(zones)]
    parts += [_set(choices, name, type_) for name, type_ in (("a", "address"), ("b", "ipv4"), ("p", "port"))]
    names = [*ZONES[:zones], "firewall"]
    pairs = [(one, other) for one in names for other in names if (one, other) != ("firewall", "firewall")]
    parts += [_policy(choices, pair, at) for at, pair in enumerate(pairs) if choices.yes()]
    parts += [_nat(choices, at) for at in range(choices.number(3))]
    return "\n".join(parts)


def _block(header: str, *lines: str) -> str:
    return f"{header} {{\n" + "\n".join(line for line in lines if line) + "\n}\n"


def _maybe(choices: _Choices, name: str, value: str) -> str:
    return f"{name} = {value}" if choices.yes() else ""


def _learning(choices: _Choices) -> str:
    return _block(
        "rule_learning",
        "enabled = true" if choices.number(3) else "enabled = false",
        "inline_mode = true" if choices.number(2) else "",
        _maybe(choices, "queues", str(1 + choices.number(4))),
        _maybe(choices, "rate_limit", f'"{choices.one(RATES)}"'),
        _maybe(choices, "packet_window", str(choices.number(50))),
        _maybe(choices, "fail_mode", '"closed"'),
        _maybe(choices, "ignore_networks", '["10.0.0.0/8", "fe80::/10"]'),
    )


def _zone(choices: _Choices, at: int) -> str:
    kind = choices.number(4)  # most zones have interfaces alone
    return _block(
        f'zone "{ZONES[at]}"',
        f"networks = {choices.some(NETWORKS[at])}" if kind < 2 else "",
        f"interfaces = {choices.some(INTERFACES[at])}" if kind else "",
        "external = true" if choices.yes() else "",
        'identity = "ip"' if choices.yes() else "",
        "services {\n dhcp = true\n dns = true\n}" if choices.yes() else "",
        "management {\n icmp = true\n ssh = true\n}" if choices.yes() else "",
        _maybe(choices, "description", f'"{choices.one(TEXTS)}"'),
    )


def _set(choices: _Choices, name: str, type_: str) -> str:
    family = {"address": choices.number(2), "ipv4": 0}.get(type_)
    of = PORTS if family is None else [one for one in ADDRESSES[family] if one[0] != "@"]
    elements = f"elements = {choices.some(of)}" if choices.number(4) else ""
    listed = _maybe(choices, "elements_file", '"list.txt"') if type_ == "address" else ""
    return _block(f'set "{name}"', f'type = "{type_}"', elements, listed)


def _policy(choices: _Choices, ends: tuple[str, str], at: int) -> str:
    return _block(
        f'policy "{ends[0]}" "{ends[1]}"',
        _maybe(choices, "name", f'"{choices.one(NAMES)}{at}"'),
        f'action = "{choices.one(ACTIONS)}"',
        "learn = false" if choices.yes() else "",
        *(_rule(choices, number) for number in range(choices.number(4))),
    )


def _rule(choices: _Choices, at: int) -> str:
    family, ports = choices.number(2), (*PORTS, '"@p"')
    match choices.number(4):
        case 0:
            match = ""
        case 1:
            proto = "icmpv6" if family else "icmp"
            match = f'proto = "{proto}"\n' + _maybe(choices, "icmp_type", choices.some(ICMP[family]))
        case 2:
            match = f'proto = "{choices.one(OTHERS[:-2])}"'
        case _:
            match = f"proto = {choices.some(PORTED)}\ndest_port = {choices.some(ports)}\n"
            match += _maybe(choices, "source_port", choices.some(ports))
    return _block(
        f'rule "{choices.one(NAMES)}{at}"',
        f'action = "{choices.one(ACTIONS)}"',
        match,
        _maybe(choices, "src_ip", choices.some(ADDRESSES[family])),
        _maybe(choices, "dest_ip", choices.some(ADDRESSES[family])),
        _maybe(choices, "ct_state", choices.some(STATES)),
        _maybe(choices, "limit", f'"{choices.one(RATES)}"'),
        _maybe(choices, "log", f'"{choices.one(NAMES)}"'),
        _maybe(choices, "comment", f'"{choices.one(TEXTS)}"'),
        "disabled = true" if choices.yes() else "",
    )


def _nat(choices: _Choices, at: int) -> str:
    kind = choices.one(("masquerade", "snat", "dnat"))
    family = choices.number(2)
    side = "in_interface" if kind == "dnat" else "out_interface"
    target = f'to_ip = "{("10.1.0.5", "fd01::5")[family]}"' if kind != "masquerade" else ""
    lines = [f"{side} = {choices.some(INTERFACES[choices.number(2)])}", target]
    if kind == "dnat" and choices.yes():
        lines.append(f"proto = {choices.some(PORTED)}\ndest_port = 8080\nto_port = {1 + choices.number(255)}")
    elif kind == "dnat":
        lines.append(f"proto = {choices.some(PORTED)}\ndest_port = {choices.some(PORTS)}")
    elif kind == "masquerade":
        lines.append(f'family = "{("ipv4", "ipv6")[family]}"')
    return _block(
        f'nat "{choices.one(NAMES)}{at}"',
        f'type = "{kind}"',
        *lines,
        _maybe(choices, "src_ip", choices.some(ADDRESSES[family])),
        _maybe(choices, "dest_ip", choices.some(ADDRESSES[family])),
    )


@contextmanager
def generated() -> Iterator[Check]:
    """An input is a row of choices."""
    with hcl() as check:
        yield lambda data: check(text_of(data).encode())
