"""The loop of the log reader against LogReader's own, its slow twin; and what both say to the kernel about its load."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glacic import native
from glacic.config.model import Action, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.ctlplane import netlink
from glacic.ctlplane.nflog import LOOK_NS, MANY, LogReader
from glacic.ctlplane.reading import Holder, Rules
from glacic.firewall import claims
from glacic.learning.cache import FlowCache
from glacic.learning.census import Census
from glacic.learning.engine import Engine
from glacic.learning.flow import Decision, Flow, FlowKey, FlowState, Verdict, Why
from glacic.learning.packet import Packet

from .conftest import (
    CLIENT,
    MAC,
    NOT_BUILT,
    TCP,
    UDP,
    Kernel,
    attribute,
    ipv4,
    ipv6,
    logged,
    message,
    syn,
    tcp,
    udp,
)

GROUP = 7
POLICIES = (
    LearningPolicy(name="DROP_INPUT", number=1),
    LearningPolicy(name="lan_wan", number=3, action=Action.REJECT, granularity=Granularity.DESTINATION),
    LearningPolicy(name="DROP_INPUT", number=4, identity=Identity.IP),
    LearningPolicy(name="höchstens: ", number=5),
)


class Stored:
    """An engine over a real cache; the database has a flow for every port but 9, in a state by its port and source."""

    def __init__(self, *, compiled: bool) -> None:
        self.cache = FlowCache(50, Census({}, 0, lambda _source: (0, 0)), compiled=compiled)
        self.policies = {policy.number: policy for policy in POLICIES}
        self.by_name = {policy.name: policy for policy in reversed(POLICIES)}

    def decide(self, packet: Packet, policy: LearningPolicy | None, mac: bytes | None, now_ns: int) -> Decision:
        if policy is None:
            return Decision(Verdict.DROP, Why.NO_POLICY)
        by_mac = mac is not None and policy.identity is Identity.MAC
        source = mac if mac is not None and by_mac else packet.source
        destination = packet.destination if policy.granularity is Granularity.DESTINATION else b""
        key = FlowKey(policy.name, source, packet.protocol, packet.port, destination)
        state = self.cache.hit(key, packet.source if by_mac else None, now_ns)
        if state is None and packet.port != 9:
            state = list(FlowState)[(packet.port + len(source) // 2) % 4]
            flow = Flow(key=key, state=state, first_seen_ns=1, last_seen_ns=1)
            self.cache.note(self.cache.load(flow), packet.source if by_mac else None, now_ns)
        whys = {
            None: Why.NOT_FIRST,
            FlowState.PENDING: Why.PENDING,
            FlowState.ALLOWED: Why.CACHED_ALLOW,
            FlowState.DENIED: Why.DENIED,
            FlowState.IGNORED: Why.IGNORED,
        }
        return Decision(Verdict.ACCEPT if state is FlowState.ALLOWED else Verdict.DROP, whys[state])


class Read:
    """What a LogReader makes of datagrams, with one of the loops; there is no kernel."""

    def __init__(self, datagrams: list[bytes], *, compiled: bool) -> None:
        assert native.road is not None, NOT_BUILT
        engine = Stored(compiled=compiled)
        holder = Holder(Rules(engine=cast(Engine, engine), highest_number=5))
        reader = LogReader(GROUP, holder, compiled=compiled)
        if compiled:
            reader._native = native.road.Log(-1, GROUP, holder.compiled, reader._ask)
            reader._native.stop()  # nothing comes but those
            reader._native.run(datagrams)
        else:
            reader._netlink = cast(Any, SimpleNamespace(socket=SimpleNamespace(send=lambda _: None)))
            for datagram in datagrams:
                reader._read(datagram)
        self.timed = sum(reader.latency._steps.values())
        self.stats = reader.stats()
        assert self.stats.pop("compiled") is compiled
        self.hits, self.misses = engine.cache.hits, engine.cache.misses
        batch = engine.cache.take()
        self.packets = {row.key: row.packets for row in batch.seen} if batch else {}
        self.addresses = sorted((row[0], row[1]) for row in batch.addresses) if batch else []


def check(datagrams: list[bytes]) -> dict[str, Any]:
    """Both loops make the same of them; returns that."""
    twin, found = Read(datagrams, compiled=False), Read(datagrams, compiled=True)
    assert vars(found) == vars(twin)
    assert found.timed == found.stats["received"]
    return found.stats


# ---- what both make of it

PREFIXES = [
    None,
    b"lan_wan: \0",
    b"lan_wan: ",
    b"lan_wan\0\0\0",
    b"lan_wan: : ",
    b"DROP_INPUT: \0",
    "höchstens: : \0".encode(),
    "höchstens: \0".encode(),
    b"h\xc3",
    b"\xff\xfe: \0",
    b": \0",
    b"\0",
    b"",
    b"nobody: \0",
]
PACKETS = [
    *(ipv4(TCP, tcp(port), source=source) for port in (8, 9, 10, 11) for source in (CLIENT, b"\x0a\0\0\2")),
    ipv4(UDP, udp(10)),
    ipv6(UDP, udp(11)),
    ipv4(1, b"\x08" + bytes(7)),
    syn(10)[:30],
    b"",
]
MARKS = [None, 0, *map(claims.mark_of, (1, 3, 4, 9, 70)), 0xFFFF_FFFF, claims.NUMBER_LOW]

messages = st.builds(
    logged,
    st.sampled_from(PACKETS),
    st.sampled_from(PREFIXES),
    mark=st.sampled_from(MARKS),
    sequence=st.one_of(st.none(), st.integers(0, 5), st.integers(0xFFFF_FFFC, 0xFFFF_FFFF)),
    mac=st.sampled_from([None, MAC, MAC, b"\2\0\0\0\0\2", MAC[:4], MAC + b"\0\0"]),
    hardware_type=st.sampled_from([1, 1, 1, 778, 0xFFFF]),
)
loose = st.builds(
    lambda kind, start, attributes, length: message(kind, start + b"".join(attributes), length=length),
    st.sampled_from([netlink.NFULNL_MSG_PACKET] * 3 + [netlink.NFULNL_MSG_CONFIG, 2, 3]),
    st.sampled_from([b"\2\0\0\7"] * 4 + [b"", b"\2", b"\2\0\0"]),
    st.lists(
        st.builds(
            attribute,
            st.sampled_from([2, 8, 9, 10, 12, 15, 0x4002, 0x800C]),
            st.one_of(
                st.binary(max_size=14),
                st.sampled_from([b"\0\1", b"\0\0\0\1", b"\0\6\0\0\2\0\0\0\0\1\0\0", b"lan_wan: \0", syn(10)]),
            ),
        ),
        max_size=8,
    ),
    st.sampled_from([None, None, None, 0, 16, 19, 20, 400]),
)
datagrams = st.lists(
    st.one_of(
        st.lists(messages, max_size=12).map(b"".join),
        st.lists(st.one_of(messages, loose), max_size=6).map(b"".join),
        st.builds(lambda one, two, cut: (one + two)[: cut % len(one + two)], messages, messages, st.integers(0, 999)),
        st.binary(max_size=80),
    ),
    max_size=8,
)


@given(datagrams)
@settings(max_examples=250)
def test_whatever_comes_both_loops_make_the_same_of_it(come: list[bytes]) -> None:
    check(come)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("mark", MARKS)
def test_prefix_and_mark_name_the_same_policy_in_both(prefix: bytes | None, mark: int | None) -> None:
    """The third packet of a flow is the first that the compiled loop takes by itself. Flows of both variants of a name
    are known when that is put to it."""
    known = [
        logged(syn(10), POLICIES[0].name.encode(), mark=claims.mark_of(variant), mac=MAC) * 3 for variant in (1, 4)
    ]
    check([*known, *(logged(syn(port), prefix, mark=mark, mac=mac) * 3 for port in (9, 10) for mac in (MAC, None))])


@pytest.mark.parametrize(
    ("sequences", "lost"),
    [
        ([], 0),
        ([7], 0),
        ([7, 8, 9], 0),
        ([7, 10, 11, 20], 2 + 8),
        ([0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1], 0),
        ([0xFFFF_FFFE, 2], 3),
        ([5, None, 6, None, 9], 2),
        ([5, 5], 0xFFFF_FFFF),  # the kernel does not count backwards
    ],
)
def test_what_is_missing_in_the_sequence_is_counted_as_lost(sequences: list[int | None], lost: int) -> None:
    for one_datagram in (True, False):
        come = [logged(syn(10), sequence=sequence) for sequence in sequences]
        assert check([b"".join(come)] if one_datagram else come)["lost"] == lost


def test_many_packets_in_one_datagram_are_all_taken() -> None:
    come = b"".join(logged(syn(8 + number % 4), sequence=number) for number in range(500))
    stats = check([come, come[:-1]])
    assert (stats["received"], stats["lost"]) == (999, (0 - 500) % (1 << 32))


# ---- what it asks


def test_what_python_is_asked(road: ModuleType) -> None:
    """Everything that the message says, as it says it."""
    questions: list[tuple[bytes, bytes, int, bytes | None]] = []
    log = road.Log(-1, GROUP, road.Rules(), lambda *question: questions.append(question))
    log.stop()
    log.run(
        [
            logged(syn(10), b"lan_wan: \0", mark=0xFFFF_FFFF, mac=MAC) + logged(b"", None),
            logged(b"\x45", b"\xff: ", mac=MAC, hardware_type=778),
            message(netlink.NFULNL_MSG_PACKET, b""),
        ]
    )
    assert questions == [
        (b"lan_wan: \0", syn(10), 0xFFFF_FFFF, MAC),
        (b"", b"", 0, None),
        (b"\xff: ", b"\x45", 0, None),
        (b"", b"", 0, None),
    ]


@pytest.mark.parametrize(
    "twice",
    [
        (2, b"\0\0\0\5", b"\5"),  # mark
        (8, struct.pack("!H2x8s", 6, MAC), b"\0\6"),  # hardware address
        (8, struct.pack("!H2x8s", 6, MAC), struct.pack("!H2x8s", 4, MAC)),
        (9, syn(10), b""),  # payload
        (10, b"lan_wan: ", b""),  # prefix
        (12, b"\0\0\0\5", b"\5"),  # sequence
        (15, b"\0\1", b"\0"),  # hardware type
    ],
)
def test_of_two_of_a_kind_the_last_counts(road: ModuleType, twice: tuple[int, bytes, bytes]) -> None:
    """Also where it cannot be read, as in Python."""
    kind, first, last = twice
    questions: list[tuple[bytes, bytes, int, bytes | None]] = []
    log = road.Log(-1, GROUP, road.Rules(), lambda *question: questions.append(question))
    log.stop()
    ethernet, address = attribute(15, b"\0\1"), attribute(8, struct.pack("!H2x8s", 6, MAC))
    rest = {8: ethernet, 15: address}.get(kind, ethernet + address)
    for order in ((first, last), (last, first)):
        body = b"\2\0\0\7" + rest + b"".join(attribute(kind, one) for one in order)
        log.run([message(netlink.NFULNL_MSG_PACKET, body)])
        twin = netlink.logged(body)
        assert questions.pop() == (twin.prefix.encode(), twin.payload, twin.mark, twin.mac)


# ---- what it says to the kernel


class TestTheKernelCollects:
    """As many packets as the load is worth: a load is RISE packets in LOOK_NS, and none is less than FALL in it."""

    FEW, MANY_PACKETS = logged(b"", None), message(netlink.NFULNL_MSG_PACKET, b"\2\0\0\7") * 30_000

    @pytest.fixture
    def said(self, road: ModuleType, kernel: Kernel) -> Callable[..., list[bytes]]:
        def said(*come: bytes | None) -> list[bytes]:
            """What the kernel is told while these come. None: nothing comes, for longer than it looks."""
            rest = iter(come)

            def ask(_prefix: bytes, _payload: bytes, _mark: int, _mac: bytes | None) -> None:
                pass

            log = road.Log(kernel.reader.fileno(), GROUP, road.Rules(), ask)
            log.stop()
            for one in rest:
                if one is None:
                    time.sleep(LOOK_NS / 1e9)
                else:
                    log.run([one])
            return kernel.receive()

        return said

    def test_many_under_load(self, said: Callable[..., list[bytes]]) -> None:
        assert said(self.FEW, self.MANY_PACKETS, None, self.FEW) == [netlink.nflog_wait_for(GROUP, MANY)]

    def test_one_when_it_is_over(self, said: Callable[..., list[bytes]]) -> None:
        assert said(self.FEW, self.MANY_PACKETS, None, self.FEW, None, self.FEW, None, self.FEW) == [
            netlink.nflog_wait_for(GROUP, MANY),
            netlink.nflog_wait_for(GROUP, 1),
        ]

    def test_as_before_where_there_is_no_load(self, said: Callable[..., list[bytes]]) -> None:
        assert said(self.FEW, None, self.FEW, self.FEW, None, self.FEW) == []

    def test_as_before_however_many_packets_came_at_first(self, said: Callable[..., list[bytes]]) -> None:
        """What came before the first look was in no time that is known."""
        assert said(self.MANY_PACKETS) == []

    def test_many_once(self, said: Callable[..., list[bytes]]) -> None:
        assert said(self.FEW, *[self.MANY_PACKETS, None] * 4) == [netlink.nflog_wait_for(GROUP, MANY)]
