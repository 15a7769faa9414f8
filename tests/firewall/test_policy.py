"""One policy, one chain: its rules in order, and what ends it."""

from __future__ import annotations

from glacic.config.model import Action, Policy, PortRange, Rate, Rule, RuleLearning
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
    return [part for part in policy_parts(policy, learning, HOOKS, Sets([])) if isinstance(part, Chain)]


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
