"""What the running service does while its database cannot be written: known flows pass, new ones are learned in the
kernel and wait in memory, it is said once, `status` says what to do, and when the fault is gone everything is written.

With real faults: a file system of 2 MB that is full, a lock that another process holds, no descriptors left, a state
directory that is mounted read-only.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from glacic.errors import StoreError
from glacic.lab import traffic
from glacic.lab.home import CAMERA_MAC, SERVER, Home, home
from glacic.lab.service import Glacic
from glacic.learning.store import Store

PATIENT_S = 20.0
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


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, range(8000, 8020), range(8000, 8020)):
        yield hosts


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def glacic(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    """Its state directory is a small file system of its own."""
    glacic = Glacic(lab.router, tmp_path, CONFIG)
    with mounted(glacic.state_dir, "-t", "tmpfs", "-o", "size=2m,mode=0700", "glacic-test"), glacic:
        yield glacic


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def passes(lab: Home, *ports: int) -> bool:
    return all(lab.camera.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S).ok for port in ports)


def passes_at_once(lab: Home, port: int) -> bool:
    result = lab.camera.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S)
    return result.ok and result.retransmits == 0


def status(glacic: Glacic, state: str) -> Any:
    def is_so() -> Any:
        found = glacic.call("status")
        return found if found["state"] == state else None

    return glacic.wait(state, is_so)


def stored(glacic: Glacic) -> set[int]:
    with closing(sqlite3.connect(f"file:{glacic.state_dir}/flows.db?mode=ro", uri=True)) as connection:
        return {port for (port,) in connection.execute("SELECT port FROM flow WHERE state = 2")}


def lines(glacic: Glacic, words: str) -> int:
    return glacic.log.read_text().count(words)


def goes_through(lab: Home, glacic: Glacic, reason: str) -> None:
    """While the fault is there, and it was not there for port 8000."""
    assert passes(lab, 8001, 8002)  # learned, and in the kernel
    degraded = status(glacic, "degraded")
    assert reason in degraded["reason"]
    assert passes_at_once(lab, 8000)
    assert passes_at_once(lab, 8001)
    assert stored(glacic) == {8000}
    assert glacic.call("stats")["writer"] == {"healthy": False, "unwritten": 2}
    assert lines(glacic, "what was learned cannot be written") == 1


def is_over(lab: Home, glacic: Glacic, worker: int) -> None:
    status(glacic, "running")
    assert stored(glacic) == {8000, 8001, 8002}
    assert glacic.worker() == worker
    assert lines(glacic, "what was learned is written again") == 1
    assert passes(lab, 8003)


def test_a_full_disk(lab: Home, glacic: Glacic) -> None:
    assert passes(lab, 8000)
    glacic.call("flows.list")
    worker, filler = glacic.worker(), glacic.state_dir / "filler"
    fill_up(filler)
    subprocess.run(["sync", str(filler)], check=True)
    goes_through(lab, glacic, "database or disk is full; make room on its file system")
    filler.unlink()
    is_over(lab, glacic, worker)


def test_a_database_that_another_process_has_locked(lab: Home, glacic: Glacic) -> None:
    assert passes(lab, 8000)
    glacic.call("flows.list")
    worker = glacic.worker()
    with closing(sqlite3.connect(glacic.state_dir / "flows.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        goes_through(lab, glacic, "database is locked; another program holds it")
        other.execute("ROLLBACK")
    is_over(lab, glacic, worker)


def test_no_descriptors_left(lab: Home, glacic: Glacic) -> None:
    """What runs has what it needs; what is missing comes when there are some again."""
    assert passes(lab, 8000)
    worker = glacic.worker()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert passes_at_once(lab, 8000)
        passes(lab, 8001)  # whatever becomes of it, the service lives
        assert glacic.call("status")["state"] in ("running", "degraded")
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    status(glacic, "running")
    assert passes(lab, 8001, 8002)
    glacic.call("flows.list")
    assert stored(glacic) == {8000, 8001, 8002}
    assert glacic.worker() == worker


def test_a_state_directory_that_is_read_only_at_the_start(lab: Home, glacic: Glacic) -> None:
    assert passes(lab, 8000)
    glacic.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(glacic.state_dir)], check=True)
    refused = glacic.cli("run", check=False)
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(glacic.state_dir)], check=True)
    glacic.start()
    assert [flow["port"] for flow in glacic.flows(source=CAMERA_MAC)] == [8000]


def test_a_database_file_that_may_not_be_written(tmp_path: Path) -> None:
    """A worker that comes while the file is read-only cannot work with it, and says what is needed."""
    path = tmp_path / "flows.db"
    with Store.open(path):
        pass
    read_only = tmp_path / "ro"
    with (
        mounted(read_only, "--bind", "-o", "ro", str(tmp_path)),
        pytest.raises(StoreError, match=r"Read-only file system; the service must be allowed to write it"),
    ):
        Store.open(read_only / path.name)
    assert os.access(path, os.W_OK)
