"""The reader of a log group, with real packets: a client's datagrams to a firewall that logs and drops each."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic import native
from glacic.config.model import Identity
from glacic.config.policies import LearningPolicy
from glacic.ctlplane import netlink, nflog
from glacic.ctlplane.netlink import Logged
from glacic.ctlplane.nflog import FALL, LOOK_NS, MANY, RISE, LogReader, policy_of
from glacic.ctlplane.reading import Holder, Rules
from glacic.errors import KernelRefused
from glacic.lab.net import Network, Port
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Decision, FlowKey, FlowState, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch

MAC = bytes.fromhex("020000000001")
GROUP = 7
Make = Callable[..., LogReader]
IPV4_UDP = bytes.fromhex("4500 001c 0001 0000 4011 0000 0a000001 0a000002  0fa0 0035 0008 0000")
INPUT = LearningPolicy(name="DROP_INPUT", number=1)
LAN = LearningPolicy(name="lan_wan", number=3)
INPUT_BY_IP = LearningPolicy(name="DROP_INPUT", number=4, identity=Identity.IP)


class Scripted:
    """An engine that answers as told, and remembers what it was asked."""

    def __init__(self, answer: Decision | Exception | None = None) -> None:
        self.policies = {policy.number: policy for policy in (INPUT, LAN, INPUT_BY_IP)}
        self.by_name = {INPUT.name: INPUT, LAN.name: LAN}
        self.store_trouble = "disk full"
        self.cache = SimpleNamespace(table=None)
        self.answer = answer or Decision(Verdict.DROP, Why.NEW_PENDING)
        self.asked: list[tuple[Packet, LearningPolicy | None, bytes | None]] = []

    def decide(self, packet: Packet, policy: LearningPolicy | None, mac: bytes | None, now_ns: int) -> Decision:
        self.asked.append((packet, policy, mac))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def rules(self) -> Rules:
        return Rules(engine=cast(Engine, self), highest_number=4)


class Bed:
    """The firewall's namespace, which logs and drops what comes in, and the client's."""

    def __init__(self, network: Network) -> None:
        self.fw, self.client = network.host("fw"), network.host("client")
        network.cable(
            Port(self.client, "eth0", MAC.hex(":"), ("10.0.0.1/24", "fd00::1/64")),
            Port(self.fw, "lan0", "02:00:00:00:00:02", ("10.0.0.2/24", "fd00::2/64")),
        )

    def log(self, prefix: str = "lan_wan: ", before: str = "") -> None:
        hook = "type filter hook input priority 0; policy accept;"
        rule = f'log group {GROUP} prefix "{prefix}" counter drop'
        text = f"table inet bed {{ chain input {{ {hook}\n meta l4proto != udp accept\n {before}\n {rule}\n }}\n}}"
        self.fw.run(["nft", "-f", "-"], text=text)

    def send(self, count: int = 1, *, to: str = "10.0.0.2") -> None:
        def send() -> None:
            family = socket.AF_INET6 if ":" in to else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                for _ in range(count):
                    sock.sendto(b"?", (to, 53))

        self.client.call(send)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@contextlib.contextmanager
def running(reader: LogReader) -> Iterator[LogReader]:
    """The reader, reading in a thread of its own."""
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        yield reader
    finally:
        reader.stop()
        thread.join(10)
        assert not thread.is_alive()


def received(reader: LogReader) -> int:
    return int(reader.stats()["received"])


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Network() as network:
        yield Bed(network)


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@pytest.fixture(params=["compiled", "python"])
def log_reader(request: pytest.FixtureRequest) -> Make:
    """What makes a reader, with one of the two loops."""
    compiled = request.param == "compiled"
    assert native.road is not None or not compiled, "the compiled part is not built: run make setup, or tools/native"
    return partial(LogReader, compiled=compiled)


@pytest.fixture
def reader(bed: Bed, engine: Scripted, log_reader: Make) -> Iterator[LogReader]:
    reader = log_reader(GROUP, Holder(engine.rules()))
    bed.fw.call(reader.open)
    yield reader
    reader.stop()


@pytest.mark.parametrize("to", ["10.0.0.2", "fd00::2"])
def test_a_logged_packet_is_told_to_the_engine_with_its_policy_and_mac(
    bed: Bed, engine: Scripted, reader: LogReader, to: str
) -> None:
    bed.log()
    with running(reader):
        bed.send(3, to=to)
        until(lambda: received(reader) == 3)
    packet, policy, mac = engine.asked[0]
    assert (packet.version, packet.protocol, packet.port) == (6 if ":" in to else 4, 17, 53)
    assert (policy, mac) == (LAN, MAC)
    stats = reader.stats()
    assert (stats["num"], stats["lost"], stats["decisions"]) == (GROUP, 0, {"new flow, pending": 3})


@pytest.mark.parametrize(
    ("prefix", "before", "policy"),
    [
        ("DROP_INPUT: ", "", INPUT),
        ("DROP_INPUT: ", "meta mark set 0x00841234", INPUT_BY_IP),
        ("DROP_INPUT: ", "meta mark set 0x00831234", INPUT),  # the mark of a policy of another name
        ("lan_wan: ", "meta mark set 0x00841234", LAN),
        ("lan_wan: ", "meta mark set 0xffffffff", LAN),
        ("lan_wan", "", LAN),
        ("other: ", "", None),
        ("", "", None),
    ],
)
def test_the_prefix_names_the_policy_and_the_mark_its_variant(
    bed: Bed, engine: Scripted, reader: LogReader, prefix: str, before: str, policy: LearningPolicy | None
) -> None:
    bed.log(prefix, before)
    with running(reader):
        bed.send()
        until(lambda: received(reader) == 1)
    assert engine.asked[0][1] == policy


def test_the_loopback_has_no_macs(bed: Bed, engine: Scripted, reader: LogReader) -> None:
    bed.log()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", ("127.0.0.1", 53))

    with running(reader):
        bed.fw.call(send)
        until(lambda: received(reader) == 1)
    assert engine.asked[0][2] is None


def test_under_load_many_packets_come_in_one_read(bed: Bed, engine: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells the kernel so is the same in both loops (tests/native/test_log.py); here the kernel does it."""
    monkeypatch.setattr(nflog, "RISE", 40)  # 2,000 a second: what a busy machine can send beside other tests
    monkeypatch.setattr(nflog, "FALL", 10)
    bed.log()
    reads = 0

    class Counting(LogReader):
        def _read(self, datagram: bytes) -> None:
            nonlocal reads
            reads += 1
            super()._read(datagram)

    reader = Counting(GROUP, Holder(engine.rules()), compiled=False)
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: received(reader) == reads == 1)  # one packet comes by itself
        until(lambda: not bed.send(50) and received(reader) > 10 * reads)
    assert reader.stats()["lost"] == 0


def test_what_did_not_fit_is_counted_as_lost(bed: Bed, engine: Scripted, log_reader: Make) -> None:
    bed.log()
    reader = log_reader(GROUP, Holder(engine.rules()), receive_buffer=4096)
    bed.fw.call(reader.open)
    bed.send(3000)  # while nobody reads
    with running(reader):
        until(lambda: reader.stats()["overruns"] > 0)
        until(lambda: not bed.send() and received(reader) + reader.stats()["lost"] >= 3001)
    assert reader.stats()["lost"] > 0
    assert len(engine.asked) == received(reader)


def test_sequence_numbers_may_wrap_around(engine: Scripted) -> None:
    reader = LogReader(GROUP, Holder(engine.rules()), compiled=False)
    for sequence in (0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1):
        reader._count_lost(sequence)
    assert reader.stats()["lost"] == 0
    reader._count_lost(5)
    reader._count_lost(None)
    assert reader.stats()["lost"] == 3


def test_a_group_has_one_owner(bed: Bed, engine: Scripted, reader: LogReader, log_reader: Make) -> None:
    with pytest.raises(KernelRefused, match=f"another program owns log group {GROUP}"):
        bed.fw.call(log_reader(GROUP, Holder(engine.rules())).open)


def test_what_came_while_it_was_opened_is_read_first(bed: Bed, engine: Scripted, reader: LogReader) -> None:
    bed.log()
    body = netlink.generic(2) + netlink.attribute(10, b"DROP_INPUT: \0") + netlink.attribute(9, IPV4_UDP)
    reader._early.append(netlink.message(netlink.NFULNL_MSG_PACKET, body))
    bed.send()
    with running(reader):
        until(lambda: len(engine.asked) == 2)
    assert [policy and policy.name for _, policy, _ in engine.asked] == ["DROP_INPUT", "lan_wan"]


def test_it_gives_the_group_up_when_it_stops(bed: Bed, engine: Scripted, reader: LogReader, log_reader: Make) -> None:
    with running(reader):
        pass
    other = log_reader(GROUP, Holder(engine.rules()))
    bed.fw.call(other.open)
    other.stop()
    other.run()  # returns at once
    bed.fw.call(log_reader(GROUP, Holder(engine.rules())).open).stop()


def test_an_engine_that_fails_does_not_end_it(bed: Bed, engine: Scripted, log_reader: Make) -> None:
    bed.log()
    troubles: list[str] = []
    reader = log_reader(GROUP, Holder(engine.rules()), on_trouble=troubles.append)
    bed.fw.call(reader.open)
    with running(reader):
        engine.answer = ValueError("boom")
        bed.send()
        until(lambda: len(troubles) == 1)
        engine.answer = Decision(Verdict.DROP, Why.STORE_UNAVAILABLE)
        bed.send()
        until(lambda: len(troubles) == 2)
    assert troubles == ["log group 7: ValueError: boom", "log group 7: disk full"]
    assert reader.stats()["engine_errors"] == 2


def test_new_rules_hold_for_the_next_packet(bed: Bed, engine: Scripted, log_reader: Make) -> None:
    bed.log()
    holder = Holder(engine.rules())
    reader = log_reader(GROUP, holder)
    bed.fw.call(reader.open)
    other = Scripted()
    with running(reader):
        bed.send()
        until(lambda: received(reader) == 1)
        holder.rules = other.rules()
        bed.send()
        until(lambda: received(reader) == 2)
    assert (len(engine.asked), len(other.asked)) == (1, 1)
    assert holder.engine is cast(Any, other)


@pytest.mark.parametrize("payload", [b"", b"\x45", b"\x60" + bytes(39), b"\xff" * 128])
def test_an_unreadable_packet_is_counted_by_its_reason(engine: Scripted, payload: bytes) -> None:
    reader = LogReader(GROUP, Holder(engine.rules()), compiled=False)
    prefix = netlink.attribute(10, b"lan_wan: \0")
    reader._read(
        netlink.message(netlink.NFULNL_MSG_PACKET, netlink.generic(2) + prefix + netlink.attribute(9, payload))
    )
    stats = reader.stats()
    assert (stats["received"], sum(stats["unreadable"].values()) + len(engine.asked)) == (1, 1)


@contextlib.contextmanager
def learning(changes: list[Transition]) -> Iterator[Engine]:
    """The engine itself, over a database in memory."""
    with Store.temporary() as store:
        yield Engine(
            [LAN],
            store=store,
            cache=open_cache(store, 100),
            switch=LearningSwitch.restore(None, file_mode=True, learn_for_s=None, policies=["lan_wan"], now_ns=0),
            limits=Limits(),
            on_change=changes.append,
        )


def test_a_flow_is_learned_from_a_packet_that_was_dropped(bed: Bed, log_reader: Make) -> None:
    """The whole road, with the engine itself."""
    bed.log()
    changes: list[Transition] = []
    with learning(changes) as engine:
        reader = log_reader(GROUP, Holder(Rules(engine=engine, highest_number=3)))
        bed.fw.call(reader.open)
        with running(reader):
            bed.send(2)
            until(lambda: received(reader) == 2)
    assert reader.stats()["decisions"] == {"learned on first use": 1, "cached allow": 1}
    assert [(change.key, change.after) for change in changes] == [(FlowKey("lan_wan", MAC, 17, 53), FlowState.ALLOWED)]


def test_every_packet_of_a_known_flow_is_counted_whatever_becomes_of_the_flow(bed: Bed, log_reader: Make) -> None:
    """In the reader, in the cache, and in what the database gets: by both loops alike."""
    bed.log()
    key = FlowKey("lan_wan", MAC, 17, 53)
    with learning([]) as engine:
        reader = log_reader(GROUP, Holder(Rules(engine=engine, highest_number=3)))
        bed.fw.call(reader.open)
        with running(reader):
            for number, state in enumerate([*FlowState, *FlowState]):
                engine.set_state(key, state, "user ann", "", number)
                bed.send(40)
                bed.send(10, to="fd00::2")
                until(lambda number=number: received(reader) == 50 * (number + 1))
        batch = engine.cache.take()
        assert batch is not None
        assert [row.packets for row in batch.added] == [400]
        assert sorted(address for _, address, _ in batch.addresses) == [
            socket.inet_pton(socket.AF_INET, "10.0.0.1"),
            socket.inet_pton(socket.AF_INET6, "fd00::1"),
        ]
        assert (engine.cache.hits, engine.cache.misses) == (400, 0)
    assert reader.stats()["decisions"] == {"pending": 100, "cached allow": 100, "denied": 100, "ignored": 100}
    if reader.stats()["compiled"]:
        assert sum(reader._native.figures()["by_state"]) > 350  # all but the first few of each state


def test_a_mark_counts_only_with_the_prefix_of_its_policy(engine: Scripted) -> None:
    rules = engine.rules()
    assert policy_of(Logged(prefix="DROP_INPUT: ", mark=0x0084_0000), rules) is INPUT_BY_IP
    assert policy_of(Logged(prefix="DROP_INPUT: ", mark=0x0004_0000), rules) is INPUT  # nobody asked
    assert policy_of(Logged(prefix="DROP_INPUT: : ", mark=0), rules) is None


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 100_000_000)), max_size=30))
def test_in_python_it_follows_the_load_by_the_same_rule(looks: list[tuple[int, int]]) -> None:
    """The rule in words: look at most every LOOK_NS; compare the packets of a look's length with RISE and FALL."""
    sent: list[bytes] = []
    reader = LogReader(GROUP, Holder(Scripted().rules()), compiled=False)
    reader._netlink = cast(Any, SimpleNamespace(socket=SimpleNamespace(send=sent.append)))
    expected: list[bytes] = []
    now_ns, looked_ns, seen, waits_for = 10**12, 0, 0, 1
    for packets, later_ns in looks:
        now_ns += later_ns
        seen += packets
        reader._follow_load(packets, now_ns)
        if now_ns - looked_ns >= LOOK_NS:
            per_look = seen // ((now_ns - looked_ns) // LOOK_NS)
            wanted = MANY if per_look >= RISE else 1 if per_look < FALL else waits_for
            if wanted != waits_for:
                expected.append(netlink.nflog_wait_for(GROUP, wanted))
            looked_ns, seen, waits_for = now_ns, 0, wanted
    assert sent == expected
