"""What a change of a running firewall is made of: how it is wanted, what was read, and what a trial goes back to.

Frozen values; changes.py acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glacic.config.model import Config
from glacic.ctlplane.revisions import Origin, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How somebody wants a change. trial_s: on trial for so long; force: even if it cuts the way back of who asks."""

    origin: Origin
    trial_s: float | None = None
    force: bool = False
    keep_connections: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A configuration as it was read. path: of its first file among `contents`; script: without what was learned."""

    config: Config
    path: Path
    contents: Mapping[str, bytes]
    script: str
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class OnTrial:
    """What the service itself knows of a trial, whatever becomes of the files. ends: of the loop's clock."""

    number: int
    ends: float
    back: Read
    before: Standing  # what the history said before this trial
    replaced: OnTrial | None  # the trial that was open then
