"""Step 4 of road 1: checks what concerns more than one block: zones among each other, policies and the zones they name,
names that must be unique, what learning needs.

How a packet finds its zone, which is why some zones must not overlap: interfaces and networks together come first,
then interfaces alone, then networks alone, and those only on interfaces that no zone names. Zones of different kinds
may therefore share an interface or a network; two of the same kind may not.

Reads a Config that may be broken in parts (Report.broken): what could not be decoded is not complained about again.
Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from glacic.config.decode import NAME_MAX
from glacic.config.model import (
    DROP_FORWARD,
    DROP_INPUT,
    FIREWALL,
    MAX_LEARNING_POLICIES,
    Action,
    Config,
    Identity,
    Limit,
    NamedSet,
    Nat,
    Policy,
    Rule,
    Zone,
)
from glacic.config.overlap import NetworkIndex, intersect, share
from glacic.config.policies import learning_policies, learns
from glacic.config.reader import HEADER, Report, element_key, label_key
from glacic.config.source import Span, did_you_mean
from glacic.config.validate_limits import validate_limits
from glacic.config.validate_nat import validate_nat
from glacic.config.validate_rules import validate_rules

INLINE_ONLY = ("queues", "fail_mode", "queue_full", "engine_error", "packet_window", "offload_mark")


def validate(config: Config, report: Report) -> None:
    """Add to `report` everything that is wrong between the blocks, and the notes."""
    _unique(config.zones, "zone", report)
    _unique(config.sets, "set", report)
    _unique(config.nats, "nat", report)
    _unique(config.limits, "limit", report)
    for zone in config.zones:
        if not zone.spans.keys() & {"interface", "interfaces", "networks"}:
            advice = 'write interface = "lan0", or networks = ["10.1.0.0/24"]'
            report.error(zone.spans[HEADER], f'zone "{zone.name}" has neither interfaces nor networks', advice)
        elif zone.antispoof and not zone.spans.keys() & {"interface", "interfaces"}:
            advice = "name the interfaces, or leave it out: a false source is in none of a zone's networks"
            report.error(zone.spans["antispoof"], "antispoof needs interfaces", advice)
    if config.flowtable and not any(zone.interfaces for zone in config.zones):
        advice = "name the interfaces of the zones, or leave it out"
        report.error(config.spans["flowtable"], "flowtable without a zone that has interfaces", advice)
    _overlaps(config.zones, report)
    _policy_names(config.policies, report)
    for policy in config.policies:
        _zones_of(config, policy, report)
        _learning_of(config, policy, report)
        _unique(policy.rules, "rule", report)
        validate_rules(config, policy, report)
    for nat in config.nats:
        validate_nat(config, nat, report)
    validate_limits(config, report)
    _count_of_policies(config, report)
    _notes(config, report)


def _unique(blocks: Iterable[Zone | NamedSet | Nat | Limit | Rule], type_: str, report: Report) -> None:
    first: dict[str, Span] = {}
    for block in blocks:
        span = block.spans[label_key(0)]
        if block.name in first:
            advice = f"choose another name, or merge the two; the first is in {first[block.name].seen_from(span)}"
            report.error(span, f'a second {type_} "{block.name}"', advice)
        else:
            first[block.name] = span


# Zones


def _overlaps(zones: Sequence[Zone], report: Report) -> None:
    """Zones of one kind that could claim the same packet, told at the later one."""
    kinds: dict[tuple[bool, bool], list[Zone]] = {}
    for zone in zones:
        written = zone.spans.keys()
        kinds.setdefault((bool(written & {"interface", "interfaces"}), "networks" in written), []).append(zone)
    _shared_interfaces(kinds.get((True, False), []), report)
    _shared_networks(kinds.get((False, True), []), report)
    for first, later in combinations(kinds.get((True, True), []), 2):
        at = next((at for at, b in enumerate(later.networks) if any(intersect(a, b) for a in first.networks)), None)
        if at is not None and any(share(a, b) for a in first.interfaces for b in later.interfaces):
            _tell_overlap(report, first, later, _element(later, "networks", at), "an interface and these addresses")


def _shared_interfaces(zones: Sequence[Zone], report: Report) -> None:
    for index, later in enumerate(zones):
        for at, name in enumerate(later.interfaces):
            first = next((zone for zone in zones[:index] if any(share(other, name) for other in zone.interfaces)), None)
            if first is not None:
                key = "interface" if "interface" in later.spans else "interfaces"
                _tell_overlap(report, first, later, _element(later, key, at), f"the interface {name}")


def _shared_networks(zones: Sequence[Zone], report: Report) -> None:
    index: NetworkIndex[tuple[int, int]] = NetworkIndex()
    places = [(number, at) for number, zone in enumerate(zones) for at in range(len(zone.networks))]
    for number, at in places:
        index.add(zones[number].networks[at], (number, at))
    told: set[tuple[int, int]] = set()
    for place in places:
        for other in index.containing(zones[place[0]].networks[place[1]]):
            first, later = sorted((place, other))
            if first[0] != later[0] and later not in told:
                told.add(later)
                span = _element(zones[later[0]], "networks", later[1])
                _tell_overlap(report, zones[first[0]], zones[later[0]], span, f"addresses of {span.text}")


def _element(zone: Zone, name: str, at: int) -> Span:
    return zone.spans[element_key(name, at)]


def _tell_overlap(report: Report, first: Zone, later: Zone, span: Span, what: str) -> None:
    if first.name == later.name:
        return  # told as a second zone of that name
    summary = f'zone "{later.name}" overlaps zone "{first.name}": both have {what}'
    advice = f'a packet is of one zone only; zone "{first.name}" is in {first.spans[HEADER].seen_from(span)}'
    report.error(span, summary, advice)


# Policies


def _policy_names(policies: Sequence[Policy], report: Report) -> None:
    """Names are log prefixes and the keys of what was learned: valid, and each only once."""
    named: dict[str, Policy] = {}
    pairs: dict[tuple[str, str], Policy] = {}
    for policy in policies:
        span = policy.spans.get("name", policy.spans[HEADER])
        pair = (policy.source, policy.destination)
        if pair in pairs:
            place = pairs[pair].spans[HEADER].seen_from(span)
            summary = f'a second policy from "{pair[0]}" to "{pair[1]}"'
            report.error(policy.spans[HEADER], summary, f"merge it into the one of {place}")
        elif policy.name in named:
            place = named[policy.name].spans[HEADER].seen_from(span)
            summary = f'a second policy named "{policy.name}"'
            report.error(span, summary, f"write another name; the first is in {place}")
        elif "name" not in policy.spans:
            _default_name(policy, report)
        named.setdefault(policy.name, policy)
        pairs.setdefault(pair, policy)


def _default_name(policy: Policy, report: Report) -> None:
    """FROM_TO is as good as a written name, unless the zones' names make it impossible."""
    if policy.name in {DROP_INPUT, DROP_FORWARD}:
        report.error(
            policy.spans[HEADER], f'this policy would be named "{policy.name}", which is reserved', "write a name"
        )
    elif len(policy.name.encode()) > NAME_MAX:
        summary = f"this policy would have a name of {len(policy.name.encode())} bytes"
        report.error(policy.spans[HEADER], summary, f"write a name of at most {NAME_MAX} bytes")


def _zones_of(config: Config, policy: Policy, report: Report) -> None:
    known = [FIREWALL, *(zone.name for zone in config.zones)]
    for index, name in enumerate((policy.source, policy.destination)):
        if name not in known and ("zone", name) not in report.lost:
            defined = ", ".join(f'"{zone}"' for zone in known)
            advice = did_you_mean(name, known) or f"known are {defined}: write a zone block for it"
            report.error(policy.spans[label_key(index)], f'unknown zone "{name}"', advice)
    if policy.source == policy.destination == FIREWALL:
        advice = "what the machine says to itself goes over loopback and is always accepted"
        report.error(policy.spans[HEADER], "a policy from the firewall to itself", advice)


def _learning_of(config: Config, policy: Policy, report: Report) -> None:
    """Where learning is asked for and cannot be, and granularity without learning."""
    zone = next((zone for zone in config.zones if zone.name == policy.source), None)
    outside = zone is not None and zone.external
    learn = policy.spans.get("learn")
    if learn is not None and policy.learn and policy.action is Action.ACCEPT:
        advice = 'nothing is left to learn: write action = "drop", or leave learn out'
        report.error(learn, "learn cannot apply to a policy that accepts everything", advice)
    elif learn is not None and policy.learn and outside and zone is not None and zone.identity is not Identity.IP:
        _refuse_outside(policy, zone, learn, report)
    granularity = policy.spans.get("granularity")
    if granularity is None or granularity in report.broken or learn in report.broken:
        return
    if policy.action is Action.ACCEPT or policy.learn is False or (outside and not policy.learn):
        advice = "it says what a learned flow is made of: leave it out, or let the policy learn"
        report.error(granularity, "granularity cannot apply to a policy that does not learn", advice)


def _refuse_outside(policy: Policy, zone: Zone, learn: Span, report: Report) -> None:
    if zone.spans.get("identity") in report.broken:
        return
    summary = f'policy "{policy.name}" cannot learn from the external zone "{zone.name}"'
    advice = (
        "behind a gateway one MAC stands for everybody, so one learned flow would let the whole Internet in: "
        f'write identity = "ip" in zone "{zone.name}", or leave learn out'
    )
    report.error(learn, summary, advice)


def _count_of_policies(config: Config, report: Report) -> None:
    known = {FIREWALL, *(zone.name for zone in config.zones)}
    if len(config.policies) < MAX_LEARNING_POLICIES // 2 or any(p.source not in known for p in config.policies):
        return
    learning = [policy for policy in config.policies if learns(config, policy)]
    beyond = len(learning_policies(config)) - MAX_LEARNING_POLICIES
    if beyond > 0:
        span = learning[-beyond].spans[HEADER]
        advice = "write learn = false in some: the packet mark has no room for more numbers"
        report.error(span, f"more than {MAX_LEARNING_POLICIES} policies that learn", advice)


# Notes


def _notes(config: Config, report: Report) -> None:
    """What is valid and does nothing."""
    learning = config.rule_learning
    spans = learning.spans
    if not learning.enabled:
        reason = "while enabled = false" if spans else "without a rule_learning block"
        asked = [policy.spans["learn"] for policy in config.policies if policy.learn]
        asked += [spans["learning_mode"]] if learning.learning_mode else []
        for span in asked:
            report.note(span, f"{span.text.split()[0]} has no effect {reason}")
    elif not learning.inline_mode:
        for name in INLINE_ONLY:
            if name in spans and spans[name] not in report.broken:
                report.note(spans[name], f"{name} has no effect while inline_mode = false")
    elif "offload_mark" in spans and not learning.packet_window:
        report.note(spans["offload_mark"], "offload_mark has no effect while packet_window = 0")
