"""Limits, the police engine: the whole interface is limited, whoever sends. The last resort, and never chosen for you.

Where nothing can tell packets by cgroup, act_police throws away what comes in or goes out over the rate, of every
process and of what is forwarded. It is refused without an interface, for a part of the traffic, and for two limits on
one interface: it would not do what they say. ARP passes, as an interface without it is no use to anybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted, Item
from glacic.shaping.tc import qdiscs
from glacic.shaping.tc.kernel import CLSACT_IN, CLSACT_OUT, Link, Tc
from glacic.shaping.tc.tree import MIN_RATE, rate_of

MAX_RATE = (1 << 32) - 1  # bytes per second: the field of struct tc_ratespec
_ETH_P_ARP = 0x0806  # <linux/if_ether.h>
_ETH_P_ALL = 0x0003
_ARP = qdiscs.PREFS[8]
_POLICE = (qdiscs.PREFS[9], qdiscs.PREFS[10])  # in turn, as a matchall filter cannot be changed (mall_change: EEXIST)
_MAX_PACKET = 128 << 10  # bytes: larger ones never pass; a packet that the kernel has put together has 64 KiB
_PARENTS = {UPLOAD: CLSACT_OUT, DOWNLOAD: CLSACT_IN}


class Police:
    """See Engine. It belongs to the network namespace that it is used in."""

    name = "police"

    def __init__(self) -> None:
        self._put: dict[str, Item] = {}  # interface -> what is in the kernel

    def put(self, items: Sequence[Item]) -> None:
        """See Engine.put. For another rate there is another filter before the old one goes."""
        wanted = _by_interface(items)
        with Tc() as tc:
            links = tc.links()
            for name, item in wanted.items():
                if name not in links:
                    raise KernelRefused(f"{item.name}: there is no interface {name}: see ip link")
                if not qdiscs.is_policed(tc, links[name]):
                    qdiscs.check(tc, links[name], root=False, ingress=True)
            for name, link in links.items():
                if name not in wanted:
                    self._give_back(tc, link)
            for name, item in wanted.items():
                fresh = not qdiscs.is_policed(tc, links[name])
                if fresh:
                    tc.tc("add", "clsact", links[name])
                    self._put.pop(name, None)
                try:
                    self._police(tc, links[name], item)
                except KernelRefused:
                    if fresh:  # nothing half made stays
                        qdiscs.give_back_ingress(tc, links[name], "clsact")
                    raise

    def counters(self) -> dict[tuple[str, str], Counted]:
        """See Engine.counters: of the interface. act_police cannot tell the bytes that it let pass."""
        found: dict[tuple[str, str], Counted] = {}
        with Tc() as tc:
            links = tc.links()
            for name, item in self._put.items():
                for direction in (UPLOAD, DOWNLOAD):
                    if rate_of(item, direction) and name in links:
                        seen = tc.acted(links[name], _PARENTS[direction], _POLICE)
                        found[item.name, direction] = Counted(
                            packets=seen.packets - seen.dropped, dropped_packets=seen.dropped
                        )
        return found

    def adopt(self) -> None:
        """See Engine.adopt: what a killed run left is removed, by its filters' preferences."""
        self.remove()

    def remove(self) -> None:
        """See Engine.remove."""
        with Tc() as tc:
            for link in tc.links().values():
                self._give_back(tc, link)
        self._put = {}

    def _police(self, tc: Tc, link: Link, item: Item) -> None:
        before = self._put.get(link.name)
        for direction, parent in _PARENTS.items():
            rate = rate_of(item, direction)
            had = rate_of(before, direction) if before is not None else 0
            if rate and not had:
                pass_on = {"kind": "gact", "action": "ok"}
                tc.tc("add-filter", "matchall", link, parent=parent, prio=_ARP, protocol=_ETH_P_ARP, action=pass_on)
            if rate != had:
                _replace(tc, link, parent, rate)
            if had and not rate:
                tc.delete_filter(link, parent, _ARP)
        self._put[link.name] = item

    def _give_back(self, tc: Tc, link: Link) -> None:
        if qdiscs.is_policed(tc, link):
            qdiscs.give_back_ingress(tc, link, "clsact")
        self._put.pop(link.name, None)


def _replace(tc: Tc, link: Link, parent: int, rate: int) -> None:
    """A filter for this rate (0: none) in place of the one there is."""
    there = {each.pref for each in tc.filters(link, parent)}.intersection(_POLICE)
    if rate:
        action = {"kind": "police", "rate": rate, "burst": burst(rate), "mtu": _MAX_PACKET, "action": "drop"}
        pref = next(pref for pref in _POLICE if pref not in there)
        tc.tc("add-filter", "matchall", link, parent=parent, prio=pref, protocol=_ETH_P_ALL, action=action)
    for pref in there:
        tc.delete_filter(link, parent, pref)


def burst(rate: int) -> int:
    """Bytes that may go at once: a packet larger than that would never pass."""
    return max(_MAX_PACKET, rate // 4)


def _by_interface(items: Sequence[Item]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for item in items:
        wide = "the police engine limits all of an interface"
        if not item.interface:
            raise KernelRefused(f'{item.name}: {wide}: say which one, with interface = "..."')
        if item.interface == "lo":
            raise KernelRefused(f"{item.name}: loopback is never limited: write another interface")
        if item.traffic is not Traffic.ALL:
            raise KernelRefused(f'{item.name}: {wide}, {item.traffic} traffic or not: write traffic = "all"')
        for direction in (UPLOAD, DOWNLOAD):
            if (rate := rate_of(item, direction)) and not MIN_RATE <= rate <= MAX_RATE:
                raise KernelRefused(f"{item.name}: the police engine holds 1 KiB/s to 4 GiB/s, not {rate} bytes/s")
        other = found.setdefault(item.interface, item)
        if other is not item:
            raise KernelRefused(f"{item.name} and {other.name}: {wide}, so {item.interface} can have one: remove one")
    return found
