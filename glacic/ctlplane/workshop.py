"""What a worker has and does: the engine with its readers, the writer, the mapper; and the parent's requests on them.

    prepare    open what the new settings need beside what runs: a new Engine over the same store and cache, queues and
               log groups, learned sets of new policies. Packets asked under the old ruleset are still answered.
    commit     the new ruleset is in force: close what only the old one needed
    abort      it was refused: close what only the new one needed

The first start is a prepare and a commit like every other. Requests come one after the other, from worker.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from glacic.config.policies import label
from glacic.ctlplane import conntrack, logs
from glacic.ctlplane.messages import unpack_key
from glacic.ctlplane.parts import MAP_S, Parts
from glacic.ctlplane.settings import Settings
from glacic.errors import GlacicError
from glacic.firewall import claims
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.switch import NS_PER_S
from glacic.learning.text import time_text

_log = logs.logger("worker")

SETTLE_S = 0.5  # how long an answer waits for the kernel to have what was just learned
COUNT_ON_DEMAND_S = 0.25  # a reading of the counters that takes longer is left to its turn
FLUSH_EACH = 5_000  # changes of one command that wait for the disk together
BY_PERSON = "decided by a person"


class Workshop:
    """One worker's parts. None of them exists before the first prepare."""

    def __init__(self) -> None:
        self._settings: Settings | None = None  # in force
        self._next: Settings | None = None  # prepared
        self._parts: Parts | None = None
        self._saves_numbers = False  # whether the ruleset in the kernel is ours to number

    @property
    def _running(self) -> Parts:
        if self._parts is None:
            raise GlacicError("the worker is still starting; try again")
        return self._parts

    def prepare(self, settings: Settings, save_numbers: bool) -> dict[str, list[list[str]]]:
        """Open what `settings` need. Returns the shapes of key that each policy's learned sets have, for the ruleset.

        No learned set is made from here to commit() or abort(): the ruleset names those that there are.
        """
        if self._parts is None:
            self._parts = Parts(settings)
        parts = self._parts
        parts.adopt(settings, beside=self._settings)
        self._saves_numbers = save_numbers
        self._save_numbers(settings)
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
            self._save_numbers(self._settings)

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
                parts.flush()
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
            promoted = {"promoted": parts.engine.promote_pending(names, who, now_ns, parts.flush)}
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

    def learned_differ(self) -> dict[str, tuple[int, int]]:
        """Set name -> (elements in the kernel, flows that belong there) where these differ."""
        return self._running.learned_differ()

    def mend_learned(self) -> None:
        """The learned sets hold what is stored, whatever somebody has done to them."""
        added, removed = self._running.mend_learned()
        _log.info("learned sets are put right", added=added, removed=removed)

    def learning_on(self) -> bool:
        """Whether any policy learns now."""
        return self._parts is not None and self._parts.learning_on()

    def trouble(self) -> str:
        """What does not work at this moment, "" where everything does."""
        parts = self._parts
        if parts is None:
            return ""
        if not parts.mapper.healthy:
            return "the kernel does not take what is learned; see the service's log"
        return parts.writer.trouble or parts.undecided()

    def damaged(self) -> bool:
        """Whether the database has been found damaged. What was learned is in the kernel then, where it can be."""
        parts = self._parts
        if parts is None or not parts.store.damage:
            return False
        parts.mapper.flush(SETTLE_S)
        return True

    def dead_threads(self) -> list[str]:
        """The threads that should run and do not."""
        return self._parts.dead_threads() if self._parts is not None else []

    def close(self) -> None:
        """A clean end: nobody listens, everything that was learned is written and in the kernel."""
        if self._parts is not None:
            self._parts.close()

    def _save_numbers(self, settings: Settings) -> None:
        if self._saves_numbers:
            self._running.writer.save_numbers({label(p.name, p.identity): p.number for p in settings.policies})

    def _learning(self, parts: Parts, now_ns: int) -> dict[str, Any]:
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
