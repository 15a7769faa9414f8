"""Other programs' tables beside Glacic's: the same bytes before, during and after (glacic/lab/foreign.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from faults.bed import kernel
from faults.result import Case
from glacic.lab.foreign import foreign_tables

NAME = "foreign"
TITLE = "Other programs' tables"
PLACES = ("here",)
PROMISE = """\
Tables in the style of Docker, libvirt, fail2ban, CrowdSec and others are never touched: what `nft` lists of each,
handles included, is byte for byte the same before Glacic starts and after its start, reloads, learning, denying, after
it has put its own table right, after the end of a worker, a stop, and `glacic unload`."""
ADVICE = "Nothing. Beware that a packet has to pass every table: what another one drops, Glacic cannot let in."


def measure() -> Iterator[Case]:
    """All of them, through a life of the service."""
    with tempfile.TemporaryDirectory(prefix="glacic-faults-") as name:
        rows = foreign_tables(Path(name))
    yield Case(
        setting=f"{len(rows)} tables",
        kernel=kernel(),
        numbers={row["table"]: f"{row['before'][:12]} before, {row['after'][:12]} after" for row in rows},
        broken=tuple(f"{row['table']} is not as before" for row in rows if row["before"] != row["after"]),
    )
