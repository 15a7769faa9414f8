"""Where a connection met the filter, and what would become of it now."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from glacic.config.model import Action, Config, Granularity, Identity, Policy, PortRange, Rule, RuleLearning, Zone
from glacic.ctlplane.netlink import Connection
from glacic.ctlplane.retrace import Judge, Standing, keys_of, retrace
from glacic.ctlplane.routes import Route, Routes
from glacic.firewall.reach import Probe
from glacic.learning.flow import FlowKey, FlowState

MAC = bytes.fromhex("020000000001")
LAPTOP, SERVER, OURS = (ip_address(text).packed for text in ("10.1.0.2", "192.0.2.9", "10.1.0.1"))
PROBE = Probe("forward", "lan0", "wan0", LAPTOP, SERVER, 6, 0, 22)


class Told:
    """Routes that are known."""

    def to(self, address: bytes, source: bytes = b"") -> Route | None:
        return {LAPTOP: Route(False, "lan0"), SERVER: Route(False, "wan0"), OURS: Route(True, "lo")}.get(address)


def connection(source: bytes, reply_source: bytes, protocol: int = 6, icmp_type: int | None = None) -> Connection:
    return Connection(2, protocol, source, reply_source, 22, icmp_type, 0, b"", 40_000, True)


@pytest.mark.parametrize(
    ("source", "destination", "hook", "iif", "oif"),
    [
        (LAPTOP, SERVER, "forward", "lan0", "wan0"),
        (LAPTOP, OURS, "input", "lan0", ""),
        (OURS, SERVER, "output", "", "wan0"),
    ],
)
def test_the_hook_follows_from_what_is_local(source: bytes, destination: bytes, hook: str, iif: str, oif: str) -> None:
    found = retrace(connection(source, destination), cast(Routes, Told()))
    assert found == Probe(hook, iif, oif, source, destination, 6, 40_000, 22, True)


def test_icmp_has_a_type_and_no_ports() -> None:
    found = retrace(connection(LAPTOP, SERVER, 1, 8), cast(Routes, Told()))
    assert found is not None
    assert (found.source_port, found.port) == (0, 8)


@pytest.mark.parametrize(
    ("source", "destination"),
    [(OURS, OURS), (LAPTOP, bytes(4)), (bytes(4), SERVER), (ip_address("fe80::1").packed, SERVER)],
)
def test_what_cannot_be_told_is_none(source: bytes, destination: bytes) -> None:
    assert retrace(connection(source, destination), cast(Routes, Told())) is None


def configured(**more: Any) -> Config:
    zones = (Zone(name="lan", interfaces=("lan0",)), Zone(name="wan", interfaces=("wan0",), external=True))
    web = Rule(name="web", action=Action.ACCEPT, protos=("tcp",), dest_port=(PortRange(443, 443),))
    policy = Policy(source="lan", destination="wan", name="p", rules=(web,))
    return Config(path=Path("x"), rule_learning=RuleLearning(enabled=True, **more), zones=zones, policies=(policy,))


def judged(state: FlowState | None, learning: bool, **more: Any) -> Standing:
    known = {FlowKey("p", MAC, 6, 22): state}
    judge = Judge(configured(**more), known.get, lambda name: learning and name == "p", {LAPTOP: {MAC}})
    return judge.of(PROBE).standing


@pytest.mark.parametrize(
    ("state", "off", "on"),
    [
        (None, Standing.REFUSED, Standing.LEARNED),
        (FlowState.ALLOWED, Standing.ACCEPTED, Standing.ACCEPTED),
        (FlowState.PENDING, Standing.REFUSED, Standing.REFUSED),
        (FlowState.DENIED, Standing.REFUSED, Standing.REFUSED),
        (FlowState.IGNORED, Standing.REFUSED, Standing.REFUSED),
    ],
)
def test_where_the_ruleset_asks_the_flow_decides(state: FlowState | None, off: Standing, on: Standing) -> None:
    assert judged(state, learning=False) is off
    assert judged(state, learning=True) is on


def test_of_ignored_networks_nothing_would_be_learned() -> None:
    networks = (ip_network("192.0.2.0/24"),)
    assert judged(None, learning=True, ignore_networks=networks) is Standing.REFUSED
    assert judged(FlowState.ALLOWED, learning=True, ignore_networks=networks) is Standing.ACCEPTED


def test_rules_decide_without_asking() -> None:
    judge = Judge(configured(), lambda _key: FlowState.ALLOWED, lambda _name: True, {})
    assert judge.of(PROBE._replace(port=443)).standing is Standing.ACCEPTED
    assert judge.of(PROBE._replace(iif="odd0")).standing is Standing.REFUSED
    lonely = Probe("input", "wan0", "", bytes(16), bytes(16), 58, 0, 135)
    assert judge.of(lonely).standing is Standing.UNCERTAIN


def test_keys_go_by_mac_by_address_and_by_destination() -> None:
    simulated = Judge(configured(), lambda _key: None, lambda _name: False, {}).of(PROBE).outcome.policy
    assert simulated is not None
    other = bytes(6)
    keys = keys_of(simulated, PROBE, {LAPTOP: [MAC, other]})
    assert keys == [FlowKey("p", MAC, 6, 22), FlowKey("p", other, 6, 22)]
    assert keys_of(simulated, PROBE, {}) == [FlowKey("p", LAPTOP, 6, 22)]
    by_ip = type(simulated)(name="p", number=1, identity=Identity.IP, granularity=Granularity.DESTINATION)
    assert keys_of(by_ip, PROBE, {LAPTOP: [MAC]}) == [FlowKey("p", LAPTOP, 6, 22, SERVER)]
