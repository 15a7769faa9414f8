"""Road 2, where it is decided: a packet in, a verdict and its reason out. The file to read first.

    decide      FlowKey -> cache -> store -> the state table:

                the flow is       learning on                          learning off
                unknown           becomes allowed, accept              becomes pending, drop
                pending           drop                                 drop
                allowed           accept                               accept
                denied, ignored   drop                                 drop

    set_state   somebody else decides: a user, or time

"Drop" is the policy's action. Only the first packet of a connection makes a flow, and only as many are made as the
limits allow. A change of state is made in the cache (and so for every thread at once), queued for the store, and told
to `on_change`, all under one lock, so that whoever keeps the kernel's sets hears of changes in the order in which
they happened.

Where learning is `durable`, a decision that changed something, or that accepts on a state that is not on disk yet, says
so (Decision.waits): whoever gives the verdict waits for the writer first.

Many threads may call anything here. A packet of a cached flow takes one short lock; any other waits for changes and
look-ups of others, never for a write to disk. Refuses to open a socket, read a clock, start a thread, or touch the
kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from glacic.config.model import Action, Granularity, Identity, Network
from glacic.config.policies import LearningPolicy
from glacic.errors import StoreError
from glacic.learning.cache import Entry, FlowCache
from glacic.learning.census import TOFU, Census
from glacic.learning.flow import Decision, Flow, FlowKey, FlowState, Jump, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.schema import MAC_LENGTH
from glacic.learning.store import FlowFilter, Store
from glacic.learning.switch import LearningSwitch, SavedLearning

BATCH = 500  # flows changed in a row by promote_pending and expire before the writer is waited for

TRAFFIC = "traffic"  # the origin of a pending flow
USER = "user"  # the origin of a flow whose state a user has set
EXPIRY = "expiry"  # who forgets old pending flows

_ALLOWED = FlowState.ALLOWED
_BY_MAC = Identity.MAC
_WITH_DESTINATION = Granularity.DESTINATION

_CACHED_ALLOW = Decision(Verdict.ACCEPT, Why.CACHED_ALLOW)
_STORED_ALLOW = Decision(Verdict.ACCEPT, Why.STORED_ALLOW)
_STORED_ALLOW_WAITS = replace(_STORED_ALLOW, waits=True)
_FIRST_USE = Decision(Verdict.ACCEPT, Why.FIRST_USE, learned=True)
_FIRST_USE_WAITS = replace(_FIRST_USE, waits=True)
_NEIGHBOUR = Decision(Verdict.ACCEPT, Why.NEIGHBOUR)
_NO_POLICY = Decision(Verdict.DROP, Why.NO_POLICY)
_STORE_UNAVAILABLE = Decision(Verdict.DROP, Why.STORE_UNAVAILABLE)

# What "drop" is, by the policy's action and the reason.
_REFUSALS = {
    action: {
        why: Decision(verdict, why)
        for why in (
            Why.PENDING,
            Why.NEW_PENDING,
            Why.DENIED,
            Why.IGNORED,
            Why.NOT_FIRST,
            Why.IGNORED_NETWORK,
            Why.LEARNING_LIMIT,
            Why.PENDING_LIMIT,
        )
    }
    for action, verdict in ((Action.DROP, Verdict.DROP), (Action.REJECT, Verdict.REJECT))
}
_KNOWN = {FlowState.PENDING: Why.PENDING, FlowState.DENIED: Why.DENIED, FlowState.IGNORED: Why.IGNORED}


@dataclass(frozen=True, slots=True)
class Limits:
    """How many flows one source, and all sources, may have allowed by learning; and as many pending ones."""

    learn_max_per_source: int = 256
    learn_max: int = 100_000


def open_cache(store: Store, capacity: int, *, compiled: bool | None = None) -> FlowCache:
    """The flow cache over a store that nobody else writes, empty, with its flows counted; `compiled` as in FlowCache.

    Raises StoreError.
    """
    if compiled is not False:
        store.remember()
    return FlowCache(capacity, Census(store.counts(), store.count_learned(), store.count_source), compiled=compiled)


class Engine:
    """One configuration's decisions.

    A reload makes a new Engine over the same store and cache; for a moment both may answer, side by side.
    """

    def __init__(
        self,
        policies: Iterable[LearningPolicy],
        *,
        store: Store,
        cache: FlowCache,
        switch: LearningSwitch,
        limits: Limits,
        ignore_networks: Sequence[Network] = (),
        on_change: Callable[[Transition], None],
    ) -> None:
        """on_change hears of every change of state, in order.

        It must only put it into a queue: packets wait behind it, and it may not call the engine.
        """
        self.policies = {policy.number: policy for policy in policies}  # by the number in the packet mark
        self.by_name: dict[str, LearningPolicy] = {}  # by the log prefix; of two of a name the first, which goes by MAC
        for number in sorted(self.policies):
            self.by_name.setdefault(self.policies[number].name, self.policies[number])
        self.cache = cache
        self.switch = switch
        self.store_errors = 0  # decisions that could not be made for want of the store
        self.store_trouble = ""  # what it said the last time
        self._store = store
        self._limits = limits
        self._ignored = tuple(
            (network.version, int(network.netmask), int(network.network_address)) for network in ignore_networks
        )
        self._on_change = on_change

    def decide(self, packet: Packet, policy: LearningPolicy | None, mac: bytes | None, now_ns: int) -> Decision:
        """What is to become of a packet that this policy's hook has sent here.

        policy None: a number or a name that is not this configuration's. mac: 6 bytes, None where the packet came
        without.
        now_ns: nanoseconds since the epoch. Never raises: without the store the answer is a drop, "store unavailable".
        """
        if policy is None:
            return _NO_POLICY
        if packet.neighbour:
            return _NEIGHBOUR
        source, seen_from = packet.source, None
        if mac is not None and policy.identity is _BY_MAC:
            source, seen_from = mac, source
        destination = packet.destination if policy.granularity is _WITH_DESTINATION else b""
        key = (policy.name, source, packet.protocol, packet.port, destination)
        state = self.cache.hit(key, seen_from, now_ns)
        if state is _ALLOWED:
            return _CACHED_ALLOW
        if state is not None:
            return _REFUSALS[policy.action][_KNOWN[state]]
        return self._decide_uncached(packet, policy, FlowKey(*key), seen_from, now_ns)

    def set_state(self, key: FlowKey, state: FlowState | None, who: str, why: str, now_ns: int) -> Transition | None:
        """Put a flow into a state, whether it was known or not; None forgets it. Returns None if there was nothing to
        change.

        When this returns, no decision is made on the old state any more. It is on disk once the writer was flushed.
        Raises StoreError, with nothing changed, if the flow has to be looked up and cannot.
        """
        with self.cache.order:
            entry = self._look_up(key)
            return self._set(key, entry, state, who, why, now_ns)

    def state_of(self, key: FlowKey) -> FlowState | None:
        """The state of a flow at this moment, committed or not; None if it is unknown. Raises StoreError."""
        with self.cache.order:
            entry = self._look_up(key)
            return None if entry is None else entry.state

    def addresses(self, key: FlowKey) -> list[bytes]:
        """The addresses a flow was seen from, committed or not, the newest first.

        To be asked before the flow is forgotten. Raises StoreError.
        """
        with self.cache.order:
            entry = self.cache.find(key)
            fresh = () if entry is None else entry.addresses
        return list(dict.fromkeys((*reversed(fresh), *self._store.addresses(key))))

    def counts(self) -> dict[FlowState, int]:
        """How many flows there are in each state, committed or not."""
        return dict(self.cache.census.counts)

    def produces(self, key: FlowKey) -> bool:
        """Whether a packet can still have this key: its policy is there, and names sources and destinations so."""
        return any(
            policy.name == key.policy
            and (policy.granularity is _WITH_DESTINATION) == bool(key.destination)
            and (policy.identity is _BY_MAC or len(key.source) != MAC_LENGTH)
            for policy in self.policies.values()
        )

    def learn_on(self, policies: Iterable[str], until_ns: int | None, who: str, now_ns: int) -> SavedLearning:
        """Switch learning on (LearningSwitch.on), from the next packet on. Returns what is to be saved."""
        with self.cache.order:
            self.switch.on(policies, until_ns, who, now_ns)
            return self.switch.saved()

    def learn_off(self, policies: Iterable[str], who: str, now_ns: int) -> SavedLearning:
        """Switch learning off (LearningSwitch.off); when this returns, nothing more is learned.

        Returns what is to be saved.
        """
        with self.cache.order:
            self.switch.off(policies, who, now_ns)
            return self.switch.saved()

    def move_times(self, jump: Jump) -> SavedLearning:
        """The clock was set: learning ends as long after now as before, and pending flows are as old as before.

        Returns what is to be saved. The store's flows have to be moved too (ageing.py).
        """
        with self.cache.order:
            self.switch.move(jump)
            self.cache.move_pending(jump)
            return self.switch.saved()

    def promote_pending(self, policies: Iterable[str], who: str, now_ns: int, flush: Callable[[], object]) -> int:
        """Allow every pending flow of these policies; no policies means all of them. Returns how many.

        flush: waits until the writer has committed; called now and then, so that changes do not pile up. What it
        raises ends the work where it stands.
        """
        names = dict.fromkeys(policies) or self.by_name
        return sum(
            self._set_pending(FlowFilter(policy=name, state=FlowState.PENDING), _ALLOWED, who, now_ns, flush)
            for name in names
        )

    def expire(self, before_ns: int, now_ns: int, flush: Callable[[], object]) -> int:
        """Forget every pending flow that was last seen before that moment. Returns how many; flush as above."""
        wanted = FlowFilter(state=FlowState.PENDING, not_seen_since_ns=before_ns)
        return self._set_pending(wanted, None, EXPIRY, now_ns, flush)

    # ---- below: with the lock that orders changes

    def _decide_uncached(
        self, packet: Packet, policy: LearningPolicy, key: FlowKey, seen_from: bytes | None, now_ns: int
    ) -> Decision:
        with self.cache.order:
            try:
                entry = self._look_up(key)
                state = None if entry is None else entry.state
                if entry is None or state is None:
                    return self._decide_unknown(packet, policy, key, seen_from, now_ns)
            except StoreError as error:
                self.store_errors += 1
                self.store_trouble = str(error)
                return _STORE_UNAVAILABLE
            self.cache.note(entry, seen_from, now_ns)
            if state is not _ALLOWED:
                return _REFUSALS[policy.action][_KNOWN[state]]
            waits = self.cache.durable and not self.cache.committed(entry)
            return _STORED_ALLOW_WAITS if waits else _STORED_ALLOW

    def _decide_unknown(
        self, packet: Packet, policy: LearningPolicy, key: FlowKey, seen_from: bytes | None, now_ns: int
    ) -> Decision:
        refusals = _REFUSALS[policy.action]
        if not packet.first:
            return refusals[Why.NOT_FIRST]
        if self._ignored and (self._is_ignored(packet.source) or self._is_ignored(packet.destination)):
            return refusals[Why.IGNORED_NETWORK]
        learning = self.switch.is_on(policy.name, now_ns)
        if learning and self._may_learn(key.source):
            self._add(key, _ALLOWED, TOFU, TOFU, Why.FIRST_USE, now_ns, seen_from)
            return _FIRST_USE_WAITS if self.cache.durable else _FIRST_USE
        if not self._may_wait(key.source):
            return refusals[Why.PENDING_LIMIT]
        why = Why.LEARNING_LIMIT if learning else Why.NEW_PENDING
        self._add(key, FlowState.PENDING, TRAFFIC, TRAFFIC, why, now_ns, seen_from)
        return replace(refusals[why], waits=True) if self.cache.durable else refusals[why]

    def _may_learn(self, source: bytes) -> bool:
        census, limits = self.cache.census, self._limits
        return census.learned < limits.learn_max and census.source(source).learned < limits.learn_max_per_source

    def _may_wait(self, source: bytes) -> bool:
        census, limits = self.cache.census, self._limits
        waiting = census.counts[FlowState.PENDING]
        return waiting < limits.learn_max and census.source(source).pending < limits.learn_max_per_source

    def _is_ignored(self, address: bytes) -> bool:
        version, number = 4 if len(address) == 4 else 6, int.from_bytes(address, "big")
        return any(version == of and number & mask == network for of, mask, network in self._ignored)

    def _look_up(self, key: FlowKey) -> Entry | None:
        """The flow's entry, from the database if need be; None if the flow is unknown."""
        entry = self.cache.find(key)
        if entry is not None:
            return None if entry.state is None else entry
        flow = self._store.find(key)
        return None if flow is None else self.cache.load(flow)

    def _add(
        self,
        key: FlowKey,
        state: FlowState,
        origin: str,
        who: str,
        why: str,
        now_ns: int,
        seen_from: bytes | None,
    ) -> None:
        self.cache.check_room()  # a user's change is made in any case: who can write no more must still be able to deny
        transition = Transition(key=key, before=None, after=state, at_ns=now_ns, who=who, why=why)
        self._set_unknown(transition, origin, 1, seen_from)

    def _set_unknown(
        self, transition: Transition, origin: str, packets: int = 0, seen_from: bytes | None = None
    ) -> None:
        self.cache.census.move(transition.key.source, None, "", transition.after, origin)
        self.cache.add(transition, origin, packets, seen_from)
        self._on_change(transition)

    def _set(
        self, key: FlowKey, entry: Entry | None, state: FlowState | None, who: str, why: str, now_ns: int
    ) -> Transition | None:
        before = None if entry is None else entry.state
        if before is state:
            return None
        transition = Transition(key=key, before=before, after=state, at_ns=now_ns, who=who, why=why)
        if entry is None:
            self._set_unknown(transition, USER)
        else:
            self.cache.census.move(key.source, before, entry.origin, state, USER)
            self.cache.change(entry, transition, USER)
            self._on_change(transition)
        return transition

    def _set_pending(
        self, wanted: FlowFilter, state: FlowState | None, who: str, now_ns: int, flush: Callable[[], object]
    ) -> int:
        """Change pending flows page by page, each looked at again under the lock: the database may be behind."""
        why = "not seen again" if state is None else "promoted from pending"
        changed, last_id = 0, 0
        while True:
            flush()
            page = self._store.list(wanted, after_id=last_id, limit=BATCH)
            for flow in page:
                changed += self._set_if_pending(flow, wanted.not_seen_since_ns, state, who, why, now_ns)
            if len(page) < BATCH:
                flush()
                return changed
            last_id = page[-1].id

    def _set_if_pending(
        self, flow: Flow, not_seen_since_ns: int | None, state: FlowState | None, who: str, why: str, now_ns: int
    ) -> bool:
        with self.cache.order:
            entry = self._look_up(flow.key)
            if entry is None or entry.state is not FlowState.PENDING:
                return False
            if not_seen_since_ns is not None and entry.last_seen_ns >= not_seen_since_ns:
                return False
            return self._set(flow.key, entry, state, who, why, now_ns) is not None
