"""History is bounded: by the number of changes of a flow that is known, by age for one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.learning import ageing
from glacic.learning.ageing import TRANSITIONS, move_pending, prune_transitions
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState, Jump, Transition
from glacic.learning.store import Store

ALLOWED, DENIED, PENDING = FlowState.ALLOWED, FlowState.DENIED, FlowState.PENDING


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "flows.db") as store:
        yield store


def key(port: int) -> FlowKey:
    return FlowKey("lan_wan", b"\x02\0\0\0\0\x01", 6, port)


def change(port: int, at_ns: int) -> Transition:
    return Transition(key(port), ALLOWED, DENIED, at_ns, "user root", "test")


def history(store: Store, port: int) -> list[int]:
    return [transition.at_ns for transition in store.transitions(key(port))]


def prune(store: Store, before_ns: int) -> int:
    pages, after = 1, prune_transitions(store.database, 0, before_ns)
    while after:
        pages, after = pages + 1, prune_transitions(store.database, after, before_ns)
    return pages


@pytest.mark.parametrize("page", [1, 7, 5000])
def test_a_known_flow_keeps_its_last_changes_however_old(
    store: Store, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(ageing, "PAGE", page)
    changes = [change(port, at_ns) for at_ns in range(2 * TRANSITIONS) for port in (1, 2)]
    changes += [change(3, at_ns) for at_ns in range(TRANSITIONS)]
    store.write(Batch(added=[Written(key(port), DENIED, 5, 5, 1, "user") for port in (1, 2, 3)], transitions=changes))
    assert prune(store, before_ns=1000) == -(-len(changes) // page)
    assert history(store, 1) == history(store, 2) == list(range(TRANSITIONS, 2 * TRANSITIONS))
    assert history(store, 3) == list(range(TRANSITIONS))


def test_of_a_forgotten_flow_what_is_old_goes(store: Store) -> None:
    store.write(
        Batch(added=[Written(key(1), DENIED, 5, 5, 1, "user")], transitions=[change(1, 5), change(2, 5), change(2, 9)])
    )
    prune(store, before_ns=9)
    assert (history(store, 1), history(store, 2)) == ([5], [9])
    prune(store, before_ns=10)
    assert (history(store, 1), history(store, 2)) == ([5], [])


def test_nothing_is_forgotten_where_there_is_nothing(store: Store) -> None:
    assert prune_transitions(store.database, 0, 1000) == 0


def test_pending_flows_move_with_the_clock_and_others_do_not(store: Store) -> None:
    seen = {1: (PENDING, 50), 2: (PENDING, 51), 3: (ALLOWED, 50)}
    store.write(
        Batch(added=[Written(key(port), state, at - 10, at, 1, "traffic") for port, (state, at) in seen.items()])
    )
    move_pending(store.database, Jump(by_ns=100, now_ns=150))
    assert {flow.key.port: (flow.first_seen_ns, flow.last_seen_ns) for flow in store.list()} == {
        1: (140, 150),
        2: (41, 51),
        3: (40, 50),
    }
