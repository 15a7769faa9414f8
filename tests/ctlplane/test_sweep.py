"""Going through running connections, with real ones: the bed of test_conntrack.py, and what two configurations say.

client 10.0.0.1, fd00::1  ----lan0  router  wan0----  server 10.0.1.1, fd01::1
Its router marks UDP to ports 5000-5009 as let in by a fail mode, translates 8080 and masquerades 99.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glacic.config.model import Action, Config, Policy, PortRange, Rule, RuleLearning, Zone
from glacic.ctlplane import sweep
from glacic.ctlplane.conntrack import count_let_in
from glacic.ctlplane.retrace import Judge
from glacic.ctlplane.sweep import end_refused, list_let_in, settle_let_in
from glacic.lab.net import Network
from glacic.learning.flow import FlowKey, FlowState

from .test_conntrack import CLIENT, MAC, Bed


@pytest.fixture
def bed() -> Iterator[Bed]:
    with Network() as network:
        yield Bed(network)


def judge(
    *ports: int,
    action: Action = Action.DROP,
    flows: dict[int, FlowState] | None = None,
    learning: bool = False,
    **more: Any,
) -> Judge:
    """lan -> wan accepts UDP to these ports; `flows` are known by port."""
    zones = (Zone(name="lan", interfaces=("lan0",)), Zone(name="wan", interfaces=("wan0",), external=True))
    accepted = tuple(PortRange(port, port) for port in ports)
    web = Rule(name="some", action=Action.ACCEPT, protos=("udp",), dest_port=accepted)
    policy = Policy(source="lan", destination="wan", name="p", action=action, rules=(web,) if ports else ())
    config = Config(path=Path("x"), rule_learning=RuleLearning(**more), zones=zones, policies=(policy,))
    known = {FlowKey("p", MAC, 17, port): state for port, state in (flows or {}).items()}
    return Judge(config, known.get, lambda _name: learning, {CLIENT: {MAC}})


def left(bed: Bed) -> list[int]:
    """The ports of the connections that go on."""
    listed = bed.router.run(["conntrack", "-L", "-p", "udp"]).stdout.splitlines()
    return sorted(int(line.split("dport=")[1].split()[0]) for line in listed)


def test_a_reload_ends_what_was_accepted_and_is_refused_now(bed: Bed) -> None:
    for port in (53, 54, 55):
        bed.udp(port)
    bed.udp(54, to="fd01::1")
    swept = bed.router.call(end_refused, judge(53, 54), judge(53, 55))
    assert (swept.ended, left(bed)) == (2, [53, 55])  # 55 was let in by somebody else, and is nobody's to end
    assert {row["port"] for row in swept.rows} == {54}
    assert {row["source"] for row in swept.rows} == {"10.0.0.1", "fd00::1"}
    assert {row["why"] for row in swept.rows} == {"policy p: no rule accepts it"}


def test_masqueraded_connections_are_judged_by_what_the_filter_saw(bed: Bed) -> None:
    bed.udp(99)
    assert bed.router.call(end_refused, judge(99), judge(99)).ended == 0
    assert bed.router.call(end_refused, judge(99), judge()).ended == 1


def test_a_learned_flow_goes_on_where_it_stays_learned(bed: Bed) -> None:
    bed.udp(53)
    bed.udp(54)
    flows = {53: FlowState.ALLOWED}
    new = judge(enabled=True, flows=flows)
    assert bed.router.call(end_refused, judge(53, 54), new).ended == 1
    assert left(bed) == [53]
    assert bed.router.call(end_refused, judge(enabled=True, flows=flows), judge(enabled=True)).ended == 1


def test_what_would_be_learned_goes_on(bed: Bed) -> None:
    bed.udp(53)
    assert bed.router.call(end_refused, judge(53), judge(enabled=True, learning=True)).ended == 0


def test_what_a_fail_mode_let_in_ends_without_having_been_accepted(bed: Bed) -> None:
    bed.udp(5000)
    bed.udp(53)
    assert bed.router.call(end_refused, judge(), judge()).ended == 1
    assert left(bed) == [53]


def test_what_was_let_in_ends_loses_its_mark_or_keeps_it(bed: Bed) -> None:
    for port in (5000, 5001, 5002, 5003, 53):
        bed.udp(port)
    flows = {5001: FlowState.ALLOWED, 5002: FlowState.DENIED}
    swept = bed.router.call(settle_let_in, judge(5003, enabled=True, flows=flows), False)
    assert (swept.seen, swept.ended, swept.allowed, swept.kept) == (4, 2, 2, 0)
    assert left(bed) == [53, 5001, 5003]
    assert bed.router.call(count_let_in) == 0


def test_learning_and_fail_open_keep_let_it_go_on_with_its_mark(bed: Bed) -> None:
    bed.udp(5000, count=2)
    assert bed.router.call(settle_let_in, judge(enabled=True, learning=True), False).kept == 2
    assert bed.router.call(settle_let_in, judge(enabled=True), True).kept == 2
    assert bed.router.call(count_let_in) == 2
    assert bed.router.call(settle_let_in, judge(enabled=True), False).ended == 2


def test_clearing_the_mark_leaves_the_bits_of_others(bed: Bed) -> None:
    bed.router.run(["nft", "flush", "chain", "inet", "bed", "forward"])
    bed.router.run(["nft", "add", "rule", "inet", "bed", "forward", "ct", "mark", "set", "0x00a00007"])
    bed.udp(53)
    bed.router.run(["nft", "flush", "chain", "inet", "bed", "forward"])
    assert bed.router.call(settle_let_in, judge(53), False).allowed == 1
    assert f"mark={0x00200007}" in bed.router.run(["conntrack", "-L", "-p", "udp"]).stdout


def test_they_are_listed_up_to_a_limit_and_counted(bed: Bed) -> None:
    bed.udp(5000, count=3)
    bed.udp(53)
    found = bed.router.call(list_let_in, judge(enabled=True), 2)
    assert (len(found["connections"]), found["total"]) == (2, 3)
    assert found["connections"][0] == {
        "source": "10.0.0.1",
        "destination": "10.0.1.1",
        "protocol": "udp",
        "port": 5000,
        "policy": "p",
        "now": "refused",
        "why": "policy p: no rule decides",
    }


def test_the_rows_are_bounded(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MAX_ROWS", 3)
    bed.udp(53, count=5)
    swept = bed.router.call(end_refused, judge(53), judge())
    assert (swept.ended, len(swept.rows)) == (5, 3)
