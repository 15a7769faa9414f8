"""The Debian package under a real systemd: what must have been seen in the story of conftest.py."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, Story

pytestmark = pytest.mark.timeout(1500)  # whichever test comes first plays the story

EXPOSURE = 1.4  # what `systemd-analyze security` may say at most: docs/deploy.md says what each tenth is for


def test_the_package_has_no_path_of_the_machine_that_built_it(packages: list[Path], tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-R", str(packages[0]), str(tmp_path)], check=True)
    folders = re.compile(re.escape(str(ROOT).encode()) + rb"|/tmp/tmp\.\w")  # of the sources, and of the build
    found = [path for path in tmp_path.rglob("*") if path.is_file() and folders.search(path.read_bytes())]
    assert not found


def test_the_first_installation_starts_the_service_and_locks_nobody_out(story: Story) -> None:
    assert story["the installation"].status == 0, story.output("the installation")
    assert story.output("installed").splitlines()[:2] == ["active", "0"]
    assert "Active: active (running)" in story.output("status"), story.output("status")
    assert story.output("reached before") == story.output("reached") == "SSH-2.0"
    assert story.output("the session").split() == ["one", "two"], "what was open went on"


def test_the_unit_is_as_closed_as_the_job_allows(story: Story) -> None:
    for name in ("exposure", "exposure of the boot unit"):
        last = story.output(name).splitlines()[-1]
        assert float(re.search(r": (\d+\.\d) ", last)[1]) <= EXPOSURE, story.output(name)  # type: ignore[index]
    # It is for seconds, and root's: namespaces, and the top of the cgroup tree.
    last = story.output("exposure of the engines unit").splitlines()[-1]
    assert float(re.search(r": (\d+\.\d) ", last)[1]) <= 3.8  # type: ignore[index]


def test_both_processes_are_the_services_user_with_one_right(story: Story) -> None:
    rows = [line.split() for line in story.output("processes").splitlines()]
    values = {name: [row[1:] for row in rows if row[0] == f"{name}:"] for name in ("CapEff", "CapBnd", "NoNewPrivs")}
    assert values == {
        "CapEff": [["0000000000001000"]] * 2,
        "CapBnd": [["0000000000001000"]] * 2,
        "NoNewPrivs": [["1"]] * 2,
    }
    assert all(row[1] != "0" for row in rows if row[0] in {"Uid:", "Gid:"})
    assert [row[1:] for row in rows if row[0] == "CapAmb:"] == [["0000000000001000"], ["0" * 16]], "the worker has less"
    assert [row for row in rows if len(row) == 1] == [["0"], ["-10"]], "and goes before the others"


def test_the_socket_and_what_was_learned_are_nobody_elses(story: Story) -> None:
    assert story.output("the socket").splitlines() == [
        "srw-rw---- glacic glacic",
        "drwx------ glacic glacic",
        "-rw------- glacic glacic",
    ]


def test_the_tables_of_the_grammar_came_with_the_package(story: Story) -> None:
    assert story.output("the grammar's tables") == "start"


def test_a_reload_by_systemd_comes_back_when_the_new_ruleset_is_in_force(story: Story) -> None:
    assert story["the reload"].status == 0
    assert story.output("reloaded").startswith("active")
    assert story.output("reached through the service") == "SSH-2.0"


def test_the_confined_service_learns(story: Story) -> None:
    assert story.output("learned") == "hello"
    flows = story.document("flows")
    assert [(flow["state"], flow["port"]) for flow in flows] == [("allowed", 2222)]
    queue = story.document("figures")["queues"][0]
    assert queue["kernel_dropped"] == queue["user_dropped"] == 0


def test_what_root_restores_the_service_can_use(story: Story) -> None:
    assert story["the restored flows"].status == 0, story.output("the restored flows")
    assert story.document("flows after restoring")[0]["port"] == 2222


def test_the_confined_service_still_sees_who_asks(story: Story) -> None:
    assert "guest-agent.service" in story.output("the trail"), "the session of whoever approved a flow"


def test_a_refused_reload_fails_and_changes_nothing(story: Story) -> None:
    assert story["the refused reload"].status != 0
    assert "dorp" in story.output("the reason")
    assert story.output("refused").startswith("active")
    assert story.output("the rules after") == story.output("the rules before")


def test_a_killed_service_is_started_again(story: Story) -> None:
    assert story["killed"].status == 0
    assert story.output("after the kill").splitlines()[:2] == ["active", "1"]
    assert story.output("reached after the kill") == "SSH-2.0"


def test_other_tables_are_as_they_were(story: Story) -> None:
    assert story["the other table before"].status == 0
    assert story.output("the other table before") == story.output("the other table after")


def test_it_is_back_after_a_power_cut_with_what_it_learned(story: Story) -> None:
    assert story.output("after the reboot").splitlines()[0] == "active"
    assert story.output("the system after the reboot") == "running"
    assert story.output("reached after the reboot") == "SSH-2.0"
    assert len(story.document("flows after the reboot")) == 1


def test_the_ruleset_is_there_before_the_network(story: Story) -> None:
    *times, cycles = map(int, story.output("the order of the boot").splitlines())
    assert times == sorted(times)
    assert times[0] > 0
    assert cycles == 0


def test_a_mistake_in_the_file_at_boot_leaves_the_machine_closed_reachable_and_loud(story: Story) -> None:
    state, _, document = story.output("broken").split("\n", 2)
    status = json.loads(document)
    assert (state, status["state"]) == ("active", "degraded")
    assert "dorp" in status["reason"]
    assert story.output("the boot unit") == "active"
    assert story.output("reached while it is broken") == "SSH-2.0", "management"
    assert story.output("learned before it was broken") == "hello"
    assert story["new while it is broken"].status == 124, "no answer"
    assert int(story.output("dropped while it is broken")) > 0
    assert "dorp" in story.output("the log of a broken configuration")


def test_a_reload_with_the_mistake_mended_opens_it_again(story: Story) -> None:
    assert story["mended"].status == 0, story.output("mended")
    assert story.document("mended")["state"] == "running"


def test_an_upgrade_keeps_the_service_the_configuration_and_the_flows(story: Story) -> None:
    assert story["the upgrade"].status == 0, story.output("the upgrade")
    assert story.output("version").endswith("-2")
    assert story.output("upgraded").splitlines()[0] == "active"
    assert story.output("reached after the upgrade") == "SSH-2.0"
    assert len(story.document("flows after the upgrade")) == 1


def test_a_removal_leaves_no_ruleset_and_what_was_learned(story: Story) -> None:
    assert story["the removal"].status == 0, story.output("the removal")
    assert "glacic" not in re.sub(r"/usr/\S*glacic", "", story.output("removed").replace("cannot access", ""))
    assert story.output("reached after the removal") == "SSH-2.0"
    assert {"glacic.hcl", "flows.db"} <= set(story.output("left after the removal").split())


def test_a_purge_leaves_nothing(story: Story) -> None:
    assert story["the purge"].status == 0, story.output("the purge")
    assert all("cannot access" in line for line in story.output("left after the purge").splitlines())


def test_no_unit_failed_and_nothing_was_refused_to_the_service(story: Story) -> None:
    assert story.output("failed on the first day") == story.output("failed in the end") == ""
    assert story.output("tracebacks") == "0"
    assert story.output("trouble") == ""
