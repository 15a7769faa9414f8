"""Road 2, for replay: which policy a captured packet would have asked.

In the service the kernel says so, since it alone matches zones. A capture has no interfaces, so here the networks of
the zones decide, the longest prefix first; where two zones name the same network, the one that names interfaces too.
An address in none of them is taken to be in a zone that names no networks, if the configuration has one: usually the
outside.

What stays in its zone, and what is sent to everybody, is for the firewall itself, unless a policy from the zone to
itself says otherwise. Refuses to look at rules: every packet is taken as one that no rule decided.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from ipaddress import ip_network
from typing import NamedTuple

from glacic.config.model import DROP_FORWARD, DROP_INPUT, FIREWALL, Config, Identity, Policy, Zone
from glacic.config.overlap import NetworkIndex
from glacic.config.policies import LearningPolicy, identity_of, learning_policies
from glacic.config.zones import Zones
from glacic.errors import GlacicError
from glacic.learning.flow import Why
from glacic.learning.packet import Packet

Choose = Callable[[Packet], LearningPolicy | Why]

# Multicast (RFC 5771, RFC 4291), and the limited broadcast (RFC 919): never forwarded by a router that is not told to.
_TO_EVERYBODY: NetworkIndex[str] = NetworkIndex()
for _network in ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8"):
    _TO_EVERYBODY.add(ip_network(_network), _network)


class Choice(NamedTuple):
    """`choose` answers for a packet with its policy, or why there is none; `note` says how, to the person who asked."""

    choose: Choose
    note: str


def choice_of(config: Config, name: str | None) -> Choice:
    """The policy of this name for every packet; without a name as the module says, or by what note says.

    Raises GlacicError if there is no such policy, or it does not learn.
    """
    learning = learning_policies(config)
    if name is not None:
        named = _named(config, learning, name)
        return Choice(lambda _packet: named, "")
    if not learning:
        note = f"rule_learning is not enabled in {config.path}: nothing is learned"
        return Choice(lambda _packet: Why.NOT_LEARNING, note)
    if any(zone.networks for zone in config.zones):
        return Choice(_ByNetworks(config, learning).choose, "every packet asks the policy between the zones' networks")
    written = [policy for policy in learning if policy.name not in (DROP_INPUT, DROP_FORWARD)]
    chosen = written[0] if written else _reserved(config, learning, DROP_INPUT)
    rank = "the only one that learns" if len(written) == 1 else "the first one that learns (--policy names another)"
    return Choice(lambda _packet: chosen, f"no zone has networks: every packet asks policy {chosen.name!r}, {rank}")


class _ByNetworks:
    """Source zone, destination zone, policy."""

    def __init__(self, config: Config, learning: tuple[LearningPolicy, ...]) -> None:
        self._config = config
        self._learning = {(policy.name, policy.identity): policy for policy in learning}
        self._policies = {(policy.source, policy.destination): policy for policy in config.policies}
        self._zones = Zones(config.zones)
        self._elsewhere = tuple(zone for zone in config.zones if not zone.networks)

    def choose(self, packet: Packet) -> LearningPolicy | Why:
        zone = self._zone_of_source(packet.source)
        if zone is None:
            return Why.OUTSIDE
        policy, reserved = self._policy(zone, packet.destination)
        identity = identity_of(self._config, zone.name)
        if policy is not None:
            found = self._learning.get((policy.name, identity))
        else:
            found = None if zone.external else self._learning.get((reserved, identity))
        return found or (Why.OUTSIDE if zone.external else Why.NOT_LEARNING)

    def _zone_of_source(self, source: bytes) -> Zone | None:
        zone = self._zones.by_address(source)
        if zone is not None:
            return zone
        return self._elsewhere[0] if len(self._elsewhere) == 1 else None

    def _policy(self, zone: Zone, destination: bytes) -> tuple[Policy | None, str]:
        """The policy from `zone` to this address, and the reserved one in whose place it stands."""
        to = self._zones.by_address(destination)
        if to is None and _TO_EVERYBODY.narrowest(destination) is None:
            return self._policy_to_elsewhere(zone), DROP_FORWARD
        if to is not None and to is not zone:
            return self._policies.get((zone.name, to.name)), DROP_FORWARD
        to_itself = self._policies.get((zone.name, zone.name)) if to is zone else None
        return to_itself or self._policies.get((zone.name, FIREWALL)), DROP_INPUT

    def _policy_to_elsewhere(self, zone: Zone) -> Policy | None:
        """To one of the zones without networks: a policy that learns before one that does not."""
        candidates = [
            policy for to in self._elsewhere if (policy := self._policies.get((zone.name, to.name))) is not None
        ]
        names = {name for name, _ in self._learning}
        return next((policy for policy in candidates if policy.name in names), candidates[0] if candidates else None)


def _named(config: Config, learning: tuple[LearningPolicy, ...], name: str) -> LearningPolicy:
    names = list(dict.fromkeys(policy.name for policy in learning))
    if name in names:
        return _reserved(config, learning, name)
    if not learning:
        raise GlacicError(f"policy {name!r} does not learn: rule_learning is not enabled in {config.path}")
    if any(policy.name == name for policy in config.policies):
        raise GlacicError(f"policy {name!r} does not learn; these do: {', '.join(names)}")
    close = get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
    raise GlacicError(f"{config.path} has no policy {name!r}; {hint}")


def _reserved(config: Config, learning: tuple[LearningPolicy, ...], name: str) -> LearningPolicy:
    """The policy of this name; of two variants, the one by MAC, unless every zone inside goes by IP."""
    variants = [policy for policy in learning if policy.name == name]
    inside = [zone for zone in config.zones if not zone.external]
    by_ip = bool(inside) and all(zone.identity is Identity.IP for zone in inside)
    return variants[-1 if by_ip else 0]
