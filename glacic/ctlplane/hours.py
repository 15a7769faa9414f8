"""Keeps the times at which rules hold filled in the kernel, while the service runs.

What the kernel has lasts for weeks (config/timetable.py), so nothing here is urgent but one thing: a clock that jumps,
as that of a machine without a battery does after its boot, has to be noticed soon. So the clock is looked at once a
minute, and the sets are filled where it shows another week than the one that they were filled for.

Refuses to know what a window means, and to fill anything while the ruleset changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from glacic.config.model import Config
from glacic.config.timetable import next_change
from glacic.ctlplane import logs
from glacic.errors import KernelRefused
from glacic.firewall.hours import renewal
from glacic.firewall.nft import Nft

_log = logs.logger("hours")

CHECK_S = 60.0


def _present() -> datetime:
    return datetime.now(UTC)


async def keep(
    in_force: Callable[[], Config | None],
    nft: Nft,
    changing: asyncio.Lock,
    now: Callable[[], datetime] = _present,
) -> None:
    """Fill the sets of the configuration in force (None: none is of ours), for ever. `changing`: held meanwhile."""
    filled: tuple[Config, datetime] | None = None  # which configuration, and until when
    failed = False
    while True:
        async with changing:
            config = in_force()
            until = next_change(config, now()) if config else None
            if config and until and (filled is None or filled[0] is not config or filled[1] != until):
                try:
                    await asyncio.to_thread(nft.run, renewal(config, now()))
                    filled, failed = (config, until), False
                except KernelRefused as error:
                    if not failed:
                        _log.error("the times at which rules hold were not filled in; tried again", error=str(error))
                    failed = True
        await asyncio.sleep(CHECK_S)
