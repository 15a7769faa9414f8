"""The control process: which bandwidth limits are wanted, by name, and that the kernel has them for what runs now.

    wanted     the configuration's, what people set or cleared since (until a restart), the default limit
    exist      the tree of cgroups, followed (shaping/follow)
    in force   shaping/plan of the two, shared out to engines (shaping/choose), put by one thread at a time

It has nothing to do with the firewall's ruleset: a reload changes limits only where the file's limits are others, and a
kernel that refuses a limit refuses no reload; `trouble` says so, and it is tried again. Refuses to know the socket.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from glacic.config.model import Config, DefaultLimit, Limit, LimitEngine, LimitKind
from glacic.config.validate_limits import clash
from glacic.ctlplane import logs
from glacic.errors import GlacicError
from glacic.firewall.nft import Nft
from glacic.shaping import cgroups, makers, probe
from glacic.shaping.bpf import pins
from glacic.shaping.bpf.engine import BpfLimits
from glacic.shaping.choose import NFT_ALONE, Available, available, choose
from glacic.shaping.engine import Counted, Engine, Item
from glacic.shaping.follow import Follower
from glacic.shaping.nftlimits import NftLimits
from glacic.shaping.permitted import permitted
from glacic.shaping.plan import DEFAULT, handed_over, plan

_log = logs.logger("limits")

T = TypeVar("T")

LOOK_S = 10.0  # between two looks at whether the kernel still has what it should
NICE = -5  # a unit that starts is without its limit until this process runs; only the worker is in more of a hurry


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit and what has become of it. item: None where it waits. default: made by the default limit."""

    limit: Limit
    origin: str  # "config", "runtime" or "default"
    item: Item | None
    why_waiting: str
    counted: Mapping[str, Counted]  # by direction


class Limiting:
    """The desired state and its only writer. engines: by name; none where this service changes no kernel. available:
    what they can do; `probed` looks again."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        available_now: Available,
        find: Callable[[], cgroups.Hierarchy] = cgroups.find,
        probed: Callable[[], Available] | None = None,
    ) -> None:
        self.available = available_now
        self.trouble = ""  # why the kernel does not have what it should
        self.mount: Path | None = None
        self.default_limit: DefaultLimit | None = None
        self.offload_mark = 0  # bits of the connection mark that the configuration says are the user's
        self._engines, self._find, self._probed = engines, find, probed
        self._configured: tuple[Limit, ...] = ()
        self._set: dict[str, Limit] = {}
        self._cleared: dict[str, Limit] = {}  # as the configuration has them
        self._adopted: set[str] = set()
        self._follower: Follower | None = None
        self._ways: frozenset[str] = frozenset()
        self._items: tuple[Item, ...] = ()
        self._refusing: set[str] | None = set()  # engines that have just refused; None: it did not come to that
        self._shares: dict[str, tuple[Item, ...]] = {}  # what each engine was told last
        self._changing = asyncio.Lock()  # what is wanted; around the next one
        self._writing = asyncio.Lock()  # what is in force
        self._writer = ThreadPoolExecutor(1, "limits")  # so no engine has two callers, also where one was cancelled
        self._news = asyncio.Event()

    def wanted(self) -> dict[str, Limit]:
        """The limits by name, in the order in which they get a cgroup that several name."""
        configured = {limit.name: limit for limit in self._configured if limit.name not in self._cleared}
        return {**configured, **self._set}

    async def configure(self, config: Config) -> None:
        """Another configuration, or the same. What was set or cleared stays so, unless the file says the same now or
        has changed what was cleared. Answers when the kernel has it, or `trouble` says why not."""
        async with self._changing:
            self._configured, self.default_limit = config.limits, config.default_limit
            self.offload_mark = config.rule_learning.offload_bits
            by_name = {limit.name: limit for limit in config.limits}
            self._set = {name: limit for name, limit in self._set.items() if not _same(limit, by_name.get(name))}
            self._cleared = {name: limit for name, limit in self._cleared.items() if by_name.get(name) == limit}
            await self.hold()

    async def set(self, limit: Limit) -> None:
        """A limit until the next start. Raises GlacicError; then it is as it was."""
        if self._probed is not None:  # it may have been tried since
            self.available = self._probed()
        if why := self.cannot(limit):
            raise GlacicError(f'limit "{limit.name}" cannot be held: {why}')
        async with self._changing:
            for other in self.wanted().values():
                if other.name != limit.name and (both := clash(limit, other)):
                    raise GlacicError(f'limit "{other.name}" is for {both} already: set that one, or clear it first')
            await self._change({**self._set, limit.name: limit}, _without(self._cleared, limit.name), limit)

    async def clear(self, name: str) -> None:
        """No such limit until the next start. Raises GlacicError; then it is as it was."""
        async with self._changing:
            configured = {limit.name: limit for limit in self._configured if limit.name == name}
            await self._change(_without(self._set, name), {**self._cleared, **configured})

    async def hold(self) -> None:
        """Have the kernel hold what is wanted; where it does not, say so and go on."""
        if self._probed is not None:  # it may have been tried again
            self.available = self._probed()
        trouble = ""
        try:
            await self._put()
            trouble = self._unheld()
        except GlacicError as error:
            trouble = f"bandwidth limits: {error}"
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                _log.error("limits are not in force; trying again", error=trouble)
            else:
                _log.info("limits are in force again")

    def _unheld(self) -> str:
        """The first limit that no engine of this service can hold, and why; "" where there is none."""
        for limit in (*self.wanted().values(), self.default_limit) if self._engines else ():
            if limit is not None and (why := self.cannot(limit)):
                name = f"limit {limit.name}" if isinstance(limit, Limit) else "default_limit"
                return f"bandwidth limits: {name} cannot be held: {why}"
        return ""

    def cannot(self, limit: Limit | DefaultLimit) -> str:
        """Why no engine holds what this limits; "" where one does."""
        chosen = choose(limit.engine, self.available)
        return chosen.why if (limit.upload and not chosen.upload) or (limit.download and not chosen.download) else ""

    async def run(self) -> None:
        """Follow the cgroups, until it is cancelled. What a trial that is taken back then says is still held."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # wait_for would lose a cancellation that comes with news
                    await self._news.wait()
            self._news.clear()
            await self.hold()

    def close(self) -> None:
        """Nothing is held anew from now on; what is in the kernel stays."""
        self._unfollow()
        self._writer.shutdown(wait=False)

    async def standing(self) -> list[Standing]:
        """Every limit with what it has counted, those of the default limit last. Raises GlacicError."""
        counted: dict[tuple[str, str], Counted] = {}
        async with self._writing:
            for engine in self._engines.values():
                counted |= await self._do(engine.counters)
            items = {item.name: item for item in self._items}
            limits = self.wanted()
        found = [
            Standing(limit, "runtime" if name in self._set else "config", items.get(name), self._why(limit, items), {})
            for name, limit in limits.items()
        ]
        found += [
            Standing(_made(item, self.default_limit), "default", item, "", {})
            for item in items.values()
            if self.default_limit is not None and item.name.startswith(DEFAULT)
        ]
        by_name: dict[str, dict[str, Counted]] = {}
        for (name, direction), each in counted.items():
            by_name.setdefault(name, {})[direction] = each
        return [replace(one, counted=by_name.get(one.limit.name, {})) for one in found]

    async def _change(self, set_: dict[str, Limit], cleared: dict[str, Limit], new: Limit | None = None) -> None:
        """new: what is to be held; None where a limit is to go. Trouble that others had before is no reason against
        it."""
        before, troubled = (self._set, self._cleared), bool(self.trouble)
        self._set, self._cleared = set_, cleared
        try:
            await self._put()
        except GlacicError:
            if troubled and (
                new is None or (self._refusing is not None and not self._refusing & self._engines_of(new))
            ):
                await self.hold()
                return
            self._set, self._cleared = before
            await self.hold()
            raise
        if troubled:  # it may be over
            await self.hold()

    def _engines_of(self, limit: Limit) -> frozenset[str]:
        chosen = choose(limit.engine, self.available)
        return frozenset(
            name for rate, name in ((limit.upload, chosen.upload), (limit.download, chosen.download)) if rate
        )

    async def _put(self) -> None:
        """Raises GlacicError."""
        async with self._writing:
            limits = tuple(self.wanted().values())
            items: tuple[Item, ...] = ()
            self._refusing = None
            if limits or self.default_limit is not None:
                items = plan(limits, self.default_limit, self._followed(limits).tree)
            else:
                self._unfollow()
            shares = self._shared_out(items)
            before = dict(self._shares)
            refusals = await self._tell_all(handed_over(before, shares))
            self._refusing = set(refusals)
            # What another one has now is let go; not what one would have that has refused.
            refusals |= await self._tell_all(handed_over(before, shares, by=refusals), but=refusals)
            lost = {item.name for name in refusals for item in shares[name]}
            self._items = tuple(item for item in items if item.name not in lost)
            for error in refusals.values():
                raise error

    async def _tell_all(
        self, shares: Mapping[str, tuple[Item, ...]], but: Mapping[str, GlacicError] | None = None
    ) -> dict[str, GlacicError]:
        """Engine -> what it has against its share. but: those that are not asked, in a second round, in which only
        those are whose share is another one now."""
        refusals: dict[str, GlacicError] = {}
        for name in self._engines:
            if but is not None and (name in but or self._shares.get(name) == shares[name]):
                continue
            try:
                await self._tell(name, shares[name])
            except GlacicError as error:  # the others' limits hold all the same
                refusals[name] = error
        return refusals

    async def _tell(self, name: str, items: tuple[Item, ...]) -> None:
        """Have an engine hold these. Raises GlacicError."""
        engine = self._engines[name]
        if name not in self._adopted:
            await self._do(engine.adopt)
            self._adopted.add(name)
        await self._do(functools.partial(engine.put, items))
        self._shares[name] = items

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)

    def _shared_out(self, items: tuple[Item, ...]) -> dict[str, tuple[Item, ...]]:
        """Engine -> what of the items it holds."""
        limits = self.wanted()
        shares: dict[str, list[Item]] = {name: [] for name in self._engines}
        for item in items:
            limit = limits.get(item.name) or self.default_limit
            chosen = choose(limit.engine if limit is not None else LimitEngine.AUTO, self.available)
            for name, share in shares.items():
                upload = item.upload if chosen.upload == name else 0
                download = item.download if chosen.download == name else 0
                if upload or download:
                    share.append(replace(item, upload=upload, download=download))
        return {name: tuple(share) for name, share in shares.items()}

    def _why(self, limit: Limit, items: Mapping[str, Item]) -> str:
        """Why it waits; "" where it does not."""
        if limit.name in items:
            return ""
        if self._follower is None and self.trouble:
            return self.trouble
        tree = self._follower.tree if self._follower is not None else {}
        if limit.kind == LimitKind.CGROUP and limit.target not in tree:
            return "there is no such cgroup now"
        if limit.kind != LimitKind.CGROUP and limit.target not in cgroups.units(tree):
            return f"{limit.target} does not run"
        for item in items.values():
            if limit.target in (item.cgroup.path, cgroups.unit_of(item.cgroup.path)):
                return f'limit "{item.name}" has this cgroup'
        return self.trouble or "it is being put in force"

    # ---- the cgroups there are

    def _followed(self, limits: tuple[Limit, ...]) -> Follower:
        """Raises GlacicError."""
        ways = frozenset(limit.target for limit in limits if limit.kind == LimitKind.CGROUP)
        if self._follower is None or ways != self._ways:
            self._unfollow()
            hierarchy = self._find()
            self._follower, self._ways, self.mount = Follower(hierarchy, ways), ways, hierarchy.mount
            with suppress(PermissionError):  # it takes CAP_SYS_NICE, or a unit's LimitNICE=
                os.setpriority(os.PRIO_PROCESS, 0, NICE)  # of this thread, and of those that it starts
            asyncio.get_running_loop().add_reader(self._follower.fileno(), self._came_or_went)
        return self._follower

    def _came_or_went(self) -> None:
        try:
            if self._follower is not None and self._follower.read():
                self._news.set()
        except GlacicError as error:
            _log.error("the cgroups are read anew", error=str(error))
            self._unfollow()
            self._news.set()

    def _unfollow(self) -> None:
        if self._follower is not None:
            asyncio.get_running_loop().remove_reader(self._follower.fileno())
            self._follower.close()
            self._follower = None


def limiting_of(nft: Nft, applies: bool, state_dir: Path) -> Limiting:
    """The limits of a service, with the engines that it can run. One that loads no ruleset (`--no-apply`) leaves the
    kernel alone, in this too."""
    if not applies:
        return Limiting({}, dict.fromkeys(NFT_ALONE, "this service loads nothing into the kernel (--no-apply)"))
    engines: dict[str, Engine] = {NftLimits.name: NftLimits(nft)}
    with suppress(GlacicError):  # without a hierarchy; who wants a limit is told
        engines[BpfLimits.name] = BpfLimits(cgroups.find().mount, place=pins.own())
    engines |= makers.on_interfaces(nft, state_dir, offload_mark=lambda: limiting.offload_mark)
    kept = probe.Kept(state_dir / probe.FILE)

    def probed() -> Available:
        return permitted(available(kept.rows(), engines))

    limiting = Limiting(engines, probed(), probed=probed)
    return limiting


def _same(limit: Limit, other: Limit | None) -> bool:
    return other is not None and replace(limit, description=other.description) == other


def _without(limits: Mapping[str, Limit], name: str) -> dict[str, Limit]:
    return {each: limit for each, limit in limits.items() if each != name}


def _made(item: Item, default: DefaultLimit) -> Limit:
    """What a default limit has made, as a limit of its own."""
    return Limit(
        name=item.name,
        kind=LimitKind.UNIT,
        target=item.name.removeprefix(DEFAULT),
        upload=item.upload,
        download=item.download,
        engine=default.engine,
        traffic=default.traffic,
        interface=default.interface,
    )
