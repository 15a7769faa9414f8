"""Road 1: the rate limits before a hook, per flow key and behind that per interface.

A limit holds packets back from user space and never decides: its rules match what is above the rate and end it as the
caller says. A set that is full matches nothing any more, so an attacker who fills it with keys would turn the limit per
key off; the limit per interface, which nobody can fill, stands behind it.

Refuses to know modes: what happens to a packet above the rate is the caller's.
"""

from __future__ import annotations

from glacic.config.model import Rate
from glacic.config.policies import LearningPolicy
from glacic.firewall.ruleset import Chain, Part, Rule, Set
from glacic.firewall.shapes import Shape, chain_name, shapes_of

INTERFACE_FACTOR = 1000  # what one interface may send, in flows at their limit: a large network at its busiest, and
#                          still far from what a reader takes (over 100,000 packets a second)
_FLOWS = 65535  # keys that one set remembers
_INTERFACES = 1024
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_MAX_BURST = (1 << 32) - 1  # u32 in the kernel (net/netfilter/nft_limit.c)
_SHORTEST_TIMEOUT_S = 10  # below that the kernel would mostly be clearing up


def limit_chain(policy: LearningPolicy) -> str:
    """The chain of this policy that ends what is above the rate, and returns the rest."""
    return f"limit_{_suffix(policy)}"


def limiter(policy: LearningPolicy, interface: str, rate: Rate, excess: str) -> list[Part]:
    """The chain and its sets. interface: "iifname" or "oifname"; excess: nft text that ends a packet above the rate."""
    shapes = shapes_of(policy)
    # An element that has been idle for one unit of the rate has its whole burst again: forgetting it changes nothing.
    timeout = f"flags dynamic,timeout; timeout {max(_SECONDS[rate.unit], _SHORTEST_TIMEOUT_S)}s;"
    sets = [Set(_set(policy, shape), f"typeof {shape.expression}; size {_FLOWS}; {timeout}") for shape in shapes]
    sets.append(Set(_interfaces(policy), f"typeof {interface}; size {_INTERFACES}; {timeout}"))
    rules = [
        Rule(
            f"{shape.guard(policy.identity)} "
            f"update @{_set(policy, shape)} {{ {shape.expression} {_over(rate)} }} {excess}"
        )
        for shape in shapes
    ]
    wide = Rate(rate.count * INTERFACE_FACTOR, rate.unit)
    rules.append(Rule(f"update @{_interfaces(policy)} {{ {interface} {_over(wide)} }} {excess}"))
    note = f"What is above {rate} of one flow; whoever makes up keys to fill the sets meets the last rule"
    return [*sets, Chain(limit_chain(policy), tuple(rules), note=note)]


def _over(rate: Rate) -> str:
    return f"limit rate over {rate} burst {min(rate.count, _MAX_BURST)} packets"


def _suffix(policy: LearningPolicy) -> str:
    return chain_name(policy).removeprefix("learned_")


def _set(policy: LearningPolicy, shape: Shape) -> str:
    return f"seen_{_suffix(policy)}_{shape}"


def _interfaces(policy: LearningPolicy) -> str:
    return f"seen_{_suffix(policy)}_interface"
