"""The control process: load, compile, apply, start and watch the worker, answer people. All wiring is here.

A start, in order: configuration; state directory, lock and socket; the table; the worker, which binds its queues and
log groups (where another service has them, it stops here, before it touches that one's sets) and fills the learned
sets; then the chains, and with them the hooks, in one transaction; then READY=1. No packet meets a hook before its
reader and what was learned are there, and none is decided by half a ruleset. A reload goes the same way: what the new
ruleset needs is opened first, what the old one needed is closed last, and a failure in between leaves everything as it
was.

Refuses to look at packets: the worker does, in a process of its own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glacic.config.load import load
from glacic.config.model import Config
from glacic.config.policies import LearningPolicy, learning_policies
from glacic.ctlplane import aftermath, audit, child, closing, hours, logs, sdnotify
from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.changes import Changes
from glacic.ctlplane.handlers import Handlers
from glacic.ctlplane.inforce import InForce
from glacic.ctlplane.integrity import Integrity
from glacic.ctlplane.limiting import limiting_of
from glacic.ctlplane.offline import numbers_of, stored_policies
from glacic.ctlplane.owner import refuse_foreign
from glacic.ctlplane.rescue import Rescue, follow
from glacic.ctlplane.restoring import RESTORING, Restoring
from glacic.ctlplane.revisions import Origin, Revisions
from glacic.ctlplane.server import Server, make_way
from glacic.ctlplane.settings import Settings, settings_of, to_message
from glacic.ctlplane.spawn import Spawned
from glacic.ctlplane.startup import Choice, check_rights, choose, in_force, make_folder, only_one
from glacic.ctlplane.successor import Successor
from glacic.ctlplane.wish import Wish
from glacic.errors import GlacicError, StoreError
from glacic.firewall.apply import apply, check, prepare, unload
from glacic.firewall.nft import Libnftables, Nft
from glacic.firewall.ruleset import Inventory, Ruleset
from glacic.firewall.shapes import Shape
from glacic.learning.store import Store

_log = logs.logger("service")


def run(*, config_path: Path, state_dir: Path, socket_path: Path, apply_ruleset: bool, spawned: Spawned) -> int:
    """Run the service, with its first worker in the process `spawned`, until SIGTERM or SIGINT; 0 after a clean stop.

    Raises GlacicError where it cannot start."""
    logs.configure()
    with ExitStack() as cleanup:
        cleanup.callback(spawned.end)
        check_rights()
        make_folder(state_dir)
        refuse_foreign(state_dir)
        cleanup.enter_context(only_one(state_dir / "lock"))
        Revisions(state_dir).tidy()
        choice = choose(config_path, Revisions(state_dir)) if apply_ruleset else Choice(load(config_path), {})
        make_way(socket_path)
        service = Service(
            choice.config, state_dir, socket_path, Libnftables(), apply_ruleset, choice=choice, spawned=spawned
        )
        return asyncio.run(service.run())


class Service:
    """Everything that lives as long as the process. One change or restart of the worker at a time (`changing`)."""

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        socket_path: Path,
        nft: Nft,
        apply_ruleset: bool,
        *,
        choice: Choice | None = None,
        spawned: Spawned | None = None,
    ) -> None:
        self.config = config  # in force, or to be put in force by the next worker
        self.state_dir = state_dir
        self.nft = nft
        self.table = InForce(nft)
        self.applies = apply_ruleset
        self.applied = False
        self.state = "starting"
        self.reason = ""
        self.since = datetime.now(UTC)
        self.worker = child.Worker()
        self._spawned = spawned  # for the first one
        self.worker_starts = 0
        self.settings: Settings | None = None
        self.store: Store | None = None
        self.let_in = aftermath.Count()
        self.rescue = Rescue(nft)
        self.restoring = Restoring(self)
        self._successor = Successor(self)
        self.changing = asyncio.Lock()
        self._choice = choice or Choice(config, {})
        self.changes = Changes(self, Revisions(state_dir), choice=self._choice)
        self._shapes: dict[str, frozenset[Shape]] = {}  # of the learned sets in the ruleset in force
        self.sound = asyncio.Event()  # whether there is a configuration that a worker may run
        self._stopping = asyncio.Event()
        self._broken = ""  # what is wrong with the file, where the service has started closed
        self.integrity = Integrity(self)
        self.limits = limiting_of(nft, apply_ruleset, state_dir)
        self.trail = AuditTrail(state_dir / audit.NAME)
        self._server = Server(socket_path, Handlers(self).table(), self.trail)

    async def run(self) -> int:
        """Start, serve, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        await self._server.start()
        watching: list[asyncio.Task[None]] = []
        try:
            start = asyncio.ensure_future(self._start())
            stopped = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                start.cancel()
            else:
                start.result()
                watching = [
                    asyncio.create_task(self._successor.run()),
                    asyncio.create_task(self.changes.keep_boot_script()),
                ]
                keeping = hours.keep(self._timed, self.nft, self.changing)
                watching += [asyncio.create_task(keeping), asyncio.create_task(self.limits.run())]
                if interval_s := sdnotify.watchdog_interval_s():
                    watching.append(asyncio.create_task(sdnotify.feed_watchdog(interval_s)))
                await asyncio.wait({stopped, *watching}, return_when=asyncio.FIRST_COMPLETED)
                for task in watching:
                    if task.done():
                        task.result()  # a service that watches nothing any more must not look alive
            return 0
        finally:
            for task in watching:
                task.cancel()
            await self._stop()

    async def change(self, do: str, **args: Any) -> Any:
        """Have the worker change something; never between the two halves of a reload."""
        async with self.changing:
            return await self.worker.call(do, **args)

    async def put_in_force(self, config: Config) -> None:
        """Another configuration, by the same road as at the start. Raises GlacicError; then nothing has changed."""
        if not self.sound.is_set():  # there was none that could be run until now
            await self._first_in_force(config)
            return
        await self._put_in_force(config)

    async def again(self) -> None:
        """What is in force once more, or closed once more; where the worker is in the way, without it."""
        if not self.sound.is_set():
            await self._close(self._broken)
            return
        try:
            await self._put_in_force(self.config)
        except GlacicError as error:
            _log.error("the worker is in the way, and is replaced", error=str(error))
            await self.put_in_force_without_worker(self.config)

    async def _first_in_force(self, config: Config) -> None:
        """The service was closed until now, and had no worker. Raises GlacicError; then it is so still."""
        store, self.store = self.store, None  # of a configuration that may have had another database
        try:
            await self.start_worker(config)
            await self._put_in_force(config)
        except BaseException:
            self.store = store
            self.worker.kill()
            await self.worker.wait()
            await self.worker.close()
            raise
        if store is not None:
            store.close()
        await aftermath.settle(self)
        self._broken = ""
        self.sound.set()
        self.set_state("running")

    async def put_in_force_without_worker(self, config: Config) -> None:
        """The kernel first; the worker is ended, and the next one is started with this configuration.

        Raises KernelRefused."""
        policies = self.policies_of(config)
        ruleset = self._ruleset(config, policies, self._shapes)
        await asyncio.to_thread(apply, self.nft, ruleset)
        self.config = config
        self.worker.kill()
        await self.limits.configure(config)

    async def restore(self) -> None:
        """Put what is in force in force once more: somebody has changed the table. Raises GlacicError."""
        async with self.changing:
            with self.integrity.restoring():
                if self.sound.is_set():
                    await self._put_in_force(self.changes.wanted())
                else:
                    await self._close(self._broken)

    def summary(self) -> dict[str, Any]:
        """What a change is answered with."""
        learning = {policy.name for policy in self.settings.policies} if self.settings is not None else set()
        return {
            "config": str(self.config.path),
            "replaced": self.table.replaced,
            "policies": len(self.config.policies),
            "learning_policies": len(learning),
            "limits": len(self.config.limits) + (self.config.default_limit is not None),
        }

    def begin_restoring(self) -> None:
        """Whoever holds `changing` ends the worker now, and the next one makes it run again. Raises GlacicError."""
        if not self.sound.is_set() or self.state not in ("running", "degraded"):
            raise GlacicError(f"the service has no worker ({self.state}): mend that, or stop it, and restore then")
        self.set_state(RESTORING)

    def audited(self, action: str, args: dict[str, Any]) -> None:
        """The service did something by itself that people will ask about."""
        _log.warning(action, **args)
        self.trail.record(who="service", action=action, args=args, outcome="ok")

    async def _start(self) -> None:
        async with self.changing:
            await asyncio.to_thread(self.rescue.check, self.config, self.state_dir)
            found = await asyncio.to_thread(self.nft.inventory) if self.applies else None
            if self.applies:
                self.integrity.start()
            broken = self._choice.broken or await self._refused_by_kernel(found)
            if broken:
                await self._close(broken)
            else:
                try:
                    await self.start_worker()
                    await self._put_in_force(self.config)
                except GlacicError:
                    if self.applies and found is None:
                        await asyncio.to_thread(unload, self.nft)  # a failed start leaves no table of its own making
                    raise
                await aftermath.settle(self)
                self.sound.set()
                self.set_state("running")
            if self.applies:
                await self.changes.started()
        sdnotify.notify("READY=1", f"STATUS={'in force' if self.state == 'running' else self.state}")
        await asyncio.to_thread(self._audit, "start", "ok" if self.state == "running" else self.reason)
        _log.info(self.state, config=str(self.config.path), applied=self.applied, worker=self.worker.pid)

    async def _refused_by_kernel(self, found: Inventory | None) -> str:
        """What the kernel has against the first ruleset, where there is an earlier one to fall back to; else "", and
        the start fails as it comes to it."""
        before = in_force(self.changes.revisions, self.changes.revisions.standing()) if self.applies else None
        if before is None:
            return ""
        policies, panic = self.policies_of(self.config), self.changes.panicking
        error = await asyncio.to_thread(closing.refused, self.nft, self.config, policies, found, panic=panic)
        if error:
            self.config = replace(before[0], path=self.config.path)
            self._choice = replace(self._choice, contents=before[1], broken=error)
            self.changes.choice = self._choice
        return error

    async def _close(self, broken: str) -> None:
        """The file has errors: what was in force before, with a drop in place of each hook, and no worker."""
        policies, panic = self.policies_of(self.config), self.changes.panicking
        await asyncio.to_thread(closing.close, self.nft, self.config, policies, self.state_dir, panic=panic)
        self.applied, self._broken = True, broken
        if self._spawned is not None:
            self._spawned.end()
            self._spawned = None
        await self.integrity.in_force()
        await self.limits.configure(self.config)
        with suppress(StoreError):  # there is none yet
            self.store = Store.open(Path(settings_of(self.config, (), self.state_dir).database), read_only=True)
        self.set_state("degraded", f"closed for everything new: the configuration is broken: {broken}")
        _log.error("the configuration is broken; what was in force before is, closed for everything new", error=broken)

    async def start_worker(self, config: Config | None = None) -> None:
        """A new one, which knows nothing yet. Raises GlacicError."""
        folder = Path(settings_of(config or self.config, (), self.state_dir).database).parent
        spawned, self._spawned = self._spawned, None
        self.worker = child.Worker(folder, spawned)
        await self.worker.start()
        self.worker_starts += 1

    async def _put_in_force(self, config: Config) -> None:
        """The road of a start and of a reload: check, open what is new, one transaction, close what is old."""
        settings = self._settings(config)
        if self.settings is not None and settings.database != self.settings.database:
            raise GlacicError(
                "`database` cannot change while the service runs: stop it, say the same again, and start it"
            )
        policies = settings.policies
        if self.applies:
            if self.settings is not None:
                await asyncio.to_thread(check, self.nft, self._ruleset(config, policies, self._shapes))
            await asyncio.to_thread(prepare, self.nft)
        try:
            shapes = _shapes(
                await self.worker.call("prepare", settings=to_message(settings), save_numbers=self.applies)
            )
            if self.applies:
                whole = bool(self.integrity.reason)  # then there is more to put right than what the files say
                await asyncio.to_thread(self.table.put, self._ruleset(config, policies, shapes), whole=whole)
        except Exception:
            await self._finish("abort")  # what was wrong is raised
            raise
        self.worker.learning = await self._finish("commit")
        self.applied = self.applies
        self.config, self.settings, self._shapes = config, settings, shapes
        self.store = follow(self.store, Path(settings.database))
        await self.integrity.in_force()
        await self.limits.configure(config)

    def _ruleset(
        self, config: Config, policies: tuple[LearningPolicy, ...], shapes: Mapping[str, Collection[Shape]]
    ) -> Ruleset:
        return closing.ruleset_for(config, policies, shapes, panic=self.changes.panicking)

    async def _finish(self, how: str) -> Any:
        """The second half of a reload. A worker that cannot do it is between two rulesets, and is replaced."""
        try:
            return await self.worker.call(how)
        except GlacicError as error:
            self.worker.kill()
            if how == "commit":
                raise
            _log.error("the worker cannot go back to what is in force, and is ended", error=str(error))

    def policies_of(self, config: Config) -> tuple[LearningPolicy, ...]:
        """The policies that learn, with the numbers that the ruleset in force gave them.

        A ruleset that somebody else loads comes from `glacic show`, which numbers every configuration anew.
        """
        if self.applies and self.settings is not None:
            return learning_policies(config, numbers_of(self.settings.policies))
        return stored_policies(config, self.state_dir) if self.applies else learning_policies(config)

    def _settings(self, config: Config) -> Settings:
        return settings_of(config, self.policies_of(config), self.state_dir)

    async def _stop(self) -> None:
        """A clean stop: what was learned is written, the ruleset stays as it is."""
        self.set_state("stopping")
        sdnotify.notify("STOPPING=1")
        with suppress(TimeoutError):  # a reload that is under way comes to its end first, and nobody begins another
            await asyncio.wait_for(self.changing.acquire(), child.STOP_S)
        if self.applied:
            await self.changes.stop()
        await self.integrity.stop()
        await self.worker.stop()
        await self.worker.close()
        await self._server.close()
        self.limits.close()
        if self.store is not None:
            self.store.close()
        self._audit("stop")
        _log.info("stopped", ruleset="left in force" if self.applied else "not ours")

    def _timed(self) -> Config | None:
        return self.config if self.applied and not self.changes.panicking else None

    def _reload_soon(self) -> None:
        async def reload() -> None:
            outcome = "ok"
            try:
                await self.changes.apply(Wish(origin=Origin(who="SIGHUP", what="reload")))
            except GlacicError as error:
                outcome = str(error)
                _log.error("reload refused, nothing changed", error=outcome)
            await asyncio.to_thread(self._audit, "reload", outcome, who="SIGHUP")

        self._reloading = asyncio.ensure_future(reload())

    def _audit(self, action: str, outcome: str = "ok", who: str = "service") -> None:
        """What nobody asked for on the socket."""
        self.trail.record(who=who, action=action, args={"config": str(self.config.path)}, outcome=outcome)

    def set_state(self, state: str, reason: str = "") -> None:
        """What `status` and systemd are told."""
        self.state, self.reason = state, reason
        sdnotify.notify(f"STATUS={state}{': ' + reason if reason else ''}")


def _shapes(message: dict[str, list[list[str]]]) -> dict[str, frozenset[Shape]]:
    return {policy: frozenset(Shape(*words) for words in rows) for policy, rows in message.items()}
