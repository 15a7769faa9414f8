"""The control process, around a change of the ruleset: what becomes of connections that run already.

    refuse_to_cut   before it: the connection that the command came over
    end_refused     a reload ended what the new configuration refuses
    settle          a worker is back: what a fail mode let in meanwhile
    connections     what a fail mode let in and that goes on
    count           how many those are, asked of the kernel at most every few seconds

All of it in a thread, beside the event loop. Refuses to fail a reload or a start: what cannot be done is logged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from glacic.config.model import Config
from glacic.ctlplane import conntrack, logs, sweep, wayback
from glacic.ctlplane.retrace import Judge, Known
from glacic.errors import GlacicError, KernelRefused
from glacic.learning.flow import FlowKey, FlowState

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

_log = logs.logger("service")

MAX_LISTED = 10_000
COUNTED_S = 5.0  # how long a count of connections stands: the kernel goes through its whole table for one


async def refuse_to_cut(service: Service, new: Config, via: str) -> None:
    """Raise GlacicError where `new` would cut the ssh connection `via` (SSH_CONNECTION's text)."""
    if service.applies:
        (judge,) = await _judges(service, new, without_worker=True)
        await asyncio.to_thread(wayback.refuse_to_cut, judge, via)


async def end_refused(service: Service, old: Config) -> int:
    """End the connections that `old` accepted and the configuration in force refuses. Returns how many."""
    if not service.applies or old == service.config:
        return 0
    try:
        before, after = await _judges(service, old, service.config)
        swept = await asyncio.to_thread(sweep.end_refused, before, after)
    except GlacicError as error:
        _log.error("connections not looked through after the reload: what it refuses may go on", error=str(error))
        return 0
    if swept.ended:
        _say("a reload ended connections that it refuses", swept, {"connections": swept.seen, "ended": swept.ended})
    return swept.ended


async def settle(service: Service) -> None:
    """Decide about the connections that a fail mode let in while there was no worker."""
    if not service.applies or not service.config.rule_learning.inline_mode:
        return
    try:
        (judge,) = await _judges(service, service.config)
        swept = await asyncio.to_thread(sweep.settle_let_in, judge, service.config.rule_learning.fail_open_keep)
    except GlacicError as error:
        _log.error("connections that a fail mode let in not looked through: they go on", error=str(error))
        return
    finally:
        service.let_in.forget()
    if swept.seen:
        counts = {"let_in": swept.seen, "ended": swept.ended, "allowed_by_now": swept.allowed, "kept": swept.kept}
        _say("connections that a fail mode let in", swept, counts)


async def connections(service: Service) -> dict[str, Any]:
    """What a fail mode let in and that goes on, for people: see sweep.list_let_in."""
    (judge,) = await _judges(service, service.config)
    return await asyncio.to_thread(sweep.list_let_in, judge, MAX_LISTED)


class Count:
    """How many connections go on that a fail mode let in; None where nobody can tell."""

    def __init__(self) -> None:
        self._counted_at = float("-inf")
        self._number: int | None = None

    async def now(self) -> int | None:
        """The number, at most COUNTED_S old."""
        if time.monotonic() - self._counted_at >= COUNTED_S:
            self._counted_at = time.monotonic()
            try:
                self._number = await asyncio.to_thread(conntrack.count_let_in)
            except KernelRefused:
                self._number = None
        return self._number

    def forget(self) -> None:
        """Count anew when asked: they are others now."""
        self._counted_at = float("-inf")


async def _judges(service: Service, *configs: Config, without_worker: bool = False) -> list[Judge]:
    """Configurations with what is known now. Raises GlacicError where the worker does not say what it knows.

    without_worker: then it is what the database has, and learning is what the file says. A closed service has none, and
    must be mended over the very connection that is asked about."""
    switched: dict[str, bool] = {}
    try:
        await service.worker.call("sync")
        switched = {row["policy"]: row["on"] is True for row in (await service.worker.call("learn"))["policies"]}
    except GlacicError:
        if not without_worker:
            raise
    macs = await asyncio.to_thread(conntrack.macs_by_address)
    return [Judge(config, _known(service), _learning(switched, config), macs) for config in configs]


def _learning(switched: Mapping[str, bool], config: Config) -> Callable[[str], bool]:
    """By policy; one that is new begins as the file says."""
    return lambda policy: switched.get(policy, config.rule_learning.learning_mode)


def _known(service: Service) -> Known:
    def state(key: FlowKey) -> FlowState | None:
        flow = service.store.find(key) if service.store is not None else None
        return flow.state if flow is not None else None

    return state


def _say(event: str, swept: sweep.Swept, counts: dict[str, int]) -> None:
    _log.warning(event, **counts, listed=len(swept.rows))
    for row in swept.rows:
        _log.info("connection ended", **row)
