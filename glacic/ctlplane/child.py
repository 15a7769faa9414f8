"""The control process's handle on its worker: start it, talk to it, notice that it hangs or died, end it.

The worker is a process of its own, started afresh (not forked), with one socket pair to its parent. Lines on it are
those of protocol.py with an `id`; the worker's heartbeats and other events come in between. The worker asks the
kernel to be killed with its parent (prctl(2), PR_SET_PDEATHSIG), so that a dead service always means "no listener".
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

from glacic.ctlplane import protocol
from glacic.ctlplane.spawn import Spawned, spawn
from glacic.errors import GlacicError

START_S = 300.0  # until the first heartbeat: an emulated machine imports slowly, and nothing waits on it but the start
LOOK_S = 0.5  # how often it is looked at
HUNG_S = 5.0  # silence for longer than this is a hung worker (it beats twice a second), and it is ended
STOP_S = 30.0  # for a clean stop: the last transaction and the last elements
_LINE = 1 << 28  # bytes; settings with thousands of policies are one line, and both ends are ours


class Worker:
    """One worker process. Not reused: a dead one is replaced by a new object."""

    def __init__(self, folder: Path | None = None, spawned: Spawned | None = None) -> None:
        """folder: the database's, the one that the process may write in (sandbox.py). spawned: its process, where there
        is one already."""
        self._folder = folder
        self._spawned = spawned
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ended: asyncio.Task[int] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._silent_looks = 0
        self._spoken = False
        self.hung = False  # whether it was ended because it hung
        self.trouble = ""  # what does not work, as of the last heartbeat
        self.learning = False  # whether any policy learns, as of the last heartbeat

    @property
    def pid(self) -> int:
        """The worker's process id; 0 before it is started."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the process, or take the one that is there, and tell it where it may write; it is heard from by its
        heartbeats. Raises GlacicError, such as out of descriptors."""
        spawned = self._spawned or spawn()
        try:
            ended = await _watch(spawned.process)
            reader, self._writer = await asyncio.open_unix_connection(sock=spawned.link, limit=_LINE)
        except OSError as error:
            spawned.end()
            raise GlacicError(f"the worker cannot be started: {error.strerror or error}") from None
        self._process = spawned.process
        self._ended = ended
        self._writer.write(protocol.pack({"folder": str(self._folder) if self._folder is not None else None}))
        self._reading = asyncio.create_task(self._read(reader))
        self._looking = asyncio.create_task(self._end_when_hung())

    async def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end of the process; its exit status, negative for a signal. None where it lives on."""
        if self._ended is None:
            return 0
        await asyncio.wait({self._ended}, timeout=timeout_s)
        return self._ended.result() if self._ended.done() else None

    async def call(self, do: str, **args: Any) -> Any:
        """The worker's answer. Raises the error it answers with, or GlacicError where it dies meanwhile."""
        if self._writer is None or self._writer.is_closing():
            raise GlacicError("the worker is not running")
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(protocol.pack({"id": number, **protocol.request(do, args)}))
            await self._writer.drain()
            return await future
        except ConnectionError:
            raise GlacicError("the worker went away") from None
        finally:
            del self._waiting[number]

    def kill(self) -> None:
        """End it now; SIGKILL also ends a stopped process."""
        if self._process is not None:
            self._process.kill()  # of one that has ended: nothing

    async def stop(self) -> None:
        """Ask for a clean end, and kill what does not obey in time."""
        try:
            await asyncio.wait_for(self.call("stop"), STOP_S)
            if await self.wait(STOP_S) is None:
                self.kill()
        except (GlacicError, TimeoutError):
            self.kill()
        await self.wait()

    async def close(self) -> None:
        """Let go of the socket of a worker that has ended."""
        if self._writer is not None:
            self._writer.close()
        for task in (self._reading, self._looking):
            if task is not None:
                await asyncio.gather(task, return_exceptions=True)

    async def _end_when_hung(self) -> None:
        """End it when nothing was heard for longer than a healthy worker is ever silent; whoever waits for an answer is
        told so.

        Looks are counted, and not the clock: time in which this process stood still itself says nothing of the worker.
        """
        while await self.wait(LOOK_S) is None:
            self._silent_looks += 1
            if self._silent_looks * LOOK_S > (HUNG_S if self._spoken else START_S):
                self.hung = True
                self.kill()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                message = protocol.unpack(line)
                self._silent_looks = 0
                self._spoken = True
                if "event" in message:
                    self.learning, self.trouble = message["learning"], message["trouble"]
                    continue
                future = self._waiting.get(message.get("id", 0))
                if future is not None and not future.done():
                    self._settle(future, message)
        except ConnectionError:
            pass  # it was killed: the waiting calls are told below
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(GlacicError("the worker went away"))

    def _settle(self, future: asyncio.Future[Any], message: dict[str, Any]) -> None:
        try:
            future.set_result(protocol.result_of(message))
        except GlacicError as error:
            future.set_exception(error)


async def _watch(process: subprocess.Popen[bytes]) -> asyncio.Task[int]:
    """A task that ends when the process does, with its exit status. Raises OSError."""
    descriptor = os.pidfd_open(process.pid)  # readable from its end on: pidfd_open(2)
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)

    async def wait() -> int:
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return process.wait()

    return asyncio.create_task(wait())
