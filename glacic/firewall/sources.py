"""Road 1: the limits per source of one rule: how often, and how many connections at a time.

What a source has used up is an element of a set, with a limit or a list of connections in it. The rule matches while
the source is within its limits, and never the other way round: a set that is full matches nothing, so whoever fills it
with made-up addresses keeps newcomers out until it has emptied, and never gets in himself.

An IPv6 source is its /64, which one subscriber has at least (RFC 6177): by address he would have 2^64 limits. The
sets outlive a new ruleset, so that a reload forgives nothing; one with other limits has another name.

Refuses to decide anything: the verdict is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from glacic.config.model import Policy, Rate, Rule
from glacic.firewall.match import FAMILY_WORD
from glacic.firewall.quoting import remark, rule_identifier
from glacic.firewall.ruleset import Set

_SOURCES = 65535  # that one set remembers: up to 16 MiB of kernel memory, where an attacker fills it
_SOURCE = {4: "ip saddr", 6: "ip6 saddr & ffff:ffff:ffff:ffff::"}
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SHORTEST_TIMEOUT_S = 10  # below that the kernel would mostly be clearing up


def per_source(policy: Policy, rule: Rule, families: Sequence[int]) -> tuple[list[Set], list[str]]:
    """The sets of a rule with limits per source, and one nft match for each family; ([], []) without such limits."""
    name = rule_identifier(policy.name, rule.name)
    sets: list[Set] = []
    conditions: list[str] = []
    for family in families if rule.limit_per_source or rule.connections_per_source else ():
        word, parts = FAMILY_WORD[family], []
        if rate := rule.limit_per_source:
            # Silent for one unit of the rate, a source has its whole burst again: forgetting it changes nothing.
            timeout = f"flags dynamic,timeout; timeout {max(_SECONDS[rate.unit], _SHORTEST_TIMEOUT_S)}s;"
            sets.append(_set(f"rate_{rate.count}_{rate.unit}_{name}_{word}", word, timeout))
            parts.append(f"update @{sets[-1].name} {{ {_SOURCE[family]} {_within(rate)} }}")
        if count := rule.connections_per_source:
            sets.append(_set(f"open_{count}_{name}_{word}", word, "flags dynamic;"))
            parts.append(f"add @{sets[-1].name} {{ {_SOURCE[family]} ct count {count} }}")
        conditions.append(" ".join(parts))
    if sets:
        sets[0] = replace(sets[0], note=f"{remark(policy.name)}, {remark(rule.name)}: what each source has used up")
    return sets, conditions


def _set(name: str, word: str, flags: str) -> Set:
    return Set(name, f"typeof {word} saddr; size {_SOURCES}; {flags}", kept=True)


def _within(rate: Rate) -> str:
    return f"limit rate {rate} burst {rate.count} packets"
