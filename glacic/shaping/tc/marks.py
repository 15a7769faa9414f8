"""Limits, shape: the table `inet glacic_shape`, which tells packets by cgroup. Pure: text only.

On output a packet's socket has a cgroup. The innermost limit on it sets the packet's priority, which HTB takes for a
class, and the connection's mark, by which tc finds the answers at ingress, where a packet has no socket yet:

    socket cgroupv2 level 2 vmap @all_2          deepest level first, so that one chain is gone to
    chain all_7 {
        oifname { "eth0" } meta priority set 61ac:17
        ct mark & 0xff000000 != 0x07000000 ct mark set ct mark & 0x00ffffff | 0x07000000
    }

A mark that no limit stands for any more goes with the connection's next packet. Forwarded packets have no cgroup, and
an answer can be told only once something was sent on its connection: a flood that nobody answers is not limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from glacic.config.model import Traffic
from glacic.firewall import claims
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Item
from glacic.shaping.tc.qdiscs import HTB
from glacic.shaping.tc.tree import applies, leaf, nearest

TABLE = f"{claims.FAMILY} {claims.SHAPE_TABLE}"

# What counts as local; see config/model.py, Traffic
LOCAL_4 = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
    "100.64.0.0/10",  # RFC 6598
    "169.254.0.0/16",  # RFC 3927
    "224.0.0.0/4",  # multicast, RFC 5771
    "255.255.255.255",  # broadcast, RFC 919
)
LOCAL_6 = ("fc00::/7", "fe80::/10", "ff00::/8")  # RFC 4193, RFC 4291

_KEEP = 0xFFFF_FFFF ^ claims.CT_LIMIT
_BEHIND = 90  # chain priority: after everybody else, as some save a whole packet mark as the connection mark

Place = Callable[[Cgroup], str]  # a cgroup, as nft finds it below /sys/fs/cgroup


def mark(number: int) -> int:
    """The connection mark of an item's number."""
    return number << claims.CT_LIMIT_SHIFT


def script(items: Sequence[Item], numbers: Mapping[str, int], interfaces: Iterable[str], place: Place) -> str:
    """One transaction that puts the table in place of the one there is. Without items: no table."""
    lines = [f"add table {TABLE}", f"delete table {TABLE}"]
    if items:
        lines += [f"table {TABLE} {{", *_body(items, numbers, sorted(interfaces), place), "}"]
    return "\n".join([*lines, ""])


def _body(items: Sequence[Item], numbers: Mapping[str, int], interfaces: Sequence[str], place: Place) -> list[str]:
    told_apart = any(item.traffic is not Traffic.ALL for item in items)
    scopes = (Traffic.LOCAL, Traffic.INTERNET) if told_apart else (Traffic.ALL,)
    lines: list[str] = []
    for scope in scopes:
        lines += _chains(items, numbers, interfaces, scope) + _maps(items, numbers, scope, place)
    head = [f"type filter hook output priority {_BEHIND}; policy accept;", 'oif "lo" accept']
    if not told_apart:
        return [*lines, *_chain("out", head + _lookups(items, Traffic.ALL))]
    for scope in scopes:
        lines += _chain(f"out_{scope}", _lookups(items, scope))
    head += [
        f"ip daddr {{ {', '.join(LOCAL_4)} }} goto out_local",
        f"ip6 daddr {{ {', '.join(LOCAL_6)} }} goto out_local",
    ]
    return [*lines, *_chain("out", [*head, "goto out_internet"])]


def _chains(items: Sequence[Item], numbers: Mapping[str, int], interfaces: Sequence[str], scope: Traffic) -> list[str]:
    downloads = any(item.download for item in items)
    names = ", ".join(f'"{name}"' for name in interfaces)
    lines: list[str] = []
    for item in _limited(items, scope):
        rules = []
        if up := nearest(item, items, UPLOAD, scope, itself=True):
            rules.append(f"oifname {{ {names} }} meta priority set {HTB >> 16:x}:{leaf(numbers[up.name]):x}")
        down = nearest(item, items, DOWNLOAD, scope, itself=True)
        if downloads:
            rules.append(_set_mark(numbers[down.name] if down else 0))
        lines += _chain(f"{scope}_{numbers[item.name]}", rules)
    return lines


def _maps(items: Sequence[Item], numbers: Mapping[str, int], scope: Traffic, place: Place) -> list[str]:
    lines: list[str] = []
    for level in _levels(items, scope):
        elements = [
            f'"{place(item.cgroup)}" : goto {scope}_{numbers[item.name]}'
            for item in _limited(items, scope)
            if item.cgroup.level == level
        ]
        lines += [f"map {scope}_{level} {{ type cgroupsv2 : verdict", f"elements = {{ {', '.join(elements)} }}", "}"]
    return lines


def _lookups(items: Sequence[Item], scope: Traffic) -> list[str]:
    rules = [f"socket cgroupv2 level {level} vmap @{scope}_{level}" for level in _levels(items, scope)]
    return [*rules, _set_mark(0)] if any(item.download for item in items) else rules


def _limited(items: Sequence[Item], scope: Traffic) -> list[Item]:
    return [item for item in items if applies(item, scope)]


def _levels(items: Sequence[Item], scope: Traffic) -> list[int]:
    """Deepest first."""
    return sorted({item.cgroup.level for item in _limited(items, scope)}, reverse=True)


def _set_mark(number: int) -> str:
    """Only where it is another one: the kernel reports each change to whoever follows the connections."""
    field, value = f"ct mark & 0x{claims.CT_LIMIT:08x}", f"0x{mark(number):08x}"
    return f"{field} != {value} ct mark set ct mark & 0x{_KEEP:08x}" + (f" | {value}" if number else "")


def _chain(name: str, rules: Sequence[str]) -> list[str]:
    return [f"chain {name} {{", *rules, "}"]
