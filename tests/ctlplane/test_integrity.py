"""Integrity, as an operator meets it: the real service in a namespace, and `nft` in other hands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from glacic.config.model import Config
from glacic.config.model import Integrity as Wanted
from glacic.ctlplane.integrity import Integrity
from glacic.ctlplane.service import Service
from glacic.ctlplane.tablewatch import Report, TableWatch
from glacic.lab import traffic
from glacic.lab.home import LAPTOP_MAC, SERVER, Home, home
from glacic.lab.service import Glacic

NOTICED_S = 2.0  # what is promised
PATIENT_S = 20.0

CONFIG = """\
integrity = "report"
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
set "blocked" {
  type     = "ipv4"
  elements = ["198.51.100.0/24", "203.0.113.77"]
}
policy "lan" "wan" {
  name = "lan_wan"
  rule "blocked" {
    action   = "drop"
    dest_ip = "@blocked"
  }
  rule "web" {
    action   = "accept"
    proto = "tcp"
    dest_port = [80, 443]
  }
}
"""
T = "inet glacic"
LEARNED = "allowed_lan_wan_mac_port"
FLOW = f"{LAPTOP_MAC} . tcp . 8001"
OTHER_FLOW = "02:00:00:00:00:66 . tcp . 22"


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, range(8000, 8010), [8000]):
        yield hosts


@pytest.fixture(scope="module")
def service(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path_factory.mktemp("integrity"), CONFIG) as running:
        assert lab.laptop.call(traffic.tcp, SERVER, 8001, timeout_s=PATIENT_S).ok
        yield running


@pytest.fixture
def glacic(service: Glacic) -> Glacic:
    """In force, and nothing different; afterwards too, so that every test stands alone."""
    service.reload(CONFIG)
    assert drift(service) == []
    return service


@pytest.fixture
def restoring(glacic: Glacic) -> Glacic:
    glacic.reload(CONFIG.replace('"report"', '"restore"'))
    return glacic


def nft(lab: Home, *lines: str) -> None:
    lab.router.run(["nft", "-f", "-"], text="\n".join(lines) + "\n")


def status(glacic: Glacic) -> dict[str, Any]:
    answer: dict[str, Any] = glacic.call("status")
    return answer


def drift(glacic: Glacic) -> list[dict[str, Any]]:
    return [row for row in status(glacic)["drift"] if not row["restored"]]


def logged(glacic: Glacic, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in glacic.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


CHANGES = {
    "policy flipped": (
        [f"add chain {T} input {{ policy accept; }}"],
        "chain input: policy changed from drop to accept",
    ),
    "rule added": (
        [f'add rule {T} input ip saddr 192.0.2.66 accept comment "back door"'],
        "rule added to chain input: ip saddr 192.0.2.66 accept comment 'back door'",
    ),
    "rule inserted": ([f"insert rule {T} forward accept"], "rule added to chain forward: accept"),
    "rules deleted": (
        [f"flush chain {T} policy_lan_wan"],
        r"rule deleted from chain policy_lan_wan \(number 1 of \d\)",
    ),
    "chain added": (
        [f"add chain {T} evil {{ type filter hook input priority -50; policy accept; }}"],
        "chain added: evil",
    ),
    "chain deleted": (
        [f"flush chain {T} learned_lan_wan", f"flush chain {T} policy_lan_wan", f"delete chain {T} learned_lan_wan"],
        "chain deleted: learned_lan_wan",
    ),
    "priority changed": (
        [
            f"flush chain {T} forward",
            f"delete chain {T} forward",
            f"add chain {T} forward {{ type filter hook forward priority 7; policy drop; }}",
        ],
        "chain forward: priority changed from 0 to 7",
    ),
    "element added": (
        [f"add element {T} addresses_blocked {{ 192.0.2.9 }}"],
        "element added to set addresses_blocked: 192.0.2.9",
    ),
    "element deleted": (
        [f"delete element {T} addresses_blocked {{ 203.0.113.77 }}"],
        "element deleted from set addresses_blocked: 203.0.113.77",
    ),
    "set added": ([f"add set {T} theirs {{ type ipv4_addr; }}"], "set added: theirs"),
    "set deleted": (
        [f"flush chain {T} policy_lan_wan", f"delete set {T} addresses_blocked"],
        "set deleted: addresses_blocked",
    ),
    "learned element added": (
        [f"add element {T} {LEARNED} {{ {OTHER_FLOW} }}"],
        f"element added to learned set {LEARNED}: 02:00:00:00:00:66 . 6 . 22",
    ),
    "learned element deleted": (
        [f"delete element {T} {LEARNED} {{ {FLOW} }}"],
        f"element deleted from learned set {LEARNED}: {LAPTOP_MAC} . 6 . 8001",
    ),
    "lookups deleted": (
        [f"flush chain {T} learned_lan_wan"],
        r"rule deleted from chain learned_lan_wan \(number 1 of \d\)",
    ),
    "counter added": ([f"add counter {T} theirs"], "counter added: theirs"),
    "map added": ([f"add map {T} theirs {{ type ipv4_addr : mark; }}"], "set added: theirs"),
    "table flushed": ([f"flush table {T}"], "table flushed: every chain is empty"),
    "table made dormant": ([f"add table {T} {{ flags dormant; }}"], "table made dormant: nothing is filtered"),
    "table deleted": ([f"delete table {T}"], "table deleted"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_foreign_change_is_noticed_said_and_put_right_by_a_reload(lab: Home, glacic: Glacic, change: str) -> None:
    lines, words = CHANGES[change]
    nft(lab, *lines)
    ends = time.monotonic() + NOTICED_S
    told = [row for row in drift(glacic) if re.fullmatch(words, row["what"])]
    assert time.monotonic() < ends
    assert told, drift(glacic)
    assert re.fullmatch(r"nft \(pid \d+\)", told[0]["by"])
    answer = status(glacic)
    assert answer["state"] == "degraded"
    assert "reload puts it" in answer["reason"]
    assert any(re.fullmatch(words, line["what"]) for line in logged(glacic, "the table was changed from outside"))
    glacic.call("reload")
    assert (status(glacic)["state"], drift(glacic)) == ("running", [])
    assert theirs(lab) == []
    again = lab.laptop.call(traffic.tcp, SERVER, 8001, timeout_s=PATIENT_S)
    assert (again.ok, again.retransmits) == (True, 0)


def test_a_change_that_somebody_undoes_is_none(lab: Home, glacic: Glacic) -> None:
    add, delete = (f"{verb} element {T} {LEARNED} {{ {OTHER_FLOW} }}" for verb in ("add", "delete"))
    for there, back in (
        (f"add chain {T} input {{ policy accept; }}", f"add chain {T} input {{ policy drop; }}"),
        (add, delete),
    ):
        nft(lab, there)
        assert len(drift(glacic)) == 1
        nft(lab, back)
        assert (status(glacic)["state"], drift(glacic)) == ("running", [])


@pytest.mark.parametrize("change", CHANGES)
def test_with_restore_it_is_put_right_at_once_and_kept_in_the_list(lab: Home, restoring: Glacic, change: str) -> None:
    lines, words = CHANGES[change]
    nft(lab, *lines)
    ends = time.monotonic() + NOTICED_S

    def is_right() -> bool:
        answer = status(restoring)
        mended = [row for row in answer["drift"] if row["restored"] and re.fullmatch(words, row["what"])]
        return bool(mended) and answer["state"] == "running"

    restoring.wait("right again", is_right)
    assert time.monotonic() < ends
    restoring.wait("saying so", lambda: logged(restoring, "the table is put right"))
    assert theirs(lab) == []
    again = lab.laptop.call(traffic.tcp, SERVER, 8001, timeout_s=PATIENT_S)
    assert (again.ok, again.retransmits) == (True, 0)


def theirs(lab: Home) -> list[str]:
    """What is in the table and not ours."""
    listed = lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout
    return re.findall(r"02:00:00:00:00:66|192\.0\.2\.(?:66|9)\b|evil|theirs|dormant|forward priority 7", listed)


def test_learned_counters_outlive_a_restoring(lab: Home, restoring: Glacic) -> None:
    assert lab.laptop.call(traffic.tcp, SERVER, 8001, count=5, timeout_s=PATIENT_S).ok
    before = restoring.flows(port=8001)[0]["packets"]
    nft(lab, f"insert rule {T} input accept")
    restoring.wait(
        "right again", lambda: any("added to chain input: accept" in row["what"] for row in mended(restoring))
    )
    listed = lab.router.run(["nft", "list", "set", "inet", "glacic", LEARNED]).stdout
    found = re.search(rf"{LAPTOP_MAC} \. tcp \. 8001 counter packets (\d+)", listed)
    assert found is not None
    assert int(found[1]) > 0
    assert restoring.flows(port=8001)[0]["packets"] >= before


def mended(glacic: Glacic) -> list[dict[str, Any]]:
    return [row for row in status(glacic)["drift"] if row["restored"]]


def test_a_program_that_insists_meets_pauses(lab: Home, restoring: Glacic) -> None:
    for _ in range(3):
        nft(lab, f"add chain {T} insists")
        restoring.wait("right again", lambda: not drift(restoring))
    pauses = [
        line["pause_s"] for line in logged(restoring, "somebody keeps changing the table: put right after a pause")
    ]
    assert pauses[-2:] == [1.0, 2.0]


def test_at_most_twenty_changes_are_kept(lab: Home, restoring: Glacic) -> None:
    nft(lab, *(f"add chain {T} many_{number}" for number in range(60)))
    restoring.wait("right again", lambda: not drift(restoring))
    assert len(status(restoring)["drift"]) == 20
    assert "many_" not in lab.router.run(["nft", "list", "chains"]).stdout


def test_nothing_of_our_own_is_a_change(lab: Home, glacic: Glacic) -> None:
    """Reloads, flows learned and decided, sets made on need, a killed worker, counters, interfaces that come and go."""
    before = len(logged(glacic, "the table was changed from outside"))
    for port in (8002, 8003):
        assert lab.laptop.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S).ok
        assert lab.camera.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S).ok
    lab.laptop.call(traffic.udp, SERVER, 8000, timeout_s=0.5)
    lab.laptop.run(["ping", "-c", "1", "-W", "1", SERVER], check=False)  # another shape: a new set, a new lookup
    flow = glacic.flows(port=8003)[0]
    for verb in ("deny", "approve", "forget"):
        glacic.json("flows", verb, flow["key"])
        assert drift(glacic) == []
    lab.router.ip("link add veth7 type veth peer veth8", "link set veth7 up", "link del veth7")
    for _ in range(3):
        glacic.call("reload")
        assert drift(glacic) == []
    worker = glacic.worker()
    os.kill(worker, signal.SIGKILL)
    glacic.wait("running again", lambda: glacic.state() == "running" and glacic.worker() != worker)
    assert lab.laptop.call(traffic.tcp, SERVER, 8004, timeout_s=PATIENT_S).ok
    glacic.cli("apply")  # by way of the service
    assert drift(glacic) == []
    assert len(logged(glacic, "the table was changed from outside")) == before


def test_what_others_do_to_their_own_tables_is_no_change(lab: Home, glacic: Glacic) -> None:
    nft(lab, "add table inet other", "add chain inet other glacic", "add table ip glacic", "add chain ip glacic input")
    assert drift(glacic) == []
    nft(lab, "delete table inet other", "delete table ip glacic")
    assert drift(glacic) == []


def test_text_of_others_is_harmless(lab: Home, glacic: Glacic) -> None:
    nft(lab, f'add rule {T} input accept comment "\x1b[31m\u202e"')
    (row,) = drift(glacic)
    assert row["what"].isprintable()
    assert "accept comment" in row["what"]


class Alone:
    """As much of a service as Integrity needs, with learned sets that lack an element."""

    def __init__(self, wanted: Wanted) -> None:
        self.config = replace(Config(path=Path("glacic.hcl")), integrity=wanted)
        self.worker = self
        self.changing = asyncio.Lock()
        self.asked: list[str] = []
        self.integrity = Integrity(cast(Service, self))

    async def call(self, do: str, **_: Any) -> Any:
        self.asked.append(do)
        return {LEARNED: [2, 3]} if do == "learned_differ" else {}

    async def restore(self) -> None:
        self.asked.append("restore")
        with self.integrity.restoring():
            await self.integrity.in_force()


@pytest.mark.parametrize("wanted", list(Wanted))
def test_after_a_loss_of_events_learned_sets_are_compared_by_their_numbers(wanted: Wanted) -> None:
    async def lose() -> Alone:
        alone = Alone(wanted)
        alone.integrity._watch = cast(TableWatch, Settled())
        alone.integrity._heard(Report((), (), lost=True, in_force=True))
        await asyncio.sleep(0.1)
        return alone

    alone = asyncio.run(lose())
    (row,) = alone.integrity.drift()
    assert row["what"] == f"learned set {LEARNED}: 2 elements where 3 belong"
    if wanted is Wanted.RESTORE:
        assert alone.asked == ["learned_differ", "restore", "mend_learned"]
        assert (row["restored"], alone.integrity.reason) == (True, "")
    else:
        assert alone.asked == ["learned_differ"]
        assert "reload puts it right" in alone.integrity.reason


class Settled:
    def number(self) -> int:
        return 0

    def settle(self, _timeout_s: float, _mended: int) -> bool:
        return True


def test_what_packets_and_time_change_by_themselves_is_nobodys_doing(glacic: Glacic, lab: Home) -> None:
    lines = (
        'limit_per_source = "9/hour"\n    connections_per_source = 9\n    counter = true\n'
        '    time {\n      days = "mon-sun"\n      from = "00:00"\n      to = "24:00"\n      zone = "UTC"\n    }\n'
    )
    glacic.reload(CONFIG.replace("dest_port = [80, 443]", f'dest_port = "8002-8005"\n    {lines}'))
    for port in (8002, 8003):
        assert lab.laptop.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S).ok
    rows = [row for row in glacic.json("show", "--counters")["counters"] if row["rule"] == "web"]
    assert [(row["policy"], row["packets"], row["kept"]) for row in rows] == [("lan_wan", 2, True)]
    assert drift(glacic) == []
    glacic.reload(CONFIG.replace("dest_port = [80, 443]", f'dest_port = "8002-8004"\n    {lines}'))
    assert drift(glacic) == []
    nft(lab, f"flush set {T} time_web_of_lan_wan")
    assert [row for row in drift(glacic) if "time_web_of_lan_wan" in row["what"]]
