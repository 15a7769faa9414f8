"""Road 2, the inline reader: a held packet -> policy and Packet -> Engine -> verdict. The fail modes live here.

    what comes with it            what goes back
    ASKED and a policy's number   accept: the field cleared; drop; reject: the REJECT bit alone, and accept
    ASKED and number 0            a packet of an accepted connection, in its packet window: accept, and with the
                                  window's last packet the field says OFFLOAD
    unreadable                    drop, in every fail mode
    undecidable                   the engine failed or has no store: drop, or with `engine_error` open accept with the
                                  mark as it came: the chain behind the hook counts what still says ASKED

What happens while nobody listens, or while the queue is full, the kernel decides: `bypass` in the ruleset, and the
FAIL_OPEN flag that is set here. Refuses to know why a packet is decided as it is; the engine does.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import netfilterqueue

from glacic.ctlplane import netlink, nlsocket
from glacic.ctlplane.interfaces import Interfaces
from glacic.ctlplane.reading import COPY_RANGE, RECEIVE_BUFFER, STOP_S, Holder, Latency, Rules, tally
from glacic.ctlplane.window import PacketWindow
from glacic.errors import KernelRefused
from glacic.firewall import claims
from glacic.learning.flow import Verdict, Why
from glacic.learning.packet import Unknown, decode

MAX_LENGTH = 1024  # packets the kernel holds for one queue: 10 ms of work; unconfirmed connections are not worth more

QUEUE_TRUTH = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")  # of the namespace of the thread that opens it


class QueueReader:
    """One queue. open() binds it, run() answers packets until stop(); each thread-safe as its name suggests.

    on_trouble: told what went wrong with a packet; called from the packet thread, so it must only enqueue.
    """

    def __init__(
        self,
        number: int,
        holder: Holder,
        *,
        fail_open: bool = False,
        max_length: int = MAX_LENGTH,
        receive_buffer: int = RECEIVE_BUFFER,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.number = number
        self.latency = Latency()
        self.fail_open = fail_open
        self._holder = holder
        self._max_length = max_length
        self._receive_buffer = receive_buffer
        self._on_trouble = on_trouble
        self._processed = self._accepted = self._dropped = self._rejected = 0
        self._verdict_errors = self._engine_errors = 0
        self._reasons: Counter[Why] = Counter()
        self._unreadable: Counter[str] = Counter()
        self._window = PacketWindow()
        self._sequences = itertools.count(1)
        self._early: list[bytes] = []
        self._answering = False
        self._stopping = False
        self._life = threading.Lock()  # who closes: run() at its end, or stop() where it does not run
        self._running = False

    def open(self) -> Self:
        """Bind the queue in the network namespace of this thread; packets wait from now on. Raises KernelRefused."""
        self._interfaces = Interfaces()
        try:
            self._queue = netfilterqueue.NetfilterQueue()
            self._socket = socket.socket(fileno=os.dup(self._queue.get_fd()))
            self._socket.setsockopt(nlsocket.SOL_NETLINK, nlsocket.NETLINK_NO_ENOBUFS, 1)  # /proc tells what was lost
            self._queue.bind(
                self.number, self._answer, max_len=self._max_length, range=COPY_RANGE, sock_len=_SMALL_BUFFER
            )
            nlsocket.set_receive_buffer(self._socket, self._receive_buffer)
            nlsocket.set_receive_timeout(self._socket, nlsocket.ANSWER_S)
            request = netlink.nfqueue_flags(self.number, fail_open=self.fail_open)
            self._early = nlsocket.acknowledge(self._socket, request, next(self._sequences))
            nlsocket.set_receive_timeout(self._socket, STOP_S)
        except OSError as error:
            self._close()
            raise KernelRefused(
                f"cannot bind queue {self.number}: {error}; another program owns it, or CAP_NET_ADMIN is missing"
            ) from None
        return self

    def run(self) -> None:
        """Answer packets until stop(), then give the queue up: what it still holds is dropped. Raises KernelRefused."""
        with self._life:
            if self._stopping:
                return
            self._running = True
        try:
            if self._early:
                self._queue.run_socket(_Replay(self._early))  # type: ignore[arg-type]  # reads it by recv() alone
            while not self._stopping:
                self._queue.run(block=True)  # returns when nothing came for STOP_S
        except _Stopped:
            pass
        except OSError as error:
            raise KernelRefused(f"cannot read queue {self.number}: {error}") from None
        finally:
            self._close()

    def stop(self) -> None:
        """Let run() end, within STOP_S; where it has not begun, close. From any thread, any number of times."""
        with self._life:
            self._stopping = True
            if not self._running:
                self._close()

    def set_fail_open(self, fail_open: bool) -> None:
        """Change what a full queue does, while it runs: giving it up for that would mean "nobody listens"."""
        if fail_open != self.fail_open:
            self.fail_open = fail_open
            self._socket.send(
                netlink.numbered(netlink.nfqueue_flags(self.number, fail_open=fail_open), next(self._sequences))
            )

    def pass_boundary(self, timeout_s: float) -> bool:
        """Wait until the packet that is being answered now, if there is one, is answered. From any thread."""
        processed, ends = self._processed, time.monotonic() + timeout_s
        while self._answering and self._processed == processed:
            if time.monotonic() > ends:
                return False
            time.sleep(0.0005)
        return True

    def stats(self) -> dict[str, Any]:
        """What this reader has done. `dropped` counts rejected packets too; `decisions` is by reason."""
        return {
            "num": self.number,
            "processed": self._processed,
            "accepted": self._accepted,
            "dropped": self._dropped,
            "rejected": self._rejected,
            "verdict_errors": self._verdict_errors,
            "engine_errors": self._engine_errors,
            "decisions": tally(self._reasons),
            "unreadable": tally(self._unreadable),
        }

    def _close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        if hasattr(self, "_queue"):
            self._queue.unbind()
            del self._queue  # closes its socket
        self._interfaces.close()

    # ---- one packet

    def _answer(self, held: netfilterqueue.Packet) -> None:
        """NetfilterQueue's callback."""
        began = time.perf_counter_ns()
        self._answering = True
        rules = self._holder.rules
        try:
            verdict, mark = self._judge(held, rules)
        except Exception as error:  # whatever it is, the packet must be answered, as `engine_error` says
            verdict, mark = self._cannot_decide(rules, f"{type(error).__name__}: {error}")
        try:
            if verdict is Verdict.DROP:
                held.drop()
            else:
                if mark is not None:
                    held.set_mark(mark)
                held.accept()
        except RuntimeError as error:
            self._verdict_errors += 1
            self._on_trouble(f"queue {self.number}: no verdict: {error}")
        self._processed += 1
        self._answering = False
        if verdict is Verdict.ACCEPT:
            self._accepted += 1
        else:
            self._dropped += 1
            self._rejected += verdict is Verdict.REJECT
        self.latency.add(time.perf_counter_ns() - began)
        if self._stopping:
            raise _Stopped

    def _judge(self, held: netfilterqueue.Packet, rules: Rules) -> tuple[Verdict, int | None]:
        """The verdict, and the mark to go with an accept: None leaves it as it came."""
        mark = held.mark
        number = claims.number_in(mark, rules.highest_number)
        others = mark & ~claims.field(rules.highest_number)  # routing marks and the like
        packet = decode(held.get_payload())
        if not number and mark & claims.ASKED:
            self._reasons[Why.WINDOW] += 1
            over = isinstance(packet, Unknown) or self._window.closes(packet, rules.packet_window)
            return Verdict.ACCEPT, others | claims.OFFLOAD if over else others
        if isinstance(packet, Unknown):
            self._reasons[Why.UNREADABLE] += 1
            self._unreadable[packet.reason] += 1
            return Verdict.DROP, None
        engine = rules.engine
        decision = engine.decide(packet, engine.policies.get(number), self._mac(held), time.time_ns())
        if decision.why is Why.STORE_UNAVAILABLE:
            return self._cannot_decide(rules, engine.store_trouble)
        self._reasons[decision.why] += 1
        verdict = decision.verdict
        if verdict is Verdict.REJECT:
            return verdict, others | claims.REJECT
        if verdict is Verdict.ACCEPT and rules.packet_window and self._window.closes(packet, rules.packet_window):
            return verdict, others | claims.OFFLOAD
        return verdict, others

    def _cannot_decide(self, rules: Rules, trouble: str) -> tuple[Verdict, None]:
        self._engine_errors += 1
        self._reasons[Why.STORE_UNAVAILABLE] += 1
        self._on_trouble(f"queue {self.number}: {trouble}")
        return (Verdict.ACCEPT if rules.engine_error_open else Verdict.DROP), None

    def _mac(self, held: netfilterqueue.Packet) -> bytes | None:
        """The source's MAC. get_hw() gives 8 bytes and no length, so only the interface's type says what they are."""
        hardware = held.get_hw()
        if hardware is None or not self._interfaces.is_ethernet(held.indev):
            return None
        return hardware[: netlink.MAC_LENGTH]


_SMALL_BUFFER = 65_536  # bytes; NetfilterQueue warns where it does not get what it asks for: we ask ourselves


class _Stopped(Exception):
    """Leaves NetfilterQueue's loop from within the callback, when packets come without a pause."""


class _Replay:
    """Stands in for a socket: gives back what came in while the flags were being set, then has nothing more."""

    def __init__(self, datagrams: list[bytes]) -> None:
        self._datagrams = iter(datagrams)

    def recv(self, _size: int) -> bytes:
        """The next datagram; BlockingIOError at the end, as of an empty socket."""
        datagram = next(self._datagrams, None)
        if datagram is None:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return datagram


class SinkQueue:
    """The queue of what an inline rate limit holds back: bound, with room for nothing, never read (claims.sink_queue).

    The kernel drops what is sent there while this is open, and does as the fail mode says when it is not.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def open(self) -> Self:
        """Bind it in the network namespace of this thread. Raises KernelRefused."""
        try:
            self._socket = nlsocket.NetlinkSocket()
        except OSError as error:
            raise KernelRefused(f"cannot open a netlink socket: {nlsocket.refused(error)}") from None
        try:
            self._socket.request(netlink.nfqueue_bind(self.number))
            self._socket.request(netlink.nfqueue_shut(self.number))
        except OSError as error:
            self._socket.close()
            raise KernelRefused(f"cannot bind queue {self.number}: {nlsocket.refused(error)}") from None
        return self

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


class Truth(NamedTuple):
    """What the kernel says of one queue. depth: packets held now. kernel_dropped: the queue was full. user_dropped: the
    reader's socket was full. id_sequence: packets ever queued."""

    depth: int
    kernel_dropped: int
    user_dropped: int
    id_sequence: int


class QueueTruth:
    """/proc/net/netfilter/nfnetlink_queue, opened once: root alone may open it, whoever holds it may read it again."""

    def __init__(self) -> None:
        """Raises KernelRefused."""
        try:
            self._file = QUEUE_TRUTH.open()
        except OSError as error:
            raise KernelRefused(f"cannot open {QUEUE_TRUTH}: {error.strerror}") from None

    def read(self) -> dict[int, Truth]:
        """Queue number -> what the kernel says of it now."""
        self._file.seek(0)
        return queue_truth(self._file.read())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def queue_truth(text: str) -> dict[int, Truth]:
    """The figures in such a file; lines that are no figures are left out.

    Columns: number, owner, depth, copy mode, copy range, dropped, dropped for user space, sequence, 1 (seq_show in
    net/netfilter/nfnetlink_queue.c).
    """
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 8 and all(word.isdecimal() for word in words[:8]):
            number, _, depth, _, _, dropped, user_dropped, sequence = map(int, words[:8])
            found[number] = Truth(depth, dropped, user_dropped, sequence)
    return found
