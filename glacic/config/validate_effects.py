"""Step 4 of road 1, continued: what a rule does besides matching: limits per source, logging, how it rejects.

An attribute that can have no effect where it stands is an error at that attribute.
"""

from __future__ import annotations

from glacic.config.check import Check
from glacic.config.model import FIREWALL, Action, Config, Policy, RejectWith, Rule

PER_SOURCE = ("limit_per_source", "connections_per_source")


def validate_effects(config: Config, policy: Policy, rule: Rule, check: Check) -> None:
    """Add to the report what is wrong with the effects of one rule."""
    _per_source(policy, rule, check)
    _logging(config, rule, check)
    _rejecting(rule, check)


def _per_source(policy: Policy, rule: Rule, check: Check) -> None:
    for name in PER_SOURCE:
        if not check.written(name) or not check.usable(name):
            continue
        if policy.source == FIREWALL:
            advice = "there is one source: write limit" if name == "limit_per_source" else "leave it out"
            check.error(name, f'{name} cannot apply to a policy from "firewall"', advice)
        elif check.readable("action") and rule.action is not Action.ACCEPT:
            advice = (
                "what is above the limit goes on to the next rule: let this rule accept what is within it, "
                f"and the next one, or the policy, {rule.action} the rest"
            )
            check.error(name, f"{name} cannot apply to a rule that does not accept", advice)


def _logging(config: Config, rule: Rule, check: Check) -> None:
    for name in ("log_group", "log_level"):
        if check.written(name) and check.usable("log") and rule.log is None:
            check.error(name, f"{name} without a log", "write log = true, or a prefix in quotes")
    if check.written("log_group") and check.written("log_level"):
        advice = "a log group gets packets, not lines: leave one of them out"
        check.error("log_level", "log_level cannot apply to a log group", advice)
    learning = config.rule_learning
    taken = learning.enabled and not learning.inline_mode and rule.log_group == learning.log_group
    if check.readable("log_group") and taken:
        summary = f"log group {rule.log_group} is the one that Glacic learns from"
        check.error("log_group", summary, "choose another: what is logged there would be taken for a new flow")


def _rejecting(rule: Rule, check: Check) -> None:
    if not check.written("reject_with") or not check.usable("reject_with", "action"):
        return
    if rule.action is not Action.REJECT:
        advice = 'write action = "reject", or leave it out'
        check.error("reject_with", f"reject_with cannot apply to action {rule.action}", advice)
    elif rule.reject_with is RejectWith.TCP_RESET and check.usable("proto") and rule.protos != ("tcp",):
        advice = 'write proto = "tcp"; without reject_with TCP gets a reset and everything else an ICMP error'
        check.error("reject_with", "a TCP reset can only answer TCP", advice)
