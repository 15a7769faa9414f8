"""Road 1: the flow table, by which the packets of accepted connections go past all chains.

Into it go TCP and UDP connections that passed through the firewall in both directions: their first packet was accepted,
by a rule or as a learned flow. Not those that a fail mode let in, nor those that the engine still wants to see. A
connection that is ended in conntrack leaves it with its next packet (Linux 5.19 and later), so denying a flow ends it
as ever.

    flowtable      what the ruleset has
    on             the same ruleset with the devices that there are: the kernel refuses a table of any other
    without        the same ruleset without any of it, for a moment when interfaces may not be there yet

Refuses to decide what is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from glacic.config.model import Zone
from glacic.errors import KernelRefused
from glacic.firewall.claims import CT_FAIL_OPEN, CT_INSPECT
from glacic.firewall.match import outermost
from glacic.firewall.nft import Nft
from glacic.firewall.ruleset import Chain, Flowtable, Rule, Ruleset

NAME = "offloaded"
_STATEMENT = f"flow add @{NAME}"
_PROBE = f"""\
table inet glacic_probe {{
\tflowtable {NAME} {{
\t\thook ingress priority filter;
\t}}
\tchain probe {{
\t\t{_STATEMENT}
\t}}
}}
"""


def flowtable(zones: Sequence[Zone]) -> Flowtable:
    """The flow table for the interfaces of these zones."""
    names = outermost(name for zone in zones for name in zone.interfaces)
    return Flowtable(NAME, tuple(names), "Connections that are accepted go past the chains from device to device")


def rule() -> Rule:
    """What stands in forward before established connections are accepted."""
    bits = CT_FAIL_OPEN | CT_INSPECT
    match = f"meta l4proto {{ tcp, udp }} ct state established ct mark & 0x{bits:08x} == 0x00000000"
    return Rule(f"{match} {_STATEMENT}", "From here on past the chains")


def on(ruleset: Ruleset, interfaces: Collection[str]) -> Ruleset:
    """The ruleset with the devices of its flow table that are among these."""
    return Ruleset(
        tuple(
            replace(part, devices=tuple(sorted(name for name in interfaces if _is_one_of(name, part.devices))))
            if isinstance(part, Flowtable)
            else part
            for part in ruleset.parts
        )
    )


def without(ruleset: Ruleset) -> Ruleset:
    """The ruleset without flow tables: nothing else about it is different."""
    return Ruleset(
        tuple(
            replace(part, rules=tuple(rule for rule in part.rules if not rule.statement.endswith(_STATEMENT)))
            if isinstance(part, Chain)
            else part
            for part in ruleset.parts
            if not isinstance(part, Flowtable)
        )
    )


def lacks(nft: Nft) -> str:
    """Why this kernel cannot have a flow table, "" where it can. The kernel looks at one, and none is made."""
    try:
        nft.check(_PROBE)
    except KernelRefused:
        return (
            "this kernel has no flow tables (CONFIG_NF_FLOW_TABLE, CONFIG_NF_FLOW_TABLE_INET, CONFIG_NFT_FLOW_OFFLOAD; "
            "the modules nf_flow_table_inet and nft_flow_offload): leave flowtable out"
        )
    return ""


def _is_one_of(name: str, patterns: Collection[str]) -> bool:
    return any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in patterns)
