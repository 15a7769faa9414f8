"""The end of road 1: a Ruleset becomes the kernel's table, in one transaction, or nothing changes.

    check     the kernel looks at the script, and nothing changes
    prepare   a table is there, so that learned sets can be made and filled before any chain meets a packet
    apply     the chains, and with them the hooks; what was learned stays, with its counters
    refill    the elements of named sets alone; rules stay, with their handles and counters
    unload    the table is gone

Checking, taking a snapshot and rolling back are the kernel's: a transaction of nf_tables is in force as a whole, from
one packet to the next, or it is refused as a whole. Refuses to touch any table but our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from glacic.errors import KernelRefused
from glacic.firewall import offload
from glacic.firewall.claims import FAMILY, TABLE
from glacic.firewall.nft import Nft
from glacic.firewall.render import render, render_elements, render_live
from glacic.firewall.ruleset import Ruleset


def prepare(nft: Nft) -> None:
    """Have a table, if need be an empty one, which decides nothing. Raises KernelRefused."""
    nft.run(f"add table {FAMILY} {TABLE}\n")


def check(nft: Nft, ruleset: Ruleset) -> None:
    """Have the kernel look at the very script that apply() would run now. Raises KernelRefused."""
    with _explained(nft, ruleset):
        nft.check(_script(nft, ruleset))


def apply(nft: Nft, ruleset: Ruleset) -> None:
    """Put the ruleset in force. Raises KernelRefused with the line of the script; then nothing has changed.

    Learned sets are kept that the ruleset declares (compile_config's `shapes`), all others are dropped with their
    elements. The caller sees to it that nobody makes a new one meanwhile.
    """
    with _explained(nft, ruleset):
        nft.run(_script(nft, ruleset))


def _script(nft: Nft, ruleset: Ruleset) -> str:
    """What turns the table that there is into this one, with the interfaces that there are."""
    present = nft.inventory()
    if any(ruleset.flowtables()):
        ruleset = offload.on(ruleset, nft.interfaces())
    return render(ruleset) if present is None else render_live(ruleset, present)


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
