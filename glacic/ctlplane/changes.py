"""What people change about a running firewall: apply, confirm, roll back, panic. Each is checked, put in force in one
transaction, and kept as a revision.

    read, check    all diagnostics; the kernel's own check of the very script; the way back of whoever asks
    put in force   service.py's road, the same as a start's
    keep           a revision; the boot script, unless the change is only on trial
    end            connections that the new ruleset refuses

A change on trial is written down before it is in force: a crash in between goes back, never on. Refuses to know
sockets and words; handlers.py does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glacic.config.files import DISK, Recorder
from glacic.config.load import load
from glacic.config.model import Config
from glacic.ctlplane import aftermath, audit, guard, logs, sdnotify
from glacic.ctlplane.offline import numbers_of, write_boot
from glacic.ctlplane.revisions import Origin, Revision, Revisions, trial_dict
from glacic.ctlplane.startup import overrule
from glacic.errors import GlacicError
from glacic.firewall.compile import compile_config
from glacic.firewall.difference import as_rows, difference
from glacic.firewall.panic import as_config, managed
from glacic.firewall.render import render

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

_log = logs.logger("changes")

BOOT_S = 600.0  # between two writings of the boot script: what it lacks of what was learned, the service fills in


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How somebody wants a change. trial_s: on trial for so long; force: even if it cuts the way back of who asks."""

    origin: Origin
    trial_s: float | None = None
    force: bool = False
    keep_connections: bool = False


class Changes:
    """The changes of one service; it holds service.changing while it makes one."""

    def __init__(self, service: Service, revisions: Revisions, *, note: str = "") -> None:
        self.revisions = revisions
        self.note = note  # why what runs is not the file's
        self._service = service
        self._timer: asyncio.Task[None] | None = None
        self._script = ""  # of what is in force, without what was learned

    async def started(self, contents: Mapping[str, bytes]) -> None:
        """The service has put its first configuration in force."""
        config = self._service.config
        self._script = self._compiled(config)
        origin = Origin(who="service", what="start")
        if not self.note:
            await self._kept(origin, config, contents)

    async def apply(self, wish: Wish) -> dict[str, Any]:
        """Read the file again and put it in force. Raises what is wrong with it; then nothing has changed."""
        async with self._service.changing:
            self._refuse_at_a_bad_time(wish)
            with sdnotify.reloading():
                recorder = Recorder(DISK)
                config = await asyncio.to_thread(load, self._service.config.path, recorder)
                return await self._change(config, recorder.contents, wish)

    async def rollback(self, number: int | None, wish: Wish) -> dict[str, Any]:
        """An earlier revision, by its number, or the one before what is in force. Raises GlacicError."""
        async with self._service.changing:
            standing = self.revisions.standing()
            if number is None and standing.trial is not None:
                return await self._revert(f"rolled back by {wish.origin.who}")
            before = standing.before(number)
            self._refuse_at_a_bad_time(wish)
            with sdnotify.reloading():
                files = self.revisions.files(before.number)
                config = await asyncio.to_thread(load, Path(before.config), files)
                result = await self._change(config, files.contents, wish)
                if await asyncio.to_thread(overrule, self.revisions, self._service.config.path, before):
                    self.note = f"revision {before.number} was rolled back to: the file is not what runs"
                return result

    async def confirm(self) -> dict[str, Any]:
        """What is on trial stays."""
        async with self._service.changing:
            revision = await asyncio.to_thread(self.revisions.confirm)
            self._stop_timer()
            await self.write_boot()
            return {"revision": revision.number, "state": revision.state}

    async def panic(self, wish: Wish, *, on: bool) -> dict[str, Any]:
        """Management and nothing else; or back. Raises GlacicError where nobody could manage anything any more."""
        async with self._service.changing:
            config = self._service.config
            if on and not wish.force:
                if not managed(config):
                    raise GlacicError(
                        "no zone lists anything under `management`: a panic would lock everybody out;"
                        " use --force if that is intended"
                    )
                await self._check_way_back(as_config(config), wish)
            before = self.revisions.standing().panic
            await asyncio.to_thread(self.revisions.panic, on)
            try:
                await self._service.put_in_force(config)
            except GlacicError:
                await asyncio.to_thread(self.revisions.panic, before)
                raise
            await self.write_boot()
            return {"panic": on}

    async def difference(self) -> dict[str, Any]:
        """What the file would change in what is in force."""
        config = await asyncio.to_thread(load, self._service.config.path)
        changes = difference(self._script, self._compiled(config))
        return {"changes": as_rows(changes), "in_force": self.revisions.standing().in_force}

    async def stop(self) -> None:
        """The service ends: a change on trial ends with it, and what nft loads at boot knows the latest flows."""
        self._stop_timer()
        with suppress(GlacicError):
            if self.revisions.standing().trial is not None:
                await self._revert("the service was stopped")
            await self.write_boot()

    async def keep_boot_script(self) -> None:
        """Write the boot script after the start, and anew now and then, for as long as the service runs."""
        while True:
            async with self._service.changing:
                await self.write_boot()
            await asyncio.sleep(BOOT_S)

    async def write_boot(self) -> None:
        """What nft loads at the next boot, unless what is in force is on trial. Where it fails, the old one stays."""
        service = self._service
        if not service.applied or self.revisions.standing().trial is not None:
            return
        try:
            await asyncio.to_thread(write_boot, service.config, service.state_dir)
        except GlacicError as error:
            _log.error("the boot script cannot be written; the old one stays", error=str(error))

    def standing(self) -> dict[str, Any]:
        """What `status` says of all this."""
        standing = self.revisions.standing()
        return {
            "revision": standing.in_force,
            "trial": trial_dict(standing.trial),
            "panic": standing.panic,
            "note": self.note,
        }

    async def _change(self, config: Config, contents: Mapping[str, bytes], wish: Wish) -> dict[str, Any]:
        service, script = self._service, self._compiled(config)
        old = service.config
        changes = difference(self._script, script)
        if not wish.force:
            await self._check_way_back(config, wish)
        on_trial = None
        if wish.trial_s is not None:
            on_trial = await self._begin_trial(wish, config, contents, script)
        try:
            await service.put_in_force(config)
        except BaseException:
            if on_trial is not None:
                self._stop_timer()
                self.revisions.reverted()
            raise
        self._script, self.note = script, ""
        ended = 0 if wish.keep_connections else await aftermath.end_refused(service, old)
        if on_trial is None:
            await self._kept(wish.origin, config, contents)
            await self.write_boot()
        standing = self.revisions.standing()
        audit.note(revision=standing.in_force)
        _log.info("in force", what=wish.origin.what, revision=standing.in_force, who=wish.origin.who)
        return {
            **service.summary(),
            "revision": standing.in_force,
            "trial": trial_dict(standing.trial),
            "changes": as_rows(changes),
            "connections_ended": ended,
        }

    async def _begin_trial(
        self, wish: Wish, config: Config, contents: Mapping[str, bytes], script: str
    ) -> Revision | None:
        """None where nothing would change: what is in force needs no trial."""
        record = self.revisions.record
        revision = await asyncio.to_thread(record, wish.origin, config.path, contents, script, trial_s=wish.trial_s)
        trial = self.revisions.standing().trial
        if trial is None:
            return None
        try:
            guard.start(self._service.state_dir, trial)
        except GlacicError:
            self.revisions.reverted()
            raise
        self._stop_timer()
        self._timer = asyncio.create_task(self._expire(trial.number, max(0.0, trial.until - time.time())))
        return revision

    async def _expire(self, number: int, left_s: float) -> None:
        await asyncio.sleep(left_s)
        async with self._service.changing:
            trial = self.revisions.standing().trial
            if trial is not None and trial.number == number:
                await self._revert("nobody confirmed it in time")

    async def _revert(self, why: str) -> dict[str, Any]:
        """The change on trial ends. Where the worker is in the way, the kernel comes first, a new worker after it."""
        service, trial = self._service, self.revisions.standing().trial
        if trial is None or trial.back_to is None:
            raise GlacicError("nothing was in force before")
        before = self.revisions.standing().revision(trial.back_to)
        files = self.revisions.files(trial.back_to)
        config = await asyncio.to_thread(load, Path(before.config) if before else service.config.path, files)
        _log.warning("the change on trial is taken back", revision=trial.number, back_to=trial.back_to, why=why)
        try:
            await service.put_in_force(config)
        except GlacicError as error:
            _log.error("the worker is in the way, and is replaced", error=str(error))
            await service.put_in_force_without_worker(config)
        standing = await asyncio.to_thread(self.revisions.reverted)
        self._script = self._compiled(config)
        self.note = f"revision {trial.number} was taken back ({why}): the file is not what runs"
        if asyncio.current_task() is not self._timer:
            self._stop_timer()
        service.audited("revert", {"revision": trial.number, "back_to": trial.back_to, "why": why})
        return {
            **service.summary(),
            "revision": standing.in_force,
            "trial": None,
            "changes": [],
            "connections_ended": 0,
        }

    async def _kept(self, origin: Origin, config: Config, contents: Mapping[str, bytes]) -> None:
        """It is in force: a history that cannot be written must not undo that."""
        if not self._service.applies:  # somebody else's ruleset
            return
        try:
            record = self.revisions.record
            await asyncio.to_thread(record, origin, config.path, contents, self._script)
        except GlacicError as error:
            _log.error("what is in force could not be kept as a revision", error=str(error))

    async def _check_way_back(self, config: Config, wish: Wish) -> None:
        """Raise where the change would cut the connection that it was asked for over."""
        if wish.origin.source:
            await aftermath.refuse_to_cut(self._service, config, wish.origin.source)

    def _refuse_at_a_bad_time(self, wish: Wish) -> None:
        if self._service.state == "starting":
            raise GlacicError("the service is still starting; try again")
        if wish.trial_s is not None and not self._service.applies:
            raise GlacicError("this service loads no ruleset (--no-apply): there is nothing to try")
        if wish.trial_s is None and self.revisions.standing().trial is not None:
            raise GlacicError(
                "a change is on trial: `glacic confirm` keeps it, `glacic rollback` takes it back;"
                " `glacic apply --confirm SECONDS` tries the next one"
            )

    def _compiled(self, config: Config) -> str:
        return render(compile_config(config, running=numbers_of(self._service.policies_of(config))))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
