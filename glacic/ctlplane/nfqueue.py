"""Road 2, the inline reader: a held packet -> policy and Packet -> Engine -> verdict. The fail modes live here.

    what comes with it            what goes back
    ASKED and a policy's number   accept: the field cleared; drop; reject: the REJECT bit alone, and accept
    ASKED and number 0            a packet of an accepted connection, in its packet window: accept, and with the
                                  window's last packet the field says OFFLOAD
    unreadable                    drop, in every fail mode
    undecidable                   the engine failed or has no store: drop, or with `engine_error` open accept with the
                                  mark as it came: the chain behind the hook counts what still says ASKED
    not on disk                   where learning is `durable`, the verdict waits for the commit; without one, as above

Packets come from one of two loops (held.py), the compiled one where it is built; that one answers for known flows by
itself. What happens while nobody listens, or while the queue is full, the kernel decides: `bypass` in the ruleset, and
the FAIL_OPEN flag. Refuses to know why a packet is decided as it is; the engine does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from glacic.ctlplane import netlink, nlsocket
from glacic.ctlplane.held import Asked, CompiledLoop, Loop, PythonLoop
from glacic.ctlplane.interfaces import Interfaces
from glacic.ctlplane.reading import RECEIVE_BUFFER, Holder, Latency, Rules, tally
from glacic.ctlplane.window import PacketWindow
from glacic.errors import KernelRefused, StoreError
from glacic.firewall import claims
from glacic.learning.flow import Verdict, Why
from glacic.learning.packet import Unknown, decode

MAX_LENGTH = 1024  # packets the kernel holds for one queue: 10 ms of work; unconfirmed connections are not worth more

QUEUE_TRUTH = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")  # of the namespace of the thread that opens it


class QueueReader:
    """One queue. open() binds it, run() answers packets until stop(); each thread-safe as its name suggests.

    compiled: which loop it has; None: the compiled one where it is built.
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
        compiled: bool | None = None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.number = number
        self.fail_open = fail_open
        self._holder = holder
        self._on_trouble = on_trouble
        self._engine_errors = 0
        self._reasons: Counter[Why] = Counter()
        self._unreadable: Counter[str] = Counter()
        self._window = PacketWindow()
        self._life = threading.Lock()  # who closes: run() at its end, or stop() where it does not run
        self._stopping = False
        self._running = False
        rules = holder.compiled
        if compiled and rules is None:
            raise ValueError("the compiled part of glacic is not built here")
        asked = Asked(self._answer, holder.news.tell, self._no_verdict)
        self._loop: Loop
        if rules is None or compiled is False:
            self._loop = PythonLoop(number, max_length, receive_buffer, asked)
        else:
            self._loop = CompiledLoop(number, max_length, receive_buffer, asked, rules)

    @property
    def latency(self) -> Latency:
        """How long packets were in user space."""
        return self._loop.latency()

    def open(self) -> Self:
        """Bind the queue in the network namespace of this thread; packets wait from now on. Raises KernelRefused."""
        self._interfaces = Interfaces()
        try:
            self._loop.open(fail_open=self.fail_open)
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
            self._loop.run()
        except OSError as error:
            raise KernelRefused(f"cannot read queue {self.number}: {error}") from None
        finally:
            self._close()

    def stop(self) -> None:
        """Let run() end, within STOP_S; where it has not begun, close. From any thread, any number of times."""
        with self._life:
            self._stopping = True
            self._loop.stop()
            if not self._running:
                self._close()

    def set_fail_open(self, fail_open: bool) -> None:
        """Change what a full queue does, while it runs: giving it up for that would mean "nobody listens"."""
        if fail_open != self.fail_open:
            self.fail_open = fail_open
            self._loop.set_fail_open(fail_open)

    def pass_boundary(self, timeout_s: float) -> bool:
        """Wait until what is being answered now, if anything is, is answered. From any thread."""
        answering, ends = self._loop.answering(), time.monotonic() + timeout_s
        while answering and self._loop.answering() == answering:
            if time.monotonic() > ends:
                return False
            time.sleep(0.0005)
        return True

    def stats(self) -> dict[str, Any]:
        """What this reader has done. `dropped` counts rejected packets too; `decisions` is by reason."""
        figures = self._loop.figures()
        return {
            "num": self.number,
            "compiled": isinstance(self._loop, CompiledLoop),
            "processed": figures.processed,
            "accepted": figures.accepted,
            "dropped": figures.dropped,
            "rejected": figures.rejected,
            "verdict_errors": figures.verdict_errors,
            "engine_errors": self._engine_errors,
            "decisions": tally(self._reasons.copy() + figures.reasons),
            "unreadable": tally(self._unreadable),
        }

    def _close(self) -> None:
        self._loop.close()
        self._interfaces.close()

    # ---- one packet

    def _answer(self, payload: bytes, mark: int, interface: int, hardware: bytes | None) -> tuple[int, int, int, bool]:
        """What a loop asks (held.Answer)."""
        rules = self._holder.rules
        ethernet = -1
        try:
            mac = None
            if hardware is not None:
                ethernet = self._interfaces.is_ethernet(interface)
                mac = hardware[: netlink.MAC_LENGTH] if ethernet else None
            verdict, answer = self._judge(payload, mark, mac, rules)
        except Exception as error:  # whatever it is, the packet must be answered, as `engine_error` says
            verdict, answer = self._cannot_decide(rules, f"{type(error).__name__}: {error}")
        return verdict, answer, ethernet, self._holder.news.waits

    def _judge(self, payload: bytes, mark: int, mac: bytes | None, rules: Rules) -> tuple[Verdict, int]:
        """The verdict, and the mark to go with an accept: -1 leaves it as it came."""
        number = claims.number_in(mark, rules.highest_number)
        others = mark & ~claims.field(rules.highest_number)  # routing marks and the like
        packet = decode(payload)
        if not number and mark & claims.ASKED:
            self._reasons[Why.WINDOW] += 1
            over = isinstance(packet, Unknown) or self._window.closes(packet, rules.packet_window)
            return Verdict.ACCEPT, others | claims.OFFLOAD if over else others
        if isinstance(packet, Unknown):
            self._reasons[Why.UNREADABLE] += 1
            self._unreadable[packet.reason] += 1
            return Verdict.DROP, -1
        engine = rules.engine
        decision = engine.decide(packet, engine.policies.get(number), mac, time.time_ns())
        if decision.why is Why.STORE_UNAVAILABLE:
            return self._cannot_decide(rules, engine.store_trouble)
        if decision.waits:
            try:
                self._holder.news.commit()
            except StoreError as error:
                return self._cannot_decide(rules, str(error))
        self._reasons[decision.why] += 1
        verdict = decision.verdict
        if verdict is Verdict.REJECT:
            return verdict, others | claims.REJECT
        if verdict is Verdict.ACCEPT and rules.packet_window and self._window.closes(packet, rules.packet_window):
            return verdict, others | claims.OFFLOAD
        return verdict, others

    def _cannot_decide(self, rules: Rules, trouble: str) -> tuple[Verdict, int]:
        self._engine_errors += 1
        self._reasons[Why.STORE_UNAVAILABLE] += 1
        self._on_trouble(f"queue {self.number}: {trouble}")
        return (Verdict.ACCEPT if rules.engine_error_open else Verdict.DROP), -1

    def _no_verdict(self, trouble: str) -> None:
        self._on_trouble(f"queue {self.number}: no verdict: {trouble}")


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
