"""Glacic's log reader with everything behind it, in a process of its own: reader, engine, cache, store, writer.

    glacic_log.py GROUP [--pure]

Wired as glacic/ctlplane/parts.py does it, counters and latency histogram included; what is missing is what packets do
not pass. --pure: the reader in Python, also where it is compiled.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path

from bench.contestants.ending import report, say_ready
from bench.contestants.glacic_queue import CACHE_SIZE, POLICY, make_engine
from glacic.ctlplane.nflog import LogReader
from glacic.ctlplane.reading import Holder, Latency, Rules
from glacic.learning.engine import open_cache
from glacic.learning.store import Store
from glacic.learning.writer import Writer


def main() -> None:
    """Reads until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("group", type=int)
    parser.add_argument("--pure", action="store_true")
    arguments = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in every thread that comes: sigwait() below gets it
    with tempfile.TemporaryDirectory(prefix="glacic-bench-") as folder:
        serve(arguments.group, Path(folder), False if arguments.pure else None)


def serve(group: int, folder: Path, compiled: bool | None) -> None:
    """Opens the group, reads until SIGTERM, says what was done."""
    store = Store.open(folder / "flows.db")
    cache = open_cache(store, CACHE_SIZE, compiled=compiled)
    writer = Writer(store, cache)
    holder = Holder(Rules(engine=make_engine(store, cache, writer), highest_number=POLICY.number))
    reader = LogReader(group, holder, compiled=compiled)
    thread = threading.Thread(target=reader.run, name=f"log group {group}")
    writer.start()
    reader.open()
    thread.start()
    say_ready()
    signal.sigwait({signal.SIGTERM})
    reader.stop()
    thread.join()
    stats = reader.stats()
    report(0, stats=stats, received=stats["received"], lost=stats["lost"], latency_us=Latency.summary([reader.latency]))
    writer.close()
    store.close()


if __name__ == "__main__":
    main()
