"""What a worker has: how learning is switched survives a refused reload, and a clean end is no accident."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glacic.config.model import Config, RuleLearning
from glacic.config.policies import LearningPolicy
from glacic.ctlplane import parts as parts_module
from glacic.ctlplane.parts import Parts
from glacic.ctlplane.settings import Settings, settings_of
from glacic.learning import ageing
from glacic.learning.flow import FlowKey, FlowState


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    learning = RuleLearning(enabled=False, learning_mode=True)  # nothing to be read, and nothing for the kernel
    return settings_of(Config(path=tmp_path / "glacic.hcl", rule_learning=learning), (), tmp_path)


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    parts = Parts(settings)
    yield parts
    parts.close()


def in_force(parts: Parts, settings: Settings) -> None:
    parts.adopt(settings, beside=None)
    parts.settle(settings)


def switch_off(parts: Parts) -> None:
    parts.save(parts.engine.learn_off([], "user root", time.time_ns()))


def learns(parts: Parts) -> bool:
    return parts.engine.switch.is_on("lan_wan", time.time_ns())


def test_a_heartbeat_before_there_is_an_engine_is_no_failure(parts: Parts) -> None:
    assert parts.learning_on() is False


def test_a_refused_reload_leaves_learning_as_it_was_switched(parts: Parts, settings: Settings) -> None:
    in_force(parts, settings)
    switch_off(parts)
    parts.adopt(replace(settings, learning_mode=False), beside=settings)
    in_force(parts, settings)  # an abort
    assert not learns(parts)
    parts.writer.flush()
    saved = parts.store.learning()
    assert saved is not None
    assert (saved.file_mode, [row.on for row in saved.rows]) == (True, [False])


def test_a_reload_with_another_learning_mode_switches_everything(parts: Parts, settings: Settings) -> None:
    in_force(parts, settings)
    switch_off(parts)
    for mode in (False, True):
        changed = replace(settings, learning_mode=mode)
        in_force(parts, changed)
    assert learns(parts)
    parts.writer.flush()
    saved = parts.store.learning()
    assert saved is not None
    assert [row.who for row in saved.rows] == ["file"]


def test_threads_that_end_in_a_clean_end_are_not_missed(
    parts: Parts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a heartbeat at the wrong moment ends the worker before its last transaction."""
    in_force(parts, settings)
    missed: list[list[str]] = []
    close: Callable[[float], None] = parts.writer.close

    def closing(timeout_s: float) -> None:
        assert not parts.upkeep.is_alive()
        missed.append(parts.dead_threads())
        close(timeout_s)

    monkeypatch.setattr(parts.writer, "close", closing)
    parts.close()
    monkeypatch.undo()
    assert missed == [[]]


YEAR_NS = 365 * 86_400 * 10**9


@pytest.mark.parametrize("years", [30, -3])
def test_a_clock_that_is_set_changes_neither_learning_nor_what_is_pending(
    parts: Parts, settings: Settings, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    """learn_for is a day, retention three; the clock is set by years, in an hour in which a flow came."""
    began_ns, by_ns = time.time_ns(), years * YEAR_NS
    policy = LearningPolicy(name="lan_wan", number=1)
    in_force(parts, replace(settings, learn_for_s=86_400, retention_days=3, policies=(policy,)))
    key = FlowKey("lan_wan", b"\x02\0\0\0\0\x01", 6, 80)
    parts.engine.set_state(key, FlowState.PENDING, "traffic", "test", began_ns)
    parts.flush()
    monkeypatch.setattr(parts._clock, "jumped_ns", lambda: by_ns)
    later_ns = began_ns + by_ns + 3600 * 10**9
    monkeypatch.setattr(parts_module.time, "time_ns", lambda: later_ns)
    parts._follow_clock()
    parts._expire()
    parts.flush()
    (flow,) = parts.store.list()
    assert abs(flow.last_seen_ns - (began_ns + by_ns)) < 10**9
    day_ns = 86_400 * 10**9
    assert [parts.engine.switch.is_on("lan_wan", later_ns + past) for past in (0, day_ns // 2, day_ns)] == [
        True,
        True,
        False,
    ]
    monkeypatch.setattr(parts_module.time, "time_ns", lambda: later_ns + 4 * day_ns)
    parts._expire()
    parts.flush()
    assert parts.store.list() == []


def test_retention_from_end_to_end(parts: Parts, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pending flow that is not seen for retention_days is forgotten, an allowed one is not; as long again after that,
    so is its history, page by page."""
    day_ns, began_ns = 86_400 * 10**9, time.time_ns()
    in_force(parts, replace(settings, retention_days=30, policies=(LearningPolicy(name="lan_wan", number=1),)))
    pending, allowed = (FlowKey("lan_wan", b"\x02\0\0\0\0\x01", 6, port) for port in (80, 81))
    parts.engine.set_state(pending, FlowState.PENDING, "traffic", "test", began_ns)
    parts.engine.set_state(allowed, FlowState.ALLOWED, "tofu", "test", began_ns)
    parts.flush()
    monkeypatch.setattr(ageing, "PAGE", 1)

    def after(days: float) -> tuple[list[int], int, int]:
        """Ports of the flows that are known then, and changes remembered of each."""
        monkeypatch.setattr(parts_module.time, "time_ns", lambda: int(began_ns + days * day_ns))
        parts._expire()
        for _ in range(10):
            parts._prune()
            parts.flush()
        store = parts.store
        return [f.key.port for f in store.list()], len(store.transitions(pending)), len(store.transitions(allowed))

    assert after(29.9) == ([80, 81], 1, 1)
    assert after(30.1) == ([81], 1, 1)  # that it was pending is old, that it was forgotten is not
    assert after(61) == ([81], 0, 1)
    assert after(3000) == ([81], 0, 1)
