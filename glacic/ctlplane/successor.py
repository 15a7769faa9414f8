"""The control process: a worker that has ended gets a successor, more and more slowly where none lasts.

It makes the service run what is in force, by the same road as a reload, and settles what came in while nobody listened
(aftermath). Until there is one the service is degraded and says why. Refuses to end a worker that lives: child.py tells
one that hangs, and whoever is in its way kills it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from glacic.ctlplane import aftermath, child, logs
from glacic.errors import GlacicError

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

_log = logs.logger("service")

BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0)  # before the n-th new worker in a row that did not last
LASTED_S = 10.0


class Successor:
    """Of one service's workers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def run(self) -> None:
        """Replace a worker that ended, for as long as the service runs."""
        service, loop, short_lived = self._service, asyncio.get_running_loop(), 0
        while True:
            await service.sound.wait()
            born = loop.time()
            status = await service.worker.wait()
            service.rescue.worker_ended(status)
            if loop.time() - born >= LASTED_S:
                short_lived = 0
            if service.state == "running":  # else it says why there is no new one
                silent = f"the worker was silent for {child.HUNG_S:g} s and was ended"
                service.set_state(
                    "degraded", silent if service.worker.hung else f"the worker ended with status {status}"
                )
                _log.error("worker ended", reason=service.reason)
            await asyncio.sleep(BACKOFF_S[min(short_lived, len(BACKOFF_S) - 1)])
            short_lived += 1
            await self.replace()

    async def replace(self) -> None:
        """One attempt; where it fails, `reason` says why, and the worker it made is ended."""
        service = self._service
        async with service.changing:
            before = service.settings
            try:
                await service.worker.close()
                service.settings = None
                await asyncio.to_thread(service.rescue.check, service.config, service.state_dir)
                await service.start_worker()
                await service.put_in_force(service.changes.wanted())
            except GlacicError as error:
                service.settings = before
                if service.reason != str(error):  # it is tried again and again
                    _log.error("worker not replaced; trying again", error=str(error))
                service.set_state("degraded", str(error))
                service.worker.kill()
                return
            await aftermath.settle(service)
            service.set_state("running")
            _log.info("worker replaced", worker=service.worker.pid)
