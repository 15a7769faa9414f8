"""A trouble is said when it begins and when it is over, however many packets meet it."""

from __future__ import annotations

from structlog.testing import capture_logs

from glacic.ctlplane.troubles import CALM_S, MOST, Troubles


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def said(troubles: Troubles) -> list[str]:
    with capture_logs() as logs:
        troubles.tick()
    return [f"{line['log_level']}: {line.get('error') or line['after']}" for line in logs]


def test_one_line_when_it_begins_and_one_when_it_is_over() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    assert (said(troubles), troubles.now) == ([], "")
    for _ in range(1000):
        troubles.hear("disk full")
    assert (said(troubles), troubles.now) == (["error: disk full"], "disk full")
    clock.now = CALM_S
    troubles.hear("disk full")
    assert said(troubles) == []
    clock.now = 2 * CALM_S + 1
    assert (said(troubles), troubles.now) == (["info: disk full"], "")
    troubles.hear("disk full")
    assert said(troubles) == ["error: disk full"]


def test_there_are_only_so_many_at_a_time() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    for number in range(2 * MOST):
        troubles.hear(f"trouble {number}")
    assert len(said(troubles)) == MOST
    clock.now = CALM_S + 1
    assert len(said(troubles)) == MOST
    troubles.hear("another")
    assert said(troubles) == ["error: another"]
