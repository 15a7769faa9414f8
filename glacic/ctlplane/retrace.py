"""Beside both roads: what a configuration, with what was learned, says of a connection that runs already.

`retrace` finds where the connection's first packet met the filter, `Judge` asks the simulated ruleset there, and where
that asks, the flows that are known. Conntrack keeps no interfaces: they are where the kernel would send to today. What
cannot be found out is None or UNCERTAIN, and nobody ends a connection for that.

Refuses to end anything: sweep.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from glacic.config.model import Config, Granularity, Identity
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.netlink import Connection
from glacic.ctlplane.routes import Routes
from glacic.firewall.reach import Probe
from glacic.firewall.shapes import PORT_PROTOCOLS
from glacic.firewall.simulate import Outcome, Simulator, Verdict
from glacic.learning.flow import FlowKey, FlowState

REMEMBERED = 1 << 13  # verdicts of one judge; some 5 MB

Known = Callable[[FlowKey], FlowState | None]


class Standing(Enum):
    """What would become of a connection if it began now. LEARNED: it would be, since learning is on."""

    ACCEPTED = "accepted"
    LEARNED = "learned"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"


class Judgement(NamedTuple):
    """A standing, and the outcome of the simulation that it comes from."""

    standing: Standing
    outcome: Outcome


class Judge:
    """One configuration and what is known beside it.

    known: the state of a flow. learning: by the name of a policy. macs: IP address -> its MACs, of the neighbour table.
    """

    def __init__(
        self,
        config: Config,
        known: Known,
        learning: Callable[[str], bool],
        macs: Mapping[bytes, Collection[bytes]],
    ) -> None:
        self._simulator = Simulator(config)
        self._known, self._learning, self._macs = known, learning, macs
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._judge)

    def of(self, probe: Probe) -> Judgement:
        """What would become of a connection with this first packet. Raises StoreError."""
        if not self._simulator.reads_source_ports:
            probe = probe._replace(source_port=0)
        return self._remembered(probe)

    def _judge(self, probe: Probe) -> Judgement:
        outcome = self._simulator.of(probe)
        if not outcome.certain:
            return Judgement(Standing.UNCERTAIN, outcome)
        if outcome.verdict is not Verdict.ASKS or outcome.policy is None:
            accepted = outcome.verdict is Verdict.ACCEPT
            return Judgement(Standing.ACCEPTED if accepted else Standing.REFUSED, outcome)
        states = {self._known(key) for key in keys_of(outcome.policy, probe, self._macs)}
        if FlowState.ALLOWED in states:
            return Judgement(Standing.ACCEPTED, outcome)
        if states != {None} or outcome.ignored or not self._learning(outcome.policy.name):
            return Judgement(Standing.REFUSED, outcome)
        return Judgement(Standing.LEARNED, outcome)


def keys_of(policy: LearningPolicy, probe: Probe, macs: Mapping[bytes, Collection[bytes]]) -> list[FlowKey]:
    """The keys that the flow of this packet may have: one, or one for each MAC that its address has."""
    by_mac = policy.identity is Identity.MAC
    sources = (macs.get(probe.source) if by_mac else None) or (probe.source,)
    destination = probe.destination if policy.granularity is Granularity.DESTINATION else b""
    return [FlowKey(policy.name, source, probe.protocol, probe.port, destination) for source in sources]


def retrace(connection: Connection, routes: Routes) -> Probe | None:
    """The first packet of a connection as the filter chains saw it; None where that cannot be told, or on loopback."""
    source, destination = connection.source, connection.reply_source
    if _of_one_link(source) or _of_one_link(destination):
        return None  # the same address may be there on every interface
    came, goes = routes.to(source), routes.to(destination)
    if came is None or goes is None or (came.local and goes.local):
        return None
    ported = connection.protocol in PORT_PROTOCOLS
    return Probe(
        hook="output" if came.local else "input" if goes.local else "forward",
        iif="" if came.local else came.interface,
        oif="" if goes.local else goes.interface,
        source=source,
        destination=destination,
        protocol=connection.protocol,
        source_port=connection.source_port if ported else 0,
        port=connection.reply_port if ported else connection.icmp_type or 0,
        forwarded_port=connection.forwarded_port,
    )


def _of_one_link(address: bytes) -> bool:
    """fe80::/10 (RFC 4291)."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
