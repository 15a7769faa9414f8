"""Road 1: one policy becomes one chain: its rules in order, then what ends it.

A rule of the configuration that needs several of nftables and counts something over all of them gets a chain of its
own, so that it counts once. Refuses to know where the policy's chain is entered from.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from glacic.config.model import FIREWALL, Action, Policy, RejectWith, Rule
from glacic.config.policies import LearningPolicy
from glacic.firewall.hooks import Hooks
from glacic.firewall.hours import time_set
from glacic.firewall.match import Sets, families, matches
from glacic.firewall.quoting import (
    MAX_PREFIX,
    identifier,
    printable,
    quote,
    quote_prefix,
    remark,
    rule_identifier,
)
from glacic.firewall.ruleset import Chain, Counter, Part
from glacic.firewall.ruleset import Rule as NftRule
from glacic.firewall.shapes import REFUSE_CHAIN
from glacic.firewall.sources import per_source

_VERDICT = {Action.ACCEPT: "accept", Action.DROP: "drop", Action.REJECT: f"goto {REFUSE_CHAIN}"}


def policy_chain(name: str) -> str:
    """The chain of the policy of this name."""
    return f"policy_{identifier(name)}"


def counter_name(policy: str, rule: str) -> str:
    """The named counter of a rule that has one: it keeps its value when the ruleset is replaced."""
    return f"rule_{rule_identifier(policy, rule)}"


def policy_parts(
    policy: Policy, learning: LearningPolicy | None, hooks: Hooks, sets: Sets, now: datetime
) -> list[Part]:
    """The policy's chain, behind what its rules refer to. learning: None where it does not learn.

    now: for the rules that hold at some times only.
    """
    parts: list[Part] = []
    rules: list[NftRule] = []
    for number, rule in enumerate(policy.rules, 1):
        if rule.disabled:
            continue
        before, found = _rule_parts(policy, number, rule, sets, now)
        parts += before
        apart = bool(rules and rules[-1].note)  # the note above is not about this one
        note = remark(rule.comment)
        rules += [NftRule(text, "" if at else note, apart and at == 0) for at, text in enumerate(found)]
    note = f"Policy {remark(policy.name)}: from {_zone(policy.source)} to {_zone(policy.destination)}"
    if policy.description:
        note += f"\n{remark(policy.description)}"
    end = hooks.tail(learning) if learning else [NftRule(f"counter {_VERDICT[policy.action]}", "The rest")]
    return [*parts, Chain(policy_chain(policy.name), (*rules, *end), note=note)]


def _rule_parts(policy: Policy, number: int, rule: Rule, sets: Sets, now: datetime) -> tuple[list[Part], list[str]]:
    """What a rule refers to, and its lines in the policy's chain."""
    found = matches(rule, sets)
    action = _action(policy, rule)
    chain = f"rule_{number}_of_{identifier(policy.name)}"
    parts: list[Part] = []
    if moments := time_set(policy, rule, now):
        parts.append(moments)
        found = [f"{match} meta time @{moments.name}".strip() for match in found]
    if rule.counter:
        parts.append(Counter(counter_name(policy.name, rule.name)))
    source_sets, sources = per_source(policy, rule, families(rule, sets))
    parts += source_sets
    if rule.limit and (len(found) > 1 or len(sources) > 1):
        # One rate for all of it: each line by itself would have a rate of its own.
        name = f"rule_{number}_limit_of_{identifier(policy.name)}" if sources else chain
        parts.append(Chain(name, (NftRule(action),)))
        action = f"jump {name}"
    if sources and (len(found) > 1 or len(sources) > 1):
        parts.append(Chain(chain, tuple(NftRule(f"{source} {action}") for source in sources)))
        action = f"jump {chain}"
    elif sources:
        action = f"{sources[0]} {action}"
    return parts, [f"{match} {action}".strip() for match in found]


def _action(policy: Policy, rule: Rule) -> str:
    return " ".join([*_statements(policy, rule), _verdict(rule), f"comment {quote(rule.name)}"])


def _verdict(rule: Rule) -> str:
    if rule.reject_with is None:
        return _VERDICT[rule.action]
    told = "tcp reset" if rule.reject_with is RejectWith.TCP_RESET else f"icmpx {rule.reject_with}"
    return f"reject with {told}"


def _statements(policy: Policy, rule: Rule) -> Iterator[str]:
    """What stands between a match and its verdict. Counted and logged is what the rule decides, below its limits."""
    if rule.limit:
        yield f"limit rate {rule.limit}"
    if rule.counter:
        yield f'counter name "{counter_name(policy.name, rule.name)}"'
    if rule.log is not None:
        # The kernel log has no fields: a colon and a space end the prefix, also where a name had to be cut.
        text = rule.log or f"{printable(policy.name)} {printable(rule.name)}"[: MAX_PREFIX // 4] + ": "
        yield f"log prefix {quote_prefix(text)}"
        if rule.log_group is not None:
            yield f"group {rule.log_group}"
        if rule.log_level is not None:
            yield f"level {rule.log_level}"


def _zone(name: str) -> str:
    return "the firewall" if name == FIREWALL else remark(name)
