"""Which policies learn, and under which number the kernel names them. Shared by both roads.

A policy learns when `rule_learning` is enabled, its action is not accept, it does not opt out, and its source zone is
not external (unless it says `learn = true` itself). What no policy claims learns as DROP_INPUT and DROP_FORWARD.

Refuses to look at rules: what a rule decides never gets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glacic.config.model import (
    DROP_FORWARD,
    DROP_INPUT,
    FIREWALL,
    Action,
    Config,
    Granularity,
    Identity,
    Policy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPolicy:
    """A policy as the engine knows it.

    number: 1.., written into the packet mark before the hook (firewall/claims.py). `name` is what flows are stored
    under: DROP_INPUT and DROP_FORWARD come twice, under two numbers, where some zones name a source by MAC and others
    by IP. action: DROP or REJECT, what "drop" means here."""

    name: str
    number: int
    action: Action = Action.DROP
    identity: Identity = Identity.MAC
    granularity: Granularity = Granularity.SERVICE


def learns(config: Config, policy: Policy) -> bool:
    """Whether what no rule of `policy` decides goes to the learning hook."""
    if not config.rule_learning.enabled or policy.action is Action.ACCEPT or policy.learn is False:
        return False
    return policy.learn is True or not zone_is_external(config, policy.source)


def zone_is_external(config: Config, name: str) -> bool:
    """Whether the zone of this name is on the untrusted side; the firewall itself is not."""
    return any(zone.external for zone in config.zones if zone.name == name)


def identity_of(config: Config, source: str) -> Identity:
    """What names a source in this zone. The firewall's own packets have no source MAC, so they go by IP."""
    if source == FIREWALL:
        return Identity.IP
    return next(zone.identity for zone in config.zones if zone.name == source)


def filters(config: Config) -> bool:
    """Whether the configuration says anything about which packets may pass. One of limits alone does not, and must not
    close the machine to everybody, as one without any zone otherwise would."""
    learning = config.rule_learning.enabled or config.rule_learning.spans
    return bool(
        not (config.limits or config.default_limit) or config.zones or config.policies or config.nats or learning
    )


def learning_policies(config: Config, running: Mapping[str, int] | None = None) -> tuple[LearningPolicy, ...]:
    """Every policy that learns, in the order of its number.

    Numbers count up in file order: DROP_INPUT 1, DROP_FORWARD 2, the file's policies from 3, then the IP variants of
    the first two where a zone needs them. `running` (label -> number, see `label`) are numbers in use by a ruleset
    that is in force: they are kept, so that a packet asked under the old ruleset is not answered as another policy's.
    """
    if not config.rule_learning.enabled:
        return ()
    wanted: list[tuple[str, Action, Identity, Granularity]] = [
        (DROP_INPUT, Action.DROP, Identity.MAC, Granularity.SERVICE),
        (DROP_FORWARD, Action.DROP, Identity.MAC, Granularity.SERVICE),
    ]
    wanted += [
        (policy.name, policy.action, identity_of(config, policy.source), policy.granularity)
        for policy in config.policies
        if learns(config, policy)
    ]
    if any(not zone.external and zone.identity is Identity.IP for zone in config.zones):
        wanted += [(name, Action.DROP, Identity.IP, Granularity.SERVICE) for name in (DROP_INPUT, DROP_FORWARD)]
    return _numbered(wanted, running or {})


def label(name: str, identity: Identity) -> str:
    """What tells two numbers apart for as long as a ruleset runs: the policy's name, and its identity."""
    return f"{name}/{identity}"


def _numbered(
    wanted: list[tuple[str, Action, Identity, Granularity]], running: Mapping[str, int]
) -> tuple[LearningPolicy, ...]:
    taken = set(running.values())
    fresh = (number for number in range(1, len(wanted) + len(taken) + 1) if number not in taken)
    policies = []
    for name, action, identity, granularity in wanted:
        number = running.get(label(name, identity)) or next(fresh)
        policies.append(
            LearningPolicy(name=name, number=number, action=action, identity=identity, granularity=granularity)
        )
    return tuple(sorted(policies, key=lambda policy: policy.number))
