"""What ends a learning chain, to the letter, in every mode."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from glacic.config.model import Action, FailMode, Identity, Rate, RuleLearning
from glacic.config.policies import LearningPolicy
from glacic.firewall.hooks import Hooks
from glacic.firewall.ruleset import Chain, Counter, Part, Set
from glacic.firewall.shapes import Shape

LAN = LearningPolicy(name="lan_wan", number=3)
REJECTS = LearningPolicy(name="lan_wan", number=3, action=Action.REJECT)
ENDS = (
    LearningPolicy(name="DROP_INPUT", number=1),
    LearningPolicy(name="DROP_INPUT", number=4, identity=Identity.IP),
)
OPEN, CLOSED = FailMode.OPEN, FailMode.CLOSED


FOREIGN = "meta mark & 0x00c00000 != 0 meta mark set meta mark & 0xff3fffff"


def hooks(*policies: LearningPolicy, **settings: object) -> Hooks:
    return Hooks(RuleLearning(enabled=True, **settings), policies)  # type: ignore[arg-type]


def tail(policy: LearningPolicy, *others: LearningPolicy, **settings: object) -> list[str]:
    return [rule.statement for rule in hooks(policy, *others, **settings).tail(policy)]


def chain(parts: list[Part], name: str) -> list[str]:
    return next(
        [rule.statement for rule in part.rules] for part in parts if isinstance(part, Chain) and part.name == name
    )


@pytest.mark.parametrize(
    ("settings", "hook"),
    [
        ({"log_group": 100}, "queue num 100 bypass"),
        ({"log_group": 100, "fail_mode": CLOSED}, "queue num 100"),
        ({"log_group": 100, "queues": 4}, "queue num 100-103 bypass,fanout"),
        ({"log_group": 100, "queues": 4, "fail_mode": CLOSED}, "queue num 100-103 fanout"),
        ({}, "queue num 0 bypass"),
    ],
)
def test_the_inline_hook(settings: dict[str, object], hook: str) -> None:
    assert tail(LAN, inline_mode=True, **settings) == [
        "jump learned_lan_wan",
        "meta mark set meta mark & 0xff00ffff | 0x00830000",
        hook,
    ]


def test_the_log_hook_stands_behind_its_limit() -> None:
    hook = 'log group 7 prefix "lan_wan: " counter drop'
    assert tail(LAN, log_group=7) == ["jump learned_lan_wan", "jump limit_lan_wan", hook]


def test_a_policy_that_rejects_logs_and_rejects() -> None:
    assert tail(REJECTS)[-2:] == [
        'meta l4proto tcp log group 0 prefix "lan_wan: " counter reject with tcp reset',
        'log group 0 prefix "lan_wan: " counter reject with icmpx admin-prohibited',
    ]


def test_the_variants_of_an_end_are_told_apart_by_the_mark() -> None:
    for policy, mark in zip(ENDS, ("0x00810000", "0x00840000"), strict=True):
        assert f"meta mark set meta mark & 0xff00ffff | {mark}" in tail(policy, *ENDS)
        assert tail(policy, *ENDS)[-1] == 'log group 0 prefix "DROP_INPUT: " counter drop'


def test_ignored_networks_are_refused_before_the_hook_in_both_directions() -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("ff00::/8"))
    assert tail(REJECTS, ignore_networks=networks, inline_mode=True)[1:5] == [
        "ip saddr @ignored_ip goto refuse",
        "ip daddr @ignored_ip goto refuse",
        "ip6 saddr @ignored_ip6 goto refuse",
        "ip6 daddr @ignored_ip6 goto refuse",
    ]
    sets = [part for part in hooks(LAN, ignore_networks=networks).before() if isinstance(part, Set)]
    assert [(part.name, part.elements) for part in sets] == [
        ("ignored_ip", ("10.0.0.0/8",)),
        ("ignored_ip6", ("ff00::/8",)),
    ]


@pytest.mark.parametrize(("mode", "queue"), [(OPEN, "queue num 102 bypass"), (CLOSED, "queue num 102")])
def test_what_an_inline_limit_holds_back_goes_where_only_a_fail_mode_decides(mode: FailMode, queue: str) -> None:
    limited = hooks(LAN, inline_mode=True, log_group=100, queues=2, fail_mode=mode, rate_limit=Rate(5, "second"))
    statements = [rule.statement for rule in limited.tail(LAN)]
    assert statements[-3:-1] == ["meta mark set meta mark & 0xff00ffff | 0x00830000", "jump limit_lan_wan"]
    assert chain(limited.behind(["input"]), "held_back") == [queue]
    limits = chain(limited.parts(LAN, "iifname", ()), "limit_lan_wan")
    assert all(statement.endswith("goto held_back") for statement in limits)


def test_a_packet_window_marks_the_connection_and_shows_learned_flows_to_the_engine() -> None:
    window = hooks(LAN, inline_mode=True, packet_window=3, offload_mark=0x0100_0000)
    assert "ct mark set ct mark | 0x00400000" in [rule.statement for rule in window.tail(LAN)]
    before = [rule.statement for rule in window.before_established()]
    assert before == [FOREIGN, "ct state established ct mark & 0x01400000 == 0x00400000 goto inspect"]
    assert window.after_established() == []
    assert chain(window.behind(["input"]), "allow_learned") == [
        "ct mark & 0x01000000 == 0x01000000 accept",  # one that nobody answers is never established
        "ct mark set ct mark | 0x00400000",
        "goto inspect",
    ]
    assert chain(window.behind(["input"]), "inspect") == [
        "meta mark set meta mark & 0xff00ffff | 0x00800000",
        "queue num 0 bypass",
    ]
    offload = next(text for text in chain(window.behind(["input"]), "answered") if "== 0x00010000" in text)
    assert "ct mark set ct mark & 0xffbfffff | 0x01000000" in offload


def test_in_nflog_mode_what_belongs_to_inline_mode_has_no_effect() -> None:
    inert = {"fail_mode": CLOSED, "queue_full": OPEN, "queues": 3, "packet_window": 5, "offload_mark": 1}
    assert tail(LAN, **inert) == tail(LAN)
    assert hooks(LAN, **inert).behind(["input"]) == hooks(LAN).behind(["input"])
    assert hooks(LAN, **inert).before_established() == hooks(LAN, **inert).after_established() == []


def test_without_a_policy_that_learns_there_is_nothing() -> None:
    nothing = hooks(inline_mode=True, ignore_networks=(ip_network("10.0.0.0/8"),))
    assert nothing.before_established() == nothing.after_established() == []
    assert nothing.before() == nothing.behind(["input"]) == []


def test_without_a_window_only_first_packets_are_looked_at_for_foreign_bits_and_answers() -> None:
    inline = hooks(LAN, inline_mode=True)
    assert inline.before_established() == []
    assert [rule.statement for rule in inline.after_established()] == [FOREIGN]
    window = hooks(LAN, inline_mode=True, packet_window=3)
    assert chain(window.behind(["input"]), "after_input") == ["meta mark & 0x00ff0000 != 0 goto answered"]


def test_learned_sets_come_with_their_lookups_refused_before_allowed() -> None:
    parts = hooks(LAN, inline_mode=True).parts(LAN, "iifname", {Shape("mac", "port")})
    assert [part.name for part in parts] == [
        "refused_lan_wan_mac_port",
        "allowed_lan_wan_mac_port",
        "learned_lan_wan",
    ]
    assert all(part.kept for part in parts if isinstance(part, Set))
    guard = "meta l4proto { tcp, udp, udplite, sctp } ether saddr . meta l4proto . th dport"
    assert chain(parts, "learned_lan_wan") == [
        f"{guard} @refused_lan_wan_mac_port drop",
        f"{guard} @allowed_lan_wan_mac_port goto allow_learned",
    ]


def test_behind_every_hook_answers_are_read_in_the_same_place() -> None:
    parts = hooks(LAN, inline_mode=True).behind(["input", "forward", "output"])
    bases = [part for part in parts if isinstance(part, Chain) and part.hook]
    assert [(base.name, base.hook.priority, base.hook.policy) for base in bases if base.hook] == [
        (f"after_{name}", "filter + 10", "accept") for name in ("input", "forward", "output")
    ]
    answered = "meta mark & 0x00ff0000 != 0 ct state new,invalid,untracked goto answered"
    assert {chain(parts, base.name)[0] for base in bases} == {answered}
    assert [part.name for part in hooks(LAN, inline_mode=True).before() if isinstance(part, Counter)] == ["fail_open"]
