"""What a worker has and does: the engine with its readers, the writer, the mapper; and the parent's requests on them.

    prepare    open what the new settings need beside what runs: a new Engine over the same store and cache, queues and
               log groups, learned sets of new policies. Packets asked under the old ruleset are still answered.
    commit     the new ruleset is in force: close what only the old one needed
    abort      it was refused: close what only the new one needed

The first start is a prepare and a commit like every other. Requests come one after the other, from worker.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from glacic.config.policies import LearningPolicy, label
from glacic.ctlplane import conntrack, logs
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.journal import Journal
from glacic.ctlplane.mapper import Mapper
from glacic.ctlplane.messages import unpack_key
from glacic.ctlplane.readers import Readers
from glacic.ctlplane.reading import Holder, Rules
from glacic.ctlplane.settings import Settings
from glacic.ctlplane.upkeep import Upkeep
from glacic.errors import GlacicError, KernelRefused
from glacic.firewall import claims
from glacic.firewall.learned import LearnedSets, Reconciled
from glacic.firewall.nft import Libnftables
from glacic.learning.cache import FlowCache
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import FlowKey, FlowState, Transition
from glacic.learning.store import Store
from glacic.learning.switch import NS_PER_S, LearningSwitch, SavedLearning
from glacic.learning.text import time_text
from glacic.learning.writer import Writer

_log = logs.logger("worker")

DAY_NS = 86_400 * NS_PER_S
MAP_S = 30.0  # how long a person's change may take to reach the kernel before the command says that it has not
SETTLE_S = 0.5  # how long an answer waits for the kernel to have what was just learned
COUNT_ON_DEMAND_S = 0.25  # a reading of the counters that takes longer is left to its turn
FLUSH_EACH = 5_000  # changes of one command that wait for the disk together
COUNT_PAGE = 2_000  # counters handed to the writer at once
BY_PERSON = "decided by a person"


class Workshop:
    """One worker's parts. None of them exists before the first prepare."""

    def __init__(self) -> None:
        self._settings: Settings | None = None  # in force
        self._next: Settings | None = None  # prepared
        self._parts: _Parts | None = None

    @property
    def _running(self) -> _Parts:
        if self._parts is None:
            raise GlacicError("the worker is still starting; try again")
        return self._parts

    def prepare(self, settings: Settings, save_numbers: bool) -> dict[str, list[list[str]]]:
        """Open what `settings` need. Returns the shapes of key that each policy's learned sets have, for the ruleset.

        No learned set is made from here to commit() or abort(): the ruleset names those that there are.
        """
        if self._parts is None:
            self._parts = _Parts(settings)
        parts = self._parts
        parts.adopt(settings, beside=self._settings)
        if save_numbers:
            parts.writer.save_numbers({label(p.name, p.identity): p.number for p in settings.policies})
        self._next = settings
        parts.mapper.hold(MAP_S)
        return {name: [list(shape) for shape in shapes] for name, shapes in parts.sets.shapes().items()}

    def commit(self) -> bool:
        """The ruleset of what was prepared is in force. Returns whether any policy learns."""
        if self._next is None:
            raise GlacicError("nothing was prepared")
        self._settings, self._next = self._next, None
        self._running.settle(self._settings)
        self._running.mapper.release()
        return self.learning_on()

    def abort(self) -> None:
        """The ruleset of what was prepared was refused: back to what is in force."""
        self._next = None
        self._running.mapper.release()
        if self._settings is not None:
            self._running.adopt(self._settings, beside=None)
            self._running.settle(self._settings)

    def set_state(
        self, keys: list[list[Any]], state: str | None, who: str, keep_connections: bool
    ) -> dict[str, int | bool]:
        """Put flows into a state, None forgets them: in cache, store and kernel when this returns."""
        parts = self._running
        wanted = FlowState(state) if state is not None else None
        ends = wanted is not FlowState.ALLOWED and not keep_connections
        seen_from: list[tuple[FlowKey, list[bytes]]] = []
        changed = 0
        for number, key in enumerate(map(unpack_key, keys), 1):
            if number % FLUSH_EACH == 0:
                parts.writer.flush()
            addresses = parts.engine.addresses(key) if ends else []
            changed += parts.engine.set_state(key, wanted, who, BY_PERSON, time.time_ns()) is not None
            seen_from.append((key, addresses))
        parts.make_sure()
        ended = 0
        if ends:
            parts.readers.pass_boundary()  # what was decided before is answered, and its connection can be ended
            ended = conntrack.end_flows(seen_from)
        return {"changed": changed, "connections_ended": ended}

    def learn(
        self,
        on: bool | None = None,
        policies: Iterable[str] = (),
        duration_s: int | None = None,
        promote: bool = False,
        who: str = "",
    ) -> dict[str, Any]:
        """Switch learning (on None: only look), from the next packet on. Returns what is so now."""
        parts, now_ns = self._running, time.time_ns()
        names = list(policies)
        if on and not parts.policies:
            raise GlacicError(
                "no policy learns: rule_learning is not enabled, or every policy accepts or says learn = false"
            )
        promoted: dict[str, int] = {}
        if on is not None:
            until_ns = None if duration_s is None else now_ns + duration_s * NS_PER_S
            if on:
                saved = parts.engine.learn_on(names, until_ns, who, now_ns)
            else:
                saved = parts.engine.learn_off(names, who, now_ns)
            parts.save(saved)
            parts.switched()
            _log.info(f"learning {'on' if on else 'off'}", policies=names or "all", who=who)
        if promote:
            promoted = {"promoted": parts.engine.promote_pending(names, who, now_ns, parts.writer.flush)}
            parts.make_sure()
        return {**self._learning(parts, now_ns), **promoted}

    def stats(self) -> dict[str, Any]:
        """Everything that this process can say in figures. What was learned before is in the kernel when it says so."""
        parts = self._running
        parts.mapper.flush(SETTLE_S)
        cache = parts.cache
        readers = parts.readers.stats()
        let_in = parts.kernel.counter(claims.FAIL_OPEN_COUNTER) if readers["queues"] else 0
        for position, queue in enumerate(readers["queues"]):
            queue["fail_open"] = let_in if position == 0 else 0  # the kernel counts the hook, not the queue behind it
        return {
            **readers,
            "cache": {"size": cache.size, "capacity": cache.capacity, "hits": cache.hits, "misses": cache.misses},
            "flows": {state.value: count for state, count in parts.engine.counts().items()},
            "learning": {
                name: value for name, value in self._learning(parts, time.time_ns()).items() if name != "policies"
            },
            "writer": {"healthy": parts.writer.healthy, "unwritten": cache.unwritten},
            "mapper": {"healthy": parts.mapper.healthy, "waiting": parts.mapper.backlog()},
        }

    def sync(self) -> None:
        """Bring kernel and database up to date: what was just learned, and what the kernel has counted."""
        parts = self._running
        parts.mapper.flush(SETTLE_S)
        parts.upkeep.count_now(COUNT_ON_DEMAND_S)
        parts.writer.flush()

    def learning_on(self) -> bool:
        """Whether any policy learns now."""
        parts, now_ns = self._parts, time.time_ns()
        return parts is not None and any(state.on for state in parts.engine.switch.status(now_ns).values())

    def trouble(self) -> str:
        """What does not work at this moment, "" where everything does."""
        parts = self._parts
        if parts is None or parts.mapper.healthy:
            return "" if parts is None else parts.writer.trouble
        return "the kernel does not take what is learned; see the service's log"

    def dead_threads(self) -> list[str]:
        """The threads that should run and do not."""
        return self._parts.dead_threads() if self._parts is not None else []

    def close(self) -> None:
        """A clean end: nobody listens, everything that was learned is written and in the kernel."""
        if self._parts is not None:
            self._parts.close()

    def _learning(self, parts: _Parts, now_ns: int) -> dict[str, Any]:
        rows = [
            {
                "policy": name,
                "on": state.on,
                "until": time_text(state.until_ns) if state.until_ns is not None else None,
                "who": state.who,
            }
            for name, state in parts.engine.switch.status(now_ns).items()
        ]
        ends = [row["until"] for row in rows if row["on"]]
        until = None if not ends or None in ends else max(map(str, ends))
        return {"on": bool(ends), "until": until, "policies": rows}


class _Parts:
    """Everything that runs. Made for the first settings, adopted by the following ones."""

    def __init__(self, settings: Settings) -> None:
        self.store = Store.open(Path(settings.database))
        self.cache: FlowCache = open_cache(self.store, settings.cache_size)
        self.writer = Writer(self.store, self.cache, on_trouble=_say_trouble)
        self.kernel = KernelSets()
        self.sets = LearnedSets(Libnftables(), self.kernel, settings.policies)
        self.mapper = Mapper(self.sets, self._refill)
        self.journal = Journal()
        self.upkeep = Upkeep(self._count, self._expire, self._check)
        self.policies: tuple[LearningPolicy, ...] = ()
        self.settings = settings
        self._learning = False
        self.lost = False  # whether the kernel's sets are known to be gone, and not back yet; the mapper's thread's
        self.holder: Holder | None = None
        self._readers: Readers | None = None
        self.writer.start()

    @property
    def engine(self) -> Engine:
        """The engine that answers now."""
        return self._holder().engine

    @property
    def readers(self) -> Readers:
        """The readers; there are some from the first adopt() on."""
        if self._readers is None:
            raise GlacicError("the worker is still starting; try again")
        return self._readers

    def adopt(self, settings: Settings, *, beside: Settings | None) -> None:
        """Answer by these settings from now on, and still know the policies that ran `beside` them until now."""
        old = beside.policies if beside is not None else ()
        numbers = {policy.number for policy in settings.policies}
        self.policies = (*settings.policies, *(policy for policy in old if policy.number not in numbers))
        first = self.holder is None
        known = set() if first or beside is None else {policy.name for policy in beside.policies}
        if self.holder is None:
            self.holder = Holder(self._rules(settings))
            self._readers = Readers(self.holder)
            for thread in (self.mapper, self.journal, self.upkeep):
                thread.start()
            self._readers.open(settings)  # before the sets: where another service listens, they are that one's
        self._learn_sets(settings, known, first=first)
        self.holder.rules = self._rules(settings)
        self.cache.resize(settings.cache_size)
        self.settings = settings
        self.readers.open(settings)

    def settle(self, settings: Settings) -> None:
        """The ruleset of these settings is in force, and no other is: close the rest."""
        self.policies = settings.policies
        self._holder().rules = self._rules(settings)
        self.readers.keep(settings)
        self.mapper.run_between(lambda: self.sets.renew(settings.policies))

    def make_sure(self) -> None:
        """Wait until what was changed is on disk and in the kernel. Raises StoreError, KernelRefused."""
        self.writer.flush()
        if not self.mapper.flush(MAP_S):
            raise KernelRefused("the change is stored, but the kernel does not take it; see the service's log")

    def save(self, saved: SavedLearning) -> None:
        """Keep how learning is switched, and wait until it is kept."""
        self.writer.save_learning(saved)
        self.writer.flush()

    def dead_threads(self) -> list[str]:
        """Those that ended although nobody closed them."""
        if self._readers is None:
            return []
        threads = (self.mapper, self.journal, self.upkeep)
        return [*self._readers.names_of_ended(), *(thread.name for thread in threads if not thread.is_alive())]

    def close(self) -> None:
        """In the order of the packet's road: nothing comes in, then everything goes out."""
        if self._readers is not None:
            self._readers.close()
            self.upkeep.stop(MAP_S)
            self.mapper.stop(MAP_S)
            self.journal.stop(MAP_S)
        try:
            self.writer.close(MAP_S)
        finally:
            self.store.close()

    def _learn_sets(self, settings: Settings, known: set[str], *, first: bool) -> None:
        """The kernel's sets hold what the store says before any chain looks them up.

        At the start that is everything; at a reload, the policies that are new to it.
        """
        policies = self.policies
        names = {policy.name for policy in settings.policies} - known
        done: list[Exception | None] = []
        tried = threading.Event()

        def renew() -> None:
            try:
                self.writer.flush()  # what was put before this is in the store, what comes after is applied after
                everything = first or self.lost or self.sets.lost()
                self.sets.renew(policies)
                if everything:
                    added, removed = self._reconcile()
                    _log.info("learned sets are in the kernel", added=added, removed=removed)
                    self.lost = False
                for name in () if everything else sorted(names):
                    self.sets.reconcile(_stored(self.store, name), name)
                done.append(None)
            except GlacicError as error:
                done.append(error)
            finally:
                tried.set()

        self.mapper.run_between(renew)
        # Also where it fails now: what it could not do without the table, it can do with the new one.
        tried.wait(None if first else MAP_S)
        if not done:
            raise KernelRefused("the kernel's learned sets cannot be changed now; see the service's log")
        if done[0] is not None:
            raise done[0]

    def _rules(self, settings: Settings) -> Rules:
        engine = Engine(
            self.policies,
            store=self.store,
            cache=self.cache,
            switch=self._switch(settings),
            limits=Limits(settings.learn_max_per_source, settings.learn_max),
            ignore_networks=settings.networks(),
            on_change=self._on_change,
        )
        return Rules(
            engine=engine,
            highest_number=max((policy.number for policy in self.policies), default=1),
            engine_error_open=settings.engine_error_open,
            packet_window=settings.packet_window,
        )

    def _switch(self, settings: Settings) -> LearningSwitch:
        saved = self.store.learning() if self.holder is None else self.holder.engine.switch.saved()
        names = list(dict.fromkeys(policy.name for policy in self.policies))
        switch = LearningSwitch.restore(
            saved,
            file_mode=settings.learning_mode,
            learn_for_s=settings.learn_for_s,
            policies=names,
            now_ns=time.time_ns(),
        )
        if saved != switch.saved():
            self.writer.save_learning(switch.saved())
        return switch

    def _on_change(self, transition: Transition) -> None:
        """Under the engine's lock: only taken down here, in the order in which it happened."""
        self.mapper.put(transition.key, transition.after)
        self.writer.hasten()
        self.journal.put(transition)

    def _count(self) -> None:
        counters = ((FlowKey(*key), packets) for key, packets in self.sets.counters())
        while page := list(islice(counters, COUNT_PAGE)):
            self.writer.add_kernel_counts(page, time.time_ns())

    def _expire(self) -> None:
        now_ns = time.time_ns()
        before_ns = now_ns - self.settings.retention_days * DAY_NS
        expired = self.engine.expire(before_ns, now_ns, self.writer.flush)
        if expired:
            _log.info("pending flows forgotten", flows=expired, not_seen_for_days=self.settings.retention_days)

    def _reconcile(self) -> Reconciled:
        if not self.sets.shapes():
            self.writer.reset_kernel_counts()  # all elements are made anew, and count from nothing
        return self.sets.reconcile(_stored(self.store))

    def _refill(self) -> None:
        """In the mapper's thread: somebody has loaded the table anew, without what was learned."""
        known, self.lost = self.lost, True
        try:
            self.writer.flush()
            self.sets.renew(self.policies)
            added, removed = self._reconcile()
            self.lost = False
            _log.warning("the table was changed from outside; what was learned is back", added=added, removed=removed)
        except GlacicError as error:
            if not known:
                _log.error("what was learned is not back in the kernel; trying again", error=str(error))

    def _refill_if_lost(self) -> None:
        try:
            if self.lost or self.sets.lost():
                self._refill()
        except KernelRefused as error:
            _log.error("the learned sets cannot be looked at", error=str(error))

    def switched(self) -> None:
        """Somebody has switched learning: its end is no news."""
        self._learning = any(state.on for state in self.engine.switch.status(time.time_ns()).values())

    def _check(self) -> None:
        if self.mapper.healthy and not self.mapper.backlog():
            self.mapper.run_between(self._refill_if_lost)
        learned = self._learning
        self.switched()
        if learned and not self._learning:
            _log.info("learning has ended: new flows wait as pending")

    def _holder(self) -> Holder:
        if self.holder is None:
            raise GlacicError("the worker is still starting; try again")
        return self.holder


def _stored(store: Store, policy: str | None = None) -> Iterator[tuple[FlowKey, str]]:
    """What the kernel is to hold."""
    return ((key, state.value) for key, state in store.elements(policy))


def _say_trouble(trouble: str) -> None:
    if trouble:
        _log.error("what was learned cannot be written; trying again", error=trouble)
    else:
        _log.info("what was learned is written again")
