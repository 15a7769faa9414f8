"""What can be read of a damaged database is in the new one, and nothing else is."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from glacic.learning import salvage as salvage_module
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import Flow, FlowKey, FlowState, Transition
from glacic.learning.integrity import examine
from glacic.learning.salvage import salvage
from glacic.learning.store import Store
from glacic.learning.switch import LearningRow, SavedLearning

PAGE = 4096
COUNT = 5000
NOW_NS = 77
STATES = list(FlowState)


def key(number: int) -> FlowKey:
    return FlowKey("lan_wan", b"\x02\0\0\0" + (number // 100).to_bytes(2, "big"), 6, number % 100)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flows.db"
    with Store.open(path) as store:
        batch = Batch()
        for number in range(COUNT):
            state = STATES[number % 4]
            batch.added.append(Written(key(number), state, 5, 6, 1, "tofu"))
            batch.addresses.append((key(number), b"\x0a\0\0\x01", 6))
            batch.transitions.append(Transition(key(number), None, state, 5, "tofu", "test"))
        store.write(batch)
        store.save_learning(SavedLearning(True, (LearningRow("", True, 1, None, "user root"),)))
        store.save_numbers({"lan_wan": 3})
    return path


def flows(path: Path) -> dict[FlowKey, Flow]:
    with Store.open(path) as store:
        return {flow.key: flow for flow in store.list(limit=10 * COUNT)}


def pages_of(path: Path, table: str) -> list[int]:
    """The numbers of a table's pages, the root first."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            rows = connection.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY path", (table,)).fetchall()
        except sqlite3.OperationalError:
            rows = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    return [row[0] for row in rows]


def spoil(path: Path, *pages: int) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(os.urandom(PAGE))


def test_a_sound_database_is_copied_with_its_ids(path: Path, tmp_path: Path) -> None:
    before = flows(path)
    done = salvage(path, tmp_path / "new.db", NOW_NS)
    assert (done.flows, done.from_indexes, done.transitions, done.complete) == (COUNT, 0, COUNT, True)
    assert flows(tmp_path / "new.db") == before
    with Store.open(tmp_path / "new.db") as store:
        saved = store.learning()
        assert saved is not None
        assert saved.rows == (LearningRow("", True, 1, None, "user root"),)
        assert store.numbers() == {"lan_wan": 3}
        assert store.addresses(key(7)) == [b"\x0a\0\0\x01"]
        assert [transition.why for transition in store.transitions(key(7))] == ["test"]


def test_nothing_is_left_beside_the_new_one(path: Path, tmp_path: Path) -> None:
    spoil(path, 1)
    salvage(path, tmp_path / "new.db", NOW_NS)
    assert {file.name for file in tmp_path.iterdir()} == {"flows.db", "new.db"}


def test_the_first_page_holds_nothing_that_is_not_known(path: Path, tmp_path: Path) -> None:
    before = flows(path)
    spoil(path, 1)
    done = salvage(path, tmp_path / "new.db", NOW_NS)
    assert (done.flows, done.complete) == (COUNT, True)
    assert flows(tmp_path / "new.db") == before


def test_rows_whose_table_is_lost_are_in_the_indexes(path: Path, tmp_path: Path) -> None:
    before = flows(path)
    spoil(path, pages_of(path, "flow")[0])
    done = salvage(path, tmp_path / "new.db", NOW_NS)
    after = flows(tmp_path / "new.db")
    assert done.from_indexes == COUNT
    assert not done.complete
    assert {k: (f.id, f.state, f.origin) for k, f in after.items()} == {
        k: (f.id, f.state, f.origin) for k, f in before.items()
    }
    assert {flow.last_seen_ns for flow in after.values()} == {NOW_NS}


@pytest.mark.parametrize(
    ("hurt", "at_least"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2 + 7), COUNT // 4),
        (lambda path: spoil(path, *random.Random(1).sample(range(2, path.stat().st_size // PAGE), 5)), COUNT // 2),
        (lambda path: path.write_bytes(os.urandom(path.stat().st_size)), 0),
    ],
    ids=["half of it", "five pages", "all"],
)
def test_what_is_read_is_true(path: Path, tmp_path: Path, hurt: Callable[[Path], None], at_least: int) -> None:
    before = flows(path)
    hurt(path)
    done = salvage(path, tmp_path / "new.db", NOW_NS)
    after = flows(tmp_path / "new.db")
    assert at_least <= len(after) == done.flows
    assert {k: (f.id, f.state) for k, f in after.items()}.items() <= {
        k: (f.id, f.state) for k, f in before.items()
    }.items()
    assert examine(tmp_path / "new.db") is None


def test_a_row_that_no_flow_can_have_is_left_out(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for change in ("state = 9", "source = x'0102'", "policy = x'ff'", "port = 99999", "packets = 'many'"):
            connection.execute(f"UPDATE flow SET {change} WHERE id = (SELECT max(id) FROM flow)")
            connection.commit()
            assert salvage(path, tmp_path / "new.db", NOW_NS).flows == COUNT - 1
        connection.execute("DELETE FROM flow WHERE id = (SELECT max(id) FROM flow)")


def test_a_table_that_fails_again_and_again_is_given_up(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage_module, "MAX_FAILURES", 3)
    path.write_bytes(os.urandom(path.stat().st_size))
    assert salvage(path, tmp_path / "new.db", NOW_NS).flows == 0
