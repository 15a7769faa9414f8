"""Trials, rollbacks and panics on a bad day, with real packets: kills at any moment, a full disk, a process that stands
still, a second change that is refused. Whatever happens, what was confirmed comes back, and the administrator in.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glacic.errors import GlacicError
from glacic.lab import traffic
from glacic.lab.home import LAPTOP, ROUTER_LAN, SERVER, Home, home
from glacic.lab.service import Glacic

OPEN = """\
zone "lan" {
  interface = "lan0"
  management { ssh = true }
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {
  action = "accept"
}
"""
CUTS = OPEN.replace("  management { ssh = true }\n", "")
RESTORES = 'integrity = "restore"\n'
QUICK_S = 0.5
ROUNDS = int(os.environ.get("GLACIC_KILLS", "5"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with (
        home() as hosts,
        hosts.router.call(traffic.Echo, [22]),
        hosts.server.call(traffic.Echo, [80]),
    ):
        yield hosts


@pytest.fixture
def glacic(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path, OPEN) as running:
        yield running


def reaches(lab: Home) -> bool:
    """Whether the administrator gets a new connection to the router."""
    return lab.laptop.call(traffic.tcp, ROUTER_LAN, 22, timeout_s=QUICK_S).ok


def passes(lab: Home) -> bool:
    return lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok


def history(glacic: Glacic) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((glacic.state_dir / "history.json").read_text())
    return found


def over_ssh(glacic: Glacic, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that came over ssh from the laptop."""
    connection = f"{LAPTOP} 50000 {ROUTER_LAN} 22"
    return glacic.host.run(glacic.command(*arguments), check=False, environment={"SSH_CONNECTION": connection})


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte more goes into the file system that this folder is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()


@pytest.fixture
def small(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    """A service whose state directory is a small file system of its own."""
    glacic = Glacic(lab.router, tmp_path, OPEN)
    glacic.state_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "glacic-test", glacic.state_dir], check=True)
    try:
        with glacic:
            yield glacic
    finally:
        subprocess.run(["umount", "--lazy", glacic.state_dir], check=True)


def test_a_second_trial_that_is_refused_does_not_keep_the_first_one(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--confirm", "8", "--force")
    glacic.configure(CUTS + 'rule_learning {\n  enabled = true\n  database = "/nowhere/else.db"\n}\n')
    assert glacic.cli("apply", "--confirm", "600", "--force", check=False).returncode == 1
    status = glacic.call("status")
    assert (status["trial"]["number"], status["revision"]) == (2, 2)
    assert not reaches(lab)
    glacic.wait("taken back", lambda: reaches(lab))
    glacic.wait("written down", lambda: glacic.json("history")["in_force"] == 1)


def test_without_a_service_neither(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, OPEN)
    try:
        glacic.cli("apply")
        glacic.configure(CUTS)
        glacic.cli("apply", "--confirm", "8", "--force")
        glacic.configure(CUTS + f'rule_learning {{\n  enabled = true\n  database = "{tmp_path}"\n}}\n')
        assert glacic.cli("apply", "--confirm", "600", "--force", check=False).returncode != 0
        assert glacic.json("history")["trial"]["number"] == 2
        glacic.wait("taken back", lambda: reaches(lab))
    finally:
        lab.router.run(["nft", "flush", "ruleset"])


@pytest.mark.parametrize("text", [CUTS, RESTORES + CUTS], ids=["report", "restore"])
def test_a_service_that_stood_still_does_not_bring_a_trial_back_to_life(lab: Home, glacic: Glacic, text: str) -> None:
    glacic.configure(text)
    glacic.cli("apply", "--confirm", "1", "--force")
    assert glacic.process is not None
    worker = glacic.worker()
    os.kill(glacic.process.pid, signal.SIGSTOP)
    try:
        glacic.wait("taken back", lambda: reaches(lab))
        os.kill(worker, signal.SIGKILL)  # its successor is given what is in force
    finally:
        os.kill(glacic.process.pid, signal.SIGCONT)
    glacic.wait("with another worker", lambda: glacic.call("status")["worker_starts"] == 2)
    glacic.wait("running", lambda: glacic.call("status")["state"] == "running" and "taken back" in note(glacic))
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        assert reaches(lab)
    assert glacic.call("status")["revision"] == 1


def note(glacic: Glacic) -> str:
    return str(glacic.call("status")["note"])


def test_a_worker_that_stands_still_does_not_keep_a_trial(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--confirm", "2", "--force")
    os.kill(glacic.worker(), signal.SIGSTOP)
    glacic.wait("taken back", lambda: reaches(lab))
    glacic.wait("running", lambda: glacic.call("status")["state"] == "running")
    assert reaches(lab)


def test_with_a_full_disk_no_trial_begins_and_one_that_runs_ends(lab: Home, small: Glacic) -> None:
    small.configure(CUTS)
    with full(small.state_dir):
        refused = small.cli("apply", "--confirm", "600", "--force", check=False)
        assert (refused.returncode, "No space left" in refused.stderr) == (1, True)
        assert reaches(lab)
    assert small.call("status")["trial"] is None
    small.cli("apply", "--confirm", "6", "--force")
    assert not reaches(lab)
    with full(small.state_dir):
        small.wait("taken back", lambda: reaches(lab))
        late = small.cli("confirm", check=False)
        assert (late.returncode, reaches(lab)) == (1, True)
    small.wait("written down", lambda: small.json("history")["trial"] is None)
    assert small.json("history")["in_force"] == 1
    assert reaches(lab)


def test_with_a_full_disk_a_panic_is_one(lab: Home, small: Glacic) -> None:
    assert passes(lab)
    with full(small.state_dir):
        done = small.cli("panic", check=False)
        assert (done.returncode, "restart" in done.stderr) == (1, True)
        assert (reaches(lab), passes(lab)) == (True, False)
        assert small.call("status")["panic"]


def test_a_kill_at_any_moment_of_a_change_ends_in_what_was_confirmed(lab: Home, glacic: Glacic) -> None:
    seen: dict[int, str] = {}
    for number in range(ROUNDS):
        glacic.configure(f"{CUTS}# round {number}\n")
        command = lab.router.popen(glacic.command("apply", "--confirm", "3", "--force"), stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0.3, 2.5))
        if random.random() < 0.3:
            command.kill()
        glacic.kill()
        if random.random() < 0.3:
            for guard in guards(glacic):
                os.kill(int(guard.split()[0]), signal.SIGKILL)
        lab.router.end(command)
        if not any(row["number"] not in seen and row["number"] > 1 for row in history(glacic)["revisions"]):
            glacic.configure(OPEN)  # it was never tried: a start would take it
        if random.random() < 0.5:
            glacic.start()
            glacic.kill()  # and once more, at once
        glacic.start()
        assert reaches(lab), number
        glacic.wait("written down", lambda: history(glacic)["trial"] is None)  # after the kernel has it
        standing = history(glacic)
        assert standing["in_force"] == 1
        for row in standing["revisions"]:
            assert seen.setdefault(row["number"], row["digest"]) == row["digest"]  # a number is never used again
        glacic.wait("tidy", lambda: not list(glacic.state_dir.rglob("*.new")))  # it may be writing one itself
    glacic.wait("without guards", lambda: not guards(glacic))
    assert reaches(lab)


def guards(glacic: Glacic) -> list[str]:
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if "ctlplane.guard" in line and str(glacic.state_dir) in line]


def test_a_closed_service_is_mended_over_ssh(lab: Home, glacic: Glacic) -> None:
    glacic.stop()
    glacic.configure("zone {")
    with glacic.log.open("ab") as log:
        glacic.process = lab.router.popen(glacic.command("run"), stdout=log, stderr=log)
    glacic.wait("degraded", lambda: glacic.state() == "degraded")
    glacic.cli("panic")  # does not mend it
    assert (glacic.call("status")["state"], passes(lab), reaches(lab)) == ("degraded", False, True)
    glacic.cli("panic", "off")
    status = glacic.call("status")
    assert (status["state"], status["worker_starts"], reaches(lab)) == ("degraded", 0, True)
    glacic.configure(OPEN + "\n")
    mended = over_ssh(glacic, "reload")
    assert mended.returncode == 0, mended.stderr
    assert glacic.state() == "running"
    assert passes(lab)


def test_a_mended_file_that_is_refused_leaves_no_worker_behind(lab: Home, glacic: Glacic) -> None:
    glacic.stop()
    glacic.configure("zone {")
    with glacic.log.open("ab") as log:
        glacic.process = lab.router.popen(glacic.command("run"), stdout=log, stderr=log)
    glacic.wait("degraded", lambda: glacic.state() == "degraded")
    glacic.configure(OPEN + f'rule_learning {{\n  enabled = true\n  database = "{glacic.state_dir}"\n}}\n')
    assert glacic.cli("reload", check=False).returncode == 1
    assert glacic.state() == "degraded"
    assert not Path("/proc", str(glacic.worker())).exists()
    glacic.configure(OPEN)
    assert glacic.process is not None
    os.kill(glacic.process.pid, signal.SIGHUP)
    glacic.wait("mended", lambda: glacic.state() == "running")


def test_a_panic_does_not_wait_for_a_worker_that_stands_still(lab: Home, glacic: Glacic) -> None:
    os.kill(glacic.worker(), signal.SIGSTOP)
    assert over_ssh(glacic, "panic").returncode == 0
    assert (reaches(lab), passes(lab)) == (True, False)
    glacic.wait("running", lambda: glacic.call("status")["state"] == "running")
    assert not passes(lab)
    glacic.cli("panic", "off")
    assert passes(lab)


def test_a_panic_without_a_service_keeps_its_own_way_back(lab: Home, tmp_path: Path) -> None:
    elsewhere = OPEN.replace("  external  = true", "  external  = true\n  management { ssh = true }")
    rule = 'rule "ssh" {\n    proto = "tcp"\n    dest_port = 22\n    action = "accept"\n  }'
    lets_in = f'policy "lan" "firewall" {{\n  action = "drop"\n  {rule}\n}}\n'
    glacic = Glacic(lab.router, tmp_path, elsewhere.replace("  management { ssh = true }\n", "", 1) + lets_in)
    try:
        glacic.cli("apply")
        refused = over_ssh(glacic, "panic")
        assert (refused.returncode, "cut the connection" in refused.stderr) == (1, True), refused
        assert passes(lab)
        assert not glacic.json("history")["panic"]
        assert over_ssh(glacic, "panic", "--force").returncode == 0
        assert not passes(lab)
    finally:
        lab.router.run(["nft", "flush", "ruleset"])


def test_a_revision_of_another_path_does_not_take_the_service_there(lab: Home, glacic: Glacic, tmp_path: Path) -> None:
    glacic.stop()
    glacic.config = tmp_path / "second.hcl"
    glacic.configure(CUTS)
    glacic.start()
    assert not reaches(lab)
    assert glacic.json("rollback")["revision"] == 3
    assert reaches(lab)
    assert glacic.call("status")["config"] == str(glacic.config)
    glacic.stop()
    glacic.start()
    assert (reaches(lab), glacic.call("status")["config"]) == (True, str(glacic.config))
    glacic.cli("apply", "--force")
    assert not reaches(lab)
    assert glacic.cli("rollback", "--force").returncode == 0
    refused = glacic.cli("rollback", check=False)  # back to the first one, and not forth again
    assert (refused.returncode, reaches(lab)) == (1, True)


def test_what_cannot_be_a_connection_is_no_way_back(lab: Home, glacic: Glacic) -> None:
    garbage = {"SSH_CONNECTION": "1.2.3.4 x y"}
    refused = lab.router.run(glacic.command("reload"), check=False, environment=garbage)
    assert (refused.returncode, "SSH_CONNECTION" in refused.stderr) == (2, True)
    assert lab.router.run(glacic.command("reload", "--force"), environment=garbage).returncode == 0


def test_a_setting_that_no_rule_shows_is_a_revision(glacic: Glacic) -> None:
    learning = "rule_learning {\n  enabled        = true\n  retention_days = 7\n}\n"
    glacic.configure(OPEN + learning)
    glacic.cli("apply")
    glacic.configure(OPEN + learning.replace("7", "8"))
    result = glacic.json("apply")
    assert (result["revision"], result["changes"]) == (3, [])
    with pytest.raises(GlacicError, match="no revision"):
        glacic.call("rollback", number=99)
