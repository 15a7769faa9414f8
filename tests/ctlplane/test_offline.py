"""`glacic apply` without a service: the ruleset and what was learned, in the kernel; `unload` takes both away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.ctlplane import offline
from glacic.errors import KernelRefused
from glacic.lab import traffic
from glacic.lab.home import LAPTOP_MAC, SERVER, Home, home
from glacic.lab.service import Glacic

CONFIG = """\
rule_learning {
  enabled = true
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
FOREIGN = "table ip other { chain c { type filter hook forward priority 5; counter accept; }; }"


@pytest.fixture
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, [80, 81]):
        yield hosts


def test_apply_and_unload_by_hand(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, CONFIG)
    lab.router.run(["nft", FOREIGN])
    with glacic:
        lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=0.5)
        flow = glacic.wait("listing the flow", lambda: glacic.flows(port=80))[0]
        glacic.call("flows.set", verb="approve", flows=[flow["key"]])
        assert glacic.cli("unload", check=False).returncode == 1  # not under a running service
    assert glacic.json("unload") == {"unloaded": True}
    assert lab.laptop.call(traffic.tcp, SERVER, 81).ok
    applied = glacic.json("apply")
    assert (applied["applied"], applied["by"], applied["trial"]) == (True, "command", None)
    assert {change["change"] for change in applied["changes"]} == {"added"}
    assert LAPTOP_MAC in lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout
    assert lab.laptop.call(traffic.tcp, SERVER, 80).retransmits == 0
    assert not lab.laptop.call(traffic.tcp, SERVER, 81, timeout_s=0.5).ok
    glacic.cli("apply")
    assert LAPTOP_MAC in lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout
    glacic.cli("unload")
    assert glacic.json("unload") == {"unloaded": False}
    assert lab.router.run(["nft", "list", "tables"]).stdout == "table ip other\n"


def test_an_invalid_file_changes_nothing(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, CONFIG + 'zone "lan" {}\n')
    refused = glacic.cli("apply", check=False)
    assert refused.returncode == 1
    assert lab.router.run(["nft", "list", "ruleset"]).stdout == ""


def test_a_ruleset_that_the_kernel_refuses_leaves_no_table(
    lab: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KernelRefused("line 1: no")

    monkeypatch.setattr(offline, "apply", refuse)
    path = tmp_path / "glacic.hcl"
    path.write_text(CONFIG)
    with pytest.raises(KernelRefused):
        lab.router.call(offline.apply_offline, load(path), tmp_path)
    assert lab.router.run(["nft", "list", "ruleset"]).stdout == ""


def test_without_the_rights_the_kernel_refuses(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, CONFIG)
    words = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    for command in ("apply", "run"):
        refused = lab.router.run([*words, *glacic.command(command)], check=False)
        assert refused.returncode == 4, refused


def test_what_root_does_in_the_services_directory_belongs_to_the_services_user(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, CONFIG)
    glacic.state_dir.mkdir(mode=0o700)
    os.chown(glacic.state_dir, 12345, 12346)
    glacic.cli("apply")
    glacic.configure(CONFIG + "\n")
    glacic.cli("apply", "--confirm", "60")
    glacic.cli("confirm")
    glacic.cli("rollback")
    glacic.cli("panic", "--force")
    glacic.cli("panic", "off")
    glacic.cli("unload")
    made = list(glacic.state_dir.rglob("*"))
    assert {path.name for path in made} >= {"history.json", "1.json.gz", "boot.nft", "audit.log", "change.lock"}
    assert [path for path in made if (path.stat().st_uid, path.stat().st_gid) != (12345, 12346)] == []
    assert [path for path in made if path.stat().st_mode & 0o027 and path.suffix != ".lock"] == []


def test_without_a_service_connections_that_are_refused_now_end_unless_they_are_to_be_kept(
    lab: Home, tmp_path: Path
) -> None:
    accepts = CONFIG.replace('name = "lan_wan"', 'name   = "lan_wan"\n  action = "accept"')
    glacic = Glacic(lab.router, tmp_path, accepts)
    glacic.cli("apply")
    with lab.laptop.call(traffic.connect, SERVER, 80, timeout_s=5.0) as through:
        assert traffic.answers(through)
        glacic.configure(CONFIG)
        glacic.cli("apply", "--keep-connections")
        assert traffic.answers(through)
        glacic.configure(accepts)
        glacic.cli("apply")
        glacic.configure(CONFIG)
        glacic.cli("apply")
        through.settimeout(0.5)
        assert not traffic.answers(through)
    glacic.cli("unload")


def test_limits_wait_for_a_service_and_that_is_told(lab: Home, tmp_path: Path) -> None:
    glacic = Glacic(lab.router, tmp_path, 'limit "x" {\n  unit = "x.service"\n  upload = "1 mbit"\n}\n')
    assert "nothing new is learned, and no bandwidth is limited)" in glacic.cli("apply").stdout
    glacic.configure(CONFIG)
    assert "(no service runs: nothing new is learned)" in glacic.cli("apply").stdout
