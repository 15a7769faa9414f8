"""Flows are counted in all and per source, exactly, whatever is in memory and whatever is in the database."""

from __future__ import annotations

import pytest

from glacic.errors import StoreError
from glacic.learning import census as census_module
from glacic.learning.census import TOFU, Census
from glacic.learning.flow import FlowState

LAPTOP, CAMERA = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


class Database:
    """What the census may ask: learned and pending flows per source, as committed. None: it cannot be asked."""

    def __init__(self) -> None:
        self.committed: dict[bytes, tuple[int, int]] | None = {}
        self.asked: list[bytes] = []

    def count_source(self, source: bytes) -> tuple[int, int]:
        self.asked.append(source)
        if self.committed is None:
            raise StoreError("no")
        return self.committed.get(source, (0, 0))


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def census(database: Database, monkeypatch: pytest.MonkeyPatch) -> Census:
    monkeypatch.setattr(census_module, "SOURCES", 1)  # so that a second source evicts the first
    return Census({}, 0, database.count_source)


def learn(census: Census, source: bytes) -> None:
    census.move(source, None, "", FlowState.ALLOWED, TOFU)


def test_it_begins_with_what_the_database_holds() -> None:
    census = Census({FlowState.ALLOWED: 7, FlowState.DENIED: 1}, 5, lambda _source: (3, 2))
    assert census.counts == {
        FlowState.PENDING: 0,
        FlowState.ALLOWED: 7,
        FlowState.DENIED: 1,
        FlowState.IGNORED: 0,
    }
    assert census.learned == 5
    assert (census.source(LAPTOP).learned, census.source(LAPTOP).pending) == (3, 2)


def test_only_what_learning_allowed_counts_as_learned(census: Census) -> None:
    learn(census, LAPTOP)
    census.move(LAPTOP, None, "", FlowState.ALLOWED, "user")
    census.move(LAPTOP, None, "", FlowState.PENDING, "traffic")
    census.move(LAPTOP, None, "", FlowState.DENIED, "user")
    assert (census.learned, census.source(LAPTOP).learned, census.source(LAPTOP).pending) == (1, 1, 1)
    census.move(LAPTOP, FlowState.ALLOWED, TOFU, FlowState.DENIED, "user")
    census.move(LAPTOP, FlowState.PENDING, "traffic", None, "")
    assert (census.learned, census.source(LAPTOP).learned, census.source(LAPTOP).pending) == (0, 0, 0)
    assert census.counts[FlowState.DENIED] == 2


def test_a_source_with_something_uncommitted_is_not_counted_in_the_database(census: Census, database: Database) -> None:
    learn(census, LAPTOP)
    learn(census, CAMERA)  # evicts the laptop
    assert census.source(LAPTOP).learned == 1
    census.swap()
    learn(census, CAMERA)
    assert census.source(LAPTOP).learned == 1  # being written: still not in the database
    assert database.asked == [LAPTOP, CAMERA]


def test_a_committed_and_evicted_source_is_counted_in_the_database(census: Census, database: Database) -> None:
    learn(census, LAPTOP)
    census.swap()
    database.committed = {LAPTOP: (1, 0)}
    census.settle()
    learn(census, CAMERA)
    learn(census, LAPTOP)
    assert census.source(LAPTOP).learned == 2
    assert database.asked == [LAPTOP, CAMERA, LAPTOP]


def test_nothing_is_counted_when_the_database_cannot_be_asked(census: Census, database: Database) -> None:
    database.committed = None
    with pytest.raises(StoreError):
        learn(census, LAPTOP)
    assert census.learned == 0
    assert not any(census.counts.values())
    database.committed = {}
    assert census.source(LAPTOP).learned == 0
