"""What is accepted is remembered, whoever kills the service; with real packets."""

from __future__ import annotations

from bench.kill import killed


def test_durable_forgets_nothing_that_was_accepted() -> None:
    found = killed(durable=True)
    assert found["accepted"] > 0
    assert found["forgotten"] == 0


def test_otherwise_what_is_forgotten_is_of_the_last_moment() -> None:
    found = killed(durable=False)
    assert found["accepted"] > 0
    assert found["forgotten_ms"] < 1000
