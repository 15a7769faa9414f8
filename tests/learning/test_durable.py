"""kill -9 straight after a verdict: with `durable` nothing that was accepted is forgotten; without, nothing older than
the group commit interval."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import glacic
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.news import Bulletin
from glacic.learning.cache import FlowCache
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.flow import FlowKey, FlowState, Transition, Verdict, Why
from glacic.learning.packet import Packet
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch
from glacic.learning.writer import INTERVAL_S, Writer

MAC = b"\x02\0\0\0\0\x01"
LAN = LearningPolicy(name="lan_wan", number=3)
SLACK_S = 1.0  # what a busy machine may add to the interval

CHILD = """
import sys, time
from pathlib import Path
from tests.learning.test_durable import Road

road = Road(Path(sys.argv[1]), durable=sys.argv[2] == "durable")
for port in range(1, 60_000):
    road.verdict(port)
    print(port, time.monotonic(), flush=True)
"""


class Road:
    """The inline reader's road without the kernel: engine, writer, what is told, and a verdict that waits."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.store = Store.open(path)
        self.store.set_durable(durable)
        self.cache: FlowCache = open_cache(self.store, 100)
        self.cache.durable = durable
        self.told: list[Transition] = []
        self.writer = Writer(self.store, self.cache, on_commit=self.committed)
        self.news = Bulletin(self.told.append, hasten=self.writer.hasten, commit=self.writer.commit)
        self.news.durable = durable
        self.engine = Engine(
            (LAN,),
            store=self.store,
            cache=self.cache,
            switch=LearningSwitch.restore(None, file_mode=True, learn_for_s=None, policies=["lan_wan"], now_ns=0),
            limits=Limits(1_000_000, 1_000_000),
            on_change=self.news.put,
        )
        self.writer.start()

    def committed(self, number: int) -> None:
        self.news.committed(number)

    def verdict(self, port: int) -> Verdict:
        decision = self.engine.decide(packet(port), LAN, MAC, time.time_ns())
        if decision.waits:
            self.news.commit()
        self.news.tell()
        return decision.verdict

    def close(self) -> None:
        self.writer.close()
        self.store.close()


def packet(port: int) -> Packet:
    return Packet(
        version=4,
        source=b"\x0a\0\0\x01",
        destination=b"\x0a\0\0\x02",
        protocol=6,
        source_port=40_000,
        port=port,
        first=True,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.db"


@pytest.fixture
def road(path: Path) -> Iterator[Road]:
    road = Road(path, durable=True)
    yield road
    road.close()


def kill_after(path: Path, how: str, lines: int) -> tuple[dict[int, float], float]:
    """Port -> when its verdict was given, up to the kill; and when that was."""
    root = Path(glacic.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), how],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parents[2]}"},
    ) as child:
        assert child.stdout is not None
        try:
            said = [child.stdout.readline() for _ in range(lines)]
        finally:
            killed = time.monotonic()
            child.send_signal(signal.SIGKILL)
        said += [line for line in child.stdout if line.endswith("\n")]  # given before the kill, and not read yet
    return {int(port): float(at) for port, at in map(str.split, said)}, killed


def remembered(path: Path) -> set[int]:
    with Store.open(path) as store:
        return {flow.key.port for flow in store.list(limit=100_000)}


def test_durable_forgets_nothing_that_was_accepted(path: Path) -> None:
    for lines in (1, 50, 200):
        answered, _ = kill_after(path, "durable", lines)
        assert set(answered) <= remembered(path)
        path.unlink()
        path.with_name("flows.db-wal").unlink(missing_ok=True)
        path.with_name("flows.db-shm").unlink(missing_ok=True)


def test_otherwise_nothing_older_than_the_interval_is_forgotten(path: Path) -> None:
    answered, killed = kill_after(path, "grouped", 3000)
    lost = set(answered) - remembered(path)
    assert max((killed - answered[port] for port in lost), default=0.0) < INTERVAL_S + SLACK_S


def test_a_flow_that_is_not_on_disk_is_not_answered_from_the_cache(road: Road) -> None:
    """Two packets of a new flow, in two queues: the second waits as the first does."""
    decisions = [road.engine.decide(packet(80), LAN, MAC, 5) for _ in range(2)]
    assert [decision.why for decision in decisions] == [Why.FIRST_USE, Why.STORED_ALLOW]
    assert all(decision.waits for decision in decisions)
    road.news.commit()
    known = road.engine.decide(packet(80), LAN, MAC, 6)
    assert (known.why, known.waits) == (Why.CACHED_ALLOW, False)


def test_a_pending_flow_waits_once(road: Road) -> None:
    road.engine.learn_off([], "user root", 5)
    first, second = (road.engine.decide(packet(81), LAN, MAC, 5) for _ in range(2))
    assert (first.why, first.waits) == (Why.NEW_PENDING, True)
    assert (second.why, second.waits) == (Why.PENDING, False)  # what drops and changes nothing may be forgotten


def test_the_kernel_hears_of_a_flow_when_it_is_on_disk(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    held, write = threading.Event(), road.store.write
    monkeypatch.setattr(road.store, "write", lambda batch: (held.wait(30), write(batch))[1])
    road.engine.decide(packet(82), LAN, MAC, 5)
    road.news.tell()
    assert road.told == []
    held.set()
    road.news.commit()
    assert [transition.key for transition in road.told] == [FlowKey("lan_wan", MAC, 6, 82)]


def test_a_person_changes_a_flow_in_the_same_order(road: Road) -> None:
    key = FlowKey("lan_wan", MAC, 6, 83)
    road.engine.decide(packet(83), LAN, MAC, 5)
    road.engine.set_state(key, FlowState.DENIED, "user root", "test", 6)
    road.engine.set_state(key, None, "user root", "test", 7)
    road.news.commit()
    assert [transition.after for transition in road.told] == [FlowState.ALLOWED, FlowState.DENIED, None]


def test_nothing_waits_where_learning_is_not_durable(path: Path) -> None:
    road = Road(path, durable=False)
    assert not road.engine.decide(packet(84), LAN, MAC, 5).waits
    road.news.tell()
    assert len(road.told) == 1
    road.close()


def test_switching_it_off_hands_on_what_waits_and_nothing_twice(road: Road) -> None:
    road.engine.decide(packet(85), LAN, MAC, 5)
    road.news.durable = road.cache.durable = False
    road.news.tell()
    road.news.commit()
    road.news.durable = True
    road.engine.decide(packet(86), LAN, MAC, 5)
    road.news.commit()
    assert [transition.key.port for transition in road.told] == [85, 86]
