"""Limits, step 2: the limits that are wanted, by name, become limits on the cgroups that exist now. Pure.

One cgroup has one limit: of several that come to the same cgroup the first one in order has it. A limit whose cgroup
does not exist is no error, and no item: it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from glacic.config.model import DefaultLimit, Limit, LimitKind
from glacic.shaping.cgroups import runs_processes, units
from glacic.shaping.engine import Cgroup, Item

DEFAULT = "default:"  # before the unit, in the name of what a default limit makes. No limit's own name has a colon


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


def _item(name: str, cgroup: Cgroup, rates: Limit | DefaultLimit) -> Item:
    return Item(
        name=name,
        cgroup=cgroup,
        upload=rates.upload,
        download=rates.download,
        traffic=rates.traffic,
        interface=rates.interface,
    )
