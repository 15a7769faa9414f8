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
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glacic.config.load import load
from glacic.config.model import Config
from glacic.config.policies import LearningPolicy, label, learning_policies
from glacic.ctlplane import child, logs, sdnotify
from glacic.ctlplane.handlers import Handlers
from glacic.ctlplane.server import Server, make_way
from glacic.ctlplane.settings import Settings, settings_of, to_message
from glacic.errors import GlacicError, KernelRefused
from glacic.firewall.apply import apply, prepare, unload
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables, Nft
from glacic.firewall.shapes import Shape
from glacic.learning.store import Store

_log = logs.logger("service")

BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)  # before the n-th new worker in a row that did not last
LASTED_S = 10.0


def run(*, config_path: Path, state_dir: Path, socket_path: Path, apply_ruleset: bool) -> int:
    """Run the service until SIGTERM or SIGINT; 0 after a clean stop. Raises GlacicError where it cannot start."""
    logs.configure()
    if os.geteuid() != 0 and not _may_administer_networks():
        raise KernelRefused("the service needs CAP_NET_ADMIN: run it as root, or through its systemd unit")
    config = load(config_path)
    make_folder(state_dir)
    with only_one(state_dir / "lock"):
        make_way(socket_path)
        return asyncio.run(Service(config, state_dir, socket_path, Libnftables(), apply_ruleset).run())


class Service:
    """Everything that lives as long as the process. One reload or restart of the worker at a time (`_changing`)."""

    def __init__(self, config: Config, state_dir: Path, socket_path: Path, nft: Nft, apply_ruleset: bool) -> None:
        self.config = config
        self.state_dir = state_dir
        self.nft = nft
        self.applies = apply_ruleset
        self.applied = False
        self.state = "starting"
        self.reason = ""
        self.since = datetime.now(UTC)
        self.worker = child.Worker()
        self.worker_starts = 0
        self.settings: Settings | None = None
        self.store: Store | None = None
        self._changing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._server = Server(socket_path, Handlers(self).table())

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
                watching = [asyncio.create_task(self._watch())]
                if interval_s := sdnotify.watchdog_interval_s():
                    watching.append(asyncio.create_task(_feed_watchdog(interval_s)))
                await asyncio.wait({stopped, *watching}, return_when=asyncio.FIRST_COMPLETED)
                for task in watching:
                    if task.done():
                        task.result()  # a service that watches nothing any more must not look alive
            return 0
        finally:
            for task in watching:
                task.cancel()
            await self._stop()

    async def reload(self, who: str) -> dict[str, Any]:
        """Read the configuration again and put it in force. Raises what is wrong with it; then nothing has changed."""
        async with self._changing:
            if self.state == "starting":
                raise GlacicError("the service is still starting; try again")
            sdnotify.notify("RELOADING=1", f"MONOTONIC_USEC={asyncio.get_running_loop().time() * 1e6:.0f}")
            try:
                config = await asyncio.to_thread(load, self.config.path)
                await self._put_in_force(config)
            finally:
                sdnotify.notify("READY=1")
            _log.info("reloaded", config=str(config.path), who=who)
        assert self.settings is not None  # noqa: S101 - put in force
        return {
            "config": str(config.path),
            "policies": len(config.policies),
            "learning_policies": len({policy.name for policy in self.settings.policies}),
        }

    async def change(self, do: str, **args: Any) -> Any:
        """Have the worker change something; never between the two halves of a reload."""
        async with self._changing:
            return await self.worker.call(do, **args)

    async def _start(self) -> None:
        async with self._changing:
            found = await asyncio.to_thread(self.nft.inventory) if self.applies else None
            try:
                await self._start_worker()
                await self._put_in_force(self.config)
            except GlacicError:
                if self.applies and found is None:
                    await asyncio.to_thread(unload, self.nft)  # a failed start leaves no table of its own making
                raise
            self._set_state("running")
        sdnotify.notify("READY=1", "STATUS=in force")
        _log.info("running", config=str(self.config.path), applied=self.applied, worker=self.worker.pid)

    async def _start_worker(self) -> None:
        self.worker = child.Worker()
        await self.worker.start()
        self.worker_starts += 1

    async def _put_in_force(self, config: Config) -> None:
        """The road of a start and of a reload: open what is new, one transaction, close what is old."""
        settings = self._settings(config)
        if self.settings is not None and settings.database != self.settings.database:
            raise GlacicError("`database` cannot change while the service runs: restart it")
        if self.applies:
            await asyncio.to_thread(prepare, self.nft)
        try:
            shapes = await self.worker.call("prepare", settings=to_message(settings), save_numbers=self.applies)
            if self.applies:
                ruleset = compile_config(config, running=_numbers(settings.policies), shapes=_shapes(shapes))
                await asyncio.to_thread(apply, self.nft, ruleset)
        except Exception:
            await self._finish("abort")  # what was wrong is raised
            raise
        self.worker.learning = await self._finish("commit")
        self.applied = self.applies
        self.config, self.settings = config, settings
        if self.store is None:
            self.store = Store.open(Path(settings.database), read_only=True)

    async def _finish(self, how: str) -> Any:
        """The second half of a reload. A worker that cannot do it is between two rulesets, and is replaced."""
        try:
            return await self.worker.call(how)
        except GlacicError as error:
            self.worker.kill()
            if how == "commit":
                raise
            _log.error("the worker cannot go back to what is in force, and is ended", error=str(error))

    def _settings(self, config: Config) -> Settings:
        """Settings whose policies keep the numbers that the ruleset in force gave them.

        A ruleset that somebody else loads comes from `glacic show`, which numbers every configuration anew.
        """
        running: dict[str, int] = {}
        if self.applies and self.settings is not None:
            running = _numbers(self.settings.policies)
        elif self.applies:
            running = stored_numbers(config, self.state_dir)
        return settings_of(config, learning_policies(config, running), self.state_dir)

    async def _watch(self) -> None:
        """Replace a worker that ended, for as long as the service runs."""
        loop, short_lived = asyncio.get_running_loop(), 0
        while True:
            born = loop.time()
            status = await self.worker.wait()
            if loop.time() - born >= LASTED_S:
                short_lived = 0
            if self.state == "running":  # else it says why there is no new one
                silent = f"the worker was silent for {child.HUNG_S:g} s and was ended"
                self._set_state("degraded", silent if self.worker.hung else f"the worker ended with status {status}")
                _log.error("worker ended", reason=self.reason)
            await asyncio.sleep(BACKOFF_S[min(short_lived, len(BACKOFF_S) - 1)])
            short_lived += 1
            await self._replace_worker()

    async def _replace_worker(self) -> None:
        async with self._changing:
            try:
                await self.worker.close()
                self.settings_before, self.settings = self.settings, None
                await self._start_worker()
                await self._put_in_force(self.config)
            except GlacicError as error:
                self.settings = self.settings_before
                self._set_state("degraded", str(error))
                _log.error("worker not replaced", error=str(error))
                self.worker.kill()
                return
            self._set_state("running")
            _log.info("worker replaced", worker=self.worker.pid)

    async def _stop(self) -> None:
        """A clean stop: what was learned is written, the ruleset stays as it is."""
        self._set_state("stopping")
        sdnotify.notify("STOPPING=1")
        with suppress(TimeoutError):  # a reload that is under way comes to its end first, and nobody begins another
            await asyncio.wait_for(self._changing.acquire(), child.STOP_S)
        await self.worker.stop()
        await self.worker.close()
        await self._server.close()
        if self.store is not None:
            self.store.close()
        _log.info("stopped", ruleset="left in force" if self.applied else "not ours")

    def _reload_soon(self) -> None:
        async def reload() -> None:
            try:
                await self.reload("SIGHUP")
            except GlacicError as error:
                _log.error("reload refused, nothing changed", error=str(error))

        self._reloading = asyncio.ensure_future(reload())

    def _set_state(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        sdnotify.notify(f"STATUS={state}{': ' + reason if reason else ''}")


def stored_numbers(config: Config, state_dir: Path) -> dict[str, int]:
    """The policy numbers that the ruleset in the kernel was made with, as the database keeps them; {} without one."""
    path = Path(settings_of(config, (), state_dir).database)
    if not path.exists():
        return {}
    store = Store.open(path)
    try:
        return store.numbers()
    finally:
        store.close()


def make_folder(path: Path) -> None:
    """Make a private folder (0700) where there is none. Raises GlacicError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GlacicError(
            f"cannot make the state directory {path}: {error.strerror}; name another --state-dir"
        ) from None


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock that a second service on the same state directory cannot get. Raises GlacicError."""
    try:
        lock = path.open("w")
    except OSError as error:
        raise GlacicError(f"cannot write {path}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GlacicError(f"another service uses the state directory {path.parent}: stop it first") from None
        yield


def _numbers(policies: tuple[LearningPolicy, ...]) -> dict[str, int]:
    return {label(policy.name, policy.identity): policy.number for policy in policies}


def _shapes(message: dict[str, list[list[str]]]) -> dict[str, frozenset[Shape]]:
    return {policy: frozenset(Shape(*words) for words in rows) for policy, rows in message.items()}


def _may_administer_networks() -> bool:
    """CAP_NET_ADMIN is bit 12 of the effective set (linux/capability.h)."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) & 1 << 12)


async def _feed_watchdog(interval_s: float) -> None:
    while True:
        sdnotify.notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
