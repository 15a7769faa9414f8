"""The engine against a model that remembers everything in one dictionary.

Any order of packets, changes, switches, half-finished writes, reloads and restarts: the same decisions, the same
history told, the same database in the end. The cache holds two flows and the census one source, so that nearly
everything is evicted.

Once without the compiled part, and once with it: then a packet is put to the compiled rules first, as the readers do,
and what these answer is the decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glacic import native
from glacic.config.model import Action, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.reading import Holder, Rules, reasons
from glacic.firewall.claims import mark_of
from glacic.learning import census as census_module
from glacic.learning.cache import Batch, FlowCache
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Decision, FlowKey, FlowState, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch

NOT_BUILT = "the compiled part is not built: run make setup, or tools/native"
POLICIES = (
    LearningPolicy(name="lan_wan", number=1),
    LearningPolicy(name="iot_wan", number=2, action=Action.REJECT, granularity=Granularity.DESTINATION),
    LearningPolicy(name="vpn_wan", number=3, identity=Identity.IP),
)
NAMES = tuple(policy.name for policy in POLICIES)
MACS = (None, b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
ADDRESSES = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
SERVERS = (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
PORTS = (80, 443)
STATES = (None, *FlowState)
LIMITS = Limits(learn_max_per_source=2, learn_max=5)

policies = st.sampled_from(POLICIES)
packets = st.builds(
    lambda source, destination, port, first: Packet(4, source, destination, 6, 40000, port, first),
    st.sampled_from(ADDRESSES),
    st.sampled_from(SERVERS),
    st.sampled_from(PORTS),
    st.booleans(),
)


def wire(packet: Packet) -> bytes:
    """The packet as the kernel hands it over."""
    return (
        bytes.fromhex("4500 0028 0001 0000 4006 0000")  # IPv4, 40 bytes, TCP
        + packet.source
        + packet.destination
        + packet.source_port.to_bytes(2, "big")
        + packet.port.to_bytes(2, "big")
        + bytes.fromhex("00000000 00000000 50")  # sequence, acknowledgement, data offset
        + (b"\x02" if packet.first else b"\x10")  # SYN or ACK
        + bytes(6)
    )


def key_of(packet: Packet, policy: LearningPolicy, mac: bytes | None) -> FlowKey:
    by_mac = mac is not None and policy.identity is Identity.MAC
    source = mac if by_mac and mac is not None else packet.source
    exact = policy.granularity is Granularity.DESTINATION
    return FlowKey(policy.name, source, packet.protocol, packet.port, packet.destination if exact else b"")


keys = st.builds(key_of, packets, policies, st.sampled_from(MACS))


@dataclass
class Known:
    """What the model remembers of a flow."""

    state: FlowState
    origin: str
    first_seen_ns: int
    last_seen_ns: int
    packets: int = 0
    addresses: set[bytes] = field(default_factory=set)


class EngineAgainstModel(RuleBasedStateMachine):
    """See the module's docstring."""

    compiled = False

    @initialize(learning=st.booleans())
    def start(self, learning: bool) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(census_module, "SOURCES", 1)
        self.store = Store.temporary()
        self.writing: Batch | None = None
        self.told: list[Transition] = []
        self.flows: dict[FlowKey, Known] = {}
        self.history: list[Transition] = []
        self.now_ns = 0
        self.learning = dict.fromkeys(NAMES, learning)
        self.switch = LearningSwitch.restore(None, file_mode=learning, learn_for_s=None, policies=NAMES, now_ns=0)
        self.cache = self.opened()
        self.engine = self.built()
        self.holder = Holder(self.in_force())

    def opened(self) -> FlowCache:
        assert native.road is not None or not self.compiled, NOT_BUILT
        return open_cache(self.store, 2, compiled=self.compiled)

    def built(self) -> Engine:
        return Engine(
            POLICIES,
            store=self.store,
            cache=self.cache,
            switch=self.switch,
            limits=LIMITS,
            on_change=self.told.append,
        )

    def in_force(self) -> Rules:
        return Rules(engine=self.engine, highest_number=len(POLICIES))

    def decide(self, packet: Packet, policy: LearningPolicy, mac: bytes | None, now_ns: int) -> Decision:
        """As a reader does. Without the compiled part nobody but the engine is asked."""
        if self.holder.compiled is None or not self.compiled:
            return self.engine.decide(packet, policy, mac, now_ns)
        state = self.holder.compiled.state(mark_of(policy.number), wire(packet), mac, now_ns)
        if not state:
            return self.engine.decide(packet, policy, mac, now_ns)
        (why,) = reasons([state == number for number in range(5)])
        refused = Verdict.REJECT if policy.action is Action.REJECT else Verdict.DROP
        return Decision(Verdict.ACCEPT if why is Why.CACHED_ALLOW else refused, why)

    def later(self) -> int:
        self.now_ns += 1
        return self.now_ns

    # ---- the model

    def count(self, state: FlowState, source: bytes | None = None) -> int:
        """Flows that a limit counts: those allowed by learning and not by a user, or all that are pending."""
        return sum(
            flow.state is state
            and (state is FlowState.PENDING or flow.origin == "tofu")
            and source in (None, key.source)
            for key, flow in self.flows.items()
        )

    def has_room(self, state: FlowState, source: bytes) -> bool:
        return self.count(state) < LIMITS.learn_max and self.count(state, source) < LIMITS.learn_max_per_source

    def expected(self, packet: Packet, key: FlowKey) -> tuple[bool, Why]:
        """Whether the packet is accepted and why ("stored allow" counts as "cached"), after the model has seen it."""
        flow = self.flows.get(key)
        if flow is None:
            return self.expected_of_unknown(packet, key)
        flow.packets += 1
        flow.last_seen_ns = self.now_ns
        whys = {
            FlowState.PENDING: Why.PENDING,
            FlowState.ALLOWED: Why.CACHED_ALLOW,
            FlowState.DENIED: Why.DENIED,
            FlowState.IGNORED: Why.IGNORED,
        }
        return flow.state is FlowState.ALLOWED, whys[flow.state]

    def expected_of_unknown(self, packet: Packet, key: FlowKey) -> tuple[bool, Why]:
        if not packet.first:
            return False, Why.NOT_FIRST
        learning = self.learning[key.policy]
        if learning and self.has_room(FlowState.ALLOWED, key.source):
            self.become(key, FlowState.ALLOWED, "tofu", "tofu", Why.FIRST_USE, 1)
            return True, Why.FIRST_USE
        if not self.has_room(FlowState.PENDING, key.source):
            return False, Why.PENDING_LIMIT
        why = Why.LEARNING_LIMIT if learning else Why.NEW_PENDING
        self.become(key, FlowState.PENDING, "traffic", "traffic", why, 1)
        return False, why

    def become(self, key: FlowKey, state: FlowState | None, origin: str, who: str, why: str, packets: int = 0) -> None:
        flow = self.flows.get(key)
        before = None if flow is None else flow.state
        if before is state:
            return
        self.history.append(Transition(key=key, before=before, after=state, at_ns=self.now_ns, who=who, why=why))
        if state is None:
            del self.flows[key]
        elif flow is None:
            self.flows[key] = Known(state, origin, self.now_ns, self.now_ns, packets)
        else:
            flow.state, flow.origin = state, origin

    # ---- what can happen

    @rule(arrivals=st.lists(st.tuples(packets, policies, st.sampled_from(MACS)), min_size=1, max_size=8))
    def packets_come(self, arrivals: list[tuple[Packet, LearningPolicy, bytes | None]]) -> None:
        for packet, policy, mac in arrivals:
            self.a_packet_comes(packet, policy, mac)

    @rule(packet=packets, policy=policies, mac=st.sampled_from(MACS), count=st.integers(2, 5))
    def a_flow_sends_on(self, packet: Packet, policy: LearningPolicy, mac: bytes | None, count: int) -> None:
        for _ in range(count):
            self.a_packet_comes(packet, policy, mac)

    def a_packet_comes(self, packet: Packet, policy: LearningPolicy, mac: bytes | None) -> None:
        key = key_of(packet, policy, mac)
        decision = self.decide(packet, policy, mac, self.later())
        accepted, why = self.expected(packet, key)
        assert (decision.verdict is Verdict.ACCEPT) == accepted
        assert (Why.CACHED_ALLOW if decision.why is Why.STORED_ALLOW else decision.why) is why
        assert decision.learned == (why is Why.FIRST_USE)
        if not accepted:
            assert (decision.verdict is Verdict.REJECT) == (policy.action is Action.REJECT)
        if key in self.flows and len(key.source) == 6:
            self.flows[key].addresses.add(packet.source)

    @rule(key=keys, state=st.sampled_from(STATES))
    def a_user_decides(self, key: FlowKey, state: FlowState | None) -> None:
        told = len(self.told)
        transition = self.engine.set_state(key, state, "user ann", "because", self.later())
        assert self.told[told:] == ([] if transition is None else [transition])
        self.become(key, state, "user", "user ann", "because")

    @rule(on=st.booleans(), names=st.lists(st.sampled_from(NAMES), max_size=2))
    def learning_is_switched(self, on: bool, names: list[str]) -> None:
        if on:
            self.engine.learn_on(names, None, "user ann", self.later())
        else:
            self.engine.learn_off(names, "user ann", self.later())
        self.learning |= dict.fromkeys(names or NAMES, on)

    @rule(name=st.sampled_from(NAMES))
    def pending_flows_are_promoted(self, name: str) -> None:
        self.engine.promote_pending([name], "user ann", self.later(), self.write_everything)
        for key in [key for key, flow in self.flows.items() if key.policy == name and flow.state is FlowState.PENDING]:
            self.become(key, FlowState.ALLOWED, "user", "user ann", "promoted from pending")

    @rule(age_ns=st.integers(0, 10))
    def old_pending_flows_expire(self, age_ns: int) -> None:
        limit_ns = self.later() - age_ns
        self.engine.expire(limit_ns, self.now_ns, self.write_everything)
        for key, flow in list(self.flows.items()):
            if flow.state is FlowState.PENDING and flow.last_seen_ns < limit_ns:
                self.become(key, None, "", "expiry", "not seen again")

    @precondition(lambda self: self.writing is None)
    @rule()
    def the_writer_takes_what_has_changed(self) -> None:
        self.writing = self.cache.take()

    @precondition(lambda self: self.writing is not None)
    @rule()
    def the_writer_commits(self) -> None:
        assert self.writing is not None
        self.store.write(self.writing)
        self.cache.settle()
        self.writing = None

    def write_everything(self) -> None:
        if self.writing is not None:
            self.the_writer_commits()
        self.writing = self.cache.take()
        if self.writing is not None:
            self.the_writer_commits()

    @rule()
    def the_configuration_is_reloaded(self) -> None:
        self.engine = self.built()
        self.holder.rules = self.in_force()

    @rule(capacity=st.integers(1, 4))
    def the_cache_is_resized(self, capacity: int) -> None:
        self.cache.resize(capacity)

    @rule()
    def the_service_is_restarted(self) -> None:
        self.write_everything()
        self.switch = LearningSwitch.restore(
            self.switch.saved(),
            file_mode=self.switch.saved().file_mode,
            learn_for_s=None,
            policies=NAMES,
            now_ns=self.now_ns,
        )
        self.cache = self.opened()
        self.engine = self.built()
        self.holder = Holder(self.in_force())

    # ---- what always holds

    @invariant()
    def flows_are_counted_right(self) -> None:
        counts = self.engine.counts()
        assert counts == {state: sum(flow.state is state for flow in self.flows.values()) for state in FlowState}
        assert self.cache.census.learned == self.count(FlowState.ALLOWED)

    @invariant()
    def every_change_was_told_in_order(self) -> None:
        assert sorted(map(repr, self.told)) == sorted(map(repr, self.history))
        for key in {change.key for change in self.history}:
            assert [change for change in self.told if change.key == key] == [
                change for change in self.history if change.key == key
            ]

    @invariant()
    def the_cache_is_bounded(self) -> None:
        assert self.cache.size <= self.cache.capacity
        assert (self.cache.table is not None) == self.compiled
        assert not self.compiled or len(self.cache.table) <= self.cache.size

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.write_everything()
            stored = {flow.key: flow for flow in self.store.list(limit=1000)}
            assert stored.keys() == self.flows.keys()
            for key, flow in self.flows.items():
                found = stored[key]
                assert (found.state, found.origin, found.packets) == (flow.state, flow.origin, flow.packets)
                assert (found.first_seen_ns, found.last_seen_ns) == (flow.first_seen_ns, flow.last_seen_ns)
                if len(key.source) == 6:
                    assert set(self.store.addresses(key)) == flow.addresses
            for key in {change.key for change in self.history}:
                assert self.store.transitions(key) == [change for change in self.history if change.key == key]
        finally:
            self.store.close()
            self.patch.undo()


class CompiledAgainstModel(EngineAgainstModel):
    """The same, with the compiled part."""

    compiled = True


TestEngineAgainstModel = EngineAgainstModel.TestCase
TestCompiledAgainstModel = CompiledAgainstModel.TestCase
TestEngineAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCompiledAgainstModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
