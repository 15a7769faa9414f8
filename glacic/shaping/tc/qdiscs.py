"""Limits, tc: an interface is taken, and given back exactly. Only one whose qdiscs are the kernel's own is taken.

    taken for            what is put there                                 ours, because
    uploads (shape)      HTB in place of the root qdisc                    its handle, 61ac:
    downloads (shape)    an ingress qdisc, and an ifb device of its own    the ifb is there first, with its name and
                                                                           alias; its filters' preferences
    both (police)        a clsact qdisc                                    its filters' preferences

A root qdisc that the kernel made has handle 0:, and cannot have been changed: `tc qdisc change` does not see it
(net/sched/sch_api.c, tc_modify_qdisc). When ours is deleted, the kernel makes the one of net.core.default_qdisc; if
that would be another one than is there, the interface is not taken.

An interface that somebody has put an ingress or clsact qdisc on is not taken, and neither is one with a root qdisc of
somebody's choice: the refusal names it. What others have put on ours later stays: then the qdisc stays, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from glacic.errors import KernelRefused
from glacic.shaping.tc.kernel import (
    CLSACT_IN,
    CLSACT_OUT,
    INGRESS_HANDLE,
    INGRESS_PARENT,
    ROOT,
    Link,
    Qdisc,
    Tc,
    default_qdisc,
)

HTB = 0x61AC << 16  # the handle of our root qdiscs: nothing else uses 61ac:, and tc counts up from 8001:
PREFS = range(0x61A0, 0x61B0)  # preferences of our filters
_ALIAS = "glacic: downloads of "
_IFB = re.compile(r"glacic-[0-9a-f]+")

_PLAIN = frozenset({"noqueue", "noop", "mq", "pfifo_fast", "fq_codel", "fq"})  # what kernels make by themselves
_UNCHOSEN = frozenset({"noqueue", "noop", "mq"})  # ... whatever net.core.default_qdisc says
_INGRESS = ("ingress", "clsact")


def check(tc: Tc, link: Link, *, root: bool, ingress: bool) -> str:
    """Whether the interface may be taken for that; what is ours on it already is fine. Returns the kind of qdisc that
    queued there, "" where nothing does. Raises KernelRefused, with the name of what is in the way."""
    found = tc.qdiscs(link)
    if ingress and any(each.kind in _INGRESS for each in found):
        kind = next(each.kind for each in found if each.kind in _INGRESS)
        raise KernelRefused(
            f"{link.name} has a qdisc {kind} that Glacic did not make, and its filters would not be seen:"
            f" limit with another engine, or remove it (tc qdisc del dev {link.name} {kind})"
        )
    queues = [each for each in found if each.kind not in _INGRESS]
    if root:
        _check_root(link, queues)
    return next((each.kind for each in queues if each.kind not in _UNCHOSEN), "")


def _check_root(link: Link, queues: Iterable[Qdisc]) -> None:
    for each in queues:
        if each.handle or each.kind not in _PLAIN:
            raise KernelRefused(
                f"{link.name} has a qdisc of somebody's choice, {each.kind} {each.handle >> 16:x}:, which Glacic leaves"
                f" alone: limit with another engine, or remove it (tc qdisc del dev {link.name} root)"
            )
        if each.kind not in _UNCHOSEN and default_qdisc() not in ("", each.kind):
            raise KernelRefused(
                f"{link.name} has the qdisc {each.kind}, which the kernel would not give back: net.core.default_qdisc"
                f" is {default_qdisc()} now; set it to {each.kind}, or limit with another engine"
            )


def has_root(tc: Tc, link: Link) -> bool:
    """Whether the root qdisc is ours."""
    return any((each.kind, each.handle, each.parent) == ("htb", HTB, ROOT) for each in tc.qdiscs(link))


def has(tc: Tc, link: Link, kind: str) -> bool:
    """Whether there is a qdisc of this kind, whoever made it."""
    return any(each.kind == kind for each in tc.qdiscs(link))


def give_back_root(tc: Tc, link: Link) -> None:
    """The kernel's own qdisc is there again; another one than ours is not touched."""
    if has_root(tc, link):
        tc.delete("del", link, handle=HTB, parent=ROOT)


def give_back_ingress(tc: Tc, link: Link, kind: str) -> None:
    """Our filters go, and the ingress or clsact qdisc with them unless somebody else has filters there."""
    parents = (INGRESS_HANDLE,) if kind == "ingress" else (CLSACT_IN, CLSACT_OUT)
    filters = [(parent, each) for parent in parents for each in tc.filters(link, parent)]
    if all(each.pref in PREFS for _, each in filters):
        tc.delete("del", link, handle=INGRESS_HANDLE, parent=INGRESS_PARENT)
        return
    for parent, pref in sorted({(parent, each.pref) for parent, each in filters if each.pref in PREFS}):
        tc.delete_filter(link, parent, pref)


def is_policed(tc: Tc, link: Link) -> bool:
    """Whether a clsact qdisc there has filters of ours."""
    if not has(tc, link, "clsact"):
        return False
    return any(each.pref in PREFS for parent in (CLSACT_IN, CLSACT_OUT) for each in tc.filters(link, parent))


def ifb_name(link: Link) -> str:
    """What the ifb of an interface is called: by the index, as names change, and have 15 bytes at most."""
    return f"glacic-{link.index:x}"


def make_ifb(tc: Tc, link: Link) -> Link:
    """The ifb device for the downloads of an interface. Raises KernelRefused where somebody has one of that name."""
    return tc.add_ifb(ifb_name(link), f"{_ALIAS}{link.name}")


def is_ours(link: Link) -> bool:
    """Whether an interface is an ifb of ours; one that a killed process left half made has no alias yet."""
    if link.kind != "ifb" or not _IFB.fullmatch(link.name):
        return False
    return link.alias.startswith(_ALIAS) or (not link.alias and not link.up)


def ifb_of(links: Iterable[Link], link: Link) -> Link | None:
    """Our ifb device for an interface, None where there is none."""
    return next((each for each in links if each.name == ifb_name(link) and is_ours(each)), None)
