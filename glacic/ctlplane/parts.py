"""What runs in a worker: store, cache, engine, writer, mapper, readers; and how settings are adopted while it runs.

    adopt      answer by new settings, beside those in force: a new Engine over the same store and cache
    settle     no ruleset but that of these settings is in force any more
    close      in the order of the packet's road: nothing comes in, then everything goes out

Refuses to know the parent: workshop.py takes its requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from glacic.config.policies import LearningPolicy
from glacic.ctlplane import logs
from glacic.ctlplane.clock import Jumps
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.journal import Journal
from glacic.ctlplane.mapper import Mapper
from glacic.ctlplane.news import Bulletin
from glacic.ctlplane.readers import Readers
from glacic.ctlplane.reading import Holder, Rules
from glacic.ctlplane.settings import Settings
from glacic.ctlplane.upkeep import Upkeep
from glacic.errors import GlacicError, KernelRefused, StoreError
from glacic.firewall.learned import LearnedSets, Reconciled
from glacic.firewall.nft import Libnftables
from glacic.learning.cache import FlowCache
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Jump
from glacic.learning.store import Store
from glacic.learning.switch import NS_PER_S, LearningSwitch, SavedLearning
from glacic.learning.writer import Writer

_log = logs.logger("worker")

T = TypeVar("T")

DAY_NS = 86_400 * NS_PER_S
MAP_S = 30.0  # how long a change may take to reach the kernel before it is said that it has not
COUNT_PAGE = 2_000  # counters handed to the writer at once


class Parts:
    """Everything that runs. Made for the first settings, adopted by the following ones."""

    def __init__(self, settings: Settings) -> None:
        self.store = Store.open(Path(settings.database))
        self.cache: FlowCache = open_cache(self.store, settings.cache_size)
        self.writer = Writer(self.store, self.cache, on_trouble=_say_trouble, on_commit=self._on_commit)
        self.kernel = KernelSets()
        self.sets = LearnedSets(Libnftables(), self.kernel, settings.policies)
        self.mapper = Mapper(self.sets, self._refill)
        self.journal = Journal()
        self.news = Bulletin(
            lambda transition: self.mapper.put(transition.key, transition.after),
            self.journal.put,
            hasten=self.writer.hasten,
            commit=self.writer.commit,
        )
        self.upkeep = Upkeep(self._count, self._expire, self._check)
        self.policies: tuple[LearningPolicy, ...] = ()
        self.settings = settings
        self._learning = False
        self._switched = self.store.learning()  # of the settings in force: a refused reload goes back to it
        self.lost = False  # whether the kernel's sets are known to be gone, and not back yet; the mapper's thread's
        self._holder: Holder | None = None
        self._readers: Readers | None = None
        self._closing = False
        self._clock = Jumps()
        self._prune_at: int | None = None  # where the forgetting of history goes on
        self.writer.start()

    @property
    def engine(self) -> Engine:
        """The engine that answers now."""
        return self.holder.engine

    @property
    def holder(self) -> Holder:
        """Where the readers find what they answer by; there is one from the first adopt() on."""
        if self._holder is None:
            raise GlacicError("the worker is still starting; try again")
        return self._holder

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
        first = self._holder is None
        known = set() if first or beside is None else {policy.name for policy in beside.policies}
        if self._holder is None:
            self._holder = Holder(self._rules(settings), self.news)
            readers = Readers(self._holder)
            for thread in (self.mapper, self.journal, self.upkeep):
                thread.start()
            self._set_durable(settings.durable)
            self._readers = readers  # from here on a thread that does not run is one that has ended
            readers.open(settings)  # before the sets: where another service listens, they are that one's
        self._learn_sets(settings, known, first=first)
        self._holder.rules = self._rules(settings)
        self._set_durable(settings.durable)
        self.cache.resize(settings.cache_size)
        self.settings = settings
        self.readers.open(settings)

    def settle(self, settings: Settings) -> None:
        """The ruleset of these settings is in force, and no other is: close the rest."""
        self.policies = settings.policies
        self.holder.rules = self._rules(settings)
        switched = self.engine.switch.saved()
        if switched != self._switched:
            self._switched = switched
            self.writer.save_learning(switched)
        self.readers.keep(settings)
        self.mapper.run_between(lambda: self.sets.renew(settings.policies))

    def make_sure(self) -> None:
        """Wait until what was changed is on disk and in the kernel. Raises StoreError, KernelRefused."""
        self.flush()
        if not self.mapper.flush(MAP_S):
            raise KernelRefused("the change is stored, but the kernel does not take it; see the service's log")

    def flush(self) -> None:
        """Tell of what was changed, and wait until it is on disk. Raises StoreError."""
        self.news.tell()
        self.writer.flush()

    def save(self, saved: SavedLearning) -> None:
        """Keep how learning is switched, and wait until it is kept."""
        self._switched = saved
        self.writer.save_learning(saved)
        self.writer.flush()

    def learning_on(self) -> bool:
        """Whether any policy learns now; False before the first adopt()."""
        if self._holder is None:
            return False
        return any(state.on for state in self.engine.switch.status(time.time_ns()).values())

    def undecided(self) -> str:
        """Why packets cannot be decided at this moment, "" where they can."""
        trouble = "" if self._readers is None else self._readers.troubles.now
        return f"packets cannot be decided: {trouble}" if trouble else ""

    def dead_threads(self) -> list[str]:
        """Those that ended although nobody closed them."""
        if self._readers is None or self._closing:
            return []
        threads = (self.mapper, self.journal, self.upkeep)
        return [*self._readers.names_of_ended(), *(thread.name for thread in threads if not thread.is_alive())]

    def close(self) -> None:
        """In the order of the packet's road: nothing comes in, then everything goes out."""
        self._closing = True
        if self._readers is not None:
            self._readers.close()
            self.upkeep.stop(MAP_S)
            with suppress(StoreError):
                self.flush()
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
                    self.sets.reconcile(self.store.elements(name), name)
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

    def _on_commit(self, transitions: int) -> None:
        self.news.committed(transitions)

    def _set_durable(self, durable: bool) -> None:
        self.store.set_durable(durable)
        self.cache.durable = self.news.durable = durable
        self.news.tell()

    def _rules(self, settings: Settings) -> Rules:
        engine = Engine(
            self.policies,
            store=self.store,
            cache=self.cache,
            switch=self._switch(settings),
            limits=Limits(settings.learn_max_per_source, settings.learn_max),
            ignore_networks=settings.networks(),
            on_change=self.news.put,
        )
        return Rules(
            engine=engine,
            highest_number=max((policy.number for policy in self.policies), default=1),
            engine_error_open=settings.engine_error_open,
            packet_window=settings.packet_window,
        )

    def _switch(self, settings: Settings) -> LearningSwitch:
        return LearningSwitch.restore(
            self._switched,
            file_mode=settings.learning_mode,
            learn_for_s=settings.learn_for_s,
            policies=dict.fromkeys(policy.name for policy in self.policies),
            now_ns=time.time_ns(),
        )

    def _count(self) -> None:
        counters = self.sets.counters()
        while page := list(islice(counters, COUNT_PAGE)):
            self.writer.add_kernel_counts(page, time.time_ns())

    def _expire(self) -> None:
        now_ns = time.time_ns()
        before_ns = now_ns - self.settings.retention_days * DAY_NS
        expired = self.engine.expire(before_ns, now_ns, self.flush)
        if expired:
            _log.info("pending flows forgotten", flows=expired, not_seen_for_days=self.settings.retention_days)
        self._prune_at = 0

    def _prune(self) -> None:
        """A page of history in each tick: the whole of it now and then, and no transaction is long."""
        if self._prune_at is None:
            return
        after_id, self._prune_at = self._prune_at, None
        before_ns = time.time_ns() - self.settings.retention_days * DAY_NS
        self.writer.prune(after_id, before_ns, self._pruned)

    def _pruned(self, after_id: int) -> None:
        self._prune_at = after_id or None

    def _reconcile(self) -> Reconciled:
        if not self.sets.shapes():
            self.writer.reset_kernel_counts()  # all elements are made anew, and count from nothing
        return self.sets.reconcile(self.store.elements())

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

    def learned_differ(self) -> dict[str, tuple[int, int]]:
        """Set name -> (elements in the kernel, flows that belong there) where these differ. Raises GlacicError."""
        return self._in_mapper(lambda: self.sets.differing(self.store.elements()))

    def mend_learned(self) -> Reconciled:
        """Somebody has changed learned sets: they hold again what the store says. Raises GlacicError."""

        def mend() -> Reconciled:
            self.sets.renew(self.policies)
            return self._reconcile()

        return self._in_mapper(mend)

    def _in_mapper(self, task: Callable[[], T]) -> T:
        """What `task` returns or raises, done in the mapper's thread when everything that was put is stored."""
        done: list[T] = []
        failed: list[GlacicError] = []
        tried = threading.Event()

        def work() -> None:
            try:
                self.writer.flush()
                done.append(task())
            except GlacicError as error:
                failed.append(error)
            finally:
                tried.set()

        self.mapper.run_between(work)
        tried.wait()
        if failed:
            raise failed[0]
        return done[0]

    def switched(self) -> None:
        """Somebody has switched learning: its end is no news."""
        self._learning = self.learning_on()

    def _follow_clock(self) -> None:
        by_ns = self._clock.jumped_ns()
        if by_ns:
            jump = Jump(by_ns, time.time_ns())
            self._switched = self.engine.move_times(jump)
            self.writer.move_pending(jump)
            self.writer.save_learning(self._switched)
            _log.warning("the clock was set: learning and retention go on from the new time", by_s=by_ns // NS_PER_S)

    def _check(self) -> None:
        self.readers.troubles.tick()
        self._follow_clock()
        self._prune()
        if self.mapper.healthy and not self.mapper.backlog():
            self.mapper.run_between(self._refill_if_lost)
        learned = self._learning
        self.switched()
        if learned and not self._learning:
            _log.info("learning has ended: new flows wait as pending")


def _say_trouble(trouble: str) -> None:
    if trouble:
        _log.error("what was learned cannot be written; trying again", error=trouble)
    else:
        _log.info("what was learned is written again")
