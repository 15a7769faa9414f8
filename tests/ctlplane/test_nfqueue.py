"""The inline reader, with real packets: a client's datagrams to a firewall that hands each to a queue.

    client  10.0.0.1, fd00::1  02:..:01  ----eth0/lan0----  fw  10.0.0.2, fd00::2

The kernel's queue is reached through the xtables NFQUEUE target, which every kernel with nfnetlink_queue has; tests/vm
does the same with nftables' own statement. A chain behind the queue counts what the reader answered, by its mark.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from glacic import native
from glacic.config.model import Action
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.nfqueue import QueueReader, QueueTruth, SinkQueue, Truth, queue_truth
from glacic.ctlplane.reading import Holder, Rules
from glacic.errors import KernelRefused, StoreError
from glacic.firewall.claims import mark_of
from glacic.lab.net import Network, Port
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import Decision, FlowKey, FlowState, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch

MAC = bytes.fromhex("020000000001")
LAN = LearningPolicy(name="lan_wan", number=3)
ASKED_LAN = 0x0083_0000
QUEUE = 100
Make = Callable[..., QueueReader]

ACCEPT = Decision(Verdict.ACCEPT, Why.CACHED_ALLOW)
DROP = Decision(Verdict.DROP, Why.PENDING)
REJECT = Decision(Verdict.REJECT, Why.DENIED)

BEHIND = """
table inet behind {
    counter clean { }
    counter asked { }
    counter rejected { }
    counter over { }
    counter routed { }
    chain input {
        type filter hook input priority 10; policy accept;
        meta l4proto != { udp, icmp, tcp } accept
        meta mark & 0x00ff0000 == 0 counter name clean
        meta mark & 0x00800000 != 0 counter name asked
        meta mark & 0x00ff0000 == 0x00400000 counter name rejected
        meta mark & 0x00ff0000 == 0x00010000 counter name over
        meta mark & 0xff00ffff == 0x12001234 counter name routed
    }
}
"""


class Scripted:
    """An engine that answers as told, and remembers what it was asked."""

    def __init__(self, answer: Decision | Exception = ACCEPT) -> None:
        self.policies = {LAN.number: LAN}
        self.by_name = {LAN.name: LAN}
        self.store_trouble = "disk full"
        self.cache = SimpleNamespace(table=None)
        self.answer = answer
        self.asked: list[tuple[Packet, LearningPolicy | None, bytes | None]] = []

    def decide(self, packet: Packet, policy: LearningPolicy | None, mac: bytes | None, now_ns: int) -> Decision:
        self.asked.append((packet, policy, mac))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def rules(self, **settings: Any) -> Rules:
        return Rules(engine=cast(Engine, self), highest_number=LAN.number, **settings)


class Bed:
    """The firewall's namespace with its queue rules, and the client's."""

    def __init__(self, network: Network) -> None:
        self.fw, self.client = network.host("fw"), network.host("client")
        network.cable(
            Port(self.client, "eth0", MAC.hex(":"), ("10.0.0.1/24", "fd00::1/64")),
            Port(self.fw, "lan0", "02:00:00:00:00:02", ("10.0.0.2/24", "fd00::2/64")),
        )
        self.fw.run(["nft", "-f", "-"], text=BEHIND)
        self.truth = self.fw.call(QueueTruth)

    def ask(self, mark: int = ASKED_LAN, number: int = QUEUE, *match: str, field: int = 0x00FF0000) -> None:
        """Sends what comes in (UDP, unless `match` says otherwise) to the queue, with this field in its mark."""
        rule = list(match or ("-p", "udp"))
        marking = ["-j", "MARK", "--set-xmark", f"{mark:#x}/{field:#x}"]
        for command in ("iptables-nft", "ip6tables-nft"):
            self.fw.run([command, "-t", "mangle", "-A", "INPUT", "-j", "MARK", "--set-xmark", "0x12001234/0xff00ffff"])
            self.fw.run([command, "-t", "mangle", "-A", "INPUT", *rule, *marking])
            self.fw.run([command, "-A", "INPUT", *rule, "-j", "NFQUEUE", "--queue-num", str(number), "--queue-bypass"])

    def send(self, count: int = 1, *, to: str = "10.0.0.2", port: int = 53, source_port: int = 4000) -> None:
        """Datagrams from the client."""

        def send() -> None:
            family = socket.AF_INET6 if ":" in to else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind(("", source_port))
                for _ in range(count):
                    sock.sendto(b"?", (to, port))

        self.client.call(send)

    def counters(self) -> dict[str, int]:
        """What came out behind the queue."""
        listed = json.loads(self.fw.run(["nft", "-j", "list", "counters", "table", "inet", "behind"]).stdout)
        rows = [item["counter"] for item in listed["nftables"] if "counter" in item]
        return {row["name"]: row["packets"] for row in rows}

    def queue(self, number: int = QUEUE) -> Truth:
        return self.truth.read()[number]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@contextlib.contextmanager
def running(reader: QueueReader) -> Iterator[QueueReader]:
    """The reader, answering in a thread of its own."""
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        yield reader
    finally:
        reader.stop()
        thread.join(10)
        assert not thread.is_alive()


def answered_many(reader: QueueReader) -> bool:
    return processed(reader) > 300


def processed(reader: QueueReader) -> int:
    return int(reader.stats()["processed"])


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Network() as network:
        bed = Bed(network)
        yield bed
        bed.truth.close()


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@pytest.fixture(params=["compiled", "python"])
def queue_reader(request: pytest.FixtureRequest) -> Make:
    """What makes a reader, with one of the two loops."""
    compiled = request.param == "compiled"
    assert native.road is not None or not compiled, "the compiled part is not built: run make setup, or tools/native"
    return partial(QueueReader, compiled=compiled)


@pytest.fixture
def reader(bed: Bed, engine: Scripted, queue_reader: Make) -> Iterator[QueueReader]:
    """Bound, not running yet; the client's UDP goes to it."""
    reader = queue_reader(QUEUE, Holder(engine.rules()))
    bed.ask()
    bed.fw.call(reader.open)
    yield reader
    reader.stop()


@pytest.mark.parametrize("to", ["10.0.0.2", "fd00::2"])
def test_an_accepted_packet_goes_on_with_its_field_cleared_and_the_other_bits_kept(
    bed: Bed, engine: Scripted, reader: QueueReader, to: str
) -> None:
    with running(reader):
        bed.send(3, to=to)
        until(lambda: processed(reader) == 3)
    assert bed.counters() == {"clean": 3, "asked": 0, "rejected": 0, "over": 0, "routed": 3}
    assert reader.stats()["accepted"] == 3
    packet, policy, mac = engine.asked[0]
    assert (packet.version, packet.protocol, packet.port, packet.source_port) == (6 if ":" in to else 4, 17, 53, 4000)
    assert (policy, mac) == (LAN, MAC)


def test_a_dropped_packet_is_gone(bed: Bed, engine: Scripted, reader: QueueReader) -> None:
    engine.answer = DROP
    with running(reader):
        bed.send(2)
        until(lambda: processed(reader) == 2)
    assert set(bed.counters().values()) == {0}
    stats = reader.stats()
    assert (stats["dropped"], stats["decisions"]) == (2, {"pending": 2})


def test_a_rejected_packet_goes_on_with_the_reject_bit_alone(bed: Bed, engine: Scripted, reader: QueueReader) -> None:
    engine.answer = REJECT
    with running(reader):
        bed.send(2)
        until(lambda: processed(reader) == 2)
    assert bed.counters() == {"clean": 0, "asked": 0, "rejected": 2, "over": 0, "routed": 2}
    stats = reader.stats()
    assert (stats["dropped"], stats["rejected"], stats["accepted"]) == (2, 2, 0)


@pytest.mark.parametrize("mark", [0x0084_0000, 0x0000_0000, 0x0003_0000], ids=["another number", "none", "not asked"])
def test_a_mark_that_names_no_policy_is_told_to_the_engine_as_none(
    bed: Bed, engine: Scripted, mark: int, queue_reader: Make
) -> None:
    reader = queue_reader(QUEUE, Holder(engine.rules()))
    bed.ask(mark)
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert engine.asked[0][1] is None


@pytest.mark.parametrize(
    "failure", [ValueError("boom"), Decision(Verdict.DROP, Why.STORE_UNAVAILABLE)], ids=["it raises", "no store"]
)
def test_what_the_engine_cannot_decide_is_dropped(
    bed: Bed, engine: Scripted, reader: QueueReader, failure: Decision | Exception
) -> None:
    engine.answer = failure
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert set(bed.counters().values()) == {0}
    assert reader.stats()["engine_errors"] == 1


@pytest.mark.parametrize(
    "failure", [ValueError("boom"), Decision(Verdict.DROP, Why.STORE_UNAVAILABLE)], ids=["it raises", "no store"]
)
def test_with_engine_error_open_it_goes_on_and_still_says_asked(
    bed: Bed, engine: Scripted, failure: Decision | Exception, queue_reader: Make
) -> None:
    engine.answer = failure
    troubles: list[str] = []
    reader = queue_reader(QUEUE, Holder(engine.rules(engine_error_open=True)), on_trouble=troubles.append)
    bed.ask()
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert bed.counters() == {"clean": 0, "asked": 1, "rejected": 0, "over": 0, "routed": 1}
    assert reader.stats()["accepted"] == 1
    assert troubles == ["queue 100: ValueError: boom" if isinstance(failure, ValueError) else "queue 100: disk full"]


class Disk:
    """News that has to be on disk before the verdict is given."""

    waits = False

    def __init__(self, trouble: str = "") -> None:
        self.trouble = trouble
        self.accepted_before: list[int] = []
        self.counted: Callable[[], int] = lambda: 0

    def commit(self) -> None:
        self.accepted_before.append(self.counted())
        if self.trouble:
            raise StoreError(self.trouble)

    def tell(self) -> None:
        pass


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
@pytest.mark.parametrize("trouble", ["", "disk full"])
def test_a_verdict_waits_for_the_disk_and_without_one_engine_error_says(
    bed: Bed, engine: Scripted, queue_reader: Make, is_open: bool, trouble: str
) -> None:
    engine.answer = Decision(Verdict.ACCEPT, Why.FIRST_USE, learned=True, waits=True)
    disk = Disk(trouble)
    reader = queue_reader(QUEUE, Holder(engine.rules(engine_error_open=is_open), disk))
    disk.counted = lambda: sum(bed.counters().values())
    bed.ask()
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert disk.accepted_before == [0]
    counters = bed.counters()
    assert (counters["clean"], counters["asked"]) == (int(not trouble), int(bool(trouble) and is_open))
    assert reader.stats()["engine_errors"] == int(bool(trouble))


def test_more_policies_than_the_low_bits_can_number_take_the_top_byte(
    bed: Bed, engine: Scripted, queue_reader: Make
) -> None:
    last = LearningPolicy(name="last", number=70)
    engine.policies = {LAN.number: LAN, last.number: last}
    reader = queue_reader(QUEUE, Holder(Rules(engine=cast(Engine, engine), highest_number=70)))
    bed.ask(mark_of(70), field=0xFFFF0000)
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert engine.asked[0][1] is last
    assert bed.counters() == {"clean": 1, "asked": 0, "rejected": 0, "over": 0, "routed": 0}  # that byte is not theirs


def test_an_unreadable_packet_is_dropped_in_every_fail_mode(bed: Bed, engine: Scripted, queue_reader: Make) -> None:
    reader = queue_reader(QUEUE, Holder(engine.rules(engine_error_open=True)))
    bed.ask(ASKED_LAN, QUEUE, "-p", "tcp")
    bed.fw.call(reader.open)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
            sock.sendto(b"\x0f\xa0\0\x16", ("10.0.0.2", 0))  # two ports, and nothing behind them

    with running(reader):
        bed.client.call(send)
        until(lambda: processed(reader) == 1)
    assert set(bed.counters().values()) == {0}
    assert reader.stats()["unreadable"] == {"truncated": 1}
    assert reader.stats()["decisions"] == {"unreadable packet": 1}
    assert not engine.asked


def test_the_window_shows_so_many_packets_of_each_connection(bed: Bed, engine: Scripted, queue_reader: Make) -> None:
    reader = queue_reader(QUEUE, Holder(engine.rules(packet_window=3)))
    bed.ask(0x0080_0000)  # asked, and no policy: a packet of a connection that is accepted already
    bed.fw.call(reader.open)
    with running(reader):
        bed.send(2, source_port=4000)
        bed.send(2, source_port=4001)
        bed.send(1, source_port=4000)
        until(lambda: processed(reader) == 5)
    assert bed.counters() == {"clean": 4, "asked": 0, "rejected": 0, "over": 1, "routed": 5}
    assert reader.stats()["decisions"] == {"packet window": 5}
    assert not engine.asked


def test_the_first_packet_counts_in_its_window(bed: Bed, engine: Scripted, queue_reader: Make) -> None:
    reader = queue_reader(QUEUE, Holder(engine.rules(packet_window=1)))
    bed.ask()
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert bed.counters()["over"] == 1
    assert len(engine.asked) == 1


def test_the_loopback_has_no_macs(bed: Bed, engine: Scripted, reader: QueueReader) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"?", ("127.0.0.1", 53))

    with running(reader):
        bed.fw.call(send)
        until(lambda: processed(reader) >= 1)
    assert engine.asked[0][2] is None


def test_a_renamed_interface_changes_nothing(bed: Bed, engine: Scripted, reader: QueueReader) -> None:
    bed.fw.ip("link set lan0 down", "link set lan0 name other", "link set other up")
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
    assert engine.asked[0][1:] == (LAN, MAC)


def test_new_rules_answer_the_next_packet(bed: Bed, engine: Scripted, queue_reader: Make) -> None:
    holder = Holder(engine.rules())
    reader = queue_reader(QUEUE, holder)
    bed.ask()
    bed.fw.call(reader.open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)
        holder.rules = Scripted(DROP).rules()
        bed.send()
        until(lambda: processed(reader) == 2)
    assert bed.counters()["clean"] == 1
    assert reader.stats()["decisions"] == {"cached allow": 1, "pending": 1}


def test_nobody_listens_once_it_has_stopped(bed: Bed, reader: QueueReader) -> None:
    with running(reader):
        pass
    bed.send(5)
    until(lambda: bed.counters()["asked"] == 5)  # `bypass` lets in
    assert processed(reader) == 0
    assert bed.truth.read() == {}


def test_it_stops_while_packets_come_without_a_pause(bed: Bed, reader: QueueReader) -> None:
    enough = threading.Event()

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not enough.is_set():
                sock.sendto(b"?", ("10.0.0.2", 53))

    sender = threading.Thread(target=bed.client.call, args=(flood,))
    sender.start()
    try:
        with running(reader):
            until(lambda: processed(reader) > 500)
    finally:
        enough.set()
        sender.join()
    assert bed.truth.read() == {}


def test_stopped_before_it_ran_it_gives_the_queue_up(bed: Bed, reader: QueueReader) -> None:
    reader.stop()
    assert bed.truth.read() == {}
    reader.run()  # returns at once
    reader.stop()


def test_a_boundary_is_passed_when_what_is_being_answered_is(
    bed: Bed, engine: Scripted, reader: QueueReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, decide = threading.Event(), threading.Event(), engine.decide

    def slow(*arguments: Any) -> Decision:
        asked.set()
        go_on.wait(20)
        return decide(*arguments)

    monkeypatch.setattr(engine, "decide", slow)
    with running(reader):
        assert reader.pass_boundary(0.01)  # nothing is being answered
        bed.send()
        assert asked.wait(20)
        assert not reader.pass_boundary(0.05)
        go_on.set()
        assert reader.pass_boundary(20)
        until(lambda: processed(reader) == 1)


def test_a_queue_has_one_owner(bed: Bed, engine: Scripted, reader: QueueReader, queue_reader: Make) -> None:
    with pytest.raises(KernelRefused, match=r"queue 100.*another program owns it"):
        bed.fw.call(queue_reader(QUEUE, Holder(engine.rules())).open)
    with running(reader):
        bed.send()
        until(lambda: processed(reader) == 1)


def test_what_waits_when_it_begins_is_answered(bed: Bed, reader: QueueReader) -> None:
    bed.send(20)
    until(lambda: bed.queue().depth == 20)
    with running(reader):
        until(lambda: processed(reader) == 20)
        assert bed.queue().depth == 0


def test_bound_in_a_stream_of_packets_it_leaves_none_unanswered(bed: Bed, engine: Scripted, queue_reader: Make) -> None:
    bed.ask()
    enough = threading.Event()

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not enough.is_set():
                sock.sendto(b"?", ("10.0.0.2", 53))

    sender = threading.Thread(target=bed.client.call, args=(flood,))
    sender.start()
    try:
        for _ in range(5):
            reader = queue_reader(QUEUE, Holder(engine.rules()))
            bed.fw.call(reader.open)
            with running(reader):
                until(partial(answered_many, reader))
    finally:
        enough.set()
        sender.join()
    reader = queue_reader(QUEUE, Holder(engine.rules()))
    bed.fw.call(reader.open)
    with running(reader):
        bed.send(10)
        until(lambda: bed.queue().depth == 0 and processed(reader) == 10)


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_full_queue_does_as_configured(bed: Bed, engine: Scripted, fail_open: bool, queue_reader: Make) -> None:
    reader = queue_reader(QUEUE, Holder(engine.rules()), fail_open=fail_open, max_length=5)
    bed.ask()
    bed.fw.call(reader.open)  # and nobody reads
    bed.send(20)
    if fail_open:
        until(lambda: bed.counters()["asked"] == 15)
    else:
        until(lambda: bed.queue().kernel_dropped == 15)
        assert bed.counters()["asked"] == 0
    assert bed.queue().depth == 5
    reader.stop()


def test_what_a_full_queue_does_can_be_changed_while_it_runs(bed: Bed, engine: Scripted, queue_reader: Make) -> None:
    reader = queue_reader(QUEUE, Holder(engine.rules()), max_length=5)
    bed.ask()
    bed.fw.call(reader.open)
    reader.set_fail_open(True)
    bed.send(7)
    until(lambda: bed.counters()["asked"] == 2)
    reader.set_fail_open(False)
    bed.send(4)
    until(lambda: bed.queue().kernel_dropped == 4)
    with running(reader):
        until(lambda: processed(reader) == 5)


def test_every_packet_is_counted_once_and_timed(bed: Bed, engine: Scripted, reader: QueueReader) -> None:
    with running(reader):
        bed.send(50)
        until(lambda: processed(reader) == 50)
        engine.answer = DROP
        bed.send(30)
        until(lambda: processed(reader) == 80)
    stats = reader.stats()
    assert (stats["num"], stats["accepted"], stats["dropped"], stats["verdict_errors"]) == (100, 50, 30, 0)
    times = reader.latency.summary([reader.latency])
    assert 0 < times["p50"] <= times["p99"] <= times["max"]


def test_the_sink_drops_while_it_is_held_and_lets_go_after(bed: Bed) -> None:
    bed.ask()
    sink = bed.fw.call(SinkQueue(QUEUE).open)
    bed.send(4)
    until(lambda: bed.queue().kernel_dropped == 4)
    assert bed.queue().depth == 0
    assert bed.counters()["asked"] == 0
    with pytest.raises(KernelRefused, match="queue 100"):
        bed.fw.call(SinkQueue(QUEUE).open)
    sink.close()
    bed.send(3)
    until(lambda: bed.counters()["asked"] == 3)


class Learning:
    """The engine itself over a database in memory, and a reader that asks it."""

    def __init__(self, bed: Bed, store: Store, queue_reader: Make, *policies: LearningPolicy) -> None:
        names = [policy.name for policy in policies]
        self.changes: list[Transition] = []
        self.cache = open_cache(store, 100)
        self.engine = Engine(
            policies,
            store=store,
            cache=self.cache,
            switch=LearningSwitch.restore(None, file_mode=True, learn_for_s=None, policies=names, now_ns=0),
            limits=Limits(),
            on_change=self.changes.append,
        )
        self.reader = queue_reader(QUEUE, Holder(Rules(engine=self.engine, highest_number=5)))
        bed.fw.call(self.reader.open)

    def set(self, state: FlowState | None, port: int = 53, policy: str = "lan_wan") -> None:
        """As a user does, and waits until what is being answered is answered."""
        self.engine.set_state(FlowKey(policy, MAC, 17, port), state, "user ann", "", 1)
        assert self.reader.pass_boundary(10)


@pytest.fixture
def learning(bed: Bed, queue_reader: Make) -> Iterator[Learning]:
    bed.ask()
    with Store.temporary() as store:
        yield Learning(bed, store, queue_reader, LAN)


def test_a_flow_is_learned_from_its_first_packet(bed: Bed, learning: Learning) -> None:
    """The whole road, with the engine itself."""
    with running(learning.reader):
        bed.send(2)
        until(lambda: processed(learning.reader) == 2)
    assert learning.reader.stats()["decisions"] == {"learned on first use": 1, "cached allow": 1}
    assert [(change.key, change.after) for change in learning.changes] == [
        (FlowKey("lan_wan", MAC, 17, 53), FlowState.ALLOWED)
    ]
    assert bed.counters()["clean"] == 2


class TestAKnownFlow:
    """Answered by the table in front where that is compiled; by the cache where it is not; in any case the same."""

    def test_is_answered_as_its_state_says_by_both_loops(self, bed: Bed, learning: Learning) -> None:
        accepted = 0
        with running(learning.reader):
            for turn, state in enumerate([*FlowState, *FlowState], 1):
                learning.set(state)
                bed.send(40)
                bed.send(10, to="fd00::2")
                until(lambda turn=turn: processed(learning.reader) == 50 * turn)
                accepted += 50 * (state is FlowState.ALLOWED)
                assert bed.counters() == {"clean": accepted, "asked": 0, "rejected": 0, "over": 0, "routed": accepted}
        stats = learning.reader.stats()
        assert stats["decisions"] == {"pending": 100, "cached allow": 100, "denied": 100, "ignored": 100}
        assert (stats["accepted"], stats["dropped"], stats["verdict_errors"]) == (100, 300, 0)
        if stats["compiled"]:
            assert learning.cache.hits == 400
            assert int(learning.cache.table.hits) > 350  # all but the first few of each state
        batch = learning.cache.take()
        assert batch is not None
        assert [row.packets for row in batch.added] == [400]
        assert len(batch.addresses) == 2

    def test_is_rejected_where_its_policy_does(self, bed: Bed, queue_reader: Make) -> None:
        guests = LearningPolicy(name="guest_wan", number=5, action=Action.REJECT)
        bed.ask(mark_of(5))
        with Store.temporary() as store:
            learning = Learning(bed, store, queue_reader, LAN, guests)
            learning.set(FlowState.DENIED, policy="guest_wan")
            with running(learning.reader):
                bed.send(30)
                until(lambda: processed(learning.reader) == 30)
        assert bed.counters() == {"clean": 0, "asked": 0, "rejected": 30, "over": 0, "routed": 30}

    def test_among_others_gets_no_answer_of_theirs(self, bed: Bed, learning: Learning) -> None:
        """Allowed, denied and new ones in turn, faster than they are answered: many in one read."""
        learning.set(FlowState.ALLOWED, 53)
        learning.set(FlowState.DENIED, 54)

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number in range(300):
                    for port in (53, 53, 54, 54, 1000 + number):
                        sock.sendto(b"?", ("10.0.0.2", port))

        learning.engine.learn_off((), "user ann", 2)
        bed.client.call(send)  # before it runs: up to 1,024 wait
        with running(learning.reader):
            until(lambda: bed.queue().depth == 0)
            bed.client.call(send)
            until(lambda: bed.queue().depth == 0)
        stats = learning.reader.stats()
        waiting = bed.counters()
        assert waiting["clean"] == stats["decisions"]["cached allow"] == stats["accepted"] > 600
        assert waiting["asked"] == stats["verdict_errors"] == 0

    def test_that_is_denied_in_a_flood_gets_nothing_through_from_then_on(self, bed: Bed, learning: Learning) -> None:
        enough = threading.Event()

        def flood() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                while not enough.is_set():
                    sock.sendto(b"?", ("10.0.0.2", 53))

        sender = threading.Thread(target=bed.client.call, args=(flood,))
        with running(learning.reader):
            sender.start()
            try:
                for _ in range(10):
                    learning.set(FlowState.ALLOWED)
                    before = bed.counters()["clean"]
                    until(lambda before=before: bed.counters()["clean"] > before)
                    learning.set(FlowState.DENIED)
                    after, dropped = bed.counters()["clean"], learning.reader.stats()["dropped"]
                    until(lambda dropped=dropped: learning.reader.stats()["dropped"] > dropped + 20)
                    assert bed.counters()["clean"] == after
            finally:
                enough.set()
                sender.join()

    def test_is_asked_about_again_where_new_rules_say_more(self, bed: Bed, learning: Learning) -> None:
        """A packet window counts packets by connection, which is Python's: every second one is a window's last."""
        with running(learning.reader):
            bed.send(10)
            until(lambda: processed(learning.reader) == 10)
            learning.reader._holder.rules = Rules(engine=learning.engine, highest_number=5, packet_window=2)
            bed.send(10)
            until(lambda: processed(learning.reader) == 20)
        assert bed.counters() == {"clean": 15, "asked": 0, "rejected": 0, "over": 5, "routed": 20}


def test_the_figures_of_the_kernel_are_read_by_column() -> None:
    text = "  100  12345     7 2   128    11     3     4711  1\n    5      1     0 0     0     0     0        0  1\n"
    assert queue_truth(text) == {100: Truth(7, 11, 3, 4711), 5: Truth(0, 0, 0, 0)}


@pytest.mark.parametrize("text", ["", "\n", "queue 1", "1 2 3", "1 2 x 4 5 6 7 8", "\0\0"])
def test_what_are_no_figures_is_left_out(text: str) -> None:
    assert queue_truth(text) == {}


def test_the_figures_are_read_again_from_the_file_that_is_open(bed: Bed, reader: QueueReader) -> None:
    before = bed.queue()
    bed.send(2)
    until(lambda: bed.queue().depth == 2)
    assert (before.depth, bed.queue().id_sequence - before.id_sequence) == (0, 2)
