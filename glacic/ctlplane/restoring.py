"""Which file the flow database is, and another one put in its place: by the service that has it, or where none runs.

The command prepares a finished file beside the database (learning/backup.py), and the service swaps: it ends its worker
cleanly, changes the files, and starts a new worker, which brings the kernel's sets in line with what is stored now.
Between the two workers nobody listens: `fail_mode` says what becomes of a new flow's packet.

Refuses to copy: the service may not be allowed to read what an administrator names.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glacic.ctlplane import logs
from glacic.ctlplane.settings import settings_of
from glacic.errors import GlacicError
from glacic.learning import backup

if TYPE_CHECKING:
    from glacic.ctlplane.service import Service

_log = logs.logger("service")

RESTORING = "restoring"  # the service's state meanwhile
_LOOK_S = 0.05


def database_of(config_path: Path, state_dir: Path) -> Path:
    """The flow database of a configuration file. Raises ConfigError."""
    from glacic.config.load import load

    return Path(settings_of(load(config_path), (), state_dir).database)


class Restoring:
    """The service's part. One at a time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._busy = asyncio.Lock()

    def database(self) -> Path:
        """The database that is in use."""
        service = self._service
        return Path(settings_of(service.config, (), service.state_dir).database)

    async def run(self, who: str) -> dict[str, Any]:
        """Swap the prepared file in. Returns {"replaced"}. Raises StoreError, with nothing changed, and GlacicError
        where no worker comes up with it."""
        service = self._service
        path = self.database()
        async with self._busy:
            await asyncio.to_thread(backup.check_prepared, path)
            async with service.changing:
                service.begin_restoring()
                await service.worker.stop()
                replaced = await asyncio.to_thread(backup.swap, path)
            while service.state == RESTORING:  # noqa: ASYNC110 - the watch replaces a worker that ended, as ever
                await asyncio.sleep(_LOOK_S)
            if service.state != "running":
                raise GlacicError(f"the database is restored, and the service does not come up: {service.reason}")
        _log.warning("the flow database was restored", replaced=str(replaced), who=who)
        return {"replaced": str(replaced) if replaced is not None else None}
