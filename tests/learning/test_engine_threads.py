"""Several packet threads, a writer and an administrator at once: no stale verdict, no lost count, no wait for the disk.

Every thread does a fixed number of things; none waits for the clock. A short switch interval makes the threads
interleave.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from glacic import native
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.reading import Holder, Rules, reasons
from glacic.firewall.claims import mark_of
from glacic.learning import database as database_module
from glacic.learning.cache import TABLE_STATES
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Decision, FlowKey, FlowState, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch
from glacic.learning.writer import Writer

POLICY = LearningPolicy(name="lan_wan", number=1)
MAC, ADDRESS, SERVER = b"\x02\0\0\0\0\x01", bytes([10, 0, 0, 1]), bytes([192, 0, 2, 1])
THREADS = 3


def packet(port: int) -> Packet:
    return Packet(4, ADDRESS, SERVER, 6, 40000, port)


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


def key(port: int, source: bytes = MAC) -> FlowKey:
    return FlowKey("lan_wan", source, 6, port)


@pytest.fixture(autouse=True)
def interleaved() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "flows.db") as store:
        yield store


@pytest.fixture
def changes() -> list[Transition]:
    return []


class Asked(Engine):
    """An engine that puts each packet to the compiled rules first, as the compiled readers do."""

    def decide(self, packet: Packet, policy: LearningPolicy | None, mac: bytes | None, now_ns: int) -> Decision:
        if not hasattr(self, "holder"):
            self.holder = Holder(Rules(engine=self, highest_number=1))
        assert policy is not None
        assert self.holder.compiled is not None
        state = self.holder.compiled.state(mark_of(policy.number), wire(packet), mac, now_ns)
        if not state:
            return super().decide(packet, policy, mac, now_ns)
        (why,) = reasons([state == number for number in range(5)])
        return Decision(Verdict.ACCEPT if why is Why.CACHED_ALLOW else Verdict.DROP, why)


@pytest.fixture(params=["compiled", "python"])
def engine(request: pytest.FixtureRequest, store: Store, changes: list[Transition]) -> Engine:
    compiled = request.param == "compiled"
    assert native.road is not None or not compiled, "the compiled part is not built: run make setup, or tools/native"
    return (Asked if compiled else Engine)(
        [POLICY],
        store=store,
        cache=open_cache(store, 2, compiled=compiled),
        switch=LearningSwitch.restore(None, file_mode=True, learn_for_s=None, policies=["lan_wan"], now_ns=0),
        limits=Limits(learn_max_per_source=100_000),
        on_change=changes.append,
    )


@pytest.fixture
def writer(store: Store, engine: Engine) -> Iterator[Writer]:
    writer = Writer(store, engine.cache, interval_s=0.0005)
    writer.start()
    yield writer
    writer.close(timeout_s=60)


def run_together(*jobs: Callable[[], None]) -> None:
    """Run every job in a thread of its own, begun at the same moment; what one raises is raised here."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_verdict_begun_after_a_change_is_never_of_the_time_before(engine: Engine, writer: Writer) -> None:
    """The administrator flips one flow to and fro while others push it out of the cache.

    `moment` is odd while a change is being made. A decision that began and ended in one even moment saw one state only.
    """
    states = (FlowState.DENIED, FlowState.ALLOWED, None, FlowState.PENDING, FlowState.ALLOWED, FlowState.IGNORED)
    engine.learn_off((), "user ann", 0)
    moment = [0]
    truth: list[FlowState | None] = [None]
    checked = Counter[FlowState | None]()
    done = threading.Event()

    def administrate() -> None:
        try:
            for number in range(400):
                state = states[number % len(states)]
                moment[0] += 1
                engine.set_state(key(443), state, "user ann", "", number)
                truth[0] = state
                moment[0] += 1
                if number % 7 == 0:
                    writer.flush()
                late = Packet(4, ADDRESS, SERVER, 6, 40000, 443, False)  # cannot make a flow
                decision = engine.decide(late, POLICY, MAC, number)
                assert (decision.verdict is Verdict.ACCEPT) == (state is FlowState.ALLOWED)
        finally:
            done.set()

    def send() -> None:
        late = Packet(4, ADDRESS, SERVER, 6, 40000, 443, False)
        last = False
        while not last:
            last = done.is_set()  # the round after the last change surely falls into one moment
            for port in (80, 81):
                engine.decide(packet(port), POLICY, MAC, 1)  # pushes the flow out of the cache
            before = moment[0]
            state = truth[0]
            decision = engine.decide(late, POLICY, MAC, 1)
            if before == moment[0] and before % 2 == 0:
                assert (decision.verdict is Verdict.ACCEPT) == (state is FlowState.ALLOWED), (state, decision)
                checked[state] += 1

    run_together(administrate, *[send] * THREADS)
    assert checked.total() > 0


def test_no_packet_is_lost_from_the_count(engine: Engine, store: Store, writer: Writer) -> None:
    ports, rounds = range(7), 300

    def send() -> None:
        for number in range(rounds):
            for port in ports:
                assert engine.decide(packet(port), POLICY, MAC, number).verdict is Verdict.ACCEPT

    run_together(*[send] * THREADS)
    writer.flush(timeout_s=60)
    assert {flow.key.port: flow.packets for flow in store.list()} == dict.fromkeys(ports, rounds * THREADS)
    assert engine.cache.hits + engine.cache.misses == len(ports) * rounds * THREADS


def test_a_flow_that_many_threads_meet_at_once_is_learned_once(
    engine: Engine, store: Store, writer: Writer, changes: list[Transition]
) -> None:
    whys: list[Why] = []

    def send() -> None:
        whys.extend(engine.decide(packet(port), POLICY, MAC, 1).why for port in range(200))

    run_together(*[send] * THREADS)
    writer.flush(timeout_s=60)
    assert Counter(whys)[Why.FIRST_USE] == len(changes) == store.count() == engine.counts()[FlowState.ALLOWED] == 200


def test_limits_hold_to_the_flow_however_many_threads_learn(store: Store, engine: Engine, writer: Writer) -> None:
    limited = type(engine)(
        [POLICY],
        store=store,
        cache=engine.cache,
        switch=engine.switch,
        limits=Limits(learn_max_per_source=10, learn_max=25),
        on_change=lambda _change: None,
    )
    macs = [bytes([2, 0, 0, 0, 0, number]) for number in range(4)]

    def send() -> None:
        for port in range(40):
            for mac in macs:
                limited.decide(packet(port), POLICY, mac, 1)

    run_together(*[send] * THREADS)
    writer.flush(timeout_s=60)
    assert store.counts()[FlowState.ALLOWED] == store.counts()[FlowState.PENDING] == 25
    assert max(store.count_source(mac) for mac in macs) <= (10, 10)


def test_changes_are_told_in_the_order_in_which_they_held(
    engine: Engine, writer: Writer, store: Store, changes: list[Transition]
) -> None:
    def administrate(name: str) -> Callable[[], None]:
        def change() -> None:
            for number in range(150):
                state = (*FlowState, None)[(number * 7 + len(name)) % 5]
                engine.set_state(key(443), state, name, "", number)

        return change

    run_together(administrate("user ann"), administrate("user bob!"), administrate("user christopher"))
    writer.flush(timeout_s=60)
    assert [change.before for change in changes] == [None, *(change.after for change in changes[:-1])]
    assert store.transitions(key(443)) == changes
    flow = store.find(key(443))
    assert (None if flow is None else flow.state) is changes[-1].after


def test_packets_do_not_wait_for_a_database_that_cannot_be_written(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the write lock for as long as the packets take; the writer tries for as long."""
    monkeypatch.setattr(database_module, "WRITE_WAIT_S", 3600)
    engine.set_state(key(1), FlowState.DENIED, "user ann", "", 1)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = Writer(store, engine.cache, interval_s=0.0005)
        writer.start()
        try:
            whys = Counter(engine.decide(packet(port), POLICY, MAC, 1).why for port in range(500))
            assert whys == {Why.FIRST_USE: 499, Why.DENIED: 1}
            assert engine.set_state(key(2), FlowState.DENIED, "user ann", "", 2) is not None
            assert engine.decide(packet(2), POLICY, MAC, 3).why is Why.DENIED
            assert store.count() == 0
        finally:
            other.execute("ROLLBACK")
            writer.close(timeout_s=60)
    assert store.counts() == engine.counts()
    assert store.count() == 500


def test_learning_switched_off_is_off_for_every_thread(
    engine: Engine, writer: Writer, changes: list[Transition]
) -> None:
    done = threading.Event()

    def learned() -> int:
        return sum(change.after is FlowState.ALLOWED for change in changes)

    def administrate() -> None:
        try:
            for number in range(100):
                engine.learn_off((), "user ann", number)
                before = learned()
                for port in range(5):
                    engine.decide(packet(port), POLICY, MAC, number)
                writer.flush()
                assert learned() == before
                engine.learn_on((), None, "user ann", number)
        finally:
            done.set()

    def send(mac: bytes) -> Callable[[], None]:
        def run() -> None:
            for port in range(3000):
                engine.decide(packet(port), POLICY, mac, 1)
                if done.is_set():
                    return

        return run

    run_together(administrate, *[send(bytes([2, 0, 0, 0, 0, number])) for number in range(2, 2 + THREADS)])


@pytest.mark.parametrize("engine", ["compiled"], indirect=True)
def test_no_answer_of_the_compiled_rules_is_of_the_time_before(engine: Asked, writer: Writer) -> None:
    """Threads do nothing but ask these, while another denies and allows: once set_state has returned, no answer that is
    begun says otherwise."""
    engine.decide(packet(443), POLICY, MAC, 1)
    ask, payload, mark = engine.holder.compiled.state, wire(packet(443)), mark_of(POLICY.number)
    seen, moment, states = Counter[int](), [0], (FlowState.DENIED, FlowState.ALLOWED)
    done = threading.Event()

    def administrate() -> None:
        try:
            for number in range(400):
                moment[0] += 1  # odd: between two states
                engine.set_state(key(443), states[number % 2], "user ann", "", number)
                moment[0] += 1
                for _ in range(2):
                    engine.decide(packet(443), POLICY, MAC, number)  # into the table again
                assert ask(mark, payload, MAC, number) == TABLE_STATES[states[number % 2]]
                answers, deadline = seen.total(), time.monotonic() + 20
                while seen.total() == answers and time.monotonic() < deadline:
                    time.sleep(0)  # one answer at least belongs to this moment alone
        finally:
            done.set()

    def send() -> None:
        while not done.is_set():
            before = moment[0]
            state = ask(mark, payload, MAC, 1)
            if before == moment[0] and before % 2 == 0 and before and state:
                assert state == TABLE_STATES[states[(before // 2 - 1) % 2]]
                seen[state] += 1

    run_together(administrate, *[send] * THREADS)
    assert seen.keys() == {TABLE_STATES[state] for state in states}
