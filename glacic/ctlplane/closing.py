"""Road 1, where what should be in force cannot be: what was in force before, closed for everything new.

The same chains with a counted drop in place of each hook; what was learned passes. A configuration that is broken at a
start, or that the kernel refuses, ends here and not with a machine that is open. Refuses to start a worker.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from glacic.config.model import Config
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.offline import boot_script_of, numbers_of
from glacic.errors import KernelRefused
from glacic.firewall.apply import apply, check
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Nft
from glacic.firewall.panic import compile_panic
from glacic.firewall.ruleset import Inventory, Ruleset
from glacic.firewall.shapes import Shape, uses_in

Policies = tuple[LearningPolicy, ...]


def ruleset_for(
    config: Config,
    policies: Policies,
    shapes: Mapping[str, Collection[Shape]],
    *,
    panic: bool,
    closed: bool = False,
) -> Ruleset:
    """What this configuration is at this moment: itself, itself closed, or in a panic its management alone."""
    if panic:
        return compile_panic(config, policies, shapes)
    return compile_config(config, running=numbers_of(policies), shapes=shapes, closed=closed)


def refused(nft: Nft, config: Config, policies: Policies, found: Inventory | None, *, panic: bool) -> str:
    """What the kernel, which has `found`, would say against this configuration; "" where nothing."""
    try:
        check(nft, ruleset_for(config, policies, _shapes_in(found or Inventory(), policies), panic=panic))
    except KernelRefused as error:
        return str(error)
    return ""


def close(nft: Nft, config: Config, policies: Policies, state_dir: Path, *, panic: bool) -> None:
    """Put it in force, closed: over the table that is there, or from what a boot would load. Raises KernelRefused."""
    present = nft.inventory()
    if present is None:
        nft.run(boot_script_of(config, state_dir))
    else:
        apply(nft, ruleset_for(config, policies, _shapes_in(present, policies), panic=panic, closed=True))


def _shapes_in(present: Inventory, policies: Policies) -> dict[str, set[Shape]]:
    """Of the learned sets that the kernel has, by policy."""
    shapes: dict[str, set[Shape]] = {}
    for policy in policies:
        shapes.setdefault(policy.name, set()).update(shape for shape, _ in uses_in(policy, present.sets))
    return shapes
