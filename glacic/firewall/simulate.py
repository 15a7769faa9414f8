"""Beside road 1: what the ruleset of a configuration would say of a new connection, worked out in user space.

Follows the chains that compile.py makes, in their order, without asking the kernel: for a connection that this very
command came over, and for those that a reload ends. A property test sends real packets through both.

A limit is taken as not exceeded. What cannot be known from the packet (a neighbour's hop limit, a rule's condition that
reach.py does not know) may match or not: where that would change the verdict, `certain` is False and `why` says so.

Refuses to know what was learned: where the hook is met the answer is ASKS, with the policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from ipaddress import ip_network
from typing import NamedTuple

from glacic.config.model import (
    DROP_FORWARD,
    DROP_INPUT,
    FIREWALL,
    Action,
    Config,
    NatKind,
    Policy,
    Zone,
)
from glacic.config.policies import LearningPolicy, filters, identity_of, label, learning_policies
from glacic.config.services import MANAGEMENT, SERVICES
from glacic.config.zones import Patterns, Zones
from glacic.firewall.reach import ICMP, Addresses, Probe, Reach, of_forward, of_opening, of_rule, zone_conditions

LOOPBACK = "lo"
# By protocol, the types that compile.py accepts or drops ahead of every zone.
ERRORS = {ICMP["icmp"]: frozenset({3, 11, 12}), ICMP["icmpv6"]: frozenset({1, 2, 3, 4})}
NEIGHBOURS = frozenset({133, 134, 135, 136})
LISTENERS = frozenset({130, 131, 132, 143})
_UDP = 17
_LINK_LOCAL = Addresses((ip_network("fe80::/10"),), {})


class Verdict(StrEnum):
    """What the ruleset says. ASKS: what was learned decides, and behind it the engine."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    ASKS = "asks"


class Outcome(NamedTuple):
    """A verdict, and the zone, policy and rule that decided.

    certain: nothing that is not known here could change it. policy: the one that asks, where the verdict is ASKS.
    ignored: nothing new is learned of these addresses, so only what is known already passes.
    """

    verdict: Verdict
    why: str
    certain: bool = True
    policy: LearningPolicy | None = None
    ignored: bool = False


_VERDICTS = {Action.ACCEPT: Verdict.ACCEPT, Action.DROP: Verdict.DROP, Action.REJECT: Verdict.REJECT}
_Named = list[tuple[str, Verdict, Reach]]


def simulate(config: Config, probe: Probe) -> Outcome:
    """What a configuration's ruleset says of one packet; for many, keep a Simulator."""
    return Simulator(config).of(probe)


class Simulator:
    """One configuration, asked about packets. Thread-safe: nothing changes once it is made."""

    def __init__(self, config: Config) -> None:
        learning = learning_policies(config)
        sets = {named.name: named for named in config.sets}
        self._config = config
        self._learning = {label(policy.name, policy.identity): policy for policy in learning}
        self._zones = Zones(config.zones)
        self._policies = {(policy.source, policy.destination): policy for policy in config.policies}
        self._rules: dict[str, _Named] = {
            policy.name: [
                (f"rule {rule.name}", _VERDICTS[rule.action], of_rule(rule, sets))
                for rule in policy.rules
                if not rule.disabled
            ]
            for policy in config.policies
        }
        self._services: dict[str, _Named] = {zone.name: _openings(zone) for zone in config.zones}
        self._conditions = {zone.name: zone_conditions(zone) for zone in config.zones}
        self._forwards: _Named = [
            (f"port forward {nat.name}", Verdict.ACCEPT, of_forward(nat, sets, config.zones))
            for nat in config.nats
            if nat.kind is NatKind.DNAT
        ]
        dhcp = [zone for zone in config.zones if zone.interfaces and zone.networks and "dhcp" in zone.services]
        self._addressless = Patterns(name for zone in dhcp for name in zone.interfaces)
        self.reads_source_ports = bool(dhcp) or any(
            reach.source_ports is not None for rules in self._rules.values() for _, _, reach in rules
        )
        self._ignored = Addresses(config.rule_learning.ignore_networks, {})
        self._filters_output = any(policy.source == FIREWALL for policy in config.policies)

    def of(self, probe: Probe) -> Outcome:
        """What the ruleset says of this packet. ValueError for a hook that is none."""
        maybe: list[Outcome] = []
        for outcome in self._walk(probe):
            if not outcome.certain:
                maybe.append(outcome)
                continue
            other = next((found for found in maybe if _differ(found, outcome)), None)
            if other is None:
                return outcome
            return outcome._replace(certain=False, why=f"{outcome.why}; or {other.verdict}: {other.why}")
        raise AssertionError("every chain has an end")

    def _walk(self, probe: Probe) -> Iterator[Outcome]:
        """What the packet meets, up to the first that is certain."""
        if not filters(self._config) and probe.hook in ("input", "forward", "output"):
            return iter((Outcome(Verdict.ACCEPT, "nothing but limits"),))
        if probe.hook == "input":
            return self._input(probe)
        if probe.hook == "forward":
            return self._forward(probe)
        if probe.hook == "output":
            return self._output(probe)
        raise ValueError(f"no such hook: {probe.hook!r}")

    def _input(self, probe: Probe) -> Iterator[Outcome]:
        if probe.iif == LOOPBACK:
            yield Outcome(Verdict.ACCEPT, "loopback")
            return
        if _is(probe, "icmpv6", NEIGHBOURS):  # accepted with a hop limit of 255
            yield Outcome(Verdict.ACCEPT, "neighbour discovery", certain=False)
        if _is(probe, "icmpv6", LISTENERS):
            yield Outcome(Verdict.ACCEPT, "multicast listeners")
        if probe.port in ERRORS.get(probe.protocol, ()):
            yield Outcome(Verdict.ACCEPT, "ICMP error")
        if self._asks_for_an_address(probe):
            yield Outcome(Verdict.ACCEPT, "a host without an address asks for one")
        yield from self._forwarded_ports(probe)
        zone = self._zones.of(probe.iif, probe.source)
        if zone is None:
            yield Outcome(Verdict.DROP, "from no zone")
            return
        yield from self._of_zone(zone)
        yield from _found(f"zone {zone.name} ", self._services[zone.name], probe)
        policy = self._policies.get((zone.name, FIREWALL))
        yield from self._policy(policy, probe) if policy else self._end(DROP_INPUT, zone, probe)

    def _forward(self, probe: Probe) -> Iterator[Outcome]:
        if probe.port in ERRORS.get(probe.protocol, ()):
            yield Outcome(Verdict.ACCEPT, "ICMP error")
        if _is(probe, "icmpv6", NEIGHBOURS):  # accepted with a hop limit of 255: what a bridge carries
            yield Outcome(Verdict.ACCEPT, "neighbour discovery", certain=False)
        if _is(probe, "icmpv6", NEIGHBOURS | LISTENERS):
            yield Outcome(Verdict.DROP, "of one link only")
        yield from self._forwarded_ports(probe)
        zone = self._zones.of(probe.iif, probe.source)
        if zone is None:
            yield Outcome(Verdict.DROP, "from no zone")
            return
        yield from self._of_zone(zone)
        to = self._zones.of(probe.oif, probe.destination)
        policy = self._policies.get((zone.name, to.name)) if to else None
        yield from self._policy(policy, probe) if policy else self._end(DROP_FORWARD, zone, probe)

    def _output(self, probe: Probe) -> Iterator[Outcome]:
        if not self._filters_output:
            yield Outcome(Verdict.ACCEPT, "no policy from the firewall")
            return
        if probe.oif == LOOPBACK:
            yield Outcome(Verdict.ACCEPT, "loopback")
        if _is(probe, "icmpv6", NEIGHBOURS | LISTENERS):
            yield Outcome(Verdict.ACCEPT, "neighbour discovery")
        if probe.port in ERRORS.get(probe.protocol, ()):
            yield Outcome(Verdict.ACCEPT, "ICMP error")
        to = self._zones.of(probe.oif, probe.destination)
        policy = self._policies.get((FIREWALL, to.name)) if to else None
        if policy:
            yield from self._policy(policy, probe)
        yield Outcome(Verdict.ACCEPT, "no policy from the firewall claims it")

    def _asks_for_an_address(self, probe: Probe) -> bool:
        """dispatch.addressless()."""
        if probe.protocol != _UDP or not self._addressless.match(probe.iif):
            return False
        if probe.source == bytes(4):
            return (probe.source_port, probe.port) == (68, 67)
        return probe.source in _LINK_LOCAL and (probe.source_port, probe.port) == (546, 547)

    def _forwarded_ports(self, probe: Probe) -> Iterator[Outcome]:
        if probe.forwarded_port:
            yield from _found("", self._forwards, probe)

    def _of_zone(self, zone: Zone) -> Iterator[Outcome]:
        for name in self._conditions[zone.name]:
            yield Outcome(Verdict.DROP, f"zone {zone.name} {name}", certain=False)

    def _policy(self, policy: Policy, probe: Probe) -> Iterator[Outcome]:
        yield from _found(f"policy {policy.name} ", self._rules[policy.name], probe)
        learning = self._learning.get(label(policy.name, identity_of(self._config, policy.source)))
        if learning:
            yield self._asks(learning, f"policy {policy.name}: no rule decides", probe)
        else:
            words = "policy {}: no rule accepts it" if policy.action is not Action.ACCEPT else "policy {}: the rest"
            yield Outcome(_VERDICTS[policy.action], words.format(policy.name))

    def _end(self, name: str, zone: Zone, probe: Probe) -> Iterator[Outcome]:
        """What a zone sends and no policy claims (`name`: DROP_INPUT or DROP_FORWARD)."""
        learning = self._learning.get(label(name, zone.identity))
        if zone.external or learning is None:
            yield Outcome(Verdict.DROP, f"zone {zone.name}: no rule accepts it")
        else:
            yield self._asks(learning, f"zone {zone.name}: no policy claims it ({name})", probe)

    def _asks(self, policy: LearningPolicy, why: str, probe: Probe) -> Outcome:
        ignored = probe.source in self._ignored or probe.destination in self._ignored
        return Outcome(Verdict.ASKS, why, policy=policy, ignored=ignored)


def _openings(zone: Zone) -> _Named:
    return [
        (f"{kind} {name}", Verdict.ACCEPT, of_opening(opening))
        for kind, names, table in (("services", zone.services, SERVICES), ("management", zone.management, MANAGEMENT))
        for name in names
        for opening in table[name]
    ]


def _found(prefix: str, named: _Named, probe: Probe) -> Iterator[Outcome]:
    for name, verdict, reach in named:
        if reach.matches(probe):
            yield Outcome(verdict, f"{prefix}{name}", certain=reach.certain)


def _differ(one: Outcome, other: Outcome) -> bool:
    return (one.verdict, one.policy) != (other.verdict, other.policy)


def _is(probe: Probe, name: str, types: frozenset[int]) -> bool:
    return probe.protocol == ICMP[name] and probe.port in types
