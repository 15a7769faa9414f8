"""What the service answers to each request of the control socket: short typed handlers, one per request.

Flows are listed straight from the database, read-only and in pages; everything that changes something goes to the
worker, which answers when the change holds in cache, store and kernel. Arguments come from outside: each is checked
here."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from glacic.ctlplane import aftermath, audit
from glacic.ctlplane.limitrows import LimitRequests
from glacic.ctlplane.messages import pack_key
from glacic.ctlplane.protocol import TRIAL_MAX_S
from glacic.ctlplane.revisions import Origin
from glacic.ctlplane.rights import CHANGE, READ, Request
from glacic.ctlplane.wish import Wish
from glacic.errors import GlacicError, StoreDamaged, UnknownFlow, UsageError
from glacic.learning.flow import Flow, FlowKey, FlowState, Transition
from glacic.learning.store import FlowFilter, Store
from glacic.learning.text import (
    address_bytes,
    flow_dict,
    key_text,
    parse_key,
    protocol_number,
    source_bytes,
    source_text,
    time_text,
)

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

T = TypeVar("T")

MAX_PAGE = 5_000
VERBS: dict[str, FlowState | None] = {
    "approve": FlowState.ALLOWED,
    "deny": FlowState.DENIED,
    "ignore": FlowState.IGNORED,
    "forget": None,
}


class Handlers:
    """The handlers of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def table(self) -> dict[str, Request]:
        """Request name -> who may ask it, who answers it. The one place where this is said."""
        limits = LimitRequests(self._service.limits, self._service.state_dir)
        return {
            "status": Request(READ, self.status),
            "stats": Request(READ, self.stats),
            "reload": Request(CHANGE, self.reload),
            "apply": Request(CHANGE, self.apply),
            "confirm": Request(CHANGE, self.confirm),
            "rollback": Request(CHANGE, self.rollback),
            "panic": Request(CHANGE, self.panic),
            "history": Request(READ, self.history),
            "difference": Request(READ, self.difference, heavy=True),
            "flows.list": Request(READ, self.flows_list, heavy=True),
            "flows.show": Request(READ, self.flows_show),
            "flows.set": Request(CHANGE, self.flows_set),
            "learn.status": Request(READ, self.learn_status),
            "learn.on": Request(CHANGE, self.learn_on),
            "learn.off": Request(CHANGE, self.learn_off),
            "audit": Request(READ, self.audit_list, heavy=True),
            "connections": Request(READ, self.connections, heavy=True),
            "database": Request(READ, self.database),
            "restore": Request(CHANGE, self.restore),
            "limits.list": Request(READ, limits.list),
            "limits.show": Request(READ, limits.show),
            "limits.set": Request(CHANGE, limits.set),
            "limits.clear": Request(CHANGE, limits.clear),
            "limits.engines": Request(READ, limits.engines),
            "limits.watch": Request(READ, limits.watch),
        }

    async def status(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """Never waits for the worker: it must answer when the worker does not."""
        service = self._service
        state, reason = service.state, service.reason
        if state == "running" and service.worker.trouble:
            state, reason = "degraded", service.worker.trouble
        await service.integrity.look()
        if state == "running" and service.integrity.reason:
            state, reason = "degraded", service.integrity.reason
        if state == "running" and service.limits.trouble:
            state, reason = "degraded", service.limits.trouble
        learning = service.config.rule_learning
        mode = "off" if not learning.enabled else "inline (nfqueue)" if learning.inline_mode else "asynchronous (nflog)"
        return {
            "state": state,
            "reason": reason,
            "recovered": list(service.rescue.notes),
            "config": str(service.config.path.absolute()),
            "applies": service.applies,
            "applied": service.applied,
            "mode": mode,
            "learning": "on" if service.worker.learning else "off",
            "worker_pid": service.worker.pid,
            "worker_starts": service.worker_starts,
            "drift": service.integrity.drift(),
            "since": service.since.isoformat(timespec="seconds"),
            "fail_open_connections": await service.let_in.now() if learning.inline_mode and service.applies else 0,
            **service.changes.standing(),
        }

    async def stats(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """The worker's figures."""
        stats: dict[str, Any] = await self._service.worker.call("stats")
        return stats

    async def reload(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """Answers when the new ruleset is live, and the connections that it refuses have ended."""
        return await self._service.changes.apply(_wish(args, who, "reload"))

    async def apply(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """A reload that may be on trial: `confirm_s`."""
        return await self._service.changes.apply(_wish(args, who, "apply"))

    async def confirm(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """What is on trial stays."""
        return await self._service.changes.confirm()

    async def rollback(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """An earlier revision; without a `number` the one before."""
        number = _number(args, "number", None)
        what = f"rollback to {number}" if number is not None else "rollback"
        return await self._service.changes.rollback(number, _wish(args, who, what))

    async def panic(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """Management and nothing else, or back."""
        on = args.get("on") is not False
        return await self._service.changes.panic(_wish(args, who, "panic"), on=on)

    async def history(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """All revisions; with a `number` that one's files."""
        revisions = self._service.changes.revisions
        number = _number(args, "number", None)
        if number is None:
            return (await asyncio.to_thread(revisions.standing)).as_dict()
        return await asyncio.to_thread(revisions.document, number)

    async def difference(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """What the file would change."""
        return await self._service.changes.difference()

    async def connections(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """What a fail mode let in, and goes on."""
        return await aftermath.connections(self._service)

    async def flows_list(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """One page in the order of ids; `next` is the id to go on after, None at the end."""
        chosen = flow_filter(args.get("filters") or {})
        after, limit = _number(args, "after", 0), min(_number(args, "limit", MAX_PAGE), MAX_PAGE)
        if not after:
            await self._sync()

        def page(store: Store) -> list[dict[str, Any]]:
            return [flow_dict(flow) for flow in store.list(chosen, after_id=after, limit=limit)]

        flows = await self._read(page)
        return {"flows": flows, "next": flows[-1]["id"] if len(flows) == limit and flows else None}

    async def flows_show(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """One flow, the addresses it was seen from, and every change of its state."""
        await self._sync()
        flow = await self._find(args.get("flow"))

        def details(store: Store) -> tuple[list[bytes], list[Transition]]:
            return store.addresses(flow.key), store.transitions(flow.key)

        addresses, history = await self._read(details)
        return {
            **flow_dict(flow),
            "addresses": [source_text(address) for address in addresses],
            "history": [transition_dict(transition) for transition in history],
        }

    async def flows_set(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """approve, deny, ignore or forget. All flows are found before one is changed."""
        verb = args.get("verb")
        if not isinstance(verb, str) or verb not in VERBS:
            raise UsageError(f"what to do with the flows must be one of {', '.join(VERBS)}")
        state = VERBS[verb]
        await self._service.worker.call("sync")
        names = args.get("flows") or []
        if not isinstance(names, list):
            raise UsageError("flows must be a list of ids and keys")
        keys = [(await self._find(name)).key for name in names]
        if args.get("filters") is not None:
            keys += await self._matching(flow_filter(args["filters"]))
        audit.note(flows=[key_text(key) for key in keys[: audit.MAX_KEYS]], flows_in_all=len(keys))
        result: dict[str, Any] = await self._service.change(
            "set_state",
            keys=[pack_key(key) for key in keys],
            state=state.value if state else None,
            who=who,
            keep_connections=args.get("keep_connections") is True,
        )
        return result

    async def learn_status(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """Which policies learn, and until when."""
        result: dict[str, Any] = await self._service.worker.call("learn")
        return result

    async def learn_on(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """On for some policies or all, for a while or until switched off; `promote_pending` allows what waits."""
        promote = args.get("promote_pending") is True
        duration = args.get("duration")
        if duration is not None:
            duration = _duration_s(duration)
        result: dict[str, Any] = await self._service.change(
            "learn", on=True, policies=_names(args), duration_s=duration, promote=promote, who=who
        )
        return result

    async def learn_off(self, args: dict[str, Any], who: str) -> dict[str, Any]:
        """Off for some policies or all."""
        result: dict[str, Any] = await self._service.change("learn", on=False, policies=_names(args), who=who)
        return result

    async def audit_list(self, args: dict[str, Any], _who: str) -> dict[str, Any]:
        """Entries of the audit trail, the newest, oldest first, and whether what was read of it is whole."""
        limit = min(_number(args, "limit", audit.MAX_PAGE), audit.MAX_PAGE) or audit.MAX_PAGE
        question = functools.partial(
            self._service.trail.entries,
            limit=limit,
            since=_text(args, "since") or "",
            who=_text(args, "who") or "",
            before=_number(args, "before", None),
            verify=args.get("verify") is True,
        )
        return audit.report(*await asyncio.to_thread(question))

    async def database(self, _args: dict[str, Any], _who: str) -> dict[str, Any]:
        """Where the flow database is; what was just learned is in it."""
        await self._sync()
        return {"path": str(self._service.restoring.database())}

    async def restore(self, _args: dict[str, Any], who: str) -> dict[str, Any]:
        """Answers when the prepared database is in force, in the kernel too."""
        return await self._service.restoring.run(who)

    async def _sync(self) -> None:
        """What was just learned, and what the kernel counted; without a worker, what the database has."""
        with suppress(GlacicError):
            await self._service.worker.call("sync")

    async def _find(self, name: Any) -> Flow:
        """The flow of an id or a key. Raises UnknownFlow."""
        text = str(name)
        if text.isdecimal():
            flow = await self._read(lambda store: store.get(int(text)) if len(text) < 19 else None)
        else:
            key = parse_key(text)
            flow = await self._read(lambda store: store.find(key))
        if flow is None:
            raise UnknownFlow(f"no such flow: {text}; `glacic flows list` shows ids and keys")
        return flow

    async def _matching(self, chosen: FlowFilter) -> list[FlowKey]:
        keys: list[FlowKey] = []
        after = 0
        while True:
            question = functools.partial(Store.list, wanted=chosen, after_id=after, limit=MAX_PAGE)
            flows = await self._read(question)
            keys += [flow.key for flow in flows]
            if len(flows) < MAX_PAGE:
                return keys
            after = flows[-1].id

    async def _read(self, question: Callable[[Store], T]) -> T:
        """Ask the database in a thread: the event loop goes on."""
        store = self._service.store
        if store is None:
            raise GlacicError("the service is still starting; try again")
        try:
            return await asyncio.to_thread(question, store)
        except StoreDamaged:
            self._service.rescue.doubt()
            self._ending = asyncio.ensure_future(self._service.worker.stop())  # and the next one finds it recovered
            raise


def transition_dict(transition: Transition) -> dict[str, Any]:
    """One change of state for people and JSON."""
    return {
        "at": time_text(transition.at_ns),
        "from": transition.before.value if transition.before else None,
        "to": transition.after.value if transition.after else None,
        "who": transition.who,
        "why": transition.why,
    }


def _wish(args: dict[str, Any], who: str, what: str) -> Wish:
    trial_s = _number(args, "confirm_s", None)
    if trial_s is not None and not 0 < trial_s <= TRIAL_MAX_S:
        raise UsageError(f"a change can wait 1 to {TRIAL_MAX_S} seconds to be confirmed, not {trial_s}")
    return Wish(
        origin=Origin(who=who, what=what, source=_text(args, "via") or ""),
        trial_s=trial_s,
        force=args.get("force") is True,
        keep_connections=args.get("keep_connections") is True,
    )


def flow_filter(args: Any) -> FlowFilter:
    """The filter in a request. Raises UsageError naming what cannot be read."""
    if not isinstance(args, dict):
        raise UsageError("filters must be an object")
    known = {"policy", "state", "source", "protocol", "port", "destination", "origin"}
    if unknown := set(args) - known:
        raise UsageError(f"no such filter: {sorted(map(str, unknown))[0]}")
    state = _text(args, "state")
    if state is not None and state not in set(FlowState):
        raise UsageError(f"no such state: {state}; it is one of {', '.join(FlowState)}")
    return FlowFilter(
        policy=_text(args, "policy"),
        state=FlowState(state) if state is not None else None,
        source=_converted(args, "source", source_bytes),
        protocol=_converted(args, "protocol", protocol_number),
        port=_number(args, "port", None),
        destination=_converted(args, "destination", address_bytes),
        origin=_text(args, "origin"),
    )


def _text(args: dict[str, Any], name: str) -> str | None:
    value = args.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name} must be a string")
    if value is not None and not value.isprintable():  # also what is no UTF-8 on the command line
        raise UsageError(f"{name} must be plain text")
    return value


def _converted(args: dict[str, Any], name: str, convert: Callable[[str], T]) -> T | None:
    text = _text(args, name)
    return None if text is None else convert(text)


def _number(args: dict[str, Any], name: str, default: Any) -> Any:
    value = args.get(name, default)
    if value is default:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise UsageError(f"{name} must be a whole number")
    return value


def _names(args: dict[str, Any]) -> list[str]:
    names = args.get("policies") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError("policies must be a list of names")
    return names


def _duration_s(text: Any) -> int:
    from glacic.config.duration import duration_s

    try:
        return duration_s(str(text))
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
