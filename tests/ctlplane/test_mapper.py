"""The mapper: changes reach the kernel in order and in batches, and none is lost while the kernel refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from glacic.ctlplane import mapper as module
from glacic.ctlplane.mapper import Mapper
from glacic.errors import KernelRefused
from glacic.learning.flow import FlowKey, FlowState

Row = tuple[tuple[str, bytes, int, int, bytes], str | None]


class Sets:
    """What LearnedSets is to the mapper: takes batches, or refuses them while `refuses` is set."""

    def __init__(self) -> None:
        self.batches: list[list[Row]] = []
        self.refuses = threading.Event()
        self.refused = threading.Semaphore(0)

    def apply(self, changes: Sequence[Row]) -> None:
        if self.refuses.is_set():
            self.refused.release()
            raise KernelRefused("no such table")
        self.batches.append(list(changes))


def recovered() -> None:
    pass


def key(number: int) -> FlowKey:
    return FlowKey("p", b"\2\0\0\0\0\1", 6, number)


@contextmanager
def running(sets: Sets) -> Iterator[Mapper]:
    mapper = Mapper(sets, recovered)  # type: ignore[arg-type]
    mapper.start()
    try:
        yield mapper
    finally:
        mapper.stop(10)
        assert not mapper.is_alive()


def test_changes_arrive_in_the_order_they_were_put() -> None:
    sets = Sets()
    with running(sets) as mapper:
        for number in range(1000):
            mapper.put(key(number % 7), FlowState.ALLOWED if number % 2 else None)
        assert mapper.flush(10)
    arrived = [row for batch in sets.batches for row in batch]
    assert arrived == [(key(number % 7), "allowed" if number % 2 else None) for number in range(1000)]


def test_what_waits_goes_in_batches_of_bounded_size() -> None:
    sets = Sets()
    mapper = Mapper(sets, recovered)  # type: ignore[arg-type]
    for number in range(module.BATCH + 1):
        mapper.put(key(number), FlowState.ALLOWED)
    mapper.start()
    mapper.stop(10)
    assert [len(batch) for batch in sets.batches] == [module.BATCH, 1]


def test_a_refused_batch_is_tried_again_until_the_kernel_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    sets = Sets()
    sets.refuses.set()
    with running(sets) as mapper:
        mapper.put(key(1), FlowState.ALLOWED)
        assert all(sets.refused.acquire(timeout=10) for _ in range(3))
        assert not mapper.healthy
        sets.refuses.clear()
        mapper.put(key(2), FlowState.DENIED)
        assert mapper.flush(10)
        assert mapper.healthy
    assert [row for batch in sets.batches for row in batch] == [(key(1), "allowed"), (key(2), "denied")]


def test_while_the_kernel_refuses_only_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out is in the store, and on_recovery compares everything with it."""
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    sets, again = Sets(), threading.Event()
    sets.refuses.set()
    mapper = Mapper(sets, again.set)  # type: ignore[arg-type]
    mapper.start()
    mapper.put(key(0), FlowState.ALLOWED)
    assert all(sets.refused.acquire(timeout=10) for _ in range(2))
    for number in range(1, 1000):
        mapper.put(key(number), FlowState.ALLOWED)
    assert mapper.backlog() == 10
    sets.refuses.clear()
    assert again.wait(10)
    mapper.stop(10)
    assert sum(map(len, sets.batches)) == 11


def test_a_task_is_done_between_what_was_put_before_and_after_it() -> None:
    sets = Sets()
    seen: list[int] = []

    def count() -> None:
        seen.append(sum(map(len, sets.batches)))

    tasks: list[Callable[[], None]] = [count, count]
    with running(sets) as mapper:
        for task in tasks:
            mapper.put(key(1), FlowState.ALLOWED)
            mapper.run_between(task)
        assert mapper.flush(10)
    assert seen == [1, 2]
