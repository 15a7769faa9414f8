"""Road 1: a configuration becomes the table, its chains in the order of the packet's road.

    antispoof                           before connection tracking: sources that no way leads back to
    prerouting                          port forwards
    input  -> input_ZONE  -> policy_NAME -> learned_NAME, limit_NAME, hook     to the firewall itself
                          -> end_of_input -> ...                               an internal zone, no policy
    forward -> forward_ZONE -> policy_NAME -> ...                              through the firewall
                            -> end_of_forward -> ...
    output -> policy_NAME -> ...                                               only with policies from the firewall
    after_input, after_forward, after_output                                   behind the hook, inline mode only
    postrouting                         source translation

What comes from an external zone or from no zone meets no hook: its chains end in a counted drop.
Refuses to write text: render.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from glacic.config.model import (
    DROP_FORWARD,
    DROP_INPUT,
    FIREWALL,
    Action,
    Config,
    Identity,
    Policy,
    PortRange,
    SetType,
    Zone,
)
from glacic.config.policies import LearningPolicy, filters, identity_of, label, learning_policies, learns
from glacic.config.services import MANAGEMENT, SERVICES
from glacic.firewall import nat, offload
from glacic.firewall.antispoof import antispoof
from glacic.firewall.dispatch import addressless, by_destination, by_source
from glacic.firewall.hooks import Hooks
from glacic.firewall.match import ADDRESS_TYPE, Sets, network_elements, opening_match, port_elements
from glacic.firewall.policy import policy_chain, policy_parts
from glacic.firewall.quoting import identifier, quote, remark
from glacic.firewall.ruleset import Chain, Hook, Part, Rule, Ruleset, Set
from glacic.firewall.shapes import REFUSE_CHAIN, Shape, shapes_of

_ERRORS = (
    Rule(
        "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
        "Path MTU discovery and unreachable hosts: RFC 1191, RFC 4890",
    ),
    Rule("icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept"),
)
_NEIGHBOURS = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
_LISTENERS = "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report"

# Where there are bandwidth limits and no word about which packets may pass. A chain at a hook is what tells a table
# that is in force; what this machine itself sends and receives does not meet this one.
_OPEN = Ruleset(
    (Chain("forward", (), Hook("filter", "forward", "filter", "accept"), "Nothing but limits: everything passes"),)
)


def compile_config(
    config: Config,
    *,
    running: Mapping[str, int] | None = None,
    shapes: Mapping[str, Collection[Shape]] | None = None,
    closed: bool = False,
    now: datetime | None = None,
) -> Ruleset:
    """The table for a valid configuration.

    running: policy numbers to keep (config.policies.learning_policies). shapes: by policy name, the shapes of key whose
    learned sets are in use; their lookups are part of the ruleset. Without them the service adds each on need.
    closed: with a counted drop in place of each hook, for as long as no service runs. now: for rules that hold at some
    times only (hours.renewal goes on from there); the present without it.
    """
    if not filters(config):
        return _OPEN
    return _Compiler(config, running, shapes or {}, closed=closed, now=now or datetime.now(UTC)).ruleset()


class _Compiler:
    """One configuration on its way; everything here is derived from it."""

    def __init__(
        self,
        config: Config,
        running: Mapping[str, int] | None,
        shapes: Mapping[str, Collection[Shape]],
        *,
        closed: bool,
        now: datetime,
    ) -> None:
        learning = learning_policies(config, running)
        self._config = config
        self._shapes = shapes
        self._now = now
        self._learning = {label(policy.name, policy.identity): policy for policy in learning}
        self._hooks = Hooks(config.rule_learning, learning, closed=closed)
        self._sets = Sets(config.sets)
        self._from_zones, self._at_zones = by_source(config.zones), by_destination(config.zones)
        self._policies: dict[str, list[Policy]] = {}  # by source, in file order
        for policy in config.policies:
            self._policies.setdefault(policy.source, []).append(policy)

    def ruleset(self) -> Ruleset:
        """The chains in hook order."""
        config = self._config
        output = self._output()
        parts: list[Part] = [
            *self._hooks.before(),
            *self._named_sets(),
            *([offload.flowtable(config.zones)] if config.flowtable else []),
            *antispoof(config.zones),
            *nat.prerouting(config.nats, self._sets, config.zones),
            *self._input(),
            *self._forward(),
            *nat.accepted(config.nats, self._sets, config.zones),
            *output,
            *self._hooks.behind(["input", "forward", *(["output"] if self._asks_on_output() else [])]),
            *nat.postrouting(config.nats, self._sets, config.zones),
        ]
        return Ruleset(tuple(_once([*parts, *self._refuse(parts)])))

    def _named_sets(self) -> list[Part]:
        """The configuration's own sets; one of addresses of both families becomes two."""
        parts: list[Part] = []
        for named in self._config.sets:
            note = f"Set {remark(named.name)}" + (f": {remark(named.description)}" if named.description else "")
            if named.type is SetType.PORT:
                ports = port_elements(item for item in named.elements if isinstance(item, PortRange))
                spec = "type inet_service; flags interval;"
                parts.append(Set(self._sets.ports(named.name), spec, tuple(ports), note=note))
                continue
            addresses = [item for item in named.elements if not isinstance(item, PortRange)]
            for family, type_ in ADDRESS_TYPE.items():
                name = self._sets.addresses(named.name, family)
                if name:
                    elements = tuple(network_elements(family, addresses))
                    parts.append(Set(name, f"type {type_}; flags interval;", elements, note=note))
        return parts

    def _input(self) -> list[Part]:
        zones = self._config.zones
        rules = [
            *self._before_dispatch(),
            Rule('iif "lo" accept'),
            Rule(
                f"icmpv6 type {{ {_NEIGHBOURS} }} ip6 hoplimit 255 accept", "Neighbours, routers, multicast listeners"
            ),
            Rule(f"icmpv6 type {{ {_LISTENERS} }} accept"),
            *_ERRORS,
            *addressless(zones),
            *nat.to_accepted(self._config.nats),
            *self._by_source("input"),
            Rule("counter drop", "From no zone"),
        ]
        base = Chain("input", tuple(rules), Hook("filter", "input", "filter", "drop"), "To the firewall itself")
        parts: list[Part] = [base]
        for zone in zones:
            parts += self._input_of(zone)
        return parts + self._ends(DROP_INPUT, [zone for zone in zones if self._policy(zone.name, FIREWALL) is None])

    def _input_of(self, zone: Zone) -> list[Part]:
        """What a zone may ask of the firewall, then the policy, or the end."""
        rules = [
            Rule(f"{opening_match(opening)} accept comment {quote(name)}")
            for names, table in ((zone.services, SERVICES), (zone.management, MANAGEMENT))
            for name in names
            for opening in table[name]
        ]
        policy = self._policy(zone.name, FIREWALL)
        rules.append(Rule(f"goto {policy_chain(policy.name)}") if policy else self._end_rule(DROP_INPUT, zone))
        chain = Chain(f"input_{identifier(zone.name)}", tuple(rules), note=f"From {_zone(zone)} to the firewall")
        return [chain, *(self._policy_parts(policy) if policy else [])]

    def _forward(self) -> list[Part]:
        zones = self._config.zones
        rules = [
            *self._before_dispatch(*([offload.rule()] if self._config.flowtable else [])),
            *_ERRORS,
            Rule(
                f"icmpv6 type {{ {_NEIGHBOURS} }} ip6 hoplimit 255 accept",
                "Of one link only: what a bridge carries has passed no router (RFC 4861), all else is never forwarded",
            ),
            Rule(f"icmpv6 type {{ {_NEIGHBOURS}, {_LISTENERS} }} counter drop"),
            *nat.to_accepted(self._config.nats),
            *self._by_source("forward"),
            Rule("counter drop", "From no zone"),
        ]
        parts: list[Part] = [
            Chain("forward", tuple(rules), Hook("filter", "forward", "filter", "drop"), "Through the firewall")
        ]
        for zone in zones:
            parts += self._forward_of(zone)
        return parts + self._ends(DROP_FORWARD, zones)

    def _forward_of(self, zone: Zone) -> list[Part]:
        """Where a zone's packets go to, by policy; the end for the rest."""
        rules = [*self._to_zones(zone.name, self._end(DROP_FORWARD, zone)), self._end_rule(DROP_FORWARD, zone)]
        note = f"From {_zone(zone)} through the firewall"
        parts: list[Part] = [Chain(f"forward_{identifier(zone.name)}", tuple(rules), note=note)]
        for policy in self._onward(zone.name):
            parts += self._policy_parts(policy)
        return parts

    def _output(self) -> list[Part]:
        policies = [policy for policy in self._config.policies if policy.source == FIREWALL]
        if not policies:
            return []
        rules = [
            *(self._hooks.before_established() if self._asks_on_output() else []),
            Rule("ct state established,related accept", apart=True),
            *(self._hooks.after_established() if self._asks_on_output() else []),
            Rule('oif "lo" accept', apart=True),
            Rule(f"icmpv6 type {{ {_NEIGHBOURS}, {_LISTENERS} }} accept", "Neighbours, routers, multicast listeners"),
            *_ERRORS,
            *_noted(self._to_zones(FIREWALL, "accept"), "To which zone"),
        ]
        hook = Hook("filter", "output", "filter", "accept")
        parts: list[Part] = [
            Chain("output", tuple(rules), hook, "From the firewall itself: what no policy claims may go")
        ]
        for policy in policies:
            parts += self._policy_parts(policy)
        return parts

    def _before_dispatch(self, *before_established: Rule) -> list[Rule]:
        """What input and forward begin with."""
        return [
            *self._hooks.before_established(),
            *before_established,
            Rule("ct state established,related accept", apart=True),
            Rule("ct state invalid counter drop"),
            *self._hooks.after_established(),
        ]

    def _by_source(self, base: str) -> list[Rule]:
        verdicts = {zone.name: f"goto {base}_{identifier(zone.name)}" for zone in self._config.zones}
        return _noted(self._from_zones.rules(verdicts), "From which zone")

    def _to_zones(self, source: str, end: str) -> list[Rule]:
        """The policies of one source by where the packet goes.

        A zone with interfaces and networks stands here without a policy too: what goes there must not be taken for what
        goes to a zone that has its interface, or its networks, alone.
        """
        policies = self._onward(source)
        verdicts = {zone.name: end for zone in self._config.zones if zone.interfaces and zone.networks}
        verdicts |= {policy.destination: f"goto {policy_chain(policy.name)}" for policy in policies}
        return self._at_zones.rules(verdicts) if policies else []

    def _policy_parts(self, policy: Policy) -> list[Part]:
        learning = self._learning.get(label(policy.name, identity_of(self._config, policy.source)))
        parts = policy_parts(policy, learning, self._hooks, self._sets, self._now)
        if learning:
            interface = "oifname" if policy.source == FIREWALL else "iifname"
            parts += self._hooks.parts(learning, interface, self._used(learning))
        return parts

    def _ends(self, name: str, zones: Iterable[Zone]) -> list[Part]:
        """The chains that end input or forward (`name`: DROP_INPUT or DROP_FORWARD) for what comes from these zones."""
        parts: list[Part] = []
        for identity in Identity:
            learning = self._learning.get(label(name, identity))
            reached = any(not zone.external and zone.identity is identity for zone in zones)
            if learning and (reached or self._used(learning)):
                note = f"What internal zones send and no policy claims: {name}"
                parts.append(Chain(_end_chain(learning), tuple(self._hooks.tail(learning)), note=note))
                parts += self._hooks.parts(learning, "iifname", self._used(learning))
        return parts

    def _used(self, policy: LearningPolicy) -> list[Shape]:
        """The shapes in use of which this policy can meet packets: not those of its twin, or of what it once was."""
        used = self._shapes.get(policy.name, ())
        return [shape for shape in shapes_of(policy) if shape in used]

    def _end(self, name: str, zone: Zone) -> str:
        """The verdict for what a zone sends and no policy claims."""
        learning = self._learning.get(label(name, zone.identity))
        return "drop" if zone.external or learning is None else f"goto {_end_chain(learning)}"

    def _end_rule(self, name: str, zone: Zone) -> Rule:
        end = self._end(name, zone)
        return Rule(f"counter {end}" if end == "drop" else end)

    def _policy(self, source: str, destination: str) -> Policy | None:
        return next((policy for policy in self._policies.get(source, ()) if policy.destination == destination), None)

    def _onward(self, source: str) -> list[Policy]:
        """The policies from a zone to other places than the firewall itself."""
        return [policy for policy in self._policies.get(source, ()) if policy.destination != FIREWALL]

    def _asks_on_output(self) -> bool:
        return any(policy.source == FIREWALL and learns(self._config, policy) for policy in self._config.policies)

    def _refuse(self, parts: Iterable[Part]) -> list[Part]:
        """The chain that rejects, where something goes there or may once it is learned."""
        chains = [part for part in parts if isinstance(part, Chain)]
        if not any(policy.action is Action.REJECT for policy in self._learning.values()) and not any(
            f"goto {REFUSE_CHAIN}" in rule.statement for chain in chains for rule in chain.rules
        ):
            return []
        rules = (
            Rule("meta l4proto tcp counter reject with tcp reset"),
            Rule("counter reject with icmpx admin-prohibited"),
        )
        return [Chain(REFUSE_CHAIN, rules, note="Rejected")]


def _end_chain(policy: LearningPolicy) -> str:
    base = {DROP_INPUT: "end_of_input", DROP_FORWARD: "end_of_forward"}[policy.name]
    return base if policy.identity is Identity.MAC else f"{base}_ip"


def _zone(zone: Zone) -> str:
    words = remark(zone.name) + (", external" if zone.external else "")
    return f"{words} ({remark(zone.description)})" if zone.description else words


def _noted(rules: list[Rule], note: str) -> list[Rule]:
    return [Rule(rule.statement, "" if at else note) for at, rule in enumerate(rules)]


def _once(parts: Iterable[Part]) -> Iterator[Part]:
    """Without repetitions: the two variants of an end share their learned sets."""
    seen: set[tuple[type, str]] = set()
    for part in parts:
        if (type(part), part.name) not in seen:
            seen.add((type(part), part.name))
            yield part
