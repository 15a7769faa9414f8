"""A list of addresses is renewed under load: no rule changes, and no packet meets a set that is half filled."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.lab import traffic
from glacic.lab.home import CAMERA, LAPTOP, SERVER, Home, home
from glacic.lab.service import Glacic

PATIENT_S = 20.0
SHORT_S = 0.7
RELOADS = 12
MANY = 500

CONFIG = """\
zone "lan" {
  interface = "lan0"
}
zone "wan" {
  interface = "wan0"
  external  = true
}
set "friends" {
  type          = "ipv4"
  elements_file = "friends.txt"
}
policy "lan" "wan" {
  rule "friends" {
    src_ip = "@friends"
    action = "accept"
  }
}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, range(8000, 8004)):
        yield hosts


@pytest.fixture
def glacic(lab: Home, tmp_path: Path) -> Iterator[Glacic]:
    friends(tmp_path, LAPTOP)
    with Glacic(lab.router, tmp_path, CONFIG) as running:
        yield running


def friends(folder: Path, *addresses: str, others: int = 0, many: int = MANY) -> None:
    """Write the list: these, and many others which are always different ones."""
    rest = [f"198.{18 + others % 2}.{at >> 7}.{(at & 127) * 2 + 1}" for at in range(many)] if others else []
    (folder / "friends.txt").write_text("".join(f"{one} # a friend\r\n" for one in [*addresses, *rest]))


def rules(lab: Home) -> list[tuple[str, int, int]]:
    """(handle, packets, bytes) of every rule of the table that counts."""
    listing = lab.router.run(["nft", "-a", "list", "table", "inet", "glacic"]).stdout
    found = re.findall(r"counter packets (\d+) bytes (\d+).*# handle (\d+)$", listing, re.MULTILINE)
    return [(handle, int(packets), int(octets)) for packets, octets, handle in found]


def handles(lab: Home) -> list[str]:
    return re.findall(r"# handle \d+$", lab.router.run(["nft", "-a", "list", "table", "inet", "glacic"]).stdout, re.M)


def passes(lab: Home, who: str) -> bool:
    host = lab.laptop if who == LAPTOP else lab.camera
    return host.call(traffic.tcp, SERVER, 8000, timeout_s=SHORT_S).ok


def test_a_list_is_renewed_without_a_change_of_rules(lab: Home, glacic: Glacic) -> None:
    assert (passes(lab, LAPTOP), passes(lab, CAMERA)) == (True, False)
    before, counted = handles(lab), rules(lab)
    assert any(packets for _, packets, _ in counted)
    friends(glacic.config.parent, CAMERA)
    assert glacic.json("reload")["replaced"] == "elements"
    assert handles(lab) == before
    assert rules(lab) == counted
    assert (passes(lab, LAPTOP), passes(lab, CAMERA)) == (False, True)
    friends(glacic.config.parent)
    assert glacic.json("reload")["replaced"] == "elements"
    assert (passes(lab, LAPTOP), passes(lab, CAMERA)) == (False, False)
    assert handles(lab) == before


def test_a_long_list_that_is_all_new_comes_with_a_new_ruleset(lab: Home, glacic: Glacic) -> None:
    """To take thousands of ranges out of a set takes nft many seconds; the rules anew take one."""
    for number, replaced in ((1, "elements"), (2, "ruleset"), (3, "ruleset")):
        friends(glacic.config.parent, LAPTOP, others=number, many=5_000)
        assert glacic.json("reload")["replaced"] == replaced
        assert (passes(lab, LAPTOP), passes(lab, CAMERA)) == (True, False)


def test_a_list_with_a_mistake_changes_nothing(lab: Home, glacic: Glacic) -> None:
    (glacic.config.parent / "friends.txt").write_text(f"{CAMERA}\n10.1.0.999\n")
    refused = glacic.cli("reload", check=False)
    assert refused.returncode == 1
    assert f"{glacic.config.parent}/friends.txt:2:1: error: " in refused.stderr
    assert (passes(lab, LAPTOP), passes(lab, CAMERA)) == (True, False)


def test_a_rule_that_somebody_removed_comes_back_with_the_next_list(lab: Home, glacic: Glacic) -> None:
    lab.router.run(["nft", "flush", "chain", "inet", "glacic", "policy_lan_wan"])
    assert not passes(lab, LAPTOP)
    friends(glacic.config.parent, LAPTOP, CAMERA)
    assert glacic.json("reload")["replaced"] == "ruleset"
    assert (passes(lab, LAPTOP), passes(lab, CAMERA)) == (True, True)


def test_an_element_that_somebody_added_elsewhere_goes_with_the_next_list(lab: Home, glacic: Glacic) -> None:
    glacic.configure(CONFIG + 'set "other" {\n  type = "ipv4"\n}\n')
    glacic.call("reload")
    lab.router.run(["nft", "add", "element", "inet", "glacic", "addresses_other", "{ 10.9.9.9 }"])
    glacic.wait("noticing it", lambda: glacic.state() == "degraded")
    friends(glacic.config.parent, LAPTOP, CAMERA)
    assert glacic.json("reload")["replaced"] == "ruleset"
    assert "10.9.9.9" not in lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout
    glacic.wait("content again", lambda: glacic.state() == "running")


def test_no_connection_is_lost_while_a_long_list_is_renewed(lab: Home, glacic: Glacic) -> None:
    """The laptop is in every list, and each of its connections is a new one, so each asks the set."""
    results: list[traffic.Result] = []
    done = threading.Event()

    def connect() -> None:
        while not done.is_set():
            results.append(lab.laptop.call(traffic.tcp, SERVER, 8001, count=50, timeout_s=PATIENT_S))

    client = threading.Thread(target=connect)
    client.start()
    try:
        for number in range(1, RELOADS + 1):
            friends(glacic.config.parent, LAPTOP, others=number)
            assert glacic.json("reload")["replaced"] == "elements"
    finally:
        done.set()
        client.join()
    assert sum(result.count for result in results) >= 50
    assert all(result.ok for result in results)
    assert sum(result.retransmits for result in results) == 0
