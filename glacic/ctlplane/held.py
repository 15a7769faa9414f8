"""Road 2, the loops that take held packets out of a queue and put verdicts back; nfqueue.py says what they are.

    PythonLoop     NetfilterQueue's, packet by packet: works wherever Python does
    CompiledLoop   glacic/native/queue.c: answers known flows without Python, many packets by one system call

Each counts what it has answered and how long it took. Refuses to decide: what it does not know it asks.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import netfilterqueue

from glacic.ctlplane import netlink, nlsocket
from glacic.ctlplane.reading import COPY_RANGE, STOP_S, Latency, reasons
from glacic.learning.flow import Verdict, Why
from glacic.native import road

# (payload, packet mark, number of the interface, hardware address) ->
# (verdict, mark or -1, Ethernet: 1, 0, -1, whether Asked.tell is to be called once the packet is answered)
Answer = Callable[[bytes, int, int, bytes | None], tuple[int, int, int, bool]]


class Asked(NamedTuple):
    """Whom a loop asks, and whom it tells."""

    answer: Answer
    tell: Callable[[], None]
    no_verdict: Callable[[str], None]  # hears what the kernel says against an answer


class Figures(NamedTuple):
    """What a loop has done. reasons: of the packets that it has answered without asking."""

    processed: int
    accepted: int
    dropped: int
    rejected: int
    verdict_errors: int
    reasons: Counter[Why]


class Loop(Protocol):
    """One queue's packets. One thread calls open, run and close."""

    def open(self, *, fail_open: bool) -> None:
        """Bind the queue in the network namespace of this thread. Raises OSError."""

    def run(self) -> None:
        """Answer packets until stop(). Raises OSError."""

    def stop(self) -> None:
        """Let run() end, within STOP_S."""

    def close(self) -> None:
        """Give the queue up."""

    def set_fail_open(self, fail_open: bool) -> None:
        """What a full queue does."""

    def answering(self) -> int:
        """0 while nothing is being answered; otherwise a number that is another one when that is answered."""

    def figures(self) -> Figures:
        """What it has done so far."""

    def latency(self) -> Latency:
        """How long packets were in user space, as of now."""


class PythonLoop:
    """NetfilterQueue's loop; the answer to each packet is asked for."""

    def __init__(self, number: int, max_length: int, receive_buffer: int, asked: Asked) -> None:
        self._number = number
        self._max_length = max_length
        self._receive_buffer = receive_buffer
        self._asked = asked
        self._processed = self._accepted = self._dropped = self._rejected = self._verdict_errors = 0
        self._latency = Latency()
        self._sequences = itertools.count(1)
        self._early: list[bytes] = []
        self._answering = False
        self._stopping = False

    def open(self, *, fail_open: bool) -> None:
        """As in Loop."""
        self._queue = netfilterqueue.NetfilterQueue()
        self._socket = socket.socket(fileno=os.dup(self._queue.get_fd()))
        _be_quiet(self._socket)
        self._queue.bind(self._number, self._answer, max_len=self._max_length, range=COPY_RANGE, sock_len=_SMALL_BUFFER)
        nlsocket.set_receive_buffer(self._socket, self._receive_buffer)
        nlsocket.set_receive_timeout(self._socket, nlsocket.ANSWER_S)
        request = netlink.nfqueue_flags(self._number, fail_open=fail_open)
        self._early = nlsocket.acknowledge(self._socket, request, next(self._sequences))
        nlsocket.set_receive_timeout(self._socket, STOP_S)

    def run(self) -> None:
        """As in Loop."""
        try:
            if self._early:
                self._queue.run_socket(_Replay(self._early))  # type: ignore[arg-type]  # reads it by recv() alone
            while not self._stopping:
                self._queue.run(block=True)  # returns when nothing came for STOP_S
        except _Stopped:
            pass

    def stop(self) -> None:
        """As in Loop."""
        self._stopping = True

    def close(self) -> None:
        """As in Loop."""
        if hasattr(self, "_socket"):
            self._socket.close()
        if hasattr(self, "_queue"):
            self._queue.unbind()
            del self._queue  # closes its socket

    def set_fail_open(self, fail_open: bool) -> None:
        """As in Loop."""
        request = netlink.nfqueue_flags(self._number, fail_open=fail_open)
        self._socket.send(netlink.numbered(request, next(self._sequences)))

    def answering(self) -> int:
        """As in Loop."""
        return self._processed + 1 if self._answering else 0

    def figures(self) -> Figures:
        """As in Loop."""
        return Figures(self._processed, self._accepted, self._dropped, self._rejected, self._verdict_errors, Counter())

    def latency(self) -> Latency:
        """As in Loop."""
        return self._latency

    def _answer(self, held: netfilterqueue.Packet) -> None:
        """NetfilterQueue's callback."""
        began = time.perf_counter_ns()
        self._answering = True
        verdict, mark, _, tell = self._asked.answer(held.get_payload(), held.mark, held.indev, held.get_hw())
        try:
            if verdict == Verdict.DROP:
                held.drop()
            else:
                if mark >= 0:
                    held.set_mark(mark)
                held.accept()
        except RuntimeError as error:
            self._verdict_errors += 1
            self._asked.no_verdict(str(error))
        self._processed += 1
        self._answering = False
        if verdict == Verdict.ACCEPT:
            self._accepted += 1
        else:
            self._dropped += 1
            self._rejected += verdict == Verdict.REJECT
        self._latency.add(time.perf_counter_ns() - began)
        if tell:
            self._asked.tell()
        if self._stopping:
            raise _Stopped


class CompiledLoop:
    """The loop of glacic.native; what it does not know it asks."""

    def __init__(self, number: int, max_length: int, receive_buffer: int, asked: Asked, rules: Any) -> None:
        """rules: the native Rules that it answers by."""
        self._number = number
        self._max_length = max_length
        self._receive_buffer = receive_buffer
        self._rules = rules
        self._asked = asked
        self._early: list[bytes] = []
        self._sequences = itertools.count(1)
        self._stopped = False
        self._native: Any = None

    def open(self, *, fail_open: bool) -> None:
        """As in Loop."""
        assert road is not None  # noqa: S101 - there are rules
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nlsocket.NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        _be_quiet(self._socket)
        nlsocket.set_receive_buffer(self._socket, self._receive_buffer)
        nlsocket.set_receive_timeout(self._socket, nlsocket.ANSWER_S)
        for request in (
            netlink.nfqueue_bind(self._number),
            netlink.nfqueue_configure(self._number, copy_range=COPY_RANGE, max_length=self._max_length),
            netlink.nfqueue_flags(self._number, fail_open=fail_open),
        ):
            self._early += nlsocket.acknowledge(self._socket, request, next(self._sequences))
        nlsocket.set_receive_timeout(self._socket, STOP_S)
        self._native = road.Queue(
            self._socket.fileno(), self._number, self._rules, self._asked.answer, self._asked.tell, self._no_verdict
        )

    def run(self) -> None:
        """As in Loop."""
        if not self._stopped:
            self._native.run(self._early)

    def stop(self) -> None:
        """As in Loop."""
        self._stopped = True
        if self._native is not None:
            self._native.stop()

    def close(self) -> None:
        """As in Loop."""
        if hasattr(self, "_socket"):
            self._socket.close()

    def set_fail_open(self, fail_open: bool) -> None:
        """As in Loop."""
        request = netlink.nfqueue_flags(self._number, fail_open=fail_open)
        self._socket.send(netlink.numbered(request, next(self._sequences)))

    def answering(self) -> int:
        """As in Loop."""
        return 0 if self._native is None else int(self._native.answering())

    def figures(self) -> Figures:
        """As in Loop."""
        if self._native is None:
            return Figures(0, 0, 0, 0, 0, Counter())
        figures = self._native.figures()
        by_state = figures.pop("by_state")
        return Figures(**figures, reasons=reasons(by_state))

    def latency(self) -> Latency:
        """As in Loop."""
        return Latency() if self._native is None else Latency(*self._native.latency())

    def _no_verdict(self, error: int) -> None:
        self._asked.no_verdict(os.strerror(error))


def _be_quiet(sock: socket.socket) -> None:
    """A full socket is no error of ours: /proc tells what was lost."""
    sock.setsockopt(nlsocket.SOL_NETLINK, nlsocket.NETLINK_NO_ENOBUFS, 1)


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
