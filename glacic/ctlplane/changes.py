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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glacic.config.files import DISK, Recorder
from glacic.config.load import load
from glacic.config.model import Config
from glacic.ctlplane import aftermath, audit, guard, logs, sdnotify
from glacic.ctlplane.emergency import Emergency
from glacic.ctlplane.offline import alone, numbers_of, write_boot
from glacic.ctlplane.revisions import Origin, Revision, Revisions, Standing, digest_of, trial_dict
from glacic.ctlplane.startup import Choice, overrule
from glacic.ctlplane.wish import OnTrial, Read, Wish
from glacic.errors import GlacicError
from glacic.firewall.compile import compile_config
from glacic.firewall.difference import as_rows, difference
from glacic.firewall.render import render

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

_log = logs.logger("changes")

BOOT_S = 600.0  # between two writings of the boot script: what it lacks of what was learned, the service fills in
AGAIN_S = 2.0  # before the next attempt to take a trial back, or to write that down


class Changes:
    """The changes of one service; it holds service.changing while it makes one."""

    def __init__(self, service: Service, revisions: Revisions, *, choice: Choice) -> None:
        self.revisions = revisions
        self.note = choice.note  # why what runs is not the file's
        self.emergency = Emergency(service, revisions)
        self._service = service
        self.choice = choice
        self._on_trial: OnTrial | None = None
        self._timer: asyncio.Task[None] | None = None
        self._owed: asyncio.Task[None] | None = None  # the history is still to be told that a trial is over
        self._running: Read | None = None

    @property
    def panicking(self) -> bool:
        """Whether there is a panic."""
        return self.emergency.on

    async def started(self) -> None:
        """The service has put its first configuration in force, or closed it."""
        service, choice = self._service, self.choice
        if choice.tried:
            await self._tell_history()
        path = service.config.path
        if choice.note or choice.broken:
            revision = self.revisions.standing().revision(self.revisions.standing().in_force)
            path = Path(revision.config) if revision is not None else path
        self._running = Read(
            config=service.config, path=path, contents=choice.contents, script=self._compiled(service.config)
        )
        if not self.note and service.state == "running":
            await self._kept(Origin(who="service", what="start"), self._running)

    async def apply(self, wish: Wish) -> dict[str, Any]:
        """Read the file again and put it in force. Raises what is wrong with it; then nothing has changed."""
        async with self._service.changing:
            self._refuse_at_a_bad_time(wish)
            with sdnotify.reloading():
                recorder = Recorder(DISK)
                config = await asyncio.to_thread(load, self._service.config.path, recorder)
                read = await self._read(config, config.path, recorder.contents)
                return await self._change(read, wish)

    async def rollback(self, number: int | None, wish: Wish) -> dict[str, Any]:
        """An earlier revision, by its number, or the one before what is in force. Raises GlacicError."""
        async with self._service.changing:
            standing = self.revisions.standing()
            if number is None and (standing.trial is not None or self._on_trial is not None):
                return await self._revert(f"rolled back by {wish.origin.who}", keep=wish.keep_connections)
            before = standing.before(number)
            self._refuse_at_a_bad_time(wish)
            with sdnotify.reloading():
                files = self.revisions.files(before.number)
                config = await asyncio.to_thread(load, Path(before.config), files)
                read = await self._read(config, Path(before.config), files.contents, before.number)
                result = await self._change(read, wish)
                if await asyncio.to_thread(overrule, self.revisions, self._service.config.path, before):
                    self.note = f"revision {before.number} was rolled back to: the file is not what runs"
                return result

    async def confirm(self) -> dict[str, Any]:
        """What is on trial stays."""
        async with self._service.changing:
            if self._owed is not None and not self._owed.done():
                raise GlacicError("the change was taken back already, only the history cannot be written; see the log")
            revision = await asyncio.to_thread(self._confirmed)
            self._on_trial = None
            self._stop_timer()
            await self.write_boot()
            return {"revision": revision.number, "state": revision.state}

    async def panic(self, wish: Wish, *, on: bool) -> dict[str, Any]:
        """Management and nothing else; or back. Raises GlacicError."""
        async with self._service.changing:
            await self.emergency.switch(self, wish, on=on)
            return {"panic": on}

    def wanted(self) -> Config:
        """What is to be in force now: what is, unless it is on trial and its time is over, or somebody else (the guard,
        while this process stood still) has taken it back."""
        mine = self._on_trial
        if mine is None:
            return self._service.config
        over = asyncio.get_running_loop().time() >= mine.ends
        with suppress(GlacicError):
            standing = self.revisions.standing()
            open_still = standing.trial is not None and standing.trial.number == mine.number
            over = over if open_still else standing.in_force != mine.number
        return mine.back.config if over else self._service.config

    async def difference(self) -> dict[str, Any]:
        """What the file would change in what is in force."""
        config = await asyncio.to_thread(load, self._service.config.path)
        rows = await asyncio.to_thread(lambda: as_rows(difference(self._script(), self._compiled(config))))
        return {"changes": rows, "in_force": self.revisions.standing().in_force}

    async def stop(self) -> None:
        """The service ends: a change on trial ends with it, and what nft loads at boot knows the latest flows."""
        self._stop_timer()
        with suppress(GlacicError):
            if self._on_trial is not None or self.revisions.standing().trial is not None:
                await self._revert("the service was stopped", keep=True)
            await self.write_boot()
        if self._owed is not None:
            self._owed.cancel()

    async def keep_boot_script(self) -> None:
        """Write the boot script after the start, and anew now and then, for as long as the service runs."""
        while True:
            async with self._service.changing:
                await self.write_boot()
            await asyncio.sleep(BOOT_S)

    async def write_boot(self) -> None:
        """What nft loads at the next boot, unless what is in force is on trial. Where it fails, the old one stays."""
        service = self._service
        try:
            if service.applied and self._on_trial is None and self.revisions.standing().trial is None:
                await asyncio.to_thread(write_boot, service.config, service.state_dir)
        except GlacicError as error:
            _log.error("the boot script cannot be written; the old one stays", error=str(error))

    def standing(self) -> dict[str, Any]:
        """What `status` says of all this."""
        standing, mine = self.revisions.standing(), self._on_trial
        left_s = mine.ends - asyncio.get_running_loop().time() if mine is not None else None
        return {
            "revision": standing.in_force,
            "trial": trial_dict(standing.trial, left_s),
            "panic": self.panicking,
            "note": self.note,
        }

    async def _read(
        self, config: Config, path: Path, contents: Mapping[str, bytes], restores: int | None = None
    ) -> Read:
        """The service goes on with its own file, whatever the path was that a revision was read from."""
        config = replace(config, path=self._service.config.path)
        script = await asyncio.to_thread(self._compiled, config)
        return Read(config=config, path=path, contents=contents, script=script, restores=restores)

    async def _change(self, read: Read, wish: Wish) -> dict[str, Any]:
        service, old = self._service, self._service.config
        changes = await asyncio.to_thread(lambda: as_rows(difference(self._script(), read.script)))
        if not wish.force:
            await self.check_way_back(read.config, wish)
        on_trial = await self._begin_trial(read, wish) if wish.trial_s is not None else None
        try:
            await service.put_in_force(read.config)
        except GlacicError:  # any other fault leaves the trial: it comes back by itself
            if on_trial is not None:
                await self._withdraw(on_trial)
            raise
        self._running, self.note = read, ""
        ended = 0 if wish.keep_connections else await aftermath.end_refused(service, old)
        if on_trial is None:
            await self._kept(wish.origin, read)
            await self.write_boot()
        standing = self.revisions.standing()
        audit.note(revision=standing.in_force)
        _log.info("in force", what=wish.origin.what, revision=standing.in_force, who=wish.origin.who)
        return {
            **service.summary(),
            "revision": standing.in_force,
            "trial": trial_dict(standing.trial),
            "changes": changes,
            "connections_ended": ended,
        }

    async def _begin_trial(self, read: Read, wish: Wish) -> OnTrial | None:
        """None where nothing would change: what is in force needs no trial. Raises GlacicError; then none has begun."""
        before = self.revisions.standing()
        if before.trial is None:
            before = await self._recorded(before)
        trial_s = wish.trial_s or 0.0
        began = asyncio.get_running_loop().time()
        revision = await asyncio.to_thread(
            self.revisions.record,
            wish.origin,
            read.path,
            read.contents,
            read.script,
            trial_s=trial_s,
            restores=read.restores,
        )
        trial = self.revisions.standing().trial
        if trial is None or self._running is None:
            return None
        replaced = self._on_trial
        back = replaced.back if replaced is not None else self._running
        found = OnTrial(revision.number, began + trial_s, back, before, replaced)
        try:
            guard.start(self._service.state_dir, trial)
        except GlacicError:
            await self._withdraw(found)
            raise
        self._watch_over(found)
        return found

    async def _recorded(self, before: Standing) -> Standing:
        """A trial comes back to what runs now: where the history does not have that (the disk was full), it learns it
        first. Raises GlacicError."""
        running, known = self._running, before.revision(before.in_force)
        if running is None or not running.contents or (known and known.digest == digest_of(running.contents)):
            return before
        origin = Origin(who="service", what="in force before a trial")
        await asyncio.to_thread(self.revisions.record, origin, running.path, running.contents, running.script)
        return self.revisions.standing()

    async def _withdraw(self, tried: OnTrial) -> None:
        """It never came into force. A trial that it would have replaced is open again, and watched over."""
        self._stop_timer()
        self._on_trial = None
        try:
            await asyncio.to_thread(self.revisions.withdrawn, tried.number, tried.before)
            if tried.before.trial is not None:
                guard.start(self._service.state_dir, tried.before.trial)
        except GlacicError as error:
            _log.error("a change that was refused is in the history as one on trial", error=str(error))
        if tried.replaced is not None:
            self._watch_over(tried.replaced)

    def _watch_over(self, trial: OnTrial) -> None:
        self._stop_timer()
        self._on_trial = trial
        self._timer = asyncio.create_task(self._expire(trial))

    async def _expire(self, trial: OnTrial) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, trial.ends - loop.time()))
        while self._on_trial is trial:
            async with self._service.changing:
                if self._on_trial is not trial:
                    return
                try:
                    await self._end(trial)
                except GlacicError as error:
                    _log.error("the change on trial cannot be taken back; trying again", error=str(error))
            await asyncio.sleep(AGAIN_S)

    async def _end(self, trial: OnTrial) -> None:
        """Its time is over: take it back, unless it was confirmed without us. Where the guard was quicker, since this
        process stood still, this one must not go on with what was on trial either."""
        with suppress(GlacicError):
            standing = self.revisions.standing()
            if standing.trial is None and standing.in_force == trial.number:
                self._on_trial = None
                return
        await self._revert("nobody confirmed it in time")

    async def _revert(self, why: str, *, keep: bool = False) -> dict[str, Any]:
        """The change on trial ends. Where the worker is in the way, the kernel comes first, a new worker after it."""
        service, mine, old = self._service, self._on_trial, self._service.config
        trial = self.revisions.standing().trial
        number = mine.number if mine is not None else trial.number if trial is not None else None
        back = mine.back if mine is not None else await self._before_trial()
        changes = as_rows(difference(self._script(), back.script))
        _log.warning("the change on trial is taken back", revision=number, why=why)
        try:
            await service.put_in_force(back.config)
        except GlacicError as error:
            _log.error("the worker is in the way, and is replaced", error=str(error))
            await service.put_in_force_without_worker(back.config)
        self._running, self._on_trial = back, None
        self.note = f"revision {number} was taken back ({why}): the file is not what runs"
        self._stop_timer()
        await self._tell_history()
        ended = 0 if keep else await aftermath.end_refused(service, old)
        in_force = self.revisions.standing().in_force
        service.audited("revert", {"revision": number, "back_to": in_force, "why": why})
        result = {"revision": in_force, "trial": None, "changes": changes, "connections_ended": ended}
        return {**service.summary(), **result}

    async def _before_trial(self) -> Read:
        """By the history: of a trial that somebody began without this service. Raises GlacicError."""
        standing = self.revisions.standing()
        before = standing.revision(standing.trial.back_to) if standing.trial is not None else None
        if before is None:
            raise GlacicError("nothing was in force before")
        files = self.revisions.files(before.number)
        config = await asyncio.to_thread(load, Path(before.config), files)
        return await self._read(config, Path(before.config), files.contents)

    async def _tell_history(self) -> None:
        """The trial is over in the kernel, which comes first: the disk may be full. It is written down in the end."""
        try:
            await asyncio.to_thread(self.revisions.reverted)
        except GlacicError as error:
            _log.error("a trial is over, and cannot be written down yet", error=str(error))
            if self._owed is None or self._owed.done():
                self._owed = asyncio.create_task(self._tell_history_later())

    async def _tell_history_later(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            async with self._service.changing:
                if self._on_trial is not None:  # the next one has taken its place
                    return
                with suppress(GlacicError):
                    await asyncio.to_thread(self.revisions.reverted)
                    _log.info("that the trial is over is written down")
                    return

    async def _kept(self, origin: Origin, read: Read) -> None:
        """It is in force: a history that cannot be written must not undo that."""
        if not self._service.applies:  # somebody else's ruleset
            return
        try:
            record = self.revisions.record
            await asyncio.to_thread(record, origin, read.path, read.contents, read.script, restores=read.restores)
        except GlacicError as error:
            _log.error("what is in force could not be kept as a revision", error=str(error))

    async def check_way_back(self, config: Config, wish: Wish) -> None:
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

    def _confirmed(self) -> Revision:
        """Never between the two halves of what the guard does."""
        with alone(self._service.state_dir):
            return self.revisions.confirm()

    def _script(self) -> str:
        return self._running.script if self._running is not None else ""

    def _compiled(self, config: Config) -> str:
        return render(compile_config(config, running=numbers_of(self._service.policies_of(config))))

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer is not asyncio.current_task():
            self._timer.cancel()
        self._timer = None
