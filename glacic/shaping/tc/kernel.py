"""Limits, tc: the seam to rtnetlink: links, qdiscs, classes and filters, as pyroute2 reads and writes them.

pyroute2 is imported here only, and only when an engine of this folder does something. A `Tc` is opened for one piece of
work and belongs to the network namespace of the thread that opens it. It knows nothing of limits, nor of whose a thing
is. Numbers are the kernel's: a handle is MAJOR << 16 | minor (<linux/pkt_sched.h>).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from glacic.errors import KernelRefused

ROOT = 0xFFFF_FFFF  # TC_H_ROOT
INGRESS_PARENT = 0xFFFF_FFF1  # TC_H_INGRESS, which TC_H_CLSACT is too
INGRESS_HANDLE = 0xFFFF_0000  # of the ingress and the clsact qdisc
CLSACT_IN = 0xFFFF_FFF2  # TC_H_CLSACT with TC_H_MIN_INGRESS
CLSACT_OUT = 0xFFFF_FFF3  # ... with TC_H_MIN_EGRESS

_DEFAULT_QDISC = Path("/proc/sys/net/core/default_qdisc")  # the first network namespace's only
_UNICAST = 1  # RTN_UNICAST
_UP = 1  # IFF_UP
_MAIN_TABLE = 254  # RT_TABLE_MAIN


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. kind: "ifb", "veth", ...; "" of hardware."""

    index: int
    name: str
    kind: str = ""
    alias: str = ""
    up: bool = False


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A qdisc as it is listed; handle 0 is one that the kernel made by itself."""

    kind: str
    handle: int
    parent: int


@dataclass(frozen=True, slots=True)
class Class:
    """An HTB class: its handle, its parent's (0: none), and what it has sent and thrown away."""

    handle: int
    parent: int
    bytes: int = 0
    packets: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Filter:
    """A filter: its preference, its kind and its own handle."""

    pref: int
    kind: str
    handle: int


class Seen(NamedTuple):
    """How many packets an action has met, and how many of those it has thrown away."""

    packets: int
    dropped: int


class Tc:
    """rtnetlink, for one piece of work. Every method raises KernelRefused."""

    def __init__(self) -> None:
        try:
            from pyroute2 import IPRoute
            from pyroute2.netlink.rtnl.tcmsg import plugins
        except ImportError as error:
            raise KernelRefused("the Python module pyroute2 is missing, which this engine needs: install it") from error
        plugins.setdefault("bfifo", plugins["pfifo"])  # the same options (struct tc_fifo_qopt), counted in bytes
        with _refusals("open rtnetlink"):
            self._ip: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ip.close()

    def links(self) -> dict[str, Link]:
        """Every interface, by its name."""
        with _refusals("list the interfaces"):
            found = [_link(message) for message in self._ip.get_links()]
        return {link.name: link for link in found}

    def default_interfaces(self) -> frozenset[int]:
        """The indexes of the interfaces that default routes of the main table lead out of."""
        indexes: set[int] = set()
        with _refusals("list the routes"):
            for family in (socket.AF_INET, socket.AF_INET6):
                for route in self._ip.get_default_routes(family=family, table=_MAIN_TABLE):
                    if route["type"] == _UNICAST:
                        hops = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()]
                        indexes |= {index for index in (route.get_attr("RTA_OIF"), *hops) if index}
        return frozenset(indexes)

    def qdiscs(self, link: Link) -> tuple[Qdisc, ...]:
        """Those of one interface."""
        with _refusals(f"list the qdiscs of {link.name}"):
            return tuple(
                Qdisc(message.get_attr("TCA_KIND"), message["handle"], message["parent"])
                for message in self._ip.get_qdiscs(index=link.index)
            )

    def classes(self, link: Link) -> dict[int, Class]:
        """The classes of one interface, by handle."""
        with _refusals(f"list the classes of {link.name}"):
            found = [_class(message) for message in self._ip.get_classes(index=link.index)]
        return {each.handle: each for each in found}

    def filters(self, link: Link, parent: int) -> frozenset[Filter]:
        """The filters below one qdisc."""
        with _refusals(f"list the filters of {link.name}"):
            return frozenset(
                Filter(message["info"] >> 16, message.get_attr("TCA_KIND"), message["handle"])
                for message in self._ip.get_filters(index=link.index, parent=parent)
                if message["handle"]  # 0: the head that filters of one preference hang from
            )

    def acted(self, link: Link, parent: int, prefs: Collection[int]) -> Seen:
        """What the first actions of the filters of these preferences have met."""
        with _refusals(f"list the filters of {link.name}"):
            messages = list(self._ip.get_filters(index=link.index, parent=parent))
        seen = [_seen(message) for message in messages if message["info"] >> 16 in prefs and message["handle"]]
        return Seen(*(sum(column) for column in zip(*seen, strict=True))) if seen else Seen(0, 0)

    def tc(self, command: str, kind: str, link: Link, **options: Any) -> None:
        """One command, as pyroute2 names it ("add-class") and its options."""
        with _refusals(f"{command} {kind} on {link.name}"):
            self._ip.tc(command, kind, link.index, **options)

    def delete(self, command: str, link: Link, **numbers: int) -> None:
        """One deletion ("del-class"), by the fields of struct tcmsg."""
        with _refusals(f"{command} on {link.name}"):
            self._ip.tc(command, None, link.index, **numbers)

    def delete_filter(self, link: Link, parent: int, pref: int, handle: int = 0) -> None:
        """One filter, or (0) all of one preference."""
        self.delete("del-filter", link, parent=parent, handle=handle, info=pref << 16)

    def add_ifb(self, name: str, alias: str) -> Link:
        """A new ifb device, up."""
        with _refusals(f"make the ifb device {name}"):
            self._ip.link("add", ifname=name, kind="ifb")
            (index,) = self._ip.link_lookup(ifname=name)
            self._ip.link("set", index=index, ifalias=alias)
            self._ip.link("set", index=index, state="up")
        return Link(index, name, "ifb", alias, up=True)

    def delete_link(self, link: Link) -> None:
        """An interface, with everything on it; one that is gone already is fine."""
        with _refusals(f"remove {link.name}", but=(errno.ENODEV,)):
            self._ip.link("del", index=link.index)


def default_qdisc() -> str:
    """What the kernel gives an interface by itself (net.core.default_qdisc); "" where that cannot be read."""
    with suppress(OSError):
        return _DEFAULT_QDISC.read_text().strip()
    return ""


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else "") or "",
        alias=message.get_attr("IFLA_IFALIAS") or "",
        up=bool(message["flags"] & _UP),
    )


def _class(message: Any) -> Class:
    stats = message.get_attr("TCA_STATS2")
    basic: Mapping[str, int] = (stats and stats.get_attr("TCA_STATS_BASIC")) or {}
    queue: Mapping[str, int] = (stats and stats.get_attr("TCA_STATS_QUEUE")) or {}
    return Class(
        handle=message["handle"],
        parent=0 if message["parent"] == ROOT else message["parent"],
        bytes=basic.get("bytes", 0),
        packets=basic.get("packets", 0),
        dropped=queue.get("drops", 0),
    )


def _seen(message: Any) -> Seen:
    action = message.get_attr("TCA_OPTIONS").get_attr("TCA_MATCHALL_ACT").get_attr("TCA_ACT_PRIO_1")
    stats = action.get_attr("TCA_ACT_STATS")
    basic, queue = stats.get_attr("TCA_STATS_BASIC") or {}, stats.get_attr("TCA_STATS_QUEUE") or {}
    return Seen(basic.get("packets", 0), queue.get("drops", 0))


@contextmanager
def _refusals(what: str, but: tuple[int, ...] = ()) -> Iterator[None]:
    """The kernel's errors, as ours; those in `but` are none."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno or 0
        if code in but:
            return
        raise KernelRefused(f"cannot {what}: {os.strerror(code)}{_advice(code)}") from error


def _advice(code: int) -> str:
    if code == errno.EPERM:
        return "; traffic control needs CAP_NET_ADMIN: run as root"
    if code in (errno.ENOENT, errno.EOPNOTSUPP):
        return "; this kernel lacks a module for it (modprobe tells which): use another engine"
    if code == errno.EEXIST:
        return "; somebody else has put something there: see tc qdisc show"
    return ""
