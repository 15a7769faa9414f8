"""What the tests of the compiled part share: packets and netlink messages, field by field; rules, a kernel, a reader.

The compiled part is never optional here: where it is not built these tests fail.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple, Self

import pytest

from glacic import native
from glacic.ctlplane import netlink
from glacic.firewall import claims

NOT_BUILT = "the compiled part is not built: make setup builds it into the wheel, tools/native into the source tree"

PENDING, ALLOWED, DENIED, IGNORED = 1, 2, 3, 4  # enum state in glacic/native/road.h
STATES = (PENDING, ALLOWED, DENIED, IGNORED)
ACCEPT, DROP, REJECT = 1, 2, 3  # Verdict

CLIENT, SERVER = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 1])
CLIENT6, SERVER6 = bytes.fromhex("fd" + 14 * "00" + "01"), bytes.fromhex("20010db8" + 11 * "00" + "02")
MAC = bytes.fromhex("020000000001")
TCP, UDP = 6, 17

SO_SNDBUFFORCE = 32  # asm-generic/socket.h


@pytest.fixture(autouse=True)
def road() -> ModuleType:
    assert native.road is not None, NOT_BUILT
    return native.road


# ---- packets


def tcp(port: int, *, words: int = 5, flags: int = 0x02, more: bytes = b"") -> bytes:
    """A TCP header (RFC 9293). words: the data offset. flags: SYN."""
    return (
        struct.pack("!HH", 40000, port)  # ports
        + bytes(8)  # sequence, acknowledgement
        + bytes([words << 4, flags])
        + bytes(6)  # window, checksum, urgent pointer
        + more
    )


def udp(port: int, *, length: int | None = None, more: bytes = b"?") -> bytes:
    """A UDP header (RFC 768). length: what it says of itself and its data."""
    return struct.pack("!HHHH", 40000, port, 8 + len(more) if length is None else length, 0) + more


def ipv4(
    protocol: int,
    transport: bytes,
    *,
    source: bytes = CLIENT,
    destination: bytes = SERVER,
    options: bytes = b"",
    words: int | None = None,
    total: int | None = None,
    fragment: int = 0,
) -> bytes:
    """An IPv4 packet (RFC 791). words, total: what its header says of its length, and of the whole."""
    header = 20 + len(options)
    return (
        bytes([0x40 | (header // 4 if words is None else words), 0])  # version and header length, type of service
        + struct.pack("!H", header + len(transport) if total is None else total)
        + struct.pack("!HH", 1, fragment)  # identification, flags and offset
        + bytes([64, protocol])  # time to live
        + bytes(2)  # checksum
        + source
        + destination
        + options
        + transport
    )


def ipv6(
    protocol: int, transport: bytes, *, source: bytes = CLIENT6, destination: bytes = SERVER6, length: int | None = None
) -> bytes:
    """An IPv6 packet (RFC 8200). length: what its header says of what follows it."""
    return (
        bytes([0x60, 0, 0, 0])  # version, traffic class, flow label
        + struct.pack("!H", len(transport) if length is None else length)
        + bytes([protocol, 64])  # next header, hop limit
        + source
        + destination
        + transport
    )


def syn(port: int, source: bytes = CLIENT) -> bytes:
    """The first packet of a connection to SERVER."""
    return ipv4(TCP, tcp(port), source=source)


# ---- netlink, as the kernel sends it


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute with its padding."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """One message (struct nlmsghdr). length: what it says of itself."""
    return struct.pack("=IHHII", 16 + len(body) if length is None else length, kind, 0, 0, 0) + body


def held(
    number: int,
    payload: bytes,
    mark: int | None = None,
    *,
    interface: int | None = None,
    hardware: bytes | None = None,
    hardware_length: int = 6,
) -> bytes:
    """The datagram of one packet that a queue holds (linux/netfilter/nfnetlink_queue.h). number: its id."""
    parts = [attribute(1, struct.pack("!IHB", number, 0x0800, 1))]  # NFQA_PACKET_HDR: id, EtherType, hook
    if mark is not None:
        parts.append(attribute(3, struct.pack("!I", mark)))  # NFQA_MARK
    if interface is not None:
        parts.append(attribute(5, struct.pack("!I", interface)))  # NFQA_IFINDEX_INDEV
    if hardware is not None:
        parts.append(attribute(9, struct.pack("!H2x8s", hardware_length, hardware)))  # NFQA_HWADDR
    parts.append(attribute(10, payload))  # NFQA_PAYLOAD
    return message(0x0300, b"\2\0\0\x64" + b"".join(parts))  # NFQNL_MSG_PACKET; family, version, queue 100


def logged(
    payload: bytes,
    prefix: bytes | None = b"lan_wan: \0",
    *,
    mark: int | None = None,
    sequence: int | None = None,
    mac: bytes | None = None,
    hardware_type: int = 1,
) -> bytes:
    """The message of one packet of a log group (linux/netfilter/nfnetlink_log.h). hardware_type: Ethernet."""
    parts = []
    if mark is not None:
        parts.append(attribute(2, struct.pack("!I", mark)))  # NFULA_MARK
    if mac is not None:
        parts.append(attribute(15, struct.pack("!H", hardware_type)))  # NFULA_HWTYPE
        parts.append(attribute(8, struct.pack("!H2x8s", len(mac), mac)))  # NFULA_HWADDR
    if prefix is not None:
        parts.append(attribute(10, prefix))  # NFULA_PREFIX
    if sequence is not None:
        parts.append(attribute(12, struct.pack("!I", sequence)))  # NFULA_SEQ
    parts.append(attribute(9, payload))  # NFULA_PAYLOAD
    return message(netlink.NFULNL_MSG_PACKET, b"\2\0\0\7" + b"".join(parts))


class Answered(NamedTuple):
    """One verdict message. mark None: the packet's stays. batch: for everything held up to this id."""

    number: int
    accept: bool
    mark: int | None
    batch: bool = False


def verdicts(datagram: bytes) -> Iterator[Answered]:
    """What a reader sends; anything in it that the kernel would not take is an error."""
    at = 0
    while at < len(datagram):
        length, kind, flags, _, _ = struct.unpack_from("=IHHII", datagram, at)
        family, version, queue = struct.unpack_from("!BBH", datagram, at + 16)
        assert (family, version, queue) == (0, 0, 100)
        assert (kind, flags) in ((0x0301, 1), (0x0303, 1))  # NFQNL_MSG_VERDICT, NFQNL_MSG_VERDICT_BATCH; a request
        assert length in (32, 40)
        assert struct.unpack_from("=HH", datagram, at + 20) == (12, 2)  # NFQA_VERDICT_HDR
        verdict, number = struct.unpack_from("!II", datagram, at + 24)
        assert verdict in (0, 1)  # NF_DROP, NF_ACCEPT
        mark = None
        if length == 40:
            assert struct.unpack_from("=HH", datagram, at + 32) == (8, 3)  # NFQA_MARK
            (mark,) = struct.unpack_from("!I", datagram, at + 36)
        yield Answered(number, verdict == 1, mark, kind == 0x0303)
        at += length
    assert at == len(datagram)


class Kernel:
    """The other end of a reader's socket: holds packets, and does with them what verdicts say."""

    def __init__(self) -> None:
        self.socket, self.reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 20_000))
        for end in (self.socket, self.reader):
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        self.socket.setblocking(False)
        self.waiting: list[int] = []  # ids, in their order
        self.answers: dict[int, tuple[bool, int | None]] = {}  # id -> (accepted, mark)

    def send(self, *datagrams: bytes) -> None:
        """Sent as it is."""
        for datagram in datagrams:
            self.socket.send(datagram)

    def hold(self, number: int, payload: bytes, mark: int | None = None, **more: Any) -> None:
        """A packet for the reader."""
        self.waiting.append(number)
        self.send(held(number, payload, mark, **more))

    def receive(self) -> list[bytes]:
        """What the reader has sent."""
        datagrams = []
        with contextlib.suppress(BlockingIOError):
            while True:
                datagrams.append(self.socket.recv(1 << 16))
        return datagrams

    def read(self) -> list[list[Answered]]:
        """The verdicts that the reader has sent: a list for each send."""
        return [list(verdicts(datagram)) for datagram in self.receive()]

    def take_verdicts(self) -> None:
        """As nfqnl_recv_verdict() and nfqnl_recv_verdict_batch() do; a verdict for nobody is an error."""
        for answered in (one for sent in self.read() for one in sent):
            if answered.batch:
                among = [number for number in self.waiting if not _is_after(number, answered.number)]
            else:
                among = [number for number in self.waiting if number == answered.number]
            assert among, f"{answered} is for no packet"
            for number in among:
                self.waiting.remove(number)
                self.answers[number] = (answered.accept, answered.mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.reader.close()


def _is_after(one: int, other: int) -> bool:
    """nfq_id_after(): ids wrap around at 32 bits."""
    return 0 < (one - other) % (1 << 32) < 1 << 31


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


# ---- rules

LAN, GUESTS, VPN = 3, 4, 5  # their numbers: by MAC; by MAC and destination, rejects; by address
POLICIES = (
    (LAN, "lan_wan", True, False, False),
    (GUESTS, "guest_wan", True, True, True),
    (VPN, "vpn_wan", False, False, False),
)
MARKS = {number: claims.mark_of(number) for number in (LAN, GUESTS, VPN)}
UNKNOWN = claims.mark_of(9)  # a policy that is not there
SETTINGS = {
    "window": False,
    "asked": claims.ASKED,
    "reject": claims.REJECT,
    "number_low": claims.NUMBER_LOW,
    "low_numbers": claims.LOW_NUMBERS,
}


class Asked:
    """Native rules over a native table."""

    def __init__(self, road: ModuleType, capacity: int = 100) -> None:
        self.table = road.Table(capacity)
        self.rules = road.Rules()
        self.set()

    def set(self, policies: Any = POLICIES, highest_number: int = 9, **changed: Any) -> None:
        settings = SETTINGS | {"field": claims.field(highest_number)} | changed
        self.rules.set(self.table, policies, highest_number=highest_number, **settings)

    def know(self, port: int, state: int, *, policy: str = "vpn_wan", source: bytes = CLIENT) -> None:
        """A flow to SERVER by TCP is in this state."""
        destination = SERVER if policy == "guest_wan" else b""
        self.table.put((policy, source, TCP, port, destination), object(), state, (CLIENT,))


@pytest.fixture
def asked(road: ModuleType) -> Asked:
    return Asked(road)


# ---- a reader of a queue

OPEN, SHUT, GUEST_SHUT = 80, 81, 82  # ports whose flows are allowed, denied, denied by a policy that rejects
LAST = 0x7FFF_FFF0  # the mark of the packet that ends a run, and mostly its id
ROUTED = 0x1200_3400  # marks of others


class Reader:
    """A Queue over the kernel's socket; `ask`, `tell` and `trouble` remember what they were told."""

    def __init__(self, road: ModuleType, asked: Asked, kernel: Kernel) -> None:
        self.asked, self.kernel = asked, kernel
        self.questions: list[tuple[bytes, int, int, bytes | None]] = []
        self.troubles: list[int] = []
        self.told: list[Any] = []
        self.answer: Any = (ACCEPT, 0, -1)  # verdict, mark, whether that is an Ethernet; or who says so
        self.wants_to_tell = False
        self.on_tell: Callable[[], object] = lambda: None
        self.on_trouble: Callable[[], object] = lambda: None
        self.queue = road.Queue(kernel.reader.fileno(), 100, asked.rules, self.ask, self.tell, self.trouble)

    def ask(self, payload: bytes, mark: int, interface: int, hardware: bytes | None) -> Any:
        if mark == LAST:
            self.queue.stop()
            return (DROP, -1, -1, False)
        self.questions.append((payload, mark, interface, hardware))
        answer = self.answer
        answer = answer(payload, mark, interface, hardware) if callable(answer) else answer
        return (*answer, self.wants_to_tell) if isinstance(answer, tuple) and len(answer) == 3 else answer

    def tell(self) -> None:
        self.told.append(self.on_tell())

    def trouble(self, error: int) -> None:
        self.troubles.append(error)
        self.on_trouble()

    def run(self, early: list[Any] | None = None) -> list[list[Answered]]:
        """Until it has answered everything; what it sent, without the answer to the last packet."""
        self.kernel.send(held(LAST, b"", LAST))
        self.queue.run([] if early is None else early)
        sends = self.kernel.read()
        assert sends[-1].pop() == Answered(LAST, False, None)
        return [sent for sent in sends if sent]

    def figures(self) -> dict[str, Any]:
        """Without the last packet."""
        figures: dict[str, Any] = self.queue.figures()
        return {**figures, "processed": figures["processed"] - 1, "dropped": figures["dropped"] - 1}


@pytest.fixture
def reader(road: ModuleType, asked: Asked, kernel: Kernel) -> Reader:
    know_all(asked)
    return Reader(road, asked, kernel)


def know_all(asked: Asked) -> None:
    asked.know(OPEN, ALLOWED)
    asked.know(SHUT, DENIED)
    asked.table.put(("guest_wan", CLIENT, TCP, GUEST_SHUT, SERVER), None, DENIED, ())


def packet(number: int, port: int, others: int = 0) -> bytes:
    """A packet of one of the three flows, in whose mark `others` are not the hook's."""
    return held(number, syn(port), MARKS[GUESTS if port == GUEST_SHUT else VPN] | others)


# ---- in a thread of its own


@contextlib.contextmanager
def running(native: Any) -> Iterator[threading.Thread]:
    """A Queue or Log, at work in a thread of its own."""
    thread = threading.Thread(target=native.run, args=([],))
    thread.start()
    try:
        yield thread
    finally:
        native.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait for something that is bound to happen."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        meanwhile()
        time.sleep(0.0005)
