"""Limits, step 2: the limits that are wanted, by name, become limits on the cgroups that exist now. Pure.

One cgroup has one limit: of several that come to the same cgroup the first one in order has it. A limit whose cgroup
does not exist is no error, and no item: it waits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from glacic.config.model import DefaultLimit, Limit, LimitKind
from glacic.shaping.cgroups import runs_processes, units
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Item

DEFAULT = "default:"  # before the unit, in the name of what a default limit makes. No limit's own name has a colon

_DIRECTIONS = (UPLOAD, DOWNLOAD)  # the attributes of an Item, too


def plan(limits: Iterable[Limit], default_limit: DefaultLimit | None, tree: Mapping[str, Cgroup]) -> tuple[Item, ...]:
    """The items for the cgroups of `tree` (path -> cgroup), in the order of the limits, then of the units' names."""
    by_unit = units(tree)
    items: list[Item] = []
    taken: set[str] = set()
    spoken_for: set[str] = set()  # units with a limit of their own, also where it waits or another one was first
    for limit in limits:
        cgroup = by_unit.get(limit.target) if limit.kind != LimitKind.CGROUP else tree.get(limit.target)
        spoken_for.add(limit.target)
        if cgroup is None or cgroup.path in taken:
            continue
        taken.add(cgroup.path)
        items.append(_item(limit.name, cgroup, limit))
    if default_limit is not None:
        for unit, cgroup in sorted(by_unit.items()):
            if runs_processes(unit) and unit not in spoken_for and cgroup.path not in taken:
                items.append(_item(DEFAULT + unit, cgroup, default_limit))
    return tuple(items)


def handed_over(
    before: Mapping[str, tuple[Item, ...]],
    after: Mapping[str, tuple[Item, ...]],
    by: Collection[str] | None = None,
) -> dict[str, tuple[Item, ...]]:
    """Engine -> what it holds while limits move from one engine to another: what it is to hold, and what it held and
    another one takes over. So a limit that moves is held by both for a moment, and at none by nobody.

    by: the engines that take over, where that is to be only what these do."""
    holders = {
        (item.name, item.cgroup, direction): engine
        for engine, items in after.items()
        if by is None or engine in by
        for item in items
        for direction in _DIRECTIONS
        if getattr(item, direction)
    }
    found: dict[str, tuple[Item, ...]] = {}
    for engine, items in after.items():
        share = {(item.name, item.cgroup): item for item in items}
        for old in before.get(engine, ()):
            kept = {
                direction: getattr(old, direction)
                for direction in _DIRECTIONS
                if getattr(old, direction) and holders.get((old.name, old.cgroup, direction), engine) != engine
            }
            if kept:
                key = old.name, old.cgroup
                share[key] = replace(share.get(key) or replace(old, upload=0, download=0), **kept)
        found[engine] = tuple(share.values())
    return found


def _item(name: str, cgroup: Cgroup, rates: Limit | DefaultLimit) -> Item:
    return Item(
        name=name,
        cgroup=cgroup,
        upload=rates.upload,
        download=rates.download,
        traffic=rates.traffic,
        interface=rates.interface,
    )
