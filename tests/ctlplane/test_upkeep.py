"""Upkeep: counters on demand, unless that takes too long; a failure is no end."""

from __future__ import annotations

import threading

import pytest

from glacic.ctlplane import upkeep as module
from glacic.ctlplane.upkeep import Upkeep
from glacic.errors import StoreError


def nothing() -> None:
    pass


def test_counters_are_read_when_asked_for() -> None:
    readings: list[int] = []
    upkeep = Upkeep(count=lambda: readings.append(1), expire=nothing, check=nothing)
    upkeep.count_now(1.0)
    upkeep.count_now(1.0)
    assert len(readings) == 2


def test_counters_that_take_long_to_read_are_left_to_their_turn() -> None:
    readings: list[int] = []
    upkeep = Upkeep(count=lambda: readings.append(1), expire=nothing, check=nothing)
    upkeep.count_now(1.0)
    upkeep.count_now(-1.0)
    assert len(readings) == 1


def test_who_asks_does_not_wait_for_a_long_reading() -> None:
    reading, finish = threading.Event(), threading.Event()

    def count() -> None:
        reading.set()
        assert finish.wait(10)

    upkeep = Upkeep(count=count, expire=nothing, check=nothing)
    long = threading.Thread(target=upkeep.count_now, args=(float("inf"),))
    long.start()
    assert reading.wait(10)
    upkeep.count_now(0.01)
    assert long.is_alive()
    finish.set()
    long.join(10)


def test_old_flows_are_forgotten_at_the_start_and_a_failure_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = threading.Semaphore(0)

    def expire() -> None:
        attempts.release()
        raise StoreError("database is locked")

    monkeypatch.setattr(module, "EXPIRE_S", 0.0)
    monkeypatch.setattr(module, "TICK_S", 0.01)
    upkeep = Upkeep(count=nothing, expire=expire, check=nothing)
    upkeep.start()
    assert attempts.acquire(timeout=10)
    assert attempts.acquire(timeout=10)
    upkeep.stop(10)
    assert not upkeep.is_alive()
