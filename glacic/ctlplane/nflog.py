"""Road 2, the reader of a log group: copies of packets that are dropped already -> policy and Packet -> Engine.

The decision changes what is known, not the packet: an allowed flow becomes an element of the kernel's sets, and the
next try passes. The rule's prefix names the policy; where two policies share one (DROP_INPUT by MAC and by IP), the
mark says which. Packets are numbered, so what was lost can be counted.

The kernel collects packets and sends many in one piece. How many it waits for follows the load: one where packets are
rare, so that a new flow is seen at once; MANY where they are not, so that reading keeps up. Where the compiled part is
built (glacic/native/log.c), its loop does all this and answers for known flows by itself.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from glacic.config.policies import LearningPolicy
from glacic.ctlplane import netlink, nlsocket
from glacic.ctlplane.netlink import Logged
from glacic.ctlplane.reading import COPY_RANGE, RECEIVE_BUFFER, STOP_S, Holder, Latency, Rules, reasons, tally
from glacic.errors import KernelRefused
from glacic.firewall import claims
from glacic.learning.flow import Why
from glacic.learning.packet import Unknown, decode
from glacic.native import road

MANY = 64  # packets the kernel collects under load before it wakes the reader
WAIT_MS = 10  # and no longer than this, the least that the kernel can: a client tries again after a second
LOOK_NS = 20_000_000  # how long packets are counted before ...
RISE, FALL = 256, 64  # so many in that time are a load, or are none any more: 12,800 and 3,200 a second
_MANY_BYTES = 32_768  # room for MANY packets with their attributes; the kernel allows 128 KiB
_READ = 1 << 17  # bytes
_SEQUENCES = 1 << 32


class LogReader:
    """One log group. open() binds it, run() reads until stop(). compiled: as in QueueReader."""

    def __init__(
        self,
        group: int,
        holder: Holder,
        *,
        receive_buffer: int = RECEIVE_BUFFER,
        compiled: bool | None = None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        if compiled and holder.compiled is None:
            raise ValueError("the compiled part of glacic is not built here")
        self.group = group
        self._compiled = compiled is not False and holder.compiled is not None
        self._native: Any = None
        self._latency = Latency()
        self._waits_for = 1  # packets that the kernel collects now
        self._seen = self._looked_ns = 0  # packets since then
        self._holder = holder
        self._receive_buffer = receive_buffer
        self._on_trouble = on_trouble
        self._received = self._lost = self._overruns = self._engine_errors = 0
        self._next: int | None = None  # the sequence number that the next packet should have
        self._reasons: Counter[Why] = Counter()
        self._unreadable: Counter[str] = Counter()
        self._stopping = False
        self._life = threading.Lock()  # who closes: run() at its end, or stop() where it does not run
        self._running = False

    def open(self) -> Self:
        """Bind the group in the network namespace of this thread. Raises KernelRefused."""
        try:
            self._netlink = nlsocket.NetlinkSocket()
        except OSError as error:
            raise KernelRefused(f"cannot open a netlink socket: {nlsocket.refused(error)}") from None
        try:
            nlsocket.set_receive_buffer(self._netlink.socket, self._receive_buffer)
            self._netlink.request(netlink.nflog_bind(self.group))
            early = self._netlink.request(
                netlink.nflog_configure(
                    self.group, copy_range=COPY_RANGE, batch=1, timeout_ms=WAIT_MS, buffer=_MANY_BYTES
                )
            )
            nlsocket.set_receive_timeout(self._netlink.socket, STOP_S)
        except OSError as error:
            self._netlink.close()
            if error.errno == errno.EPERM:
                raise KernelRefused(
                    f"another program owns log group {self.group} (or CAP_NET_ADMIN is missing): "
                    "end it, or choose another log_group"
                ) from None
            raise KernelRefused(f"cannot bind log group {self.group}: {nlsocket.refused(error)}") from None
        self._early = early
        if self._compiled and road is not None:
            self._native = road.Log(self._netlink.socket.fileno(), self.group, self._holder.compiled, self._ask)
        return self

    def run(self) -> None:
        """Read until stop(), then give the group up. Raises KernelRefused."""
        with self._life:
            if self._stopping:
                return
            self._running = True
        try:
            if self._native is not None:
                self._native.run(self._early)
            else:
                self._run()
        except OSError as error:
            raise KernelRefused(f"cannot read log group {self.group}: {error.strerror}") from None
        finally:
            self._netlink.close()

    def stop(self) -> None:
        """Let run() end, within STOP_S; where it has not begun, close. From any thread, any number of times."""
        with self._life:
            self._stopping = True
            if self._native is not None:
                self._native.stop()
            if not self._running:
                self._netlink.close()

    @property
    def latency(self) -> Latency:
        """How long packets took from the socket to their decision."""
        return self._latency if self._native is None else Latency(*self._native.latency())

    def stats(self) -> dict[str, Any]:
        """What this reader has read. lost: numbered by the kernel and never seen. overruns: how often it said so."""
        figures, here = {"received": self._received, "lost": self._lost, "overruns": self._overruns}, Counter[Why]()
        if self._native is not None:
            figures = self._native.figures()
            here = reasons(figures.pop("by_state"))
        return {
            "num": self.group,
            "compiled": self._native is not None,
            **figures,
            "engine_errors": self._engine_errors,
            "decisions": tally(self._reasons.copy() + here),
            "unreadable": tally(self._unreadable),
        }

    # ---- the loop, where it is not compiled

    def _run(self) -> None:
        for datagram in self._early:
            self._read(datagram)
        while not self._stopping:
            datagram = self._receive()
            if datagram:
                self._read(datagram)

    def _receive(self) -> bytes:
        """The next datagram; empty where none came for STOP_S, or where the kernel had to throw some away."""
        try:
            return self._netlink.socket.recv(_READ)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._overruns += 1
            return b""

    def _read(self, datagram: bytes) -> None:
        came_ns, packets = time.perf_counter_ns(), 0
        for message in netlink.messages(datagram):
            if message.type != netlink.NFULNL_MSG_PACKET:
                continue
            packets += 1
            packet = netlink.logged(message.body)
            self._received += 1
            self._count_lost(packet.sequence)
            self._take(packet)
            self._latency.add(time.perf_counter_ns() - came_ns)
        self._follow_load(packets, came_ns)

    def _follow_load(self, packets: int, now_ns: int) -> None:
        self._seen += packets
        looks = (now_ns - self._looked_ns) // LOOK_NS
        if not looks:
            return
        per_look = self._seen // looks
        self._looked_ns, self._seen = now_ns, 0
        wanted = MANY if per_look >= RISE else 1 if per_look < FALL else self._waits_for
        if wanted != self._waits_for:
            self._waits_for = wanted
            self._netlink.socket.send(netlink.nflog_wait_for(self.group, wanted))

    def _count_lost(self, sequence: int | None) -> None:
        if sequence is None:
            return
        if self._next is not None:
            self._lost += (sequence - self._next) % _SEQUENCES
        self._next = (sequence + 1) % _SEQUENCES

    # ---- one packet

    def _ask(self, prefix: bytes, payload: bytes, mark: int, mac: bytes | None) -> None:
        """What the compiled loop does with a packet that it does not know."""
        self._take(Logged(prefix=netlink.text(prefix), payload=payload, mark=mark, mac=mac))

    def _take(self, packet: Logged) -> None:
        try:
            self._reasons[self._decide(packet, self._holder.rules)] += 1
        except Exception as error:  # the packet is gone; the next one may do better
            self._trouble(f"{type(error).__name__}: {error}")
        if self._holder.news.waits:
            self._holder.news.tell()

    def _decide(self, logged: Logged, rules: Rules) -> Why:
        packet = decode(logged.payload)
        if isinstance(packet, Unknown):
            self._unreadable[packet.reason] += 1
            return Why.UNREADABLE
        decision = rules.engine.decide(packet, policy_of(logged, rules), logged.mac, time.time_ns())
        if decision.why is Why.STORE_UNAVAILABLE:
            self._trouble(rules.engine.store_trouble)
        return decision.why

    def _trouble(self, text: str) -> None:
        self._engine_errors += 1
        self._on_trouble(f"log group {self.group}: {text}")


def policy_of(logged: Logged, rules: Rules) -> LearningPolicy | None:
    """The policy that the prefix names, in the variant that the mark names; None for a prefix that is not ours.

    A mark counts only where both agree: outside inline mode nobody clears its field, and it may be a router's.
    """
    name = logged.prefix.removesuffix(": ")
    marked = rules.engine.policies.get(claims.number_in(logged.mark, rules.highest_number))
    if marked is not None and marked.name == name:
        return marked
    return rules.engine.by_name.get(name)
