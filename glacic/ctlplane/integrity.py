"""Integrity, what follows: a foreign change of our table is logged, shown, and put right where that is wanted.

tablewatch.py notices. With `integrity = "report"` the service is degraded until the change is undone or a reload puts
it right. With "restore" it is put right at once, by the road of a reload; what was learned by the worker, which has the
store. A program that insists meets pauses that grow: two that overwrite each other's rules all day help nobody.

Refuses to compare anything, and to touch any table but ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from glacic.config.model import Integrity as Wanted
from glacic.ctlplane import logs
from glacic.ctlplane.structure import is_learned, remove
from glacic.ctlplane.tablecodec import Key
from glacic.ctlplane.tablewatch import UNKNOWN, Finding, Report, TableWatch
from glacic.errors import GlacicError
from glacic.firewall.nft import Libnftables

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

_log = logs.logger("integrity")

KEPT = 20  # changes that `status` shows
LOGGED = 20  # changes of one transaction that are logged one by one
PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # before the n-th time that the same is put right
QUIET_S = 120.0  # after this long it is forgotten that it was
KEPT_MENDED = 200
MANY = 50  # changes of any kind that count as one time of the same
LOOK_S = 2.0  # how long a question waits for the watch
SETTLE_S = 30.0


class Integrity:
    """What became of our table since it was put in force. Belongs to the service's event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._watch: TableWatch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shown: deque[tuple[Finding, bool]] = deque(maxlen=KEPT)  # and whether it was put right
        self._now: tuple[Finding, ...] = ()  # as the watch told last
        self._unequal: tuple[Finding, ...] = ()  # learned sets with other numbers than the store has
        self._in_force = True
        self._restoring = False
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._mended: deque[tuple[float, frozenset[str]]] = deque(maxlen=KEPT_MENDED)  # when, and what
        self._pause_s = 0.0

    @property
    def reason(self) -> str:
        """What is wrong with the table, and what to do; "" where nothing is."""
        wrong = [*self._now, *self._unequal]
        if not wrong:
            return ""
        if self._wanted() is Wanted.RESTORE:
            remedy = f"it is put right in at most {self._pause_s:g} s" if self._pause_s else "it is being put right"
        else:
            remedy = "reload puts it right"
        if not self._in_force:
            return f"somebody has removed table inet glacic: nothing is filtered; {remedy}"
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"somebody has changed table inet glacic: {wrong[0].what}{more}; {remedy}"

    def drift(self) -> list[dict[str, Any]]:
        """The last changes by others, the oldest first: {"at", "what", "by", "restored"}."""
        return [
            {
                "at": found.at.isoformat(timespec="milliseconds"),
                "what": found.what,
                "by": found.by,
                "restored": restored,
            }
            for found, restored in self._shown
        ]

    def start(self) -> None:
        """Watch from now on; what is different counts from the first ruleset that is put in force. Raises
        KernelRefused."""
        self._loop = asyncio.get_running_loop()
        texts = Libnftables()
        self._watch = TableWatch(
            lambda: {os.getpid(), self._service.worker.pid} - {0},
            self._hear,
            busy=self._service.changing.locked,
            texts=texts.rules,
        )
        self._watch.start()

    async def stop(self) -> None:
        """Watch no longer."""
        for task in (self._task, *self._tasks):
            if task is not None:
                task.cancel()
        if self._watch is not None:
            await asyncio.to_thread(self._watch.stop)
            self._watch = None

    async def look(self) -> None:
        """Have everything judged that has happened so far."""
        if self._watch is not None:
            await asyncio.to_thread(self._watch.look, LOOK_S)

    async def in_force(self) -> None:
        """A ruleset was put in force just now: nothing is different any more, once the learned sets are right too."""
        if self._watch is None:
            return
        mended = 0
        strays = [found.key for found in self._now if " added: " in found.what]
        if strays:
            await asyncio.to_thread(remove, strays)
        if self._unequal or any(is_learned(found.key.name) for found in self._now):
            number = self._watch.number()
            try:
                await self._service.worker.call("mend_learned")
                mended = number
                self._drop(self._unequal)
                self._unequal = ()
            except GlacicError as error:
                _log.error("the learned sets are not put right", error=str(error))
        await asyncio.to_thread(self._watch.settle, SETTLE_S, mended)

    # ---- what the watch says

    def _hear(self, report: Report) -> None:
        """In the watch's thread."""
        assert self._loop is not None  # noqa: S101 - started
        with contextlib.suppress(RuntimeError):  # the service has ended
            self._loop.call_soon_threadsafe(self._heard, report)

    def _heard(self, report: Report) -> None:
        gone = [found for found in self._now if found not in report.findings]
        self._now, self._in_force = report.findings, report.in_force
        self._drop(gone)
        self._say(report.new)
        if report.lost:
            _log.warning("events of the kernel were lost: the table was compared as a whole", different=len(self._now))
            self._keep(self._compare_learned())
        self._mend_soon()

    def _say(self, new: Iterable[Finding]) -> None:
        for at, found in enumerate(new):
            self._shown.append((found, False))
            if at < LOGGED:
                _log.warning("the table was changed from outside", what=found.what, by=found.by)
            elif at == LOGGED:
                _log.warning("the table was changed from outside, in more places than are logged", by=found.by)

    def _drop(self, gone: Iterable[Finding]) -> None:
        """What is different no longer: put right by us and kept as such, or by others, and forgotten."""
        numbers = {found.number for found in gone}
        if not numbers:
            return
        kept = [(found, done or found.number in numbers) for found, done in self._shown]
        if not self._restoring:
            kept = [(found, done) for found, done in self._shown if done or found.number not in numbers]
            _log.info("the table is again as it was put in force", changes=len(numbers), left=len(self._now))
        self._shown = deque(kept, KEPT)

    async def _compare_learned(self) -> None:
        """After a loss of events: whether the learned sets have as many elements as the store has flows."""
        try:
            found: dict[str, list[int]] = await self._service.worker.call("learned_differ")
        except GlacicError as error:
            _log.error("the learned sets cannot be compared", error=str(error))
            return
        known = {each.key.name for each in self._unequal}
        new = tuple(
            Finding(
                Key("element", name),
                f"learned set {name}: {there} elements where {wanted} belong",
                UNKNOWN,
                datetime.now(UTC),
                -1 - len(self._shown) - at,  # no number of the watch's
            )
            for at, (name, (there, wanted)) in enumerate(sorted(found.items()))
            if name not in known
        )
        self._unequal += new
        self._say(new)
        self._mend_soon()

    # ---- putting it right

    def _wanted(self) -> Wanted:
        return self._service.config.integrity

    def _mend_soon(self) -> None:
        if self._wanted() is not Wanted.RESTORE or self._restoring or not (self._now or self._unequal):
            return
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._mend())

    async def _mend(self) -> None:
        """Until nothing is different any more."""
        loop = asyncio.get_running_loop()
        while self._now or self._unequal:
            what = frozenset(found.what for found in (*self._now, *self._unequal))
            self._pause_s = self._pause(what, loop.time())
            if self._pause_s:
                by = sorted({found.by for found in (*self._now, *self._unequal)})
                _log.warning("somebody keeps changing the table: put right after a pause", by=by, pause_s=self._pause_s)
                await asyncio.sleep(self._pause_s)
            self._mended.append((loop.time(), what))
            try:
                await self._service.restore()
            except GlacicError as error:
                _log.error("the table is not put right; trying again", error=str(error))
                continue
            finally:
                self._pause_s = 0.0
            _log.warning("the table is put right", changes=len(what))

    def _pause(self, what: frozenset[str], now: float) -> float:
        """How long to wait before this is put right: the longer, the more often it was lately, in seconds."""
        lately = [mended for at, mended in self._mended if now - at < QUIET_S]
        return PAUSES_S[min(max(lately.count(what), len(lately) // MANY), len(PAUSES_S) - 1)]

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """While this lasts, what is different no longer was put right by us."""
        self._restoring = True
        try:
            yield
        finally:
            self._restoring = False

    def _keep(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
