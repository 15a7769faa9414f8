"""The two loops of the inline reader, each by itself; with a kernel and packets they are in test_nfqueue.py."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glacic import native
from glacic.ctlplane.held import Asked, CompiledLoop, Figures, Loop, PythonLoop
from glacic.ctlplane.reading import STOP_S, Latency
from glacic.lab.net import Host, Network
from glacic.learning.flow import Verdict, Why

HARDWARE = bytes.fromhex("0200000000010000")
QUEUE = 100


class Known:
    """Who is asked: answers as told, and remembers everything it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.says: tuple[int, int, int, bool] = (Verdict.ACCEPT, 5, -1, False)
        self.asked = Asked(self.answer, lambda: self.heard.append("told"), self.heard.append)

    def answer(self, payload: bytes, mark: int, interface: int, hardware: bytes | None) -> tuple[int, int, int, bool]:
        self.heard.append((payload, mark, interface, hardware))
        return self.says


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture(params=["compiled", "python"])
def loop(request: pytest.FixtureRequest, known: Known) -> Loop:
    if request.param == "python":
        return PythonLoop(QUEUE, 10, 65_536, known.asked)
    assert native.road is not None, "the compiled part is not built: run make setup, or tools/native"
    return CompiledLoop(QUEUE, 10, 65_536, known.asked, native.road.Rules())


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("h")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestALoop:
    def test_that_was_never_opened_has_done_nothing(self, loop: Loop) -> None:
        assert loop.figures() == Figures(0, 0, 0, 0, 0, Counter())
        assert loop.answering() == 0
        assert Latency.summary([loop.latency()]) == {"p50": 0, "p99": 0, "max": 0}

    def test_that_was_never_opened_may_be_stopped_and_closed(self, loop: Loop) -> None:
        loop.stop()
        loop.run()
        loop.close()
        loop.close()

    def test_owns_its_queue_from_open_to_close(self, host: Host, loop: Loop, known: Known) -> None:
        before = descriptors()
        host.call(loop.open, fail_open=False)
        other = PythonLoop(QUEUE, 10, 65_536, known.asked)
        with pytest.raises(OSError, match=r".*"):
            host.call(other.open, fail_open=False)
        other.close()
        loop.close()
        host.call(other.open, fail_open=False)
        other.close()
        assert descriptors() == before

    def test_that_cannot_have_its_queue_leaves_nothing_open_once_it_is_closed(self, host: Host, loop: Loop) -> None:
        owner = PythonLoop(QUEUE, 10, 65_536, Known().asked)
        host.call(owner.open, fail_open=False)
        before = descriptors()
        with pytest.raises(OSError, match=r".*"):
            host.call(loop.open, fail_open=False)
        loop.close()
        assert descriptors() == before
        owner.close()

    def test_ends_soon_when_it_is_stopped(self, host: Host, loop: Loop) -> None:
        host.call(loop.open, fail_open=True)
        thread = threading.Thread(target=loop.run)
        thread.start()
        loop.stop()
        thread.join(STOP_S + 10)
        assert not thread.is_alive()
        loop.close()

    def test_may_be_told_what_a_full_queue_does_at_any_moment(self, host: Host, loop: Loop) -> None:
        host.call(loop.open, fail_open=True)
        for fail_open in (False, True, True):
            loop.set_fail_open(fail_open)
        loop.stop()
        loop.run()  # takes no answer of these for a packet
        assert loop.figures().processed == loop.figures().verdict_errors == 0
        loop.close()


class Held:
    """A packet of NetfilterQueue's: does as little, and remembers it."""

    mark, indev = 0x0083_1234, 7

    def __init__(self, refuses: str = "") -> None:
        self.done: list[Any] = []
        self._refuses = refuses

    def get_payload(self) -> bytes:
        return b"payload"

    def get_hw(self) -> bytes | None:
        return HARDWARE

    def set_mark(self, mark: int) -> None:
        self.done.append(mark)

    def accept(self) -> None:
        self._do("accept")

    def drop(self) -> None:
        self._do("drop")

    def _do(self, what: str) -> None:
        if self._refuses:
            raise RuntimeError(self._refuses)
        self.done.append(what)


class TestInPython:
    @pytest.fixture
    def python(self, known: Known) -> PythonLoop:
        return PythonLoop(QUEUE, 10, 65_536, known.asked)

    @pytest.mark.parametrize(
        ("says", "done", "figures"),
        [
            ((Verdict.ACCEPT, 5, -1, False), [5, "accept"], (1, 1, 0, 0, 0)),
            ((Verdict.ACCEPT, 0, 1, False), [0, "accept"], (1, 1, 0, 0, 0)),
            ((Verdict.ACCEPT, -1, 0, False), ["accept"], (1, 1, 0, 0, 0)),
            ((Verdict.DROP, -1, -1, False), ["drop"], (1, 0, 1, 0, 0)),
            ((Verdict.REJECT, 9, -1, False), [9, "accept"], (1, 0, 1, 1, 0)),
        ],
    )
    def test_a_packet_gets_the_answer(
        self, python: PythonLoop, known: Known, says: Any, done: list[Any], figures: tuple[int, ...]
    ) -> None:
        known.says, held = says, Held()
        python._answer(held)  # type: ignore[arg-type]
        assert held.done == done
        assert known.heard == [(b"payload", 0x0083_1234, 7, HARDWARE)]
        assert python.figures() == Figures(*figures, Counter())
        assert Latency.summary([python.latency()])["max"] > 0

    def test_what_has_changed_is_told_once_it_is_answered(self, python: PythonLoop, known: Known) -> None:
        known.says, held = (Verdict.ACCEPT, -1, -1, True), Held()
        known.asked = known.asked._replace(tell=lambda: known.heard.append(list(held.done)))
        PythonLoop(QUEUE, 10, 65_536, known.asked)._answer(held)  # type: ignore[arg-type]
        assert known.heard[1:] == [["accept"]]

    def test_an_answer_that_the_kernel_refuses_is_counted_and_told(self, python: PythonLoop, known: Known) -> None:
        python._answer(Held(refuses="the packet is gone"))  # type: ignore[arg-type]
        assert known.heard[1:] == ["the packet is gone"]
        assert python.figures() == Figures(1, 1, 0, 0, 1, Counter())

    def test_it_says_what_it_is_answering(self, python: PythonLoop, known: Known) -> None:
        said: list[int] = []

        def answer(*_: Any) -> tuple[int, int, int, bool]:
            said.append(python.answering())
            return known.says

        python._asked = known.asked._replace(answer=answer)
        for _ in range(3):
            python._answer(Held())  # type: ignore[arg-type]
            assert python.answering() == 0
        assert len(set(said)) == 3
        assert 0 not in said


class TestCompiled:
    @pytest.fixture
    def made(self, known: Known) -> Callable[..., CompiledLoop]:
        def made(**figures: Any) -> CompiledLoop:
            """Over a native queue that says this."""
            loop = CompiledLoop(QUEUE, 10, 65_536, known.asked, None)
            loop._native = SimpleNamespace(
                figures=lambda: {"by_state": (9, 1, 2, 0, 4), **figures},
                latency=lambda: ({8: 3}, 8),
                answering=lambda: 5,
                stop=lambda: known.heard.append("stop"),
                run=known.heard.append,
            )
            return loop

        return made

    def test_what_it_has_answered_itself_is_told_by_reasons(self, made: Callable[..., CompiledLoop]) -> None:
        counts = {"processed": 9, "accepted": 5, "dropped": 4, "rejected": 2, "verdict_errors": 1}
        loop = made(**counts)
        reasons = Counter({Why.PENDING: 1, Why.CACHED_ALLOW: 2, Why.IGNORED: 4})
        assert loop.figures() == Figures(**counts, reasons=reasons)
        assert Latency.summary([loop.latency()])["max"] == 0.0
        assert loop.latency()._steps == {8: 3}
        assert loop.answering() == 5

    def test_what_came_before_is_answered_first(self, made: Callable[..., CompiledLoop], known: Known) -> None:
        loop = made()
        loop._early.append(b"early")
        loop.run()
        loop.stop()
        loop.run()
        assert known.heard == [[b"early"], "stop"]

    def test_a_verdict_that_could_not_be_sent_is_told_in_words(
        self, made: Callable[..., CompiledLoop], known: Known
    ) -> None:
        made()._no_verdict(105)
        assert known.heard == ["No buffer space available"]
