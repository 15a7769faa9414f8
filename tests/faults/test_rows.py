"""A short part of `make faults`, with real packets: what was promised is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.service import BenchGlacic
from faults import trial
from faults.bed import config
from faults.main import told
from faults.rows import confirm, descriptors, interface, killed, locked, power, reloads, stopped
from faults.trial import Trial
from glacic.lab.home import home


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: killed.worker("closed"), id="worker killed, closed"),
        pytest.param(lambda: killed.worker("open"), id="worker killed, open"),
        pytest.param(lambda: killed.service("closed"), id="service killed"),
        pytest.param(lambda: stopped.worker("closed"), id="worker stopped"),
        pytest.param(interface.gone, id="interface gone"),
        pytest.param(lambda: locked.locked(durable=False), id="database locked"),
        pytest.param(lambda: power.crash(durable=False), id="ended in the midst of learning"),
        pytest.param(descriptors.killed_meanwhile, id="no descriptor for another worker"),
    ],
)
def test_the_promise_is_kept(make: Callable[[], Trial]) -> None:
    case = trial.run(make())
    assert not case.broken, told(case)
    assert {kind for kind, count in case.traffic.items() if count.sent} >= {"unknown", "learned", "denied", "outside"}


@pytest.mark.parametrize("inline", [False, True], ids=["nflog", "inline"])
def test_reloads_under_load_lose_nothing_and_let_nothing_through(inline: bool) -> None:
    load = reloads.load(inline=inline, reloads=10)
    assert all(each["connections"] > 100 for each in load.connections.values())
    assert (load.lost(), load.passed) == (0, 0), load
    assert load.forbidden > 1_000
    assert load.seen_without == 1_000


def test_a_change_that_cuts_off_whoever_makes_it_is_taken_back() -> None:
    case = confirm.cut(killed=False)
    assert not case.broken, told(case)


def test_a_promise_that_is_not_kept_is_told() -> None:
    """The trial itself, on a fail mode that does the opposite of what is promised."""
    case = trial.run(Trial(**{**_fields(killed.worker("open")), "promised": {"unknown": "stop"}}))
    assert any("passed that should not" in text for text in case.broken)


def test_without_a_firewall_the_forbidden_packets_are_seen() -> None:
    """What `reloads` counts as passed would be counted."""
    with tempfile.TemporaryDirectory() as folder, home() as hosts:
        with BenchGlacic(hosts.router, Path(folder), config()):
            pass
        hosts.router.run(["nft", "flush", "ruleset"])
        assert reloads.without(hosts) == 1_000


def _fields(of: Trial) -> dict[str, object]:
    return {name: getattr(of, name) for name in of.__dataclass_fields__}
