"""Road 2, afterwards: goes through the running connections, and ends those that may not go on.

    end_refused     after a reload: what the old configuration accepted and the new one refuses
    settle_let_in   after a fail mode: what it let in and nobody would let in now
    list_let_in     only looks

Reads the kernel's table entry by entry and keeps none: memory does not grow with the number of connections. Never in
the event loop's thread: 100,000 connections take seconds. Refuses to judge: it is given Judges (retrace.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glacic.ctlplane import netlink
from glacic.ctlplane.conntrack import end, unmark
from glacic.ctlplane.netlink import Connection
from glacic.ctlplane.nlsocket import NetlinkSocket, refused
from glacic.ctlplane.retrace import Judge, Judgement, Standing, retrace
from glacic.ctlplane.routes import Routes
from glacic.errors import KernelRefused
from glacic.firewall.claims import CT_FAIL_OPEN
from glacic.learning.text import protocol_name, source_text

MAX_ROWS = 50  # of what is said connection by connection

Row = dict[str, Any]


@dataclass
class Swept:
    """What became of the connections. rows: the first MAX_ROWS of those that ended."""

    seen: int = 0
    ended: int = 0
    allowed: int = 0  # settle_let_in: by now, so their mark was cleared
    kept: int = 0  # settle_let_in: with their mark
    rows: list[Row] = field(default_factory=list)


def end_refused(old: Judge, new: Judge) -> Swept:
    """End the connections that `old` accepted and `new` refuses, each with certainty. Raises KernelRefused, StoreError.

    What a fail mode let in was accepted by nobody's rules: it ends wherever the new configuration refuses it.
    """
    swept = Swept()
    with _Table() as table:
        for connection in table.all():
            swept.seen += 1
            probe = retrace(connection, table.routes)
            if probe is None:
                continue
            after = new.of(probe)
            if after.standing is not Standing.REFUSED:
                continue
            let_in = connection.mark & CT_FAIL_OPEN
            if (let_in or old.of(probe).standing is Standing.ACCEPTED) and table.end(connection):
                swept.ended += 1
                _add(swept, connection, after)
    return swept


def settle_let_in(judge: Judge, keep: bool) -> Swept:
    """End what a fail mode let in, unless it would be let in now; `keep` ends nothing.

    What the rules or a learned flow accept by now loses its mark. What would be learned, and what `keep` spares, goes
    on with it, and is counted on. Raises KernelRefused, StoreError.
    """
    swept = Swept()
    with _Table() as table:
        for connection in table.all(CT_FAIL_OPEN):
            swept.seen += 1
            probe = retrace(connection, table.routes)
            judged = judge.of(probe) if probe is not None else None
            standing = judged.standing if judged is not None else Standing.REFUSED
            if standing is Standing.ACCEPTED:
                table.unmark(connection)
                swept.allowed += 1
            elif keep or standing is Standing.LEARNED:
                swept.kept += 1
            elif table.end(connection):
                swept.ended += 1
                _add(swept, connection, judged)
    return swept


def list_let_in(judge: Judge, limit: int) -> dict[str, Any]:
    """The first `limit` connections that a fail mode let in and that live, and how many there are."""
    rows: list[Row] = []
    total = 0
    with _Table() as table:
        for connection in table.all(CT_FAIL_OPEN):
            total += 1
            if len(rows) < limit:
                probe = retrace(connection, table.routes)
                rows.append(row(connection, judge.of(probe) if probe is not None else None))
    return {"connections": rows, "total": total}


def row(connection: Connection, judged: Judgement | None) -> Row:
    """One connection for people and JSON; destination and port as the filter sees them, behind any DNAT."""
    outcome = judged.outcome if judged is not None else None
    return {
        "source": source_text(connection.source),
        "destination": source_text(connection.reply_source),
        "protocol": protocol_name(connection.protocol),
        "port": connection.icmp_type if connection.icmp_type is not None else connection.reply_port,
        "policy": outcome.policy.name if outcome is not None and outcome.policy is not None else None,
        "now": judged.standing.value if judged is not None else Standing.UNCERTAIN.value,
        "why": outcome.why if outcome is not None else "no route there, or its interface is not known",
    }


class _Table:
    """The kernel's connections: one socket to read them, one to change them, one to ask for routes."""

    def __enter__(self) -> _Table:
        try:
            self._reading = NetlinkSocket()
            self._changing = NetlinkSocket()
            self.routes = Routes()
        except OSError as error:
            raise KernelRefused(f"cannot read connections: {refused(error)}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.routes.close()
        self._changing.close()
        self._reading.close()

    def all(self, mark: int = 0) -> Iterator[Connection]:
        """Every connection, or those with this bit in their mark."""
        try:
            for message in self._reading.dump(netlink.conntrack_dump(mark=mark)):
                connection = netlink.connection(message.body)
                if connection is not None and (not mark or connection.mark & mark):
                    yield connection
        except OSError as error:
            raise KernelRefused(f"cannot read connections: {refused(error)}") from None

    def end(self, connection: Connection) -> bool:
        """Whether there was something left to end."""
        try:
            return end(self._changing, connection)
        except OSError as error:
            raise KernelRefused(f"cannot end connections: {refused(error)}") from None

    def unmark(self, connection: Connection) -> None:
        """Forget that a fail mode let it in."""
        try:
            unmark(self._changing, connection, CT_FAIL_OPEN)
        except OSError as error:
            raise KernelRefused(f"cannot change connections: {refused(error)}") from None


def _add(swept: Swept, connection: Connection, judged: Judgement | None) -> None:
    if len(swept.rows) < MAX_ROWS:
        swept.rows.append(row(connection, judged))
