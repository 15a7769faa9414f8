"""Road 1: one policy becomes one chain: its rules in order, then what ends it.

Refuses to know where the chain is entered from.
"""

from __future__ import annotations

from collections.abc import Iterator

from glacic.config.model import FIREWALL, Action, Policy, Rule
from glacic.config.policies import LearningPolicy
from glacic.firewall.hooks import Hooks
from glacic.firewall.match import Sets, matches
from glacic.firewall.quoting import MAX_PREFIX, identifier, printable, quote, quote_prefix, remark
from glacic.firewall.ruleset import Chain, Part
from glacic.firewall.ruleset import Rule as NftRule
from glacic.firewall.shapes import REFUSE_CHAIN

_VERDICT = {Action.ACCEPT: "accept", Action.DROP: "drop", Action.REJECT: f"goto {REFUSE_CHAIN}"}


def policy_chain(name: str) -> str:
    """The chain of the policy of this name."""
    return f"policy_{identifier(name)}"


def policy_parts(policy: Policy, learning: LearningPolicy | None, hooks: Hooks, sets: Sets) -> list[Part]:
    """The policy's chain, behind the chains of those rules that need one. learning: None where it does not learn."""
    parts: list[Part] = []
    rules: list[NftRule] = []
    for number, rule in enumerate(policy.rules, 1):
        if rule.disabled:
            continue
        note = remark(rule.comment)
        found = matches(rule, sets)
        action = _action(policy, rule)
        if rule.limit and len(found) > 1:
            # One rate for all of it: each match by itself would have a rate of its own.
            chain = f"rule_{number}_of_{identifier(policy.name)}"
            parts.append(Chain(chain, (NftRule(action),)))
            action = f"jump {chain}"
        apart = bool(rules and rules[-1].note)  # the note above is not about this one
        rules += [
            NftRule(f"{match} {action}".strip(), "" if at else note, apart and at == 0)
            for at, match in enumerate(found)
        ]
    note = f"Policy {remark(policy.name)}: from {_zone(policy.source)} to {_zone(policy.destination)}"
    if policy.description:
        note += f"\n{remark(policy.description)}"
    end = hooks.tail(learning) if learning else [NftRule(f"counter {_VERDICT[policy.action]}", "The rest")]
    return [*parts, Chain(policy_chain(policy.name), (*rules, *end), note=note)]


def _action(policy: Policy, rule: Rule) -> str:
    return " ".join([*_statements(policy, rule), _VERDICT[rule.action], f"comment {quote(rule.name)}"])


def _statements(policy: Policy, rule: Rule) -> Iterator[str]:
    """What stands between a match and its verdict. A log line is written below the limit only."""
    if rule.limit:
        yield f"limit rate {rule.limit}"
    if rule.log is not None:
        # The kernel log has no fields: a colon and a space end the prefix, also where a name had to be cut.
        text = rule.log or f"{printable(policy.name)} {printable(rule.name)}"[: MAX_PREFIX // 4] + ": "
        yield f"log prefix {quote_prefix(text)}"


def _zone(name: str) -> str:
    return "the firewall" if name == FIREWALL else remark(name)
