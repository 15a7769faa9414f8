"""A database of every version that there ever was opens, is brought up to date, and holds what it held.

The files are as those versions left them (tools/old_database.py); a new version adds one, and changes none.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from glacic.learning.backup import check
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.integrity import examine
from glacic.learning.schema import VERSION
from glacic.learning.store import Store

FILES = Path(__file__).with_name("databases")
MAC = b"\x02\0\0\0\0\x01"


def test_there_is_one_of_every_version() -> None:
    """A new version without one: python tools/old_database.py VERSION tests/learning/databases/vVERSION.db."""
    assert {file.name for file in FILES.iterdir()} == {f"v{version}.db" for version in range(1, VERSION + 1)}


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_it_opens_and_holds_what_it_held(tmp_path: Path, version: int) -> None:
    path = tmp_path / "flows.db"
    shutil.copyfile(FILES / f"v{version}.db", path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    assert examine(path) is None
    with Store.open(path) as store:
        states = {flow.id: (flow.key.port, flow.state.value, flow.packets, flow.origin) for flow in store.list()}
        assert states == {
            1: (443, "allowed", 7, "tofu"),
            2: (22, "denied", 1, "user"),
            4: (80, "pending", 2, "traffic"),
            5: (23, "ignored", 2, "user"),
        }
        assert [(t.before, t.after) for t in store.transitions(FlowKey("lan_wan", MAC, 6, 22))] == [
            (None, FlowState.PENDING),
            (FlowState.PENDING, FlowState.DENIED),
        ]
        assert store.addresses(FlowKey("lan_wan", MAC, 6, 443)) == [b"\x0a\0\0\x01"]
        saved = store.learning()
        assert saved is not None
        assert (saved.file_mode, [row.who for row in saved.rows], store.numbers()) == (True, ["file"], {"lan_wan": 3})
        key = FlowKey("lan_wan", MAC, 6, 8080)
        store.write(Batch(added=[Written(key, FlowState.ALLOWED, 10, 10, 1, "tofu")]))
        assert store.find(key) is not None
    assert check(path) == 5
