"""Road 1: what comes in by an interface that the way back to its source does not lead out of is dropped.

It is asked before connections are tracked, so that a false source makes no entry and no counter anywhere. The kernel
answers by its routing tables (`fib saddr . iif oif`, strict reverse path filtering: RFC 3704, 2.2), and by itself
passes DHCP requests from 0.0.0.0, link-local sources and neighbour discovery; what it would drop of hosts and
interfaces that have no address yet is let through here (measured with kernel 6.18).

Refuses to know policies: a false source is false whatever it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from glacic.config.model import Zone
from glacic.firewall.match import interface_match
from glacic.firewall.ruleset import Chain, Hook, Part, Rule

CHAIN = "antispoof"


def antispoof(zones: Sequence[Zone]) -> list[Part]:
    """The chain for the interfaces of the zones that want it; nothing without any."""
    asked = [zone for zone in zones if zone.antispoof]
    if not asked:
        return []
    names = [name for zone in asked for name in zone.interfaces]
    leased = [name for zone in asked if "dhcp_client" in zone.services for name in zone.interfaces]
    rules = [
        Rule(f"{interface_match('iifname', names, negated=True)} accept"),
        Rule("ip6 saddr :: ip6 daddr ff02::/16 meta l4proto icmpv6 accept", "A host that has no address yet"),
    ]
    if leased:
        note = "DHCP's answer, while there is no address and so no way back"
        rules.append(Rule(f"{interface_match('iifname', leased)} udp sport 67 udp dport 68 accept", note))
    rules.append(Rule("fib saddr . iif oif missing counter drop", apart=True))
    hook = Hook("filter", "prerouting", "raw", "accept")
    return [Chain(CHAIN, tuple(rules), hook, "What comes in where no way leads back to its source")]
