"""The firewalls that the kernel rows compare: Glacic's, as it generates it, and what an administrator would write.

All of them forward from lan0 to wan0 what is allowed, by (MAC, protocol, destination port), and what is established.
Refuses to load anything.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from glacic.config.load import load
from glacic.config.policies import LearningPolicy, learning_policies
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.compile import compile_config
from glacic.firewall.render import render
from glacic.firewall.shapes import Key, element_text

POLICY = "lan_wan"
ASKED = "asked"  # the counter that stands where the hook is
STATIC = "inet static"  # the table of every hand-written ruleset
FIRST_MAC = 0x02_00_00_00_00_01
FIRST_PORT = 10_000
PORTS = 100  # of each MAC; fewer where fewer keys are asked for
TCP, UDP = 6, 17
SEED = 20

_HOOK = re.compile(r"^(\s*)(?:queue num|log group) .*$", re.MULTILINE)

_SETTINGS = """
rule_learning {
  enabled       = true
  learning_mode = true
  inline_mode   = INLINE
  log_group     = 100
}
"""

_ROUTER = """
zone "lan" {
  interface = "lan0"
  services {
    dhcp = true
    dns  = true
  }
  management {
    ssh = true
  }
}

zone "wan" {
  interface = "wan0"
  external  = true
}

policy "lan" "wan" {
  name   = "lan_wan"
  action = "drop"
}
"""

_HOST = """
zone "wan" {
  interface = "eth0"
  external  = true
}

policy "firewall" "wan" {
  action = "drop"
}
"""


def glacic_ruleset(inline: bool = True, output: bool = False) -> tuple[str, tuple[LearningPolicy, ...]]:
    """(the script of a small router's configuration, its learning policies). output: of a host that guards itself.

    Where the hook was there is a counter, and a drop: a learned flow never gets there, and kernels differ in what hooks
    they have.
    """
    with tempfile.TemporaryDirectory(prefix="glacic-bench-") as folder:
        path = Path(folder, "glacic.hcl")
        text = _HOST if output else _ROUTER
        path.write_text(_SETTINGS.replace("INLINE", "true" if inline else "false") + text)
        config = load(path)
    script = render(compile_config(config))
    hooked, hooks = _HOOK.subn(rf"\1counter name {ASKED} drop", script)
    if not hooks:
        raise ValueError("the ruleset has no hook")
    counter = f"\ntable {FAMILY} {TABLE} {{\n\tcounter {ASKED} {{ }}\n}}\n"
    replaced = f"delete table {FAMILY} {TABLE}\n"  # the counter comes first: rules name it
    head, tail = hooked.split(replaced, 1)
    return f"{head}{replaced}{counter}{tail}", learning_policies(config)


def keys(count: int) -> list[Key]:
    """So many flows, in an order that has nothing to do with their names: count <= PORTS, or a multiple of it."""
    ports = min(count, PORTS)
    found = [
        (POLICY, mac.to_bytes(6, "big"), UDP, FIRST_PORT + port, b"")
        for mac in range(FIRST_MAC, FIRST_MAC + count // ports)
        for port in range(ports)
    ]
    random.Random(SEED).shuffle(found)  # noqa: S311 -- the same every time is the point
    return found


def tcp_key() -> Key:
    """The flow of `lanes.Lane.tcp_connections`; not one of `keys`."""
    return (POLICY, FIRST_MAC.to_bytes(6, "big"), TCP, FIRST_PORT, b"")


def set_ruleset(*, counter: bool, size: int = 0) -> str:
    """By hand: one set of what is allowed, hashed; `size` elements at most, 0: not said. Elements come apart."""
    words = [
        "typeof ether saddr . meta l4proto . th dport;",
        "counter;" if counter else "",
        f"size {size};" * bool(size),
    ]
    return _by_hand(
        'iifname "lan0" oifname "wan0" ether saddr . meta l4proto . th dport @allowed accept',
        before=f"set allowed {{ {' '.join(filter(None, words))} }}",
    )


def set_elements(flows: Sequence[Key]) -> str:
    """What puts these flows into the set of `set_ruleset`."""
    return f"add element {STATIC} allowed {{ {', '.join(element_text(key) for key in flows)} }}\n"


def linear_ruleset(rules: int) -> str:
    """By hand, one rule for each flow; the one that matches the bench's flows is the last."""
    other = [
        f'iifname "lan0" oifname "wan0" ip saddr 10.9.{n >> 8}.{n & 255} udp dport {n} accept' for n in range(1, rules)
    ]
    return _by_hand(*other, 'iifname "lan0" oifname "wan0" ip saddr 10.0.0.0/24 meta l4proto udp accept')


def conntrack_ruleset() -> str:
    """What is established, and everything else too: what connection tracking costs by itself."""
    return _by_hand('iifname "lan0" oifname "wan0" accept')


def _by_hand(*rules: str, before: str = "") -> str:
    lines = "\n".join(
        f"        {rule}" for rule in ("ct state established,related accept", "ct state invalid drop", *rules)
    )
    return f"""\
table {STATIC} {{
    {before}
    chain forward {{
        type filter hook forward priority filter; policy drop;
{lines}
    }}
}}
"""
