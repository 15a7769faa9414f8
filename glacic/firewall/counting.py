"""Road 1, afterwards: what the rules of the table have counted, told by policy and rule.

A rule with `counter = true` has a named counter, which a new ruleset leaves as it is; every other one begins at zero
with the ruleset that it is part of. Refuses to read the kernel: dump.py does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from glacic.config.model import DROP_FORWARD, DROP_INPUT
from glacic.firewall.dump import Counted, CountingRule
from glacic.firewall.quoting import identifier

_OF_POLICY = re.compile(r"(?:policy|learned|limit|rule_\d+(?:_limit)?_of)_(.+)")
_ENDS = {"end_of_input": DROP_INPUT, "end_of_forward": DROP_FORWARD}


@dataclass(frozen=True, slots=True)
class RuleCount:
    """One counter. rule: the name that the configuration gives it, None where it has none there; policy likewise.

    kept: whether it outlives a new ruleset.
    """

    chain: str
    policy: str | None
    rule: str | None
    verdict: str
    packets: int
    bytes: int
    kept: bool


def counts(
    rules: Iterable[CountingRule], counters: Mapping[str, Counted], policies: Iterable[str]
) -> Iterator[RuleCount]:
    """Each counter once, in the order of the rules. policies: the names that chains may stand for."""
    names = {identifier(name): name for name in policies}
    told: set[str] = set()
    for rule in rules:
        counted = rule.counted
        if rule.counter is not None:
            if rule.counter in told:
                continue  # a rule of several lines counts in one counter
            told.add(rule.counter)
            counted = counters.get(rule.counter)
        if counted is not None:
            yield RuleCount(
                chain=rule.chain,
                policy=_policy(rule.chain, names),
                rule=rule.comment or None,
                verdict=rule.verdict,
                packets=counted.packets,
                bytes=counted.bytes,
                kept=rule.counter is not None,
            )


def _policy(chain: str, names: Mapping[str, str]) -> str | None:
    """The policy that a chain belongs to; by the chain's own word where no name is known to be behind it."""
    for end, name in _ENDS.items():
        if chain.removeprefix("limit_").removeprefix("learned_") in (end, f"{end}_ip", name, f"{name}_ip"):
            return name
    found = _OF_POLICY.fullmatch(chain)
    return None if found is None else names.get(found[1], found[1])
