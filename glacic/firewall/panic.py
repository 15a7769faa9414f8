"""Road 1, in an emergency: the table that lets in management and nothing else, whatever else the configuration says.

What a zone's `management` names stays open, with the answers to it, and so do neighbour discovery, the ICMP errors
that connections need, and the leases of the firewall's own addresses. All other traffic ends, running connections too.
What has a memory (learned flows, counters) keeps it, and nothing looks at it meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from glacic.config.model import Config, RuleLearning, Zone
from glacic.config.policies import LearningPolicy, label
from glacic.config.services import MANAGEMENT
from glacic.firewall.compile import compile_config
from glacic.firewall.dispatch import by_source
from glacic.firewall.match import opening_match
from glacic.firewall.quoting import identifier, quote, remark
from glacic.firewall.ruleset import Chain, Counter, Hook, Part, Rule, Ruleset, Set
from glacic.firewall.shapes import Shape

_ICMP = (
    Rule(
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert,"
        " mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        "Neighbours, routers, multicast listeners",
    ),
    Rule("icmp type { destination-unreachable, time-exceeded, parameter-problem } accept"),
    Rule("icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept"),
)
_LEASES_IN = (
    Rule("udp sport 67 udp dport 68 accept", "The leases of our own addresses: without them management would end too"),
    Rule("udp sport 547 udp dport 546 ip6 saddr fe80::/10 accept"),
)
_LEASES_OUT = (
    Rule("udp sport 68 udp dport 67 accept", "The leases of our own addresses"),
    Rule("udp sport 546 udp dport 547 accept"),
)


def managed(config: Config) -> list[Zone]:
    """The zones that something may be managed from."""
    return [zone for zone in config.zones if zone.management]


def as_config(config: Config) -> Config:
    """A configuration that lets in what compile_panic lets in: to ask what would become of a connection."""
    zones = tuple(replace(zone, services=()) for zone in config.zones)
    return replace(
        config, rule_learning=RuleLearning(), zones=zones, policies=(), nats=(), limits=(), default_limit=None
    )


def compile_panic(
    config: Config, policies: Collection[LearningPolicy] = (), shapes: Mapping[str, Collection[Shape]] | None = None
) -> Ruleset:
    """The table for a panic. policies, shapes: whose learned sets there are, by policy name; they stay."""
    zones = managed(config)
    verdicts = {zone.name: f"goto input_{identifier(zone.name)}" for zone in zones}
    input_rules = (
        Rule('iif "lo" accept'),
        Rule("ct state invalid counter drop"),
        *_ICMP,
        *_LEASES_IN,
        *by_source(config.zones).rules(verdicts),
        Rule("counter drop", "Nothing else"),
    )
    output_rules = (
        Rule('oif "lo" accept'),
        *_ICMP,
        *_LEASES_OUT,
        Rule("ct state established,related ct direction reply accept", "Answers to management"),
        Rule("counter drop", "Nothing else"),
    )
    drop = (Rule("counter drop"),)
    parts: list[Part] = [
        *_kept(config, policies, shapes or {}),
        Chain("input", input_rules, Hook("filter", "input", "filter", "drop"), "Panic: management, and nothing else"),
        *(_zone_chain(zone) for zone in zones),
        Chain("forward", drop, Hook("filter", "forward", "filter", "drop"), "Panic: nothing passes through"),
        Chain("output", output_rules, Hook("filter", "output", "filter", "drop"), "Panic: nothing but answers"),
    ]
    return Ruleset(tuple(parts))


def _zone_chain(zone: Zone) -> Chain:
    rules = [
        Rule(f"{opening_match(opening)} accept comment {quote(name)}")
        for name in zone.management
        for opening in MANAGEMENT[name]
    ]
    note = f"Management from {remark(zone.name)}"
    return Chain(f"input_{identifier(zone.name)}", (*rules, Rule("counter drop")), note=note)


def _kept(
    config: Config, policies: Collection[LearningPolicy], shapes: Mapping[str, Collection[Shape]]
) -> Iterator[Part]:
    """What has a memory: learned flows, what sources have used up, counters. A panic is not to forget."""
    running = {label(policy.name, policy.identity): policy.number for policy in policies}
    for part in compile_config(config, running=running, shapes=shapes).parts:
        if isinstance(part, Counter) or (isinstance(part, Set) and part.kept):
            yield part
