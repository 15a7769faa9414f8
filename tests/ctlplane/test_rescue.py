"""A damaged flow database is set aside and recovered, from what is readable and from the kernel; and loudly.

With the real service in nflog mode: its database is damaged while it is stopped, and under its hands.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from glacic.config.model import Config, RuleLearning
from glacic.ctlplane.rescue import EXIT_DAMAGED, Rescue, adopt, follow
from glacic.errors import StoreError
from glacic.firewall.nft import FakeNft
from glacic.lab import traffic
from glacic.lab.home import CAMERA_MAC, SERVER, Home, home
from glacic.lab.service import Glacic
from glacic.learning.aside import DAMAGED, kept
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState, Transition
from glacic.learning.store import Store

PAGE = 4096
PATIENT_S = 20.0
SHORT_S = 0.7
CONFIG = """\
rule_learning {
  enabled       = true
  learning_mode = true
}
zone "lan" {
  interface = "lan0"
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {
  name = "lan_wan"
}
"""


def key(port: int) -> FlowKey:
    return FlowKey("lan_wan", b"\x02\0\0\0\0\x01", 6, port)


def fill(path: Path, states: dict[int, FlowState]) -> None:
    with Store.open(path) as store:
        batch = Batch()
        for port, state in states.items():
            batch.added.append(Written(key(port), state, 5, 5, 1, "tofu"))
            batch.transitions.append(Transition(key(port), None, state, 5, "tofu", "test"))
        store.write(batch)


def spoil(path: Path, page: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(os.urandom(PAGE))


def spoil_all(path: Path) -> None:
    for file in (path, path.with_name(f"{path.name}-wal")):
        if file.exists():
            with file.open("r+b") as whole:
                whole.write(os.urandom(file.stat().st_size))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(path=tmp_path / "glacic.hcl", rule_learning=RuleLearning(enabled=False))  # nothing for the kernel


@pytest.fixture
def rescue() -> Rescue:
    return Rescue(FakeNft())


def test_a_sound_database_is_left_as_it_is(rescue: Rescue, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    rescue.check(config, tmp_path)
    assert not path.exists()
    fill(path, {80: FlowState.ALLOWED})
    before = path.read_bytes()
    rescue.check(config, tmp_path)
    assert path.read_bytes() == before
    assert rescue.notes == []


def test_a_damaged_one_is_set_aside_and_recovered_and_said(rescue: Rescue, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    fill(path, dict.fromkeys(range(500), FlowState.ALLOWED))
    spoil(path)
    damaged = path.read_bytes()
    rescue.check(config, tmp_path)
    (aside,) = kept(path, DAMAGED)
    assert aside.read_bytes() == damaged
    with Store.open(path) as store:
        assert store.count() == 500
    (note,) = rescue.notes
    assert f"set aside as {aside}, and 500 flow(s) are recovered" in note
    rescue.check(config, tmp_path)
    assert len(rescue.notes) == 1


def test_a_log_with_garbage_is_kept_and_the_database_goes_on(rescue: Rescue, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    fill(path, {80: FlowState.ALLOWED})
    path.with_name("flows.db-wal").write_bytes(os.urandom(3 * PAGE))
    rescue.check(config, tmp_path)
    (aside,) = kept(path, DAMAGED)
    assert aside.with_name(f"{aside.name}-wal").stat().st_size == 3 * PAGE
    with Store.open(path) as store:
        assert [flow.key for flow in store.list()] == [key(80)]
    rescue.check(config, tmp_path)
    assert len(rescue.notes) == 1


def test_what_a_worker_could_not_read_is_not_trusted(rescue: Rescue, config: Config, tmp_path: Path) -> None:
    """The quick check does not look at everything; a worker that met a damaged page did."""
    path = tmp_path / "flows.db"
    fill(path, {80: FlowState.ALLOWED})
    rescue.worker_ended(-9)
    rescue.check(config, tmp_path)
    assert rescue.notes == []
    rescue.worker_ended(EXIT_DAMAGED)
    rescue.check(config, tmp_path)
    rescue.check(config, tmp_path)
    assert len(kept(path, DAMAGED)) == len(rescue.notes) == 1


def test_a_newer_version_is_refused_and_not_touched(rescue: Rescue, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    fill(path, {80: FlowState.ALLOWED})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    rescue.check(config, tmp_path)
    with pytest.raises(StoreError, match="a newer Glacic has used it"):
        Store.open(path)
    assert path.read_bytes() == before
    assert (rescue.notes, kept(path, DAMAGED)) == ([], [])


def test_the_kernel_knows_what_the_store_lacks_and_its_refusals_count(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    fill(
        path,
        {1: FlowState.ALLOWED, 2: FlowState.IGNORED, 3: FlowState.ALLOWED, 4: FlowState.PENDING, 5: FlowState.DENIED},
    )
    elements = [(key(1), False), (key(2), False), (key(3), True), (key(5), True), (key(6), True), (key(7), False)]
    with Store.open(path) as store:
        assert adopt(store, elements) == 3
        states = {flow.key.port: (flow.state.value, flow.origin) for flow in store.list()}
        assert states == {
            1: ("denied", "recovered"),
            2: ("ignored", "tofu"),
            3: ("allowed", "tofu"),
            4: ("pending", "tofu"),
            5: ("denied", "tofu"),
            6: ("allowed", "recovered"),
            7: ("denied", "recovered"),
        }
        assert [transition.who for transition in store.transitions(key(1))] == ["tofu", "recovered"]
        assert adopt(store, elements) == 0


def test_a_reader_follows_the_file_to_its_new_place(tmp_path: Path) -> None:
    path, other = tmp_path / "flows.db", tmp_path / "other.db"
    fill(path, {80: FlowState.ALLOWED})
    fill(other, {81: FlowState.ALLOWED})
    first = follow(None, path)
    assert follow(first, path) is first
    other.replace(path)
    second = follow(first, path)
    assert [store.list()[0].key.port for store in (first, second)] == [80, 81]
    first.close()
    second.close()


# ---- the service


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, range(8000, 8020), range(8000, 8020)):
        yield hosts


@pytest.fixture
def glacic(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path, CONFIG) as running:
        yield running


def learn(lab: Home, glacic: Glacic, *ports: int) -> None:
    for port in ports:
        assert lab.camera.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S).ok
    glacic.call("flows.list")  # and with it what was learned is on disk


def passes_at_once(lab: Home, port: int) -> bool:
    result = lab.camera.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S)
    return result.ok and result.retransmits == 0


def origins(glacic: Glacic) -> dict[int, str]:
    return {flow["port"]: flow["origin"] for flow in glacic.flows(source=CAMERA_MAC)}


def notes(glacic: Glacic) -> list[str]:
    status = glacic.call("status")
    return list(status["recovered"]) if status["state"] == "running" else []


def test_a_database_that_was_damaged_while_nobody_ran(lab: Home, glacic: Glacic) -> None:
    learn(lab, glacic, 8000, 8001)
    glacic.call("flows.set", verb="deny", flows=[f"lan_wan/{CAMERA_MAC}/tcp/8001"])
    glacic.stop()
    path = glacic.state_dir / "flows.db"
    spoil_all(path)  # nothing is readable: only the kernel knows
    glacic.start()
    assert origins(glacic) == {8000: "recovered", 8001: "recovered"}
    assert passes_at_once(lab, 8000)
    assert not lab.camera.call(traffic.tcp, SERVER, 8001, timeout_s=SHORT_S).ok
    (note,) = notes(glacic)
    assert "2 flow(s) are recovered (some rows could not be read), 2 from the kernel" in note
    assert "the flow database is damaged" in glacic.log.read_text()
    assert "recovered" in glacic.cli("status").stdout


def test_a_database_that_is_damaged_under_the_services_hands(lab: Home, tmp_path: Path) -> None:
    """Nobody notices before a page is read from the disk: here by somebody who lists flows."""
    glacic = Glacic(lab.router, tmp_path, CONFIG)
    glacic.state_dir.mkdir()
    path = glacic.state_dir / "flows.db"
    fill(path, dict.fromkeys(range(20_000, 40_000), FlowState.ALLOWED))
    with glacic:
        learn(lab, glacic, 8002, 8003)
        before = glacic.worker()
        for page in range(path.stat().st_size // PAGE // 3, path.stat().st_size // PAGE):
            spoil(path, page)
        assert "recovers what it can" in glacic.cli("flows", "list", "--json", check=False).stdout
        glacic.wait("recovered", lambda: notes(glacic))
        assert glacic.worker() != before
        assert glacic.call("stats")["flows"]["allowed"] == 20_002
        assert passes_at_once(lab, 8002)
        learn(lab, glacic, 8004)
        assert origins(glacic)[8004] == "tofu"


def test_a_database_whose_damage_the_worker_meets(lab: Home, tmp_path: Path) -> None:
    """It counts what a new source has, in an index that cannot be read, and ends; the next one finds it recovered."""
    glacic = Glacic(lab.router, tmp_path, CONFIG)
    glacic.state_dir.mkdir()
    path = glacic.state_dir / "flows.db"
    fill(path, dict.fromkeys(range(20_000, 40_000), FlowState.PENDING))
    with glacic:
        before = glacic.worker()
        for page in range(8, path.stat().st_size // PAGE):
            spoil(path, page)
        lab.camera.call(traffic.tcp, SERVER, 8005, timeout_s=PATIENT_S)
        glacic.wait("recovered", lambda: notes(glacic))
        assert glacic.worker() != before
        assert f"the worker ended with status {EXIT_DAMAGED}" in glacic.log.read_text()
        learn(lab, glacic, 8005)
