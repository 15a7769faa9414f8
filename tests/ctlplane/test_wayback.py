"""Whether a change would cut the connection it came over.

admin 192.0.2.7, 2001:db8::7, fe80::7 ── wan0 router lan0 ── 10.1.0.2
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from glacic.config.model import Action, Config, Identity, Policy, PortRange, Rule, RuleLearning, Zone
from glacic.ctlplane.retrace import Judge
from glacic.ctlplane.wayback import SshConnection, parse, refuse_to_cut, would_cut
from glacic.errors import GlacicError, UsageError
from glacic.lab.net import Host, Network, Port
from glacic.learning.flow import FlowKey, FlowState

VIA = "192.0.2.7 50000 192.0.2.1 22"


def packed(text: str) -> bytes:
    return ip_address(text).packed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VIA, SshConnection(packed("192.0.2.7"), 50000, packed("192.0.2.1"), 22)),
        ("2001:db8::7 1 2001:db8::1 65535", SshConnection(packed("2001:db8::7"), 1, packed("2001:db8::1"), 65535)),
        ("::ffff:192.0.2.7 1 ::ffff:192.0.2.1 22", SshConnection(packed("192.0.2.7"), 1, packed("192.0.2.1"), 22)),
        ("fe80::7%wan0 1 fe80::1%wan0 22", SshConnection(packed("fe80::7"), 1, packed("fe80::1"), 22, "wan0")),
    ],
)
def test_both_ends_are_read(text: str, expected: SshConnection) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.7 50000 192.0.2.1",
        VIA + " 1",
        VIA.replace("22", "0"),
        VIA.replace("22", "65536"),
        VIA.replace("22", "२२"),
        VIA.replace("22", "2_2"),
        VIA.replace("192.0.2.7", "example.org"),
        VIA.replace("192.0.2.7", "fd00::1"),
        VIA.replace(" ", "\t"),
        VIA + "\n",
        "fe80::7%a/../b 1 fe80::1 22",
        "fe80::7%" + "x" * 16 + " 1 fe80::1 22",
        "\x1b[31m 1 fe80::1 22",
        "1" * 100_000,
    ],
)
def test_hostile_text_is_refused_and_shown_escaped(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


@pytest.fixture(scope="module")
def router() -> Iterator[Host]:
    with Network() as network:
        router = network.host("router", forwards=True)
        for name, addresses in (("wan0", ("192.0.2.1/24", "2001:db8::1/64")), ("lan0", ("10.1.0.1/24",))):
            network.cable(Port(router, name, "", addresses), Port(network.host(f"at-{name}"), "eth0", "", ()))
        yield router


def judge(*, flow: FlowState | None = None, learning: bool = False, external: bool = True, **wan: Any) -> Judge:
    """wan, external, with these words in its zone block; lan may be forwarded to from there on port 22."""
    zones = (
        Zone(name="lan", interfaces=("lan0",)),
        Zone(name="wan", interfaces=("wan0",), external=external, identity=Identity.IP, **wan),
    )
    ssh = Rule(name="ssh", action=Action.ACCEPT, protos=("tcp",), dest_port=(PortRange(22, 22),))
    policy = Policy(source="wan", destination="lan", name="inwards", rules=(ssh,))
    config = Config(path=Path("x"), rule_learning=RuleLearning(enabled=True), zones=zones, policies=(policy,))
    known = {FlowKey("DROP_INPUT", packed("192.0.2.7"), 6, 22): flow}
    return Judge(config, known.get, lambda _name: learning, {})


def test_what_nothing_accepts_would_be_cut_and_the_sentence_says_why(router: Host) -> None:
    said = router.call(would_cut, judge(), VIA)
    assert said == "ssh from 192.0.2.7 on wan0 to port 22: zone wan: no rule accepts it"
    with pytest.raises(GlacicError) as caught:
        router.call(refuse_to_cut, judge(), VIA)
    assert str(caught.value) == (
        f"this change would cut the connection it came over ({said}): use --force if that is intended"
    )


@pytest.mark.parametrize(
    "via",
    [VIA, "2001:db8::7 1 2001:db8::1 22", "::ffff:192.0.2.7 1 ::ffff:192.0.2.1 22", "fe80::7%wan0 1 fe80::1%wan0 22"],
)
def test_what_management_accepts_can_come_again(router: Host, via: str) -> None:
    router.call(refuse_to_cut, judge(management=("ssh",)), via)
    assert router.call(would_cut, judge(), via) is not None


def test_another_port_is_not_what_management_opens(router: Host) -> None:
    said = router.call(would_cut, judge(management=("ssh",)), VIA.replace("22", "2222"))
    assert said == "ssh from 192.0.2.7 on wan0 to port 2222: zone wan: no rule accepts it"


def test_where_the_ruleset_asks_what_is_known_decides(router: Host) -> None:
    assert router.call(would_cut, judge(external=False), VIA) is not None
    assert router.call(would_cut, judge(external=False, learning=True), VIA) is None
    assert router.call(would_cut, judge(external=False, flow=FlowState.ALLOWED), VIA) is None
    assert router.call(would_cut, judge(external=False, flow=FlowState.DENIED, learning=True), VIA) is not None


def test_a_connection_to_a_host_behind_is_forwarded(router: Host) -> None:
    assert router.call(would_cut, judge(), "192.0.2.7 1 10.1.0.2 22") is None
    said = router.call(would_cut, judge(), "192.0.2.7 1 10.1.0.2 23")
    assert said == "ssh from 192.0.2.7 on wan0 to port 23: policy inwards: no rule accepts it"


def test_from_this_machine_itself_nothing_is_cut(router: Host) -> None:
    assert router.call(would_cut, judge(), "127.0.0.1 1 127.0.0.1 22") is None
    assert router.call(would_cut, judge(), "192.0.2.1 1 192.0.2.1 22") is None


def test_without_a_route_back_nobody_can_say_that_it_is_not_cut(router: Host) -> None:
    assert router.call(would_cut, judge(management=("ssh",)), "203.0.113.1 1 192.0.2.1 22") == (
        "ssh from 203.0.113.1 to port 22: there is no route back to it"
    )
