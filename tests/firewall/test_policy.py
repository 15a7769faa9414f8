"""One policy, one chain: its rules in order, and what ends it."""

from __future__ import annotations

from datetime import UTC, datetime

from glacic.config.model import Action, LogLevel, Policy, PortRange, Rate, RejectWith, Rule, RuleLearning
from glacic.config.policies import LearningPolicy
from glacic.firewall.hooks import Hooks
from glacic.firewall.match import Sets
from glacic.firewall.policy import policy_parts
from glacic.firewall.ruleset import Chain

LEARNING = LearningPolicy(name="p", number=3)
HOOKS = Hooks(RuleLearning(enabled=True), [LEARNING])
SSH = (PortRange(22, 22),)


def compiled(*rules: Rule, action: Action = Action.DROP, learning: LearningPolicy | None = None) -> list[Chain]:
    policy = Policy(source="lan", destination="firewall", name="p", description="why", action=action, rules=rules)
    return [
        part for part in policy_parts(policy, learning, HOOKS, Sets([]), datetime.now(UTC)) if isinstance(part, Chain)
    ]


def statements(chain: Chain) -> list[str]:
    return [rule.statement for rule in chain.rules]


def test_rules_come_in_order_and_disabled_ones_not_at_all() -> None:
    (chain,) = compiled(
        Rule(name="one", action=Action.ACCEPT, protos=("tcp",), dest_port=SSH, comment="the first"),
        Rule(name="off", action=Action.ACCEPT, disabled=True),
        Rule(name="two", action=Action.REJECT, protos=("udp",), log=""),
        Rule(name="three", action=Action.DROP, protos=("gre",), limit=Rate(5, "hour"), log="mine "),
        action=Action.ACCEPT,
    )
    assert chain.note == "Policy p: from lan to the firewall\nwhy"
    assert statements(chain) == [
        'tcp dport 22 accept comment "one"',
        'meta l4proto udp log prefix "p two: " goto refuse comment "two"',
        'meta l4proto gre limit rate 5/hour log prefix "mine " drop comment "three"',
        "counter accept",
    ]
    assert chain.rules[0].note == "the first"
    assert chain.rules[1].apart


def test_a_rule_that_becomes_several_has_one_limit() -> None:
    both = Rule(name="ping", action=Action.ACCEPT, protos=("icmp", "icmpv6"), limit=Rate(5, "second"))
    limited, chain = compiled(both)
    assert statements(limited) == ['limit rate 5/second accept comment "ping"']
    assert statements(chain)[:2] == [f"meta l4proto {proto} jump {limited.name}" for proto in ("icmp", "icmpv6")]


def test_limits_per_source_stand_before_the_limit_for_all_which_stays_one() -> None:
    rule = Rule(name="web", action=Action.ACCEPT, protos=("tcp",), limit=Rate(9, "hour"), connections_per_source=2)
    limited, per_source, chain = compiled(rule)
    assert statements(limited) == ['limit rate 9/hour accept comment "web"']
    assert statements(per_source) == [
        f"add @open_2_web_of_p_ip {{ ip saddr ct count 2 }} jump {limited.name}",
        f"add @open_2_web_of_p_ip6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: ct count 2 }} jump {limited.name}",
    ]
    assert statements(chain)[0] == f"meta l4proto tcp jump {per_source.name}"


def test_a_rule_of_one_family_has_its_limit_per_source_in_its_line() -> None:
    (chain,) = compiled(Rule(name="p", action=Action.ACCEPT, protos=("icmp",), connections_per_source=2, log=""))
    assert statements(chain)[0] == (
        'meta l4proto icmp add @open_2_p_of_p_ip { ip saddr ct count 2 } log prefix "p p: " accept comment "p"'
    )


def test_what_a_rule_decides_is_counted_then_logged_then_told() -> None:
    (chain,) = compiled(
        Rule(name="a", action=Action.DROP, counter=True, log="x ", log_group=7),
        Rule(name="b", action=Action.REJECT, log="y ", log_level=LogLevel.INFO, reject_with=RejectWith.NO_ROUTE),
        Rule(name="c", action=Action.REJECT, protos=("tcp",), reject_with=RejectWith.TCP_RESET),
    )
    assert statements(chain)[:3] == [
        'counter name "rule_a_of_p" log prefix "x " group 7 drop comment "a"',
        'log prefix "y " level info reject with icmpx no-route comment "b"',
        'meta l4proto tcp reject with tcp reset comment "c"',
    ]


def test_a_default_log_prefix_fits_however_long_the_names_are() -> None:
    (chain,) = compiled(Rule(name="☃" * 60, action=Action.DROP, log=""))
    prefix = statements(chain)[0].split('"')[1]
    assert len(prefix.encode()) <= 127
    assert prefix.startswith("p ☃")
    assert prefix.endswith(": ")


def test_what_no_rule_decides_gets_the_action_or_the_hook() -> None:
    assert statements(compiled(action=Action.DROP)[0]) == ["counter drop"]
    assert statements(compiled(action=Action.REJECT)[0]) == ["counter goto refuse"]
    assert statements(compiled(learning=LEARNING)[0])[-1] == 'log group 0 prefix "p: " counter drop'
