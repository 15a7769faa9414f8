"""Changes are written in groups, by one thread, and none is lost while the disk refuses."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import glacic
from glacic.errors import StoreError
from glacic.learning import database as database_module
from glacic.learning import writer as writer_module
from glacic.learning.cache import FlowCache
from glacic.learning.engine import open_cache
from glacic.learning.flow import FlowKey, FlowState, Transition
from glacic.learning.store import Store
from glacic.learning.switch import LearningRow, SavedLearning
from glacic.learning.writer import Writer

MAC = b"\x02\0\0\0\0\x01"
NEVER_S = 3600.0  # an interval that no test lives to see: only flush() and close() write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "flows.db") as store:
        yield store


@pytest.fixture
def cache(store: Store) -> FlowCache:
    return open_cache(store, 100)


@pytest.fixture
def troubles() -> list[str]:
    return []


@pytest.fixture
def writer(store: Store, cache: FlowCache, troubles: list[str]) -> Iterator[Writer]:
    writer = Writer(store, cache, interval_s=NEVER_S, on_trouble=troubles.append)
    writer.start()
    yield writer
    writer.close()


def key(port: int) -> FlowKey:
    return FlowKey("lan_wan", MAC, 6, port)


def learn(cache: FlowCache, port: int) -> None:
    transition = Transition(key=key(port), before=None, after=FlowState.ALLOWED, at_ns=5, who="tofu", why="test")
    with cache.order:
        cache.census.move(MAC, None, "", FlowState.ALLOWED, "tofu")
        cache.add(transition, "tofu")


def ports(store: Store) -> list[int]:
    return [flow.key.port for flow in store.list(limit=1000)]


@pytest.fixture
def locked(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The database is held by another program, until this is called."""
    monkeypatch.setattr(database_module, "WRITE_WAIT_S", 0.001)
    with closing(sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")

        def release() -> None:
            if other.in_transaction:
                other.execute("ROLLBACK")

        yield release
        release()


def test_flush_returns_when_everything_before_it_is_committed(store: Store, cache: FlowCache, writer: Writer) -> None:
    for port in range(200):
        learn(cache, port)
    assert ports(store) == []
    writer.flush()
    assert ports(store) == list(range(200))
    assert cache.unwritten == 0


def test_the_group_is_committed_after_the_interval_without_being_asked(store: Store, cache: FlowCache) -> None:
    written = threading.Event()
    write = store.write
    store.write = lambda batch: (write(batch), written.set())[0]  # type: ignore[method-assign]
    writer = Writer(store, cache, interval_s=0.001)
    writer.start()
    learn(cache, 80)
    assert written.wait(30)
    writer.close()
    assert ports(store) == [80]


def test_close_writes_what_is_left_and_ends_the_thread(store: Store, cache: FlowCache) -> None:
    writer = Writer(store, cache, interval_s=NEVER_S)
    writer.start()
    learn(cache, 80)
    writer.close()
    assert ports(store) == [80]
    learn(cache, 81)
    with pytest.raises(StoreError, match="not written"):
        writer.flush(timeout_s=0.01)
    with pytest.raises(StoreError, match="closed"):
        writer.save_numbers({})


def test_other_jobs_are_written_too(store: Store, cache: FlowCache, writer: Writer) -> None:
    saved = SavedLearning(True, (LearningRow("", True, 1, None, "file"),))
    learn(cache, 80)
    writer.save_learning(saved)
    writer.save_numbers({"lan_wan/mac": 3})
    assert writer.add_kernel_counts([(key(80), 10)], 99)  # of a flow that is in the same group
    writer.flush()
    assert store.learning() == saved
    assert store.numbers() == {"lan_wan/mac": 3}
    found = store.find(key(80))
    assert found is not None
    assert (found.packets, found.last_seen_ns) == (10, 99)
    writer.reset_kernel_counts()
    writer.add_kernel_counts([(key(80), 10)], 100)
    writer.flush()
    assert store.list()[0].packets == 20


def test_many_pages_of_counters_wait_their_turn(store: Store, cache: FlowCache, writer: Writer) -> None:
    learn(cache, 80)
    for counter in range(1, 10 * writer_module.MAX_JOBS):
        assert writer.add_kernel_counts([(key(80), counter)], counter)
    writer.flush()
    assert store.list()[0].packets == 10 * writer_module.MAX_JOBS - 1


class TestWhileTheDatabaseIsLocked:
    def test_nothing_is_lost_and_it_is_said_once(
        self, store: Store, cache: FlowCache, writer: Writer, troubles: list[str], locked: Callable[[], None]
    ) -> None:
        learn(cache, 80)
        for port in (81, 82, 83):
            with pytest.raises(StoreError, match="database is locked; another program holds it"):
                writer.flush()
            learn(cache, port)
        assert not writer.healthy
        assert "locked" in writer.trouble
        assert ports(store) == []
        locked()
        writer.flush()
        assert sorted(ports(store)) == [80, 81, 82, 83]
        assert writer.healthy
        assert [bool(trouble) for trouble in troubles] == [True, False]

    def test_counters_are_refused_and_what_must_be_kept_is_kept(
        self, store: Store, writer: Writer, locked: Callable[[], None]
    ) -> None:
        writer.save_numbers({"lan_wan/mac": 3})
        with pytest.raises(StoreError):
            writer.flush()
        assert not writer.add_kernel_counts([(key(80), 1)], 1)
        locked()
        writer.flush()
        assert store.numbers() == {"lan_wan/mac": 3}

    def test_it_tries_again_by_itself(
        self, store: Store, cache: FlowCache, troubles: list[str], locked: Callable[[], None]
    ) -> None:
        over = threading.Event()

        def tell(trouble: str) -> None:
            troubles.append(trouble)
            if trouble:
                locked()
            else:
                over.set()

        writer = Writer(store, cache, interval_s=0.001, on_trouble=tell)
        learn(cache, 80)
        writer.start()
        assert over.wait(30)
        writer.close()
        assert ports(store) == [80]

    def test_close_says_what_is_lost(self, store: Store, cache: FlowCache, locked: Callable[[], None]) -> None:
        writer = Writer(store, cache, interval_s=NEVER_S)
        writer.start()
        learn(cache, 80)
        with pytest.raises(StoreError, match=r"changes of flows are lost: .*locked"):
            writer.close()


def test_a_full_disk_is_trouble_and_its_end_is_the_end_of_trouble(
    store: Store, cache: FlowCache, writer: Writer, troubles: list[str]
) -> None:
    writer.flush()
    (pages,) = store._database.rows("PRAGMA page_count")[0]
    limits: list[int] = [pages]
    write = store.write

    def within_the_limit(batch: object) -> None:  # on the writer's thread, so on its connection
        store._database.rows(f"PRAGMA max_page_count = {limits[-1]}")
        write(batch)  # type: ignore[arg-type]

    store.write = within_the_limit  # type: ignore[method-assign, assignment]
    for port in range(2000):
        learn(cache, port)
    with pytest.raises(StoreError, match="disk is full; make room"):
        writer.flush()
    limits.append(1_000_000)
    writer.flush()
    assert store.count() == 2000
    assert [bool(trouble) for trouble in troubles] == [True, False]


def test_a_fault_of_the_program_does_not_end_the_thread(store: Store, cache: FlowCache, writer: Writer) -> None:
    write = store.write

    def fail(batch: object) -> None:
        store.write = write  # type: ignore[method-assign]
        raise MemoryError("no room")

    store.write = fail  # type: ignore[method-assign, assignment]
    learn(cache, 80)
    with pytest.raises(StoreError, match=r"MemoryError.*no room"):
        writer.flush()
    writer.flush()
    assert ports(store) == [80]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_all_the_same_is_trouble(store: Store, cache: FlowCache, locked: Callable[[], None]) -> None:
    def fall(trouble: str) -> None:
        raise ZeroDivisionError(trouble)

    writer = Writer(store, cache, interval_s=NEVER_S, on_trouble=fall)
    writer.start()
    learn(cache, 80)
    with pytest.raises(StoreError, match="its thread has ended"):
        writer.flush()
    assert not writer.healthy
    with pytest.raises(StoreError, match="its thread has ended"):
        writer.flush()


CHILD = """
import sys
from pathlib import Path
from glacic.learning.engine import open_cache
from glacic.learning.flow import FlowKey, FlowState, Transition
from glacic.learning.store import Store
from glacic.learning.writer import Writer

store = Store.open(Path(sys.argv[1]))
cache = open_cache(store, 10)
writer = Writer(store, cache)
writer.start()
for port in range(1000):
    key = FlowKey("lan_wan", bytes(6), 6, port)
    with cache.order:
        cache.census.move(key.source, None, "", FlowState.ALLOWED, "tofu")
        cache.add(Transition(key=key, before=None, after=FlowState.ALLOWED, at_ns=5, who="tofu", why=""), "tofu")
    if port == 499:
        writer.flush()
        print("flushed", flush=True)
sys.stdin.read()
"""


def test_what_was_flushed_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    root = str(Path(glacic.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"flushed\n"
        finally:
            child.send_signal(signal.SIGKILL)
    with Store.open(path) as store:
        assert set(ports(store)) >= set(range(500))
        assert store.count() == store.count_learned() == store.count_source(bytes(6))[0]


def test_a_change_of_state_that_the_writer_is_told_of_does_not_wait_for_the_interval(
    store: Store, cache: FlowCache, writer: Writer
) -> None:
    written = threading.Event()
    write = store.write
    store.write = lambda batch: (write(batch), written.set())[0]  # type: ignore[method-assign]
    learn(cache, 80)
    writer.hasten()
    assert written.wait(30)
    assert ports(store) == [80]
