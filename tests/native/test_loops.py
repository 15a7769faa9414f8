"""The life of both compiled loops: begun, asked, stopped, let go of, at any moment and from any thread."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import socket
import struct
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from glacic.ctlplane.reading import Latency

from .conftest import (
    ALLOWED,
    DROP,
    MARKS,
    OPEN,
    UNKNOWN,
    VPN,
    Asked,
    Kernel,
    held,
    know_all,
    logged,
    running,
    syn,
    until,
)

LAST_PAYLOAD = b"the last"


class Loop:
    """A Queue or a Log; `answer` is called with each payload that it asks about."""

    def __init__(self, road: ModuleType, kind: str, asked: Asked, kernel: Kernel) -> None:
        self.road, self.kind, self.asked, self.kernel = road, kind, asked, kernel
        self.payloads: list[bytes] = []
        self.answer: Callable[[bytes], object] = lambda _payload: None
        self.native = self.made(kernel.reader.fileno())

    def made(self, descriptor: Any, number: Any = 100, rules: Any = None, ask: Any = None) -> Any:
        """Another one over this descriptor."""
        rules, ask = rules or self.asked.rules, ask or self.ask
        if self.kind == "queue":
            return self.road.Queue(descriptor, number, rules, ask, print, print)
        return self.road.Log(descriptor, number, rules, ask)

    def ask(self, *arguments: Any) -> tuple[int, int, int, bool]:
        payload = arguments[self.kind == "log"]
        if payload == LAST_PAYLOAD:
            self.native.stop()
        else:
            self.payloads.append(payload)
            self.answer(payload)
        return (DROP, -1, -1, False)

    def unknown(self, payload: bytes) -> bytes:
        """A packet that it asks about."""
        return held(1, payload, UNKNOWN) if self.kind == "queue" else logged(payload, b"nobody: \0")

    def known(self, number: int = 1) -> bytes:
        """A packet that it does not ask about."""
        if self.kind == "queue":
            return held(number, syn(OPEN), MARKS[VPN])
        return logged(syn(OPEN), b"vpn_wan: \0", sequence=number)

    def run(self, early: list[Any] | None = None) -> None:
        """Until it has taken everything."""
        self.kernel.send(self.unknown(LAST_PAYLOAD))
        self.native.run([] if early is None else early)

    def taken(self) -> int:
        """Packets, asked about or not."""
        figures = self.native.figures()
        return int(figures["processed" if self.kind == "queue" else "received"])

    def taken_here(self) -> int:
        """Packets that it did not ask about."""
        return sum(self.native.figures()["by_state"])


@pytest.fixture(params=["queue", "log"])
def loop(request: pytest.FixtureRequest, road: ModuleType, asked: Asked, kernel: Kernel) -> Loop:
    know_all(asked)
    return Loop(road, request.param, asked, kernel)


# ---- begun and stopped


def test_what_came_before_is_taken_first(loop: Loop) -> None:
    loop.kernel.send(loop.unknown(b"3"), loop.known(), loop.unknown(b"4"))
    loop.run([loop.unknown(b"1"), "no datagram", None, b"", b"x", loop.known(), loop.unknown(b"2")])
    assert loop.payloads == [b"1", b"2", b"3", b"4"]
    assert (loop.taken(), loop.taken_here()) == (7, 2)


def test_stopped_before_it_runs_it_takes_only_what_came_before(loop: Loop) -> None:
    loop.kernel.send(loop.unknown(b"2"))
    loop.native.stop()
    loop.native.run([loop.unknown(b"1")])
    assert loop.payloads == [b"1"]
    loop.native.run([])
    assert loop.payloads == [b"1"]


def test_it_ends_when_stopped_though_nothing_comes(loop: Loop) -> None:
    with running(loop.native):
        pass


def test_it_ends_when_stopped_though_packets_go_on_coming(loop: Loop) -> None:
    enough = threading.Event()

    def flood() -> None:
        for number in itertools.count(1):
            if enough.is_set():
                return
            try:
                loop.kernel.send(loop.known(number))
            except BlockingIOError:
                loop.kernel.receive()
            if not number % 100:
                loop.kernel.receive()

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        with running(loop.native):
            until(lambda: loop.taken() > 3000)
    finally:
        enough.set()
        sender.join()


class TestOneRunAtATime:
    def test_a_second_one_is_refused(self, loop: Loop) -> None:
        def answer(_payload: bytes) -> None:
            with pytest.raises(RuntimeError, match="running already"):
                loop.native.run([loop.unknown(b"2")])

        loop.answer = answer
        loop.kernel.send(loop.unknown(b"1"))
        loop.run()
        assert loop.payloads == [b"1"]

    def test_also_from_another_thread(self, loop: Loop) -> None:
        with running(loop.native):
            loop.kernel.send(loop.unknown(b"1"))
            until(lambda: bool(loop.payloads))
            with pytest.raises(RuntimeError, match="running already"):
                loop.native.run([])

    def test_after_an_error_it_may_run_again(self, loop: Loop) -> None:
        def answer(_payload: bytes) -> None:
            raise LookupError

        loop.answer = answer
        with pytest.raises(LookupError):
            loop.native.run([loop.unknown(b"1")])
        loop.answer = lambda _payload: None
        loop.run([loop.unknown(b"2")])
        assert loop.payloads == [b"1", b"2"]


# ---- asked


class TestAnAskThatRaises:
    @pytest.fixture
    def loop(self, loop: Loop) -> Loop:
        def answer(_payload: bytes) -> None:
            raise LookupError("boom")

        loop.answer = answer
        return loop

    def test_ends_the_run_with_what_it_raised(self, loop: Loop) -> None:
        loop.kernel.send(loop.known(), loop.unknown(b"2"), loop.unknown(b"3"))
        with pytest.raises(LookupError, match="boom"):
            loop.native.run([])
        with pytest.raises(LookupError, match="boom"):
            loop.native.run([loop.unknown(b"1")])
        assert loop.payloads == [b"2", b"1"]
        assert loop.taken_here() == 1

    def test_keeps_nothing(self, loop: Loop) -> None:
        early = [loop.unknown(b"\x45" * 100)]
        references = sys.getrefcount(early[0]), sys.getrefcount(loop.native), sys.getrefcount(early)
        for _ in range(100):
            with pytest.raises(LookupError):
                loop.native.run(early)
        gc.collect()
        assert references == (sys.getrefcount(early[0]), sys.getrefcount(loop.native), sys.getrefcount(early))
        assert not [one for one in gc.get_objects() if isinstance(one, LookupError)]


def test_an_ask_may_empty_the_list_of_what_came_before(loop: Loop) -> None:
    """The datagram at hand stays whole, whoever else lets go of it."""
    payloads = [bytes([0x45 + number]) * 400 for number in range(3)]
    early = [b"".join(map(loop.unknown, payloads)), loop.unknown(b"never")]
    junk: list[bytes] = []

    def answer(_payload: bytes) -> None:
        early.clear()
        junk.extend(bytes([number]) * 1500 for number in range(200))

    loop.answer = answer
    loop.run(early)
    assert loop.payloads == payloads


def test_asking_keeps_nothing(loop: Loop) -> None:
    def ask_many(times: int) -> None:
        early = [b"".join([loop.unknown(b"\x45" * 100)] * 50)]
        for _ in range(times):
            loop.native.run(early)
            loop.payloads.clear()
            loop.kernel.receive()
        gc.collect()

    loop.native.stop()
    ask_many(10)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        ask_many(200)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000


# ---- wrong arguments


@pytest.mark.parametrize("early", [None, (), "text", 5])
def test_what_came_before_is_a_list(loop: Loop, early: Any) -> None:
    with pytest.raises(TypeError):
        loop.native.run(early)


@pytest.mark.parametrize(
    "wrong",
    [
        {"descriptor": "0"},
        {"descriptor": 1 << 31},
        {"number": -1},
        {"number": 65_536 + 100},
        {"number": 1 << 70},
        {"rules": object()},
    ],
)
def test_what_is_no_queue_or_group_is_refused(loop: Loop, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        loop.made(**{"descriptor": 0, **wrong})


@pytest.mark.parametrize("descriptor", [-1, 100_000])
def test_a_socket_that_is_none_ends_it(loop: Loop, descriptor: int) -> None:
    native = loop.made(descriptor)
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            native.run([])


def test_what_is_asked_must_be_callable(loop: Loop) -> None:
    with pytest.raises(TypeError):
        loop.made(loop.kernel.reader.fileno(), ask=5).run([loop.unknown(b"1")])


# ---- let go of, changed, interrupted


def test_what_it_uses_may_be_let_go_of_while_it_runs(loop: Loop) -> None:
    """The loop itself, rules, table, what is asked: the run holds what it needs."""
    kernel, known, unknown = loop.kernel, loop.known(), loop.unknown(b"1")
    native = loop.made(kernel.reader.fileno(), ask=lambda *_: (DROP, -1, -1, False))
    ended: list[bool] = []
    thread = threading.Thread(target=lambda run: ended.append(run([]) is None), args=(native.run,))
    thread.start()
    stop = native.stop
    loop.asked.rules.clear()
    loop.asked.set()
    del native, loop.asked.table, loop.asked.rules, loop.native
    gc.collect()
    for _ in range(200):
        kernel.send(known, unknown)
        gc.collect(0)
    stop()
    thread.join(10)
    assert ended == [True]


def test_what_is_asked_is_let_go_of_with_it(road: ModuleType, kernel: Kernel, loop: Loop) -> None:
    """It usually belongs to whoever holds the loop: a circle."""
    circle = Loop(road, loop.kind, Asked(road), kernel)
    gone = weakref.ref(circle)
    del circle
    gc.collect()
    assert gone() is None


def test_rules_may_change_at_any_moment(road: ModuleType, loop: Loop) -> None:
    """Also be cleared, or be over another table: each packet is taken once, by one of them."""
    sent = 0
    with running(loop.native):
        for number in range(1, 1500):
            if number % 3 == 0:
                loop.asked.rules.clear()
            else:
                loop.asked.table = road.Table(1 + number % 5)
                loop.asked.know(OPEN, ALLOWED)
                loop.asked.set()
            loop.kernel.send(loop.known(number))
            sent += 1
            if not number % 50:
                loop.kernel.receive()
        until(lambda: loop.taken() == sent)
    assert loop.taken_here() + len(loop.payloads) == sent
    assert loop.native.figures()["by_state"][ALLOWED] > 0


def test_a_signal_is_handled_while_it_waits(loop: Loop) -> None:
    """In the main thread, where Python's handlers run."""
    waits, over = threading.Event(), threading.Event()

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        if not over.is_set():
            over.set()
            raise Interrupted

    def send() -> None:
        waits.wait()
        while not over.wait(0.02):  # again where it came between two waits
            os.kill(os.getpid(), signal.SIGUSR2)

    loop.kernel.reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 20, 0))
    loop.answer = lambda _payload: waits.set()
    before = signal.signal(signal.SIGUSR2, interrupt)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Interrupted):
            loop.native.run([loop.unknown(b"1")])
    finally:
        waits.set()
        over.set()
        sender.join()
        signal.signal(signal.SIGUSR2, before)


def test_signals_that_nobody_minds_change_nothing(loop: Loop) -> None:
    """EINTR, again and again."""
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        with running(loop.native) as thread:
            for number in range(1, 300):
                assert thread.ident is not None
                signal.pthread_kill(thread.ident, signal.SIGUSR2)
                loop.kernel.send(loop.known(number))
                if not number % 50:
                    loop.kernel.receive()
            until(lambda: loop.taken() == 299)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert loop.taken_here() == 299


def test_every_packet_is_timed(loop: Loop) -> None:
    loop.kernel.send(*[loop.known(), loop.unknown(b"1")] * 20)
    loop.run()
    steps, largest = loop.native.latency()
    assert sum(steps.values()) == loop.taken() == 41
    longest = Latency()
    longest.add(largest)
    assert list(longest._steps) == [max(steps)]
    assert 0 < largest < 20e9
