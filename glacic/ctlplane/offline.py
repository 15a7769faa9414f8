"""`glacic apply` without the service: the same ruleset, with what was learned, straight into the kernel.

The learned sets first, then the chains in one transaction, as the service does it. Refuses to start anything.
"""

from __future__ import annotations

from pathlib import Path

from glacic.config.model import Config
from glacic.config.policies import label, learning_policies
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.settings import settings_of
from glacic.errors import GlacicError
from glacic.firewall.apply import apply, prepare, unload
from glacic.firewall.compile import compile_config
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.learning.store import Store


def apply_offline(config: Config, state_dir: Path) -> None:
    """Put a configuration in force. Raises KernelRefused, StoreError; then what is in force is what it was."""
    path = Path(settings_of(config, (), state_dir).database)
    if not path.exists():
        _apply(config, None)
        return
    with Store.open(path) as store:
        _apply(config, store)


def _apply(config: Config, store: Store | None) -> None:
    policies = learning_policies(config, store.numbers() if store is not None else None)
    numbers = {label(policy.name, policy.identity): policy.number for policy in policies}
    nft = Libnftables()
    found = nft.inventory()
    try:
        prepare(nft)
        sets = LearnedSets(nft, KernelSets(), policies)
        sets.reconcile(store.elements() if store is not None else ())
        apply(nft, compile_config(config, running=numbers, shapes=sets.shapes()))
    except GlacicError:
        if found is None:
            unload(nft)  # no table of its own making is left
        raise
    if store is not None:
        store.save_numbers(numbers)
