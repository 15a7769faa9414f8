"""A backup of the running service, and the service with what was in it: in the store, and in the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.ctlplane.restoring import database_of
from glacic.errors import GlacicError
from glacic.lab import traffic
from glacic.lab.home import CAMERA_MAC, SERVER, Home, home
from glacic.lab.service import Glacic
from glacic.learning.backup import RESTORING
from glacic.learning.store import Store

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


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, range(8000, 8020), range(8000, 8020)):
        yield hosts


@pytest.fixture
def glacic(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path, CONFIG) as running:
        yield running


def passes(lab: Home, port: int, timeout_s: float = PATIENT_S) -> bool:
    return lab.camera.call(traffic.tcp, SERVER, port, timeout_s=timeout_s).ok


def ports(glacic: Glacic) -> list[int]:
    return [flow["port"] for flow in glacic.flows(source=CAMERA_MAC)]


def test_the_service_goes_on_with_what_was_restored(lab: Home, glacic: Glacic, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    assert passes(lab, 8000)
    saved = glacic.json("backup", str(file))
    assert saved == {"file": str(file), "flows": 1, "bytes": file.stat().st_size}
    assert glacic.cli("backup", str(file), check=False).returncode == 1
    assert passes(lab, 8001)
    worker = glacic.worker()
    done = glacic.json("restore", str(file))
    assert (done["file"], done["flows"]) == (str(file), 1)
    assert glacic.state() == "running"
    assert glacic.worker() != worker
    assert "worker ended" not in glacic.log.read_text()  # it was told to
    assert ports(glacic) == [8000]
    with Store.open(Path(done["replaced"])) as replaced:
        assert {flow.key.port for flow in replaced.list()} == {8000, 8001}
    glacic.call("learn.off")
    assert passes(lab, 8000)
    assert not passes(lab, 8001, SHORT_S)


def test_a_bad_file_changes_nothing(glacic: Glacic, tmp_path: Path) -> None:
    worker, file = glacic.worker(), tmp_path / "bad.db"
    file.write_text("no database")
    refused = glacic.cli("restore", str(file), check=False)
    assert (refused.returncode, "cannot restore" in refused.stderr) == (1, True)
    with pytest.raises(GlacicError, match="no flow database"):
        glacic.call("restore")
    glacic.state_dir.joinpath(f"flows.db{RESTORING}").write_text("no database")
    with pytest.raises(GlacicError, match="file is not a database"):
        glacic.call("restore")
    assert (glacic.state(), glacic.worker()) == ("running", worker)


def test_without_a_service_the_files_are_swapped(lab: Home, glacic: Glacic, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    assert passes(lab, 8002)
    glacic.stop()
    assert glacic.json("backup", str(file))["flows"] == 1
    database = database_of(glacic.config, glacic.state_dir)
    database.unlink()
    database.with_name("flows.db-wal").unlink(missing_ok=True)
    assert glacic.json("restore", str(file)) == {"file": str(file), "flows": 1, "replaced": None}
    glacic.start()
    assert ports(glacic) == [8002]
