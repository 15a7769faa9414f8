"""The engine decides by the state table, whatever is cached, stored, or still to be written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from glacic.config.model import Action, Granularity, Identity, Network
from glacic.config.policies import LearningPolicy
from glacic.errors import GlacicError, StoreError
from glacic.learning import cache as cache_module
from glacic.learning import engine as engine_module
from glacic.learning.cache import Batch
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Decision, FlowKey, FlowState, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.store import FlowFilter, Store
from glacic.learning.switch import LearningSwitch

LAPTOP, CAMERA = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
LAPTOP_V4, CAMERA_V4, SERVER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes([192, 0, 2, 7])
LAPTOP_V6, SERVER_V6 = bytes.fromhex("fd01" + "0" * 27 + "1"), bytes.fromhex("20010db8" + "0" * 23 + "7")

LAN_WAN = LearningPolicy(name="lan_wan", number=3)
IOT_WAN = LearningPolicy(name="iot_wan", number=4, action=Action.REJECT)
PENDING, ALLOWED, DENIED, IGNORED = FlowState.PENDING, FlowState.ALLOWED, FlowState.DENIED, FlowState.IGNORED
ACCEPT, DROP = Verdict.ACCEPT, Verdict.DROP


class Bench:
    """An engine over a real store, and a writer that writes when it is told to."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(path)
        self.cache = open_cache(self.store, 100)
        self.changes: list[Transition] = []
        self.switch = self.switched(True)
        self.engine = self.rebuilt()
        self.now_ns = 1000

    def switched(self, on: bool) -> LearningSwitch:
        return LearningSwitch.restore(None, file_mode=on, learn_for_s=None, policies=("lan_wan", "iot_wan"), now_ns=0)

    def rebuilt(
        self,
        *policies: LearningPolicy,
        limits: Limits = Limits(),  # noqa: B008 -- frozen
        ignore_networks: Sequence[Network] = (),
    ) -> Engine:
        self.engine = Engine(
            policies or (LAN_WAN, IOT_WAN),
            store=self.store,
            cache=self.cache,
            switch=self.switch,
            limits=limits,
            ignore_networks=ignore_networks,
            on_change=self.changes.append,
        )
        return self.engine

    def learning(self, on: bool) -> None:
        if on:
            self.engine.learn_on((), None, "user ann", self.now_ns)
        else:
            self.engine.learn_off((), "user ann", self.now_ns)

    def send(
        self,
        port: int = 443,
        *,
        policy: LearningPolicy | None = LAN_WAN,
        mac: bytes | None = LAPTOP,
        first: bool = True,
    ) -> Decision:
        self.now_ns += 1
        return self.engine.decide(packet(port, first=first), policy, mac, self.now_ns)

    def put(self, state: FlowState | None, port: int = 443, who: str = "user ann") -> Transition | None:
        self.now_ns += 1
        return self.engine.set_state(key(port), state, who, "because", self.now_ns)

    def write(self) -> None:
        batch = self.cache.take()
        if batch is not None:
            self.store.write(batch)
            self.cache.settle()

    def forget_memory(self) -> None:
        """As after a restart: everything is written, nothing is cached."""
        self.write()
        self.cache = open_cache(self.store, 100)
        self.rebuilt()


def packet(port: int = 443, *, source: bytes = LAPTOP_V4, destination: bytes = SERVER, first: bool = True) -> Packet:
    version = 4 if len(source) == 4 else 6
    return Packet(version, source, destination, 6, 40000, port, first)


def key(port: int = 443, source: bytes = LAPTOP, policy: str = "lan_wan") -> FlowKey:
    return FlowKey(policy, source, 6, port)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "flows.db")
    yield bench
    bench.store.close()


class TestTheStateTable:
    """Rows: the flow is, learning is -> the decision, and what the flow is then."""

    ROWS = (
        (None, True, Decision(ACCEPT, Why.FIRST_USE, learned=True), ALLOWED),
        (None, False, Decision(DROP, Why.NEW_PENDING), PENDING),
        (PENDING, True, Decision(DROP, Why.PENDING), PENDING),
        (PENDING, False, Decision(DROP, Why.PENDING), PENDING),
        (ALLOWED, True, Decision(ACCEPT, Why.CACHED_ALLOW), ALLOWED),
        (ALLOWED, False, Decision(ACCEPT, Why.CACHED_ALLOW), ALLOWED),
        (DENIED, True, Decision(DROP, Why.DENIED), DENIED),
        (DENIED, False, Decision(DROP, Why.DENIED), DENIED),
        (IGNORED, True, Decision(DROP, Why.IGNORED), IGNORED),
        (IGNORED, False, Decision(DROP, Why.IGNORED), IGNORED),
    )

    @pytest.mark.parametrize(("before", "learning", "decision", "after"), ROWS)
    def test_holds_for_what_is_cached(
        self, bench: Bench, before: FlowState | None, learning: bool, decision: Decision, after: FlowState
    ) -> None:
        bench.put(before)
        bench.learning(learning)
        assert bench.send() == decision
        assert bench.engine.state_of(key()) is after

    @pytest.mark.parametrize(("before", "learning", "decision", "after"), ROWS)
    def test_holds_for_what_is_only_stored(
        self, bench: Bench, before: FlowState | None, learning: bool, decision: Decision, after: FlowState
    ) -> None:
        bench.put(before)
        bench.learning(learning)
        bench.forget_memory()
        if before is ALLOWED:
            decision = replace(decision, why=Why.STORED_ALLOW)
        assert bench.send() == decision
        assert bench.engine.state_of(key()) is after

    @pytest.mark.parametrize(("before", "learning", "decision", "after"), ROWS)
    def test_holds_for_later_packets_except_that_they_make_no_flow(
        self, bench: Bench, before: FlowState | None, learning: bool, decision: Decision, after: FlowState
    ) -> None:
        bench.put(before)
        bench.learning(learning)
        if before is None:
            decision, after = Decision(DROP, Why.NOT_FIRST), None  # type: ignore[assignment]
        assert bench.send(first=False) == decision
        assert bench.engine.state_of(key()) is after

    @pytest.mark.parametrize("before", [None, PENDING, DENIED, IGNORED])
    def test_rejects_where_that_is_the_policys_action(self, bench: Bench, before: FlowState | None) -> None:
        bench.learning(False)
        bench.engine.set_state(key(policy="iot_wan"), before, "user ann", "", 5)
        assert bench.send(policy=IOT_WAN).verdict is Verdict.REJECT
        assert bench.send(80, policy=IOT_WAN, first=False).verdict is Verdict.REJECT


class TestAKey:
    def test_has_the_mac_as_its_source_where_there_is_one(self, bench: Bench) -> None:
        bench.send(mac=LAPTOP)
        bench.send(mac=None)
        assert bench.engine.state_of(key(source=LAPTOP)) is ALLOWED
        assert bench.engine.state_of(key(source=LAPTOP_V4)) is ALLOWED

    def test_has_the_address_where_the_zone_says_so(self, bench: Bench) -> None:
        by_address = replace(LAN_WAN, identity=Identity.IP)
        bench.send(policy=by_address)
        assert bench.engine.state_of(key(source=LAPTOP_V4)) is ALLOWED
        assert bench.engine.state_of(key(source=LAPTOP)) is None

    def test_has_the_destination_where_the_policy_says_so(self, bench: Bench) -> None:
        exact = replace(LAN_WAN, granularity=Granularity.DESTINATION)
        bench.engine.decide(packet(destination=SERVER), exact, LAPTOP, 5)
        assert bench.engine.state_of(key()._replace(destination=SERVER)) is ALLOWED
        assert bench.engine.state_of(key()) is None

    def test_can_be_one_that_no_packet_has_any_more(self, bench: Bench) -> None:
        bench.rebuilt(LAN_WAN, replace(IOT_WAN, identity=Identity.IP, granularity=Granularity.DESTINATION))
        assert bench.engine.produces(key(source=LAPTOP))
        assert bench.engine.produces(key(source=LAPTOP_V6))
        assert not bench.engine.produces(key()._replace(destination=SERVER))
        assert not bench.engine.produces(key(policy="guest_wan"))
        assert not bench.engine.produces(key(policy="iot_wan", source=LAPTOP_V4))
        assert not bench.engine.produces(key(policy="iot_wan")._replace(destination=SERVER))
        assert bench.engine.produces(key(policy="iot_wan", source=LAPTOP_V4)._replace(destination=SERVER))


def test_a_packet_that_no_policy_of_ours_asked_for_is_dropped(bench: Bench) -> None:
    assert bench.send(policy=None) == Decision(DROP, Why.NO_POLICY)


def test_neighbour_discovery_passes_and_is_never_learned(bench: Bench) -> None:
    solicitation = Packet(6, LAPTOP_V6, SERVER_V6, 58, 0, 135, True, True)
    assert bench.engine.decide(solicitation, LAN_WAN, LAPTOP, 5) == Decision(ACCEPT, Why.NEIGHBOUR)
    assert bench.changes == []


@pytest.mark.parametrize(
    ("source", "destination", "ignored"),
    [
        (LAPTOP_V4, SERVER, True),
        (SERVER, LAPTOP_V4, True),
        (LAPTOP_V6, SERVER_V6, True),
        (LAPTOP_V4, CAMERA_V4, False),
        (LAPTOP_V6, LAPTOP_V6, False),
    ],
)
def test_ignored_networks_are_dropped_and_never_stored(
    bench: Bench, source: bytes, destination: bytes, ignored: bool
) -> None:
    bench.rebuilt(ignore_networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    decision = bench.engine.decide(packet(source=source, destination=destination), LAN_WAN, LAPTOP, 5)
    assert (decision.why is Why.IGNORED_NETWORK) == ignored
    assert (bench.engine.state_of(key()) is None) == ignored


class TestAChange:
    def test_is_told_in_order_and_recorded_with_who_and_why(self, bench: Bench) -> None:
        bench.send()
        bench.put(DENIED)
        bench.put(None, who="user bob")
        bench.learning(False)
        bench.send()
        bench.write()
        told = [(change.before, change.after, change.who, change.why) for change in bench.changes]
        assert told == [
            (None, ALLOWED, "tofu", "learned on first use"),
            (ALLOWED, DENIED, "user ann", "because"),
            (DENIED, None, "user bob", "because"),
            (None, PENDING, "traffic", "new flow, pending"),
        ]
        assert bench.store.transitions(key()) == bench.changes

    def test_to_the_same_state_is_none(self, bench: Bench) -> None:
        bench.send()
        assert bench.put(ALLOWED) is None
        assert bench.put(None, port=80) is None
        assert len(bench.changes) == 1

    def test_holds_at_once_for_what_was_evicted_and_is_not_written(self, bench: Bench) -> None:
        bench.cache.resize(1)
        bench.send(443)
        bench.send(80)
        bench.put(DENIED, 443)
        bench.send(81)
        assert bench.send(443) == Decision(DROP, Why.DENIED)
        assert bench.send(80).verdict is ACCEPT

    def test_of_a_flow_nobody_has_seen_is_possible(self, bench: Bench) -> None:
        bench.put(ALLOWED)
        bench.learning(False)
        assert bench.send() == Decision(ACCEPT, Why.CACHED_ALLOW)

    def test_survives_a_restart_with_everything_about_the_flow(self, bench: Bench) -> None:
        bench.send()
        bench.send()
        before = bench.put(DENIED)
        assert before is not None
        bench.send()
        bench.forget_memory()
        (flow,) = bench.store.list()
        assert (flow.state, flow.origin, flow.packets) == (DENIED, "user", 3)
        assert (flow.first_seen_ns, flow.last_seen_ns) == (1001, 1004)
        assert bench.send() == Decision(DROP, Why.DENIED)


class TestLimits:
    def test_one_source_learns_so_many_flows_and_then_they_wait(self, bench: Bench) -> None:
        bench.rebuilt(limits=Limits(learn_max_per_source=2))
        assert [bench.send(port).why for port in range(5)] == [
            Why.FIRST_USE,
            Why.FIRST_USE,
            Why.LEARNING_LIMIT,
            Why.LEARNING_LIMIT,
            Why.PENDING_LIMIT,
        ]
        assert bench.send(1).verdict is ACCEPT
        assert bench.send(2).why is Why.PENDING
        assert bench.engine.state_of(key(4)) is None
        assert bench.send(0, mac=CAMERA).why is Why.FIRST_USE

    def test_a_source_is_counted_over_all_policies(self, bench: Bench) -> None:
        bench.rebuilt(limits=Limits(learn_max_per_source=2))
        bench.send(1)
        bench.send(1, policy=IOT_WAN)
        assert bench.send(2).why is Why.LEARNING_LIMIT

    def test_all_sources_together_learn_so_many(self, bench: Bench) -> None:
        bench.rebuilt(limits=Limits(learn_max=3))
        macs = [bytes([2, 0, 0, 0, 0, number]) for number in range(7)]
        whys = [bench.send(mac=mac).why for mac in macs]
        assert whys == [Why.FIRST_USE] * 3 + [Why.LEARNING_LIMIT] * 3 + [Why.PENDING_LIMIT]

    def test_hold_after_a_restart_and_after_a_reload(self, bench: Bench) -> None:
        bench.send(1)
        bench.send(2)
        bench.forget_memory()
        bench.rebuilt(limits=Limits(learn_max_per_source=2))
        assert bench.send(3).why is Why.LEARNING_LIMIT
        bench.rebuilt(limits=Limits(learn_max_per_source=3))
        assert bench.send(4).why is Why.FIRST_USE

    def test_what_a_user_allows_does_not_count_and_what_he_forgets_makes_room(self, bench: Bench) -> None:
        bench.rebuilt(limits=Limits(learn_max_per_source=1))
        bench.put(ALLOWED, 1)
        assert bench.send(2).why is Why.FIRST_USE
        assert bench.send(3).why is Why.LEARNING_LIMIT
        bench.put(None, 2)
        assert bench.send(4).why is Why.FIRST_USE


class TestWithoutTheStore:
    def test_known_flows_are_decided_and_others_dropped(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        bench.send(1)

        def refuse(_key: FlowKey) -> None:
            raise StoreError("the disk is gone")

        monkeypatch.setattr(bench.store, "find", refuse)
        assert bench.send(1) == Decision(ACCEPT, Why.CACHED_ALLOW)
        assert bench.send(2) == Decision(DROP, Why.STORE_UNAVAILABLE)
        assert (bench.engine.store_errors, bench.engine.store_trouble) == (1, "the disk is gone")
        with pytest.raises(StoreError):
            bench.put(DENIED, 2)
        assert bench.put(DENIED, 1) is not None
        monkeypatch.undo()
        assert bench.send(2).why is Why.FIRST_USE

    def test_too_many_unwritten_flows_stop_learning_and_not_an_administrator(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache_module, "MAX_UNWRITTEN", 3)
        assert [bench.send(port).why for port in range(4)] == [Why.FIRST_USE] * 3 + [Why.STORE_UNAVAILABLE]
        bench.put(DENIED, 0)
        bench.put(DENIED, 9)
        assert [bench.send(port).why for port in (0, 1, 9)] == [Why.DENIED, Why.CACHED_ALLOW, Why.DENIED]
        bench.write()
        assert bench.send(4).why is Why.FIRST_USE
        bench.write()
        assert bench.store.counts()[ALLOWED] == bench.engine.counts()[ALLOWED] == 3

    def test_nothing_is_counted_when_a_source_cannot_be(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_source: bytes) -> tuple[int, int]:
            raise StoreError("no")

        monkeypatch.setattr(bench.cache.census, "_count_source", refuse)
        assert bench.send(1).why is Why.STORE_UNAVAILABLE
        assert bench.changes == []
        assert sum(bench.engine.counts().values()) == 0


class TestSwitchingLearning:
    def test_takes_effect_on_the_next_packet_of_that_policy(self, bench: Bench) -> None:
        saved = bench.engine.learn_off(["lan_wan"], "user ann", 5)
        assert bench.send(1).why is Why.NEW_PENDING
        assert bench.send(1, policy=IOT_WAN).why is Why.FIRST_USE
        bench.engine.learn_on(["lan_wan"], None, "user ann", 6)
        assert bench.send(2).why is Why.FIRST_USE
        assert [row.policy for row in saved.rows] == ["", "lan_wan"]

    def test_on_for_a_time_ends_by_itself(self, bench: Bench) -> None:
        bench.engine.learn_off((), "user ann", 5)
        bench.engine.learn_on((), bench.now_ns + 2, "user ann", bench.now_ns)
        assert [bench.send(port).why for port in (1, 2)] == [Why.FIRST_USE, Why.NEW_PENDING]

    def test_of_an_unknown_policy_is_refused(self, bench: Bench) -> None:
        with pytest.raises(GlacicError, match="'wan_lan'"):
            bench.engine.learn_on(["wan_lan"], None, "user ann", 5)


class TestPendingFlows:
    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_module, "BATCH", 3)

    def test_are_promoted_policy_by_policy(self, bench: Bench) -> None:
        bench.learning(False)
        for port in range(10):
            bench.send(port)
            bench.send(port, policy=IOT_WAN)
        bench.put(DENIED, 4)
        bench.rebuilt(limits=Limits(learn_max=1))  # an administrator's word is not bounded by what learning may do
        assert bench.engine.promote_pending(["lan_wan"], "user ann", 5000, bench.write) == 9
        assert bench.engine.counts() == {PENDING: 10, ALLOWED: 9, DENIED: 1, IGNORED: 0}
        assert bench.store.counts() == bench.engine.counts()
        assert bench.engine.promote_pending((), "user ann", 5000, bench.write) == 10
        assert {flow.origin for flow in bench.store.list(FlowFilter(state=ALLOWED))} == {"user"}

    def test_are_left_where_the_writer_fails(self, bench: Bench) -> None:
        bench.learning(False)
        bench.send(1)

        def fail() -> None:
            raise StoreError("locked")

        with pytest.raises(StoreError):
            bench.engine.promote_pending((), "user ann", 5000, fail)
        assert bench.engine.state_of(key(1)) is PENDING

    def test_expire_when_they_were_not_seen_again(self, bench: Bench) -> None:
        bench.learning(False)
        for port in range(8):
            bench.send(port)
        bench.put(ALLOWED, 0)
        bench.write()
        limit_ns = bench.now_ns + 1
        bench.send(1)  # seen again, and not written yet: the database does not know
        assert bench.engine.expire(limit_ns, bench.now_ns, lambda: None) == 6
        bench.write()
        assert [flow.key.port for flow in bench.store.list()] == [0, 1]
        assert {change.who for change in bench.changes if change.after is None} == {"expiry"}

    def test_do_not_expire_when_another_state_is_not_written_yet(self, bench: Bench) -> None:
        bench.learning(False)
        bench.send(1)
        bench.write()
        bench.put(ALLOWED, 1)
        assert bench.engine.expire(bench.now_ns + 99, bench.now_ns, lambda: None) == 0
        assert bench.engine.state_of(key(1)) is ALLOWED


class TestAddresses:
    def test_of_a_mac_are_remembered_written_or_not(self, bench: Bench) -> None:
        for source in (LAPTOP_V4, LAPTOP_V6, LAPTOP_V4):
            bench.engine.decide(packet(source=source), LAN_WAN, LAPTOP, bench.now_ns)
            bench.now_ns += 1
        assert bench.engine.addresses(key()) == [LAPTOP_V6, LAPTOP_V4]
        bench.forget_memory()
        assert bench.engine.addresses(key()) == [LAPTOP_V6, LAPTOP_V4]
        bench.engine.decide(packet(source=CAMERA_V4), LAN_WAN, LAPTOP, bench.now_ns)
        assert bench.engine.addresses(key()) == [CAMERA_V4, LAPTOP_V6, LAPTOP_V4]

    def test_of_a_flow_without_a_mac_are_its_own(self, bench: Bench) -> None:
        bench.send(mac=None)
        assert bench.engine.addresses(key(source=LAPTOP_V4)) == [LAPTOP_V4]


def test_a_rebuilt_engine_goes_on_with_the_cache_and_its_counts(bench: Bench) -> None:
    bench.send(1)
    bench.send(1)
    old = bench.engine
    bench.rebuilt(replace(LAN_WAN, number=7, action=Action.REJECT))
    assert bench.send(1) == Decision(ACCEPT, Why.CACHED_ALLOW)
    assert (bench.cache.hits, bench.cache.misses) == (2, 1)
    old.set_state(key(1), DENIED, "user ann", "", bench.now_ns)  # a change on its way when the engine was replaced
    assert bench.send(1, policy=bench.engine.policies[7]) == Decision(Verdict.REJECT, Why.DENIED)


def test_a_log_prefix_names_the_policy_that_goes_by_mac(bench: Bench) -> None:
    by_mac, by_address = (
        LearningPolicy(name="DROP_INPUT", number=number, identity=identity)
        for number, identity in ((1, Identity.MAC), (9, Identity.IP))
    )
    assert bench.rebuilt(by_address, by_mac).by_name == {"DROP_INPUT": by_mac}


def test_no_batch_is_made_of_nothing(bench: Bench) -> None:
    assert bench.cache.take() is None
    bench.send()
    assert isinstance(bench.cache.take(), Batch)
