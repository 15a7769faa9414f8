"""Before road 2: the flow database is looked at before a worker opens it, and a damaged one is recovered.

    check    sound: nothing. Damaged: it is set aside (learning/aside.py), what can be read of it is in a new one
             (learning/salvage.py), and what that lacks and the kernel's learned sets still have is taken from there
    follow   the control process's own reading of the database, where another file has taken its place

What was done is logged as an error and said in `status` for as long as the service runs (`notes`). A database that is
locked, of a newer version or another program's is not damaged: opening it says what is wrong, and nothing is touched.

Refuses to decide what the kernel is to do: the worker brings the kernel's sets in line with what is stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.ctlplane import logs
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.settings import settings_of
from glacic.errors import KernelRefused
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Nft
from glacic.firewall.shapes import Key
from glacic.learning import aside
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState, Transition
from glacic.learning.integrity import Damage, examine
from glacic.learning.salvage import Salvaged, salvage
from glacic.learning.store import Store

_log = logs.logger("service")

EXIT_DAMAGED = 74  # a worker ends with this status where it meets a damaged page (EX_IOERR of sysexits.h)
RECOVERED = "recovered"  # the origin of a flow that only the kernel still knew, and who put it into the store
_BATCH = 5_000


class Rescue:
    """One service's. `notes` for `status`: what a person has to know, until the service ends."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._doubted = False
        self.notes: list[str] = []

    def worker_ended(self, status: int | None) -> None:
        """A worker has ended with this status."""
        if status == EXIT_DAMAGED:
            self.doubt()

    def doubt(self) -> None:
        """Somebody met a damaged page: the next check recovers the database, whatever the quick check says."""
        self._doubted = True

    def check(self, config: Config, state_dir: Path) -> None:
        """Have a sound database for this configuration; nobody has it open for writing. Raises StoreError."""
        path = Path(settings_of(config, (), state_dir).database)
        damage = examine(path)
        if damage is None and self._doubted and path.exists():
            damage = Damage("a page of it could not be read")
        if damage is None:
            return
        began = datetime.now(UTC)
        _log.error("the flow database is damaged; recovering what can be read", database=str(path), damage=damage.what)
        name, salvaged = _renew(path, damage, began)
        with Store.open(path) as store:
            try:
                adopted = adopt(store, LearnedSets(self._nft, KernelSets(), learning_policies(config, {})).present())
                kernel = f"{adopted} from the kernel"
            except KernelRefused as error:
                kernel = f"none from the kernel: {error}"
            flows = store.count()
        self._doubted = False
        lost = " (some rows could not be read)" if salvaged is not None and not salvaged.complete else ""
        self.notes.append(
            f"{began:%Y-%m-%d %H:%M:%S} UTC: the flow database was damaged ({damage.what}); it was set aside as {name},"
            f" and {flows} flow(s) are recovered{lost}, {kernel}: look through them (glacic flows list)"
        )
        _log.error(
            "the flow database is recovered: look through the flows",
            set_aside=str(name),
            flows=flows,
            from_kernel=kernel,
            from_indexes=salvaged.from_indexes if salvaged is not None else 0,
            complete=salvaged is not None and salvaged.complete,
        )


def follow(store: Store | None, path: Path) -> Store:
    """A store to read `path`: this one, or another where it reads a file that is not there any more.

    The old one is left to those who are reading it, and closed when they are done. Raises StoreError.
    """
    return store if store is not None and not store.replaced else Store.open(path, read_only=True)


def _renew(path: Path, damage: Damage, now: datetime) -> tuple[Path, Salvaged | None]:
    """A sound file in the place of the damaged one. Returns what that is called now, and what was read of it."""
    if damage.log:
        name = aside.set_aside_log(path, aside.DAMAGED, now)
        return name, None
    recovering = aside.beside(path, ".recovering")
    try:
        salvaged = salvage(path, recovering, time.time_ns())
        name = aside.set_aside(path, aside.DAMAGED, now)
        aside.put_there(recovering, path)
    finally:
        aside.remove(recovering)
    return name, salvaged


def adopt(store: Store, elements: Iterable[tuple[Key, bool]]) -> int:
    """Have the store know what the kernel enforces: flows that it lacks, and refusals of what it allows.

    Returns how many. Refused flows were denied or ignored, which the kernel does not tell apart: they become denied.
    """
    rest, count, now_ns = iter(elements), 0, time.time_ns()
    while part := list(islice(rest, _BATCH)):
        batch = Batch()
        for key, allowed in part:
            _adopt(store, FlowKey(*key), FlowState.ALLOWED if allowed else FlowState.DENIED, now_ns, batch)
        if batch.transitions:
            store.write(batch)
            count += len(batch.transitions)
    return count


def _adopt(store: Store, key: FlowKey, state: FlowState, now_ns: int, batch: Batch) -> None:
    flow = store.find(key)
    if flow is not None and (state is FlowState.ALLOWED or flow.state in (FlowState.DENIED, FlowState.IGNORED)):
        return
    (batch.added if flow is None else batch.changed).append(Written(key, state, now_ns, now_ns, 0, RECOVERED))
    before = None if flow is None else flow.state
    batch.transitions.append(
        Transition(key=key, before=before, after=state, at_ns=now_ns, who=RECOVERED, why="found in the kernel")
    )
