"""The end of road 1: a Ruleset becomes the kernel's table, or nothing changes.

    check     the kernel looks at the script, and nothing changes
    prepare   a table is there, so that learned sets can be made and filled before any chain meets a packet
    apply     the chains, and with them the hooks; what was learned stays, with its counters
    refill    the elements of named sets alone; rules stay, with their handles and counters
    unload    the table is gone

Checking, taking a snapshot and rolling back are the kernel's: a transaction of nf_tables is in force as a whole, or is
refused as a whole. A table that is there goes from one ruleset to the next by way of staging.py; what decides packets
changes in one of its transactions. Refuses to touch any table but our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from glacic.errors import KernelRefused
from glacic.firewall import offload, staging
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.nft import Nft
from glacic.firewall.render import moved, render, render_elements, render_live
from glacic.firewall.ruleset import Inventory, Ruleset


def prepare(nft: Nft) -> None:
    """Have a table, if need be an empty one, which decides nothing. Raises KernelRefused."""
    nft.run(f"add table {FAMILY} {TABLE}\n")


def check(nft: Nft, ruleset: Ruleset) -> None:
    """Have the kernel look at the very script that apply() would run now. Raises KernelRefused."""
    with _explained(nft, ruleset):
        nft.check(_script(*_found(nft, ruleset)))


def apply(nft: Nft, ruleset: Ruleset) -> None:
    """Put the ruleset in force. Raises KernelRefused with the line of the script; then what was in force still is.

    Learned sets are kept that the ruleset declares (compile_config's `shapes`), all others are dropped with their
    elements. The caller sees to it that nobody makes a new one meanwhile.
    """
    with _explained(nft, ruleset):
        wanted, present = _found(nft, ruleset)
        in_order = present is not None and not staging.has_leftovers(present) and not moved(wanted, present)
        if present is not None and in_order and staging.base_names(wanted):
            _by_way_of_staging(nft, wanted, present)
        else:
            nft.run(_script(wanted, present))


def _found(nft: Nft, ruleset: Ruleset) -> tuple[Ruleset, Inventory | None]:
    """The ruleset with the interfaces that there are, and the table that there is."""
    present = nft.inventory()
    if any(ruleset.flowtables()):
        ruleset = offload.on(ruleset, nft.interfaces())
    return ruleset, present


def _script(ruleset: Ruleset, present: Inventory | None) -> str:
    """What turns the table that there is into this one, at once."""
    return render(ruleset) if present is None else render_live(ruleset, present)


def _by_way_of_staging(nft: Nft, ruleset: Ruleset, present: Inventory) -> None:
    nft.run(staging.stage(ruleset))
    try:
        nft.run(staging.switch(ruleset, present))
    except KernelRefused:
        nft.run(staging.clear(ruleset))
        raise
    try:
        nft.run(staging.settle(ruleset, present))
    except KernelRefused:  # it has taken the same text before: it can only be out of memory
        nft.run(staging.back(ruleset, present, nft.heads(staging.covered(ruleset, present))))
        nft.run(staging.clear(ruleset))
        raise
    nft.run(staging.uncover(nft.heads(staging.base_names(ruleset))))
    nft.run(staging.clear(ruleset))


@contextmanager
def _explained(nft: Nft, ruleset: Ruleset) -> Iterator[None]:
    """A refusal says so where the kernel has no flow tables; by itself it speaks of a missing file."""
    try:
        yield
    except KernelRefused as error:
        if any(ruleset.flowtables()) and (why := offload.lacks(nft)):
            raise KernelRefused(f"the kernel refused the script, nothing was changed: {why}") from error
        raise


def refill(nft: Nft, before: Ruleset, after: Ruleset) -> bool:
    """Put `after` in force where only elements of named sets tell it from `before`, which is in force. False, and
    nothing is done, where there is more to do, or nothing. Raises KernelRefused; then nothing has changed."""
    script = render_elements(before, after)
    if script:
        nft.run(script)
    return bool(script)


def unload(nft: Nft) -> bool:
    """Remove the table with everything in it. False where there was none. Raises KernelRefused."""
    if nft.inventory() is None:
        return False
    nft.run(f"delete table {FAMILY} {TABLE}\n")
    return True
