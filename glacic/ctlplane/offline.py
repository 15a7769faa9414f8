"""What the command line does without a service: the same rulesets, with what was learned, straight into the kernel.

The learned sets first, then the chains in one transaction, as the service does it; and the same history. Refuses to
start anything but what watches over a trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from glacic.config.load import load
from glacic.config.model import Config, FailMode
from glacic.config.policies import LearningPolicy, label, learning_policies
from glacic.ctlplane import guard, sweep
from glacic.ctlplane.conntrack import macs_by_address
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.retrace import Judge
from glacic.ctlplane.revisions import Origin, Revision, Revisions, Standing, trial_dict
from glacic.ctlplane.settings import settings_of
from glacic.ctlplane.startup import in_force, make_folder, overrule
from glacic.ctlplane.wayback import refuse_to_cut
from glacic.ctlplane.wholefile import locked, write_whole
from glacic.errors import GlacicError, UsageError
from glacic.firewall.apply import apply, prepare, unload
from glacic.firewall.boot import MOST_ELEMENTS, boot_script
from glacic.firewall.compile import compile_config
from glacic.firewall.difference import as_rows, difference
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.firewall.panic import as_config, compile_panic
from glacic.firewall.render import render
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.store import Store

T = TypeVar("T")

WAIT_S = 10.0  # for another command
OVERDUE_S = 60.0  # after its end a trial is confirmed no more, whatever the history says
BOOT_SCRIPT = "boot.nft"  # in the state directory; deploy/glacic-boot.service loads it


@contextmanager
def alone(state_dir: Path, *, insist: bool = False) -> Iterator[None]:
    """One at a time changes the kernel and writes that down. Raises GlacicError where another one takes long.

    insist: go on all the same. Who brings a trial back waits for nobody for long."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(state_dir / "change.lock", WAIT_S))
        except GlacicError:
            if not insist:
                raise
        yield


def change_offline(
    config: Config,
    contents: Mapping[str, bytes],
    state_dir: Path,
    origin: Origin,
    trial_s: float | None = None,
    force: bool = False,
    *,
    keep_connections: bool = False,
    restores: int | None = None,
) -> tuple[Revision, int]:
    """Put a configuration in force, and keep it as a revision. trial_s: for so long, unless it is confirmed.
    force: even if it cuts the ssh connection that it was asked for over. Returns how many connections ended, too.

    Raises KernelRefused, StoreError, GlacicError; then what is in force is what it was.
    """
    make_folder(state_dir)
    with alone(state_dir):
        if origin.source and not force:
            _with_store(config, state_dir, lambda store, _: refuse_to_cut(_judge(config, store), origin.source))
        revisions = Revisions(state_dir)
        before = revisions.standing()
        if trial_s is None and before.trial is not None:
            raise UsageError("a change is on trial: `glacic confirm` keeps it, `glacic rollback` takes it back")
        old = in_force(revisions, before)
        script = render(compile_config(config, running=numbers_of(stored_policies(config, state_dir))))
        path = Path(next(iter(contents), str(config.path)))
        if trial_s is None:
            revisions.make_sure()
            apply_offline(config, state_dir)
            revision = revisions.record(origin, path, contents, script, restores=restores)
            _boot_script_too(config, state_dir)
        else:
            revision = revisions.record(origin, path, contents, script, trial_s=trial_s, restores=restores)
            _try_out(config, state_dir, revision, before)
        ended = _end_refused(old[0], config, state_dir) if old is not None and not keep_connections else 0
    return revision, ended


def _try_out(config: Config, state_dir: Path, revision: Revision, before: Standing) -> None:
    revisions = Revisions(state_dir)
    try:
        trial = revisions.standing().trial
        if trial is not None:
            guard.start(state_dir, trial, quiet=True)  # whoever reads our output waits for its end
        apply_offline(config, state_dir)
    except GlacicError:
        revisions.withdrawn(revision.number, before)
        if before.trial is not None:  # its own guard may have left when it saw another trial
            guard.start(state_dir, before.trial, quiet=True)
        raise


def bring_back(state_dir: Path) -> None:
    """The kernel's half of a revert: what was in force before the trial is again. Raises GlacicError.

    Where that cannot be read any more, it is what would be loaded at boot: the same, closed for everything new."""
    revisions = Revisions(state_dir)
    standing = revisions.standing()
    if standing.trial is None:
        return
    back_to = standing.trial.back_to
    if back_to is None:
        unload(Libnftables())
        return
    found = in_force(revisions, standing.taken_back())
    if found is not None:
        apply_offline(found[0], state_dir)
        return
    try:
        script = (state_dir / BOOT_SCRIPT).read_text()
    except OSError as error:
        raise GlacicError(f"neither revision {back_to} nor {BOOT_SCRIPT} can be read: {error}") from None
    Libnftables().run(script)


def revert_offline(state_dir: Path) -> int | None:
    """The change on trial ends: the revision before it comes back in force, None for no ruleset at all."""
    with alone(state_dir, insist=True):
        bring_back(state_dir)
        return Revisions(state_dir).reverted().in_force


def difference_offline(config: Config, state_dir: Path) -> dict[str, Any]:
    """What a configuration would change in what is in force, by the history."""
    revisions = Revisions(state_dir)
    standing = revisions.standing()
    old = revisions.document(standing.in_force)["script"] if standing.in_force is not None else ""
    new = render(compile_config(config, running=numbers_of(stored_policies(config, state_dir))))
    return {"changes": as_rows(difference(old, new)), "in_force": standing.in_force}


def confirm_offline(state_dir: Path) -> Revision:
    """What is on trial stays. Raises GlacicError where nothing is, and where its time is over: it may be back in the
    kernel, and only not written down."""
    with alone(state_dir):
        revisions = Revisions(state_dir)
        trial = revisions.standing().trial
        if trial is not None and time.time() > trial.until + OVERDUE_S:
            raise GlacicError(
                "the time of the change is over: `glacic rollback` takes it back, `glacic apply` repeats it"
            )
        revision = revisions.confirm()
        _boot_script_too(standing_config(state_dir), state_dir)
    return revision


def _boot_script_too(config: Config, state_dir: Path) -> None:
    try:
        write_boot(config, state_dir)
    except GlacicError as error:
        raise GlacicError(f"it is in force, but the next boot will not know of it: {error}") from None


def rollback_offline(
    state_dir: Path,
    file: Path,
    number: int | None,
    origin: Origin,
    trial_s: float | None,
    force: bool = False,
    *,
    keep_connections: bool = False,
) -> dict[str, Any]:
    """An earlier revision; without a number the one before. file: the configuration, which the next start leaves."""
    revisions = Revisions(state_dir)
    standing = revisions.standing()
    old = revisions.document(standing.in_force)["script"] if standing.in_force is not None else ""
    if number is None and standing.trial is not None:
        back_to, ended = revert_offline(state_dir), 0
    else:
        before = standing.before(number)
        files = revisions.files(before.number)
        config = load(Path(before.config), files)
        revision, ended = change_offline(
            config,
            {before.config: files.contents[before.config], **files.contents},  # its first file first
            state_dir,
            origin,
            trial_s,
            force,
            keep_connections=keep_connections,
            restores=before.number,
        )
        back_to = revision.number
        overrule(revisions, file, before)
    new = revisions.document(back_to)["script"] if back_to is not None else ""
    trial = trial_dict(revisions.standing().trial)
    changes = as_rows(difference(old, new))
    return {"revision": back_to, "trial": trial, "changes": changes, "connections_ended": ended}


def panic_offline(config: Config, state_dir: Path, *, on: bool, source: str = "") -> None:
    """Management and nothing else, or what is in force. Remembered, for the next start and the next boot.

    source: the ssh connection that must not be cut, "" for any. Raises GlacicError; where it could only not be
    remembered, it is in force nevertheless.
    """
    make_folder(state_dir)
    if on and source:
        panicking = as_config(config)
        _with_store(config, state_dir, lambda store, _: refuse_to_cut(_judge(panicking, store), source))
    with alone(state_dir, insist=True):
        revisions = Revisions(state_dir)
        before, forgets = revisions.standing().panic, None
        try:
            revisions.panic(on)
        except GlacicError as error:
            forgets = error
        try:
            apply_offline(config, state_dir, panic=on)
        except GlacicError:
            if forgets is None:
                revisions.panic(before)
            raise
        if forgets is not None:
            raise GlacicError(f"it is done, but a restart will not know of it: {forgets}")
        _boot_script_too(config, state_dir)


def apply_offline(config: Config, state_dir: Path, *, panic: bool | None = None) -> None:
    """Put a configuration in force, or its management alone in a panic (None: as the history says). Raises
    KernelRefused, StoreError; then what is in force is what it was."""
    if panic is None:
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


def _end_refused(old: Config, new: Config, state_dir: Path) -> int:
    """It is in force: connections that cannot be looked through go on, as they do where nobody looks."""

    def end(store: Store | None, _: object) -> int:
        return sweep.end_refused(_judge(old, store), _judge(new, store)).ended

    try:
        return _with_store(new, state_dir, end)
    except GlacicError:
        return 0


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
