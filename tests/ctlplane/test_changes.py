"""Changing a firewall from afar, with real packets: trial, confirm, rollback, panic, and what a restart makes of them.

The administrator sits in the lan and reaches the router's port 22, which echoes; what cuts that must not last.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.errors import GlacicError
from glacic.lab import traffic
from glacic.lab.home import ROUTER_LAN, SERVER, Home, home
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
CUTS = OPEN.replace("  management { ssh = true }\n", "")  # nobody in the lan reaches port 22 any more
NARROW = OPEN.replace('action = "accept"', 'action = "drop"')
QUICK_S = 0.5


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with (
        home() as hosts,
        hosts.router.call(traffic.Echo, [22, 23]),
        hosts.server.call(traffic.Echo, [80]),
    ):
        yield hosts


@pytest.fixture
def glacic(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path, OPEN) as running:
        yield running


def reaches(lab: Home, port: int = 22) -> bool:
    """Whether the administrator gets a new connection to the router."""
    return lab.laptop.call(traffic.tcp, ROUTER_LAN, port, timeout_s=QUICK_S).ok


def passes(lab: Home) -> bool:
    """Whether a new connection gets through the router."""
    return lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok


def chains(lab: Home) -> str:
    return lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout


def test_a_change_shows_what_it_changes_and_becomes_a_revision(lab: Home, glacic: Glacic) -> None:
    assert passes(lab)
    assert glacic.json("show", "--diff")["changes"] == []
    glacic.configure(NARROW)
    (change,) = glacic.json("show", "--diff")["changes"]
    assert (change["kind"], change["name"], change["change"]) == ("chain", "policy_lan_wan", "changed")
    assert passes(lab)  # only shown
    result = glacic.json("apply")
    assert (result["applied"], result["by"], result["trial"]) == (True, "service", None)
    assert result["changes"] == [change]
    assert not passes(lab)
    history = glacic.json("history")
    assert [(row["state"], row["in_force"]) for row in history["revisions"]] == [
        ("confirmed", False),
        ("confirmed", True),
    ]
    assert glacic.json("apply")["revision"] == result["revision"]  # the same files are the same revision
    assert NARROW in glacic.json("history", str(result["revision"]))["files"].values()


def test_a_change_that_cuts_its_own_way_back_is_taken_back(lab: Home, glacic: Glacic) -> None:
    with lab.laptop.call(traffic.connect, ROUTER_LAN, 22, timeout_s=5.0) as connection:
        glacic.configure(CUTS)
        result = glacic.json("apply", "--confirm", "2", "--force")
        assert result["trial"]["back_to"] == 1
        assert result["connections_ended"] >= 1  # this one, and what tests before it left in TIME_WAIT
        connection.settimeout(QUICK_S)
        assert not traffic.answers(connection)  # the command's own connection is cut
        assert not reaches(lab)
        glacic.wait("taken back", lambda: glacic.call("status")["trial"] is None)
        assert reaches(lab)
        connection.settimeout(5.0)
        assert traffic.answers(connection)
    states = [row["state"] for row in glacic.json("history")["revisions"]]
    assert states == ["confirmed", "reverted"]
    assert "taken back" in glacic.call("status")["note"]
    assert glacic.cli("confirm", check=False).returncode == 1  # too late


def test_what_is_confirmed_stays(lab: Home, glacic: Glacic) -> None:
    glacic.configure(NARROW)
    trial = glacic.json("apply", "--confirm", "10")["trial"]
    refused = glacic.cli("reload", check=False)
    assert (refused.returncode, "on trial" in refused.stderr) == (1, True)
    assert glacic.json("confirm") == {"revision": 2, "state": "confirmed"}
    time.sleep(trial["seconds_left"] + 0.5)
    assert not passes(lab)
    assert [row["state"] for row in glacic.json("history")["revisions"]] == ["confirmed", "confirmed"]


def test_a_second_trial_goes_back_to_what_was_confirmed(lab: Home, glacic: Glacic) -> None:
    glacic.configure(NARROW)
    glacic.cli("apply", "--confirm", "60")
    glacic.configure(CUTS)
    assert glacic.json("apply", "--confirm", "60", "--force")["trial"]["back_to"] == 1
    assert glacic.json("rollback")["revision"] == 1
    assert reaches(lab)
    assert passes(lab)


def test_a_service_that_is_killed_during_a_trial_is_survived_by_its_guard(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--confirm", "2", "--force")
    assert not reaches(lab)
    glacic.kill()
    glacic.wait("taken back", lambda: reaches(lab))
    glacic.wait("written down", lambda: glacic.json("history")["trial"] is None)
    assert glacic.json("history")["in_force"] == 1


def test_a_service_that_stands_still_does_not_keep_a_trial(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--confirm", "1", "--force")
    assert glacic.process is not None
    os.kill(glacic.process.pid, signal.SIGSTOP)
    try:
        glacic.wait("taken back", lambda: reaches(lab))
    finally:
        os.kill(glacic.process.pid, signal.SIGCONT)


def test_a_start_does_not_take_a_file_that_was_on_trial(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--confirm", "600", "--force")
    glacic.kill()
    glacic.start()
    status = glacic.call("status")
    assert (status["revision"], status["trial"]) == (1, None)
    assert "on trial" in status["note"]
    assert reaches(lab)
    glacic.stop()
    glacic.start()  # and neither does the one after
    assert reaches(lab)
    glacic.cli("apply", "--force")  # a person may
    assert not reaches(lab)
    assert glacic.call("status")["note"] == ""


def test_a_clean_stop_ends_a_trial(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--confirm", "600", "--force")
    glacic.stop()
    assert reaches(lab)


def test_a_rollback_outlives_a_restart(lab: Home, glacic: Glacic) -> None:
    glacic.configure(NARROW)
    glacic.cli("apply")
    assert glacic.json("rollback")["changes"] != []
    assert passes(lab)
    glacic.stop()
    glacic.start()
    assert passes(lab)
    assert "rolled back" in glacic.call("status")["note"]
    assert glacic.cli("rollback", "77", check=False).returncode == 1
    glacic.cli("rollback", "2")
    assert not passes(lab)


def test_a_refused_change_leaves_no_trial(lab: Home, glacic: Glacic) -> None:
    glacic.configure(OPEN + "nonsense")
    assert glacic.cli("apply", "--confirm", "5", check=False).returncode == 1
    assert glacic.cli("apply", "--confirm", "0", check=False).returncode == 2
    assert glacic.call("status")["trial"] is None
    assert passes(lab)


def test_a_panic_lets_in_management_and_nothing_else(lab: Home, glacic: Glacic) -> None:
    with lab.laptop.call(traffic.connect, SERVER, 80, timeout_s=5.0) as through:
        assert traffic.answers(through)
        assert glacic.json("panic") == {"panic": True}
        through.settimeout(QUICK_S)
        assert not traffic.answers(through)
    assert reaches(lab)
    assert not passes(lab)
    assert not lab.router.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok
    glacic.stop()
    glacic.start()
    assert glacic.call("status")["panic"]
    assert not passes(lab)
    assert glacic.json("panic", "off") == {"panic": False}
    assert passes(lab)


def test_a_panic_that_would_lock_everybody_out_is_refused(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CUTS)
    glacic.cli("apply", "--force")
    refused = glacic.cli("panic", check=False)
    assert (refused.returncode, "management" in refused.stderr) == (1, True)
    assert passes(lab)


def test_a_broken_file_at_the_start_closes_and_says_so(lab: Home, glacic: Glacic) -> None:
    learning = "rule_learning {\n  enabled       = true\n  learning_mode = true\n}\n"
    glacic.reload(learning + NARROW)
    assert lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=20.0).ok  # learned
    glacic.stop()
    glacic.configure("zone {")
    with glacic.log.open("ab") as log:
        glacic.process = lab.router.popen(glacic.command("run"), stdout=log, stderr=log)
    glacic.wait("degraded", lambda: glacic.state() == "degraded")
    status = glacic.cli("status", check=False)
    assert (status.returncode, str(glacic.config) in status.stdout) == (1, True)
    number = glacic.process.pid
    assert Path(f"/proc/{number}/task/{number}/children").read_text() == ""  # nobody to decide anything
    assert "log prefix" not in chains(lab)
    assert passes(lab)  # what was learned
    assert not lab.laptop.call(traffic.tcp, SERVER, 81, timeout_s=QUICK_S).ok
    assert reaches(lab)
    assert glacic.json("flows", "list") != []
    with pytest.raises(GlacicError):
        glacic.call("stats")
    glacic.configure(learning + NARROW)
    glacic.cli("reload")
    assert glacic.state() == "running"
    assert "log prefix" in chains(lab)


def test_the_boot_script_is_closed_and_knows_what_was_learned(lab: Home, glacic: Glacic) -> None:
    learning = "rule_learning {\n  enabled       = true\n  learning_mode = true\n}\n"
    glacic.reload(learning + NARROW)
    assert lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=20.0).ok
    glacic.stop()
    lab.router.run(["nft", "flush", "ruleset"])
    lab.router.run(["nft", "-f", str(glacic.state_dir / "boot.nft")])
    assert "log prefix" not in chains(lab)
    assert passes(lab)
    assert reaches(lab)
    assert not reaches(lab, 23)
    glacic.start()
    assert "log prefix" in chains(lab)
    assert passes(lab)


def test_without_a_service_the_command_line_keeps_the_same_history(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, OPEN)
    try:
        first = glacic.json("apply")
        assert (first["by"], first["revision"], first["trial"]) == ("command", 1, None)
        assert {change["change"] for change in first["changes"]} == {"added"}
        glacic.configure(CUTS)
        assert glacic.json("apply", "--confirm", "1", "--force")["trial"]["back_to"] == 1
        assert not reaches(lab)
        glacic.wait("taken back", lambda: reaches(lab))
        glacic.configure(NARROW)
        glacic.cli("apply", "--confirm", "60")
        assert glacic.json("confirm")["revision"] == 3
        assert not passes(lab)
        assert glacic.json("rollback")["trial"] is None
        assert passes(lab)
        glacic.cli("panic")
        assert (passes(lab), reaches(lab)) == (False, True)
        glacic.cli("panic", "off")
        assert passes(lab)
        assert len(glacic.json("history")["revisions"]) == 4
    finally:
        lab.router.run(["nft", "flush", "ruleset"])
