"""Limits, the shape engine: packets wait instead of being thrown away, per cgroup, in both directions.

    upload    nft sets the packet's priority by cgroup    HTB on the interface takes it for a class
    download  nft sets the connection's mark by cgroup    at ingress tc copies it to the packet (connmark), sends what
                                                          has ours to an ifb device (fw, mirred), where HTB takes it
                                                          for a class (fw), and clears the packet's mark (skbedit)

Packets without a limit pass the ingress untouched and never see the ifb. The packet's mark is cleared before any hook
or route is asked, as it was before; nobody else's bits in the connection mark change.

A class is never deleted to change its rate, so what runs keeps its connections, and its queue. An interface is taken
when its first limit comes, given back with its last (qdiscs.py), and refused where others have been at it.

What it cannot do: downloads on a connection that this machine has sent nothing on; later fragments of a datagram;
connections in another conntrack zone; more than 255 limits. An interface with several hardware queues has one lock
for all of them while its uploads are shaped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from glacic.errors import KernelRefused
from glacic.firewall.claims import CT_LIMIT, CT_LIMIT_SHIFT
from glacic.firewall.nft import Nft
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Counted, Item
from glacic.shaping.tc import marks, qdiscs, tree
from glacic.shaping.tc.kernel import INGRESS_HANDLE, Filter, Link, Tc

_HTB = qdiscs.HTB
_RESTORE, _PICK, _CLEAR = qdiscs.PREFS[0], qdiscs.PREFS[1], qdiscs.PREFS[2]  # filters, in the order they are asked
_QUEUES = 0x4000  # the major numbers of the queues in our classes begin here


class Shape:
    """See Engine. It belongs to the network namespace that it is used in, as `nft` does.

    mount: where the cgroups' paths begin. offload_mark: bits of the connection mark that are the user's now; none of
    them may be one of claims.CT_LIMIT.
    """

    name = "shape"

    def __init__(self, nft: Nft, *, mount: Callable[[], Path], offload_mark: Callable[[], int] = lambda: 0) -> None:
        self._nft, self._mount, self._offload_mark = nft, mount, offload_mark
        self._numbers: dict[str, int] = {}
        self._last = 0  # number given
        self._put: dict[str, dict[int, tree.Bucket]] = {}  # name of an interface or ifb -> its classes, as we made them
        self._script = ""

    def put(self, items: Sequence[Item]) -> None:
        """See Engine.put. In one order: classes, then what leads packets there; and back the other way round."""
        if not items:
            self.remove()
            return
        self._check(items)
        fresh = not self._put
        try:
            self._have(items)
        except KernelRefused:
            if fresh:  # nothing half made stays
                self.remove()
            raise

    def _have(self, items: Sequence[Item]) -> None:
        with Tc() as tc:
            links = tc.links()
            used = _interfaces(tc, links, items)
            for link, limited in used.items():  # everything is looked at before anything is changed
                _check_interface(tc, links, link, limited)
                for direction in (UPLOAD, DOWNLOAD):
                    tree.buckets(limited, dict.fromkeys((item.name for item in limited), 1), direction)
            self._number(items)
            for link, limited in used.items():
                self._uploads(tc, link, limited)
                self._downloads(tc, links, link, limited)
            self._mark(items, [link.name for link in used])
            for link in links.values():
                if link not in used and not qdiscs.is_ours(link):
                    self._give_back(tc, links, link)
            self._delete_ifbs(tc, but={qdiscs.ifb_name(link) for link in used})
        self._numbers = {item.name: self._numbers[item.name] for item in items}

    def counters(self) -> dict[tuple[str, str], Counted]:
        """See Engine.counters. The bytes of what a full queue threw away are not known to the kernel."""
        found: dict[tuple[str, str], Counted] = {}
        if not self._put:
            return found
        with Tc() as tc:
            links = tc.links()
            for name, made in self._put.items():
                link = links.get(name)
                classes = tc.classes(link) if link is not None else {}
                direction = DOWNLOAD if link is not None and qdiscs.is_ours(link) else UPLOAD
                for item, number in self._numbers.items():
                    minor = tree.counting(frozenset(made), number)
                    if minor and (sent := classes.get(_HTB | minor)) is not None:
                        leaf = classes.get(_HTB | tree.leaf(number), sent)
                        before = found.get((item, direction), Counted())
                        found[item, direction] = Counted(
                            bytes=before.bytes + sent.bytes,
                            packets=before.packets + sent.packets,
                            dropped_packets=before.dropped_packets + leaf.dropped,
                        )
        return found

    def adopt(self) -> None:
        """See Engine.adopt: what a killed run left is removed, by handle, name and preference."""
        self.remove()

    def remove(self) -> None:
        """See Engine.remove."""
        self._nft.run(marks.script((), {}, (), _nowhere))
        with Tc() as tc:
            links = tc.links()
            for link in links.values():
                if not qdiscs.is_ours(link):
                    self._give_back(tc, links, link)
            self._delete_ifbs(tc, but=set())
        self._put, self._numbers, self._script = {}, {}, ""

    def _check(self, items: Sequence[Item]) -> None:
        tree.check(items)
        theirs = self._offload_mark()
        if theirs & CT_LIMIT and any(item.download for item in items):
            raise KernelRefused(
                f"offload_mark {theirs:#010x} has bits of {CT_LIMIT:#010x}, by which the shape engine tells"
                ' downloads: choose others, or write engine = "nft"'
            )

    def _number(self, items: Sequence[Item]) -> None:
        """Numbers go round, so that a connection's old mark does not come to mean another limit soon."""
        for item in items:
            if item.name in self._numbers:
                continue
            taken = set(self._numbers.values())
            if len(taken) == tree.MOST:  # those of limits that have gone are all that is left
                self._numbers = {each.name: self._numbers[each.name] for each in items if each.name in self._numbers}
                taken = set(self._numbers.values())
            self._last = next(
                number for step in range(tree.MOST) if (number := (self._last + step) % tree.MOST + 1) not in taken
            )
            self._numbers[item.name] = self._last

    def _uploads(self, tc: Tc, link: Link, items: Sequence[Item]) -> None:
        wanted = tree.buckets(items, self._numbers, UPLOAD)
        if not wanted:
            self._give_back_root(tc, link)
        elif qdiscs.has_root(tc, link):
            self._classes(tc, link, wanted)
        else:
            queue = qdiscs.check(tc, link, root=True, ingress=False)
            _add_htb(tc, link, queue)
            self._put[link.name] = {}
            self._classes(tc, link, wanted)

    def _downloads(self, tc: Tc, links: Mapping[str, Link], link: Link, items: Sequence[Item]) -> None:
        wanted = tree.buckets(items, self._numbers, DOWNLOAD)
        ifb = qdiscs.ifb_of(links.values(), link)
        if not wanted:
            if ifb is not None:
                self._give_back_ingress(tc, link, ifb)
            return
        if ifb is None:
            ifb = qdiscs.make_ifb(tc, link)
        if not qdiscs.has_root(tc, ifb):
            _add_htb(tc, ifb, "")
            self._put[ifb.name] = {}
        if not qdiscs.has(tc, link, "ingress"):
            tc.tc("add", "ingress", link)
        numbers = {self._numbers[item.name] for item in items if item.download}
        self._pick(tc, link, ifb, numbers, stale=True)
        self._classes(tc, ifb, wanted)
        self._pick(tc, link, ifb, numbers, stale=False)

    def _pick(self, tc: Tc, link: Link, ifb: Link, numbers: set[int], *, stale: bool) -> None:
        """The filters at ingress and on the ifb: first those that no limit has any more go, then the new ones come.

        The one that puts a connection's mark into a packet is the last to come: those that clear it are there."""
        wanted = {Filter(_PICK, "fw", marks.mark(number)) for number in numbers}
        for place, parent in ((link, INGRESS_HANDLE), (ifb, _HTB)):
            there = tc.filters(place, parent)
            prefs = {each.pref for each in there}
            if stale:
                for each in there - wanted:
                    if each.pref == _PICK:
                        tc.delete_filter(place, parent, _PICK, each.handle)
                continue
            if place is link and _CLEAR not in prefs:
                tc.tc("add-filter", "matchall", link, parent=parent, prio=_CLEAR, action=_MARK_CLEARED)
            for each in sorted(wanted - there):
                number = each.handle >> CT_LIMIT_SHIFT
                target: dict[str, Any] = {"classid": _HTB | tree.leaf(number), "action": _MARK_CLEARED}
                if place is link:
                    target = {"action": {**_TO_IFB, "ifindex": ifb.index}}
                tc.tc("add-filter", "fw", place, parent=parent, prio=_PICK, handle=each.handle, mask=CT_LIMIT, **target)
            if place is link and _RESTORE not in prefs:
                tc.tc("add-filter", "matchall", link, parent=parent, prio=_RESTORE, action=_MARK_OF_CONNECTION)

    def _classes(self, tc: Tc, link: Link, wanted: Mapping[int, tree.Bucket]) -> None:
        """Exactly these classes on one interface. A class with another place in the tree is made anew."""
        made = self._put.setdefault(link.name, {})
        there = {handle & 0xFFFF: each.parent & 0xFFFF for handle, each in tc.classes(link).items() if handle != _HTB}
        for minor in sorted(filter(tree.is_limit, there), key=lambda m: _depth(there, m), reverse=True):
            bucket = wanted.get(minor)
            if bucket is None or bucket.parent != there[minor]:
                tc.delete("del-class", link, handle=_HTB | minor)
                made.pop(minor, None)
                del there[minor]
        for minor, bucket in wanted.items():
            if minor not in made:
                _set_class(tc, "add" if minor not in there else "change", link, bucket)
            elif made[minor] != bucket:
                _set_class(tc, "change", link, bucket)
            made[minor] = bucket

    def _mark(self, items: Sequence[Item], interfaces: Sequence[str]) -> None:
        """The nft table, where it is not this one already. A cgroup that has just gone is left out."""
        with ExitStack() as stack:
            places: dict[int, str] = {}
            for item in items:
                if (descriptor := self._open(item.cgroup)) is not None:
                    stack.callback(os.close, descriptor)
                    places[item.cgroup.id] = f"../../../proc/self/fd/{descriptor}"
            present = [item for item in items if item.cgroup.id in places]
            same = marks.script(present, self._numbers, interfaces, lambda cgroup: f"{cgroup.id}")
            if same != self._script:
                self._script = ""
                self._nft.run(marks.script(present, self._numbers, interfaces, lambda cgroup: places[cgroup.id]))
                self._script = same

    def _open(self, cgroup: Cgroup) -> int | None:
        """A descriptor of this very cgroup, None where it is gone: nft takes no id, and a path may be another's."""
        try:
            descriptor = os.open(self._mount() / cgroup.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise KernelRefused(f"cannot open the cgroup {cgroup.path}: {error.strerror}") from None
        if os.fstat(descriptor).st_ino == cgroup.id:
            return descriptor
        os.close(descriptor)
        return None

    def _give_back(self, tc: Tc, links: Mapping[str, Link], link: Link) -> None:
        self._give_back_root(tc, link)
        if (ifb := qdiscs.ifb_of(links.values(), link)) is not None:
            self._give_back_ingress(tc, link, ifb)

    def _delete_ifbs(self, tc: Tc, *, but: set[str]) -> None:
        """Those of interfaces that are gone."""
        for link in tc.links().values():
            if qdiscs.is_ours(link) and link.name not in but:
                tc.delete_link(link)
                self._put.pop(link.name, None)

    def _give_back_root(self, tc: Tc, link: Link) -> None:
        qdiscs.give_back_root(tc, link)
        self._put.pop(link.name, None)

    def _give_back_ingress(self, tc: Tc, link: Link, ifb: Link) -> None:
        if qdiscs.has(tc, link, "ingress"):
            qdiscs.give_back_ingress(tc, link, "ingress")
        tc.delete_link(ifb)
        self._put.pop(ifb.name, None)


_MARK_OF_CONNECTION = {"kind": "connmark", "action": "unspec"}  # TC_ACT_UNSPEC: on to the next filter
_MARK_CLEARED = {"kind": "skbedit", "mark": 0}
_TO_IFB = {"kind": "mirred", "direction": "egress", "action": "redirect"}


def _interfaces(tc: Tc, links: Mapping[str, Link], items: Sequence[Item]) -> dict[Link, list[Item]]:
    """Each interface, and the items that hold there. Raises KernelRefused where there is none for an item."""
    found: dict[Link, list[Item]] = {}
    defaults = tc.default_interfaces() if any(not item.interface for item in items) else frozenset()
    for item in items:
        if item.interface:
            if item.interface not in links:
                raise KernelRefused(f"{item.name}: there is no interface {item.interface}: see ip link")
            places = [links[item.interface]]
        else:
            places = [link for link in links.values() if link.index in defaults]
            if not places:
                raise KernelRefused(
                    f'{item.name}: there is no default route whose interface to shape: write interface = "..."'
                )
        for link in places:
            if link.name == "lo":
                raise KernelRefused(f"{item.name}: loopback is never limited: write another interface")
            found.setdefault(link, []).append(item)
    for inner in items:
        for outer in items:
            if tree.inside(inner, outer) and inner.interface != outer.interface:
                raise KernelRefused(
                    f"{inner.name} is inside of {outer.name}: a queue is inside of another on one interface only"
                )
    return found


def _check_interface(tc: Tc, links: Mapping[str, Link], link: Link, items: Sequence[Item]) -> None:
    """Whether it may be taken, or is taken, for these. Raises KernelRefused."""
    if any(item.upload for item in items) and not qdiscs.has_root(tc, link):
        qdiscs.check(tc, link, root=True, ingress=False)
    if any(item.download for item in items):
        taken = links.get(qdiscs.ifb_name(link))
        if taken is None:
            qdiscs.check(tc, link, root=False, ingress=True)
        elif not qdiscs.is_ours(taken):
            raise KernelRefused(f"there is an interface {taken.name} that Glacic did not make: rename it")


def _add_htb(tc: Tc, link: Link, queue: str) -> None:
    """HTB as the root qdisc, with a class for what has no limit, and in it the kind of queue that there was."""
    tc.tc("add", "htb", link, handle=_HTB, default=tree.DEFAULT)
    _set_class(tc, "add", link, tree.UNLIMITED)
    if queue:
        tc.tc("add", queue, link, handle=_QUEUES << 16, parent=_HTB | tree.DEFAULT)


def _set_class(tc: Tc, verb: str, link: Link, bucket: tree.Bucket) -> None:
    """Makes or changes a class, and the queue in it. The queue is long in bytes: packets may be of 64 KiB."""
    handle = _HTB | bucket.minor
    tc.tc(
        f"{verb}-class",
        "htb",
        link,
        handle=handle,
        parent=_HTB | bucket.parent,
        rate=bucket.rate,
        ceil=bucket.ceil,
        burst=bucket.burst,
        cburst=bucket.ceil_burst,
        quantum=bucket.quantum,
    )
    if bucket.queue:
        tc.tc(verb, "bfifo", link, handle=_QUEUES + bucket.minor << 16, parent=handle, limit=bucket.queue)


def _depth(parents: Mapping[int, int], minor: int) -> int:
    depth = 0
    while minor in parents:
        minor, depth = parents[minor], depth + 1
    return depth


def _nowhere(cgroup: Cgroup) -> str:
    raise AssertionError(cgroup)
