"""What the command line does without a service: the same rulesets, with what was learned, straight into the kernel.

The learned sets first, then the chains in one transaction, as the service does it; and the same history. Refuses to
start anything but what watches over a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from glacic.config.load import load
from glacic.config.model import Config, FailMode
from glacic.config.policies import LearningPolicy, label, learning_policies
from glacic.ctlplane import guard
from glacic.ctlplane.conntrack import macs_by_address
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.retrace import Judge
from glacic.ctlplane.revisions import Origin, Revision, Revisions, trial_dict, write_whole
from glacic.ctlplane.settings import settings_of
from glacic.ctlplane.startup import in_force, make_folder, overrule
from glacic.ctlplane.wayback import refuse_to_cut
from glacic.errors import GlacicError
from glacic.firewall.apply import apply, prepare, unload
from glacic.firewall.boot import MOST_ELEMENTS, boot_script
from glacic.firewall.compile import compile_config
from glacic.firewall.difference import as_rows, difference
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.firewall.panic import compile_panic
from glacic.firewall.render import render
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.store import Store

T = TypeVar("T")

BOOT_SCRIPT = "boot.nft"  # in the state directory; deploy/glacic-boot.service loads it


def change_offline(
    config: Config,
    contents: Mapping[str, bytes],
    state_dir: Path,
    origin: Origin,
    trial_s: float | None = None,
    force: bool = False,
) -> Revision:
    """Put a configuration in force, and keep it as a revision. trial_s: for so long, unless it is confirmed.
    force: even if it cuts the ssh connection that it was asked for over.

    Raises KernelRefused, StoreError, GlacicError; then what is in force is what it was.
    """
    make_folder(state_dir)
    if origin.source and not force:
        _with_store(config, state_dir, lambda store, _: refuse_to_cut(_judge(config, store), origin.source))
    revisions = Revisions(state_dir)
    script = render(compile_config(config, running=numbers_of(stored_policies(config, state_dir))))
    if trial_s is None:
        apply_offline(config, state_dir)
        revision = revisions.record(origin, config.path, contents, script)
        write_boot(config, state_dir)
        return revision
    revision = revisions.record(origin, config.path, contents, script, trial_s=trial_s)
    try:
        trial = revisions.standing().trial
        if trial is not None:
            guard.start(state_dir, trial, quiet=True)  # whoever reads our output waits for its end
        apply_offline(config, state_dir)
    except GlacicError:
        revisions.reverted()
        raise
    return revision


def revert_offline(state_dir: Path) -> int | None:
    """The change on trial ends: the revision before it comes back in force, None for no ruleset at all."""
    revisions = Revisions(state_dir)
    standing = revisions.standing()
    if standing.trial is None:
        return standing.in_force
    if standing.trial.back_to is None:
        unload(Libnftables())
    else:
        files = revisions.files(standing.trial.back_to)
        before = standing.revision(standing.trial.back_to)
        if before is None:
            raise GlacicError(f"revision {standing.trial.back_to} is not in the history any more")
        apply_offline(load(Path(before.config), files), state_dir)
    return revisions.reverted().in_force


def difference_offline(config: Config, state_dir: Path) -> dict[str, Any]:
    """What a configuration would change in what is in force, by the history."""
    revisions = Revisions(state_dir)
    standing = revisions.standing()
    old = revisions.document(standing.in_force)["script"] if standing.in_force is not None else ""
    new = render(compile_config(config, running=numbers_of(stored_policies(config, state_dir))))
    return {"changes": as_rows(difference(old, new)), "in_force": standing.in_force}


def confirm_offline(state_dir: Path) -> Revision:
    """What is on trial stays. Raises GlacicError where nothing is."""
    revision = Revisions(state_dir).confirm()
    write_boot(standing_config(state_dir), state_dir)
    return revision


def rollback_offline(
    state_dir: Path, file: Path, number: int | None, origin: Origin, trial_s: float | None, force: bool = False
) -> dict[str, Any]:
    """An earlier revision; without a number the one before. file: the configuration, which the next start leaves."""
    revisions = Revisions(state_dir)
    standing = revisions.standing()
    old = revisions.document(standing.in_force)["script"] if standing.in_force is not None else ""
    if number is None and standing.trial is not None:
        back_to = revert_offline(state_dir)
    else:
        before = standing.before(number)
        files = revisions.files(before.number)
        config = load(Path(before.config), files)
        back_to = change_offline(config, files.contents, state_dir, origin, trial_s, force).number
        overrule(revisions, file, before)
    new = revisions.document(back_to)["script"] if back_to is not None else ""
    trial = trial_dict(revisions.standing().trial)
    changes = as_rows(difference(old, new))
    return {"revision": back_to, "trial": trial, "changes": changes, "connections_ended": 0}


def panic_offline(config: Config, state_dir: Path, *, on: bool) -> None:
    """Management and nothing else, or what is in force. Remembered, for the next start and the next boot."""
    make_folder(state_dir)
    Revisions(state_dir).panic(on)
    apply_offline(config, state_dir)
    write_boot(config, state_dir)


def apply_offline(config: Config, state_dir: Path) -> None:
    """Put a configuration in force, or its management alone in a panic. Raises KernelRefused, StoreError; then what is
    in force is what it was."""
    panic = Revisions(state_dir).standing().panic
    _with_store(config, state_dir, lambda store, policies: _apply(config, store, policies, panic=panic))


def write_boot(config: Config, state_dir: Path) -> None:
    """Write what nft loads at the next boot. Raises GlacicError."""
    write_whole(state_dir / BOOT_SCRIPT, boot_script_of(config, state_dir).encode())


def boot_script_of(config: Config, state_dir: Path) -> str:
    """A closed ruleset, with the flows that were seen last. Raises StoreError."""
    panic = Revisions(state_dir).standing().panic

    def script(store: Store | None, policies: tuple[LearningPolicy, ...]) -> str:
        flows = store.recent(MOST_ELEMENTS) if store is not None else ()
        return boot_script(config, policies, flows, panic=panic)

    return _with_store(config, state_dir, script)


def stored_policies(config: Config, state_dir: Path) -> tuple[LearningPolicy, ...]:
    """The policies with the numbers that the ruleset in the kernel was made with, as the database keeps them."""
    return _with_store(config, state_dir, lambda _, policies: policies)


def numbers_of(policies: tuple[LearningPolicy, ...]) -> dict[str, int]:
    """By label, as compile_config takes them."""
    return {label(policy.name, policy.identity): policy.number for policy in policies}


def standing_config(state_dir: Path) -> Config:
    """The configuration that is in force, by the history. Raises GlacicError."""
    revisions = Revisions(state_dir)
    found = in_force(revisions, revisions.standing())
    if found is None:
        raise GlacicError(f"nothing was put in force yet, by the history in {state_dir}")
    return found[0]


def _judge(config: Config, store: Store | None) -> Judge:
    """What is known, for `refuse_to_cut`. Where nobody listens behind the hook, a fail mode answers."""
    learning = config.rule_learning
    opens = learning.inline_mode and learning.fail_mode is FailMode.OPEN

    def known(key: FlowKey) -> FlowState | None:
        flow = store.find(key) if store is not None else None
        return flow.state if flow is not None else None

    return Judge(config, known, lambda _policy: opens, macs_by_address())


def _with_store(config: Config, state_dir: Path, do: Callable[[Store | None, tuple[LearningPolicy, ...]], T]) -> T:
    path = Path(settings_of(config, (), state_dir).database)
    if not path.exists():
        return do(None, learning_policies(config))
    with Store.open(path) as store:
        return do(store, learning_policies(config, store.numbers()))


def _apply(config: Config, store: Store | None, policies: tuple[LearningPolicy, ...], *, panic: bool) -> None:
    nft = Libnftables()
    found = nft.inventory()
    try:
        prepare(nft)
        sets = LearnedSets(nft, KernelSets(), policies)
        sets.reconcile(store.elements() if store is not None else ())
        shapes, running = sets.shapes(), numbers_of(policies)
        if panic:
            apply(nft, compile_panic(config, policies, shapes))
        else:
            apply(nft, compile_config(config, running=running, shapes=shapes))
    except GlacicError:
        if found is None:
            unload(nft)  # no table of its own making is left
        raise
    if store is not None and not panic:
        store.save_numbers(running)
