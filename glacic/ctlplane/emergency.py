"""Whether there is a panic: management and nothing else, until somebody says that it is over.

An emergency waits for no disk and no worker: a panic that cannot be remembered is in force first, and said. Refuses to
know what is in force otherwise; changes.py does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from glacic.ctlplane.revisions import Revisions
from glacic.ctlplane.wish import Wish
from glacic.errors import GlacicError
from glacic.firewall.panic import as_config, managed

if TYPE_CHECKING:
    from glacic.ctlplane.changes import Changes
    from glacic.ctlplane.service import Service


class Emergency:
    """The panic of one service."""

    def __init__(self, service: Service, revisions: Revisions) -> None:
        self._service = service
        self._revisions = revisions
        self._on = False  # as the history said last
        self._unwritten = False  # and not as it says now

    @property
    def on(self) -> bool:
        """By the history, which a command may have written while this process stood still; where it is lost or cannot
        be read, as it was."""
        with suppress(GlacicError):
            standing = self._revisions.standing()
            if not self._unwritten and (standing.revisions or standing.panic):
                self._on = standing.panic
        return self._on

    async def switch(self, changes: Changes, wish: Wish, *, on: bool) -> None:
        """On or off; the caller holds service.changing. Raises GlacicError where nobody could manage anything any
        more, and where it is done but not remembered."""
        config = self._service.config
        if on and not wish.force:
            if not managed(config):
                raise GlacicError(
                    "no zone lists anything under `management`: a panic would lock everybody out;"
                    " use --force if that is intended"
                )
            await changes.check_way_back(as_config(config), wish)
        before, self._on = self.on, on
        forgets: GlacicError | None = None
        try:
            await asyncio.to_thread(self._revisions.panic, on)
        except GlacicError as error:
            forgets = error
        self._unwritten = forgets is not None
        try:
            await self._service.again()
        except GlacicError:
            self._on = before
            with suppress(GlacicError):
                await asyncio.to_thread(self._revisions.panic, before)
            raise
        await changes.write_boot()
        if forgets is not None:
            raise GlacicError(f"it is done, but a restart will not know of it: {forgets}")
