"""Flow databases of a size: so many flows, learned as the service would have learned them.

Written through the store in big batches, without packets: every flow with its address and its transition. A database
is made once and copied. The flows are those of SOURCES_FIRST and the MACs after it, EACH of them of one source, UDP, as
`bench.sending` numbers ports, so that packets of them can be sent (`packets_of`).

Refuses to fill the kernel's sets: that is what the service does when it starts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench.sending import FIRST_PORT, FLOWS_EACH, mac_text
from bench.service import CLIENT, POLICY
from glacic.learning.cache import Batch, Written
from glacic.learning.census import TOFU
from glacic.learning.flow import FlowKey, FlowState, Transition, Why
from glacic.learning.store import Store
from glacic.learning.text import address_bytes

SOURCES_FIRST = 0x02_20_00_00_00_00
UDP = 17
_BATCH = 50_000  # flows of one transaction


def keys(count: int) -> Iterator[FlowKey]:
    """The first `count` flows of such a database."""
    for number in range(count):
        source, port = divmod(number, FLOWS_EACH)
        yield FlowKey(POLICY, (SOURCES_FIRST + source).to_bytes(6, "big"), UDP, FIRST_PORT + port)


def packets_of(count: int) -> list[str | float]:
    """What `traffic` needs to be told to send one packet of each of the first `count` flows."""
    sources = -(-count // FLOWS_EACH)
    return [
        *("--first-mac", mac_text(SOURCES_FIRST), "--source-macs", sources, "--new", "--count", count),
        *("--ports", f"{FIRST_PORT}-{FIRST_PORT + FLOWS_EACH - 1}", "--source-ports", f"2000-{1999 + sources}"),
    ]


class Filled:
    """Databases in a folder, each size made on need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, count: int, path: Path) -> None:
        """A database of `count` learned flows as the file `path`, which may be there and is replaced."""
        made = self._folder / f"{count}.db"
        if not made.exists():
            fill(made, count)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for rest in ("-wal", "-shm"):
            path.with_name(path.name + rest).unlink(missing_ok=True)
        shutil.copyfile(made, path)
        path.chmod(0o600)


def fill(path: Path, count: int) -> None:
    """Make a database of `count` learned flows."""
    now_ns, address = time.time_ns(), address_bytes(CLIENT)
    with Store.open(path) as store:
        every = keys(count)
        while chosen := list(islice(every, _BATCH)):
            store.write(_batch(chosen, address, now_ns))


def _batch(chosen: list[FlowKey], address: bytes, now_ns: int) -> Batch:
    return Batch(
        added=[Written(key, FlowState.ALLOWED, now_ns, now_ns, 1, TOFU) for key in chosen],
        addresses=[(key, address, now_ns) for key in chosen],
        transitions=[
            Transition(key=key, before=None, after=FlowState.ALLOWED, at_ns=now_ns, who=TOFU, why=Why.FIRST_USE)
            for key in chosen
        ],
    )
