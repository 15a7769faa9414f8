"""Glacic's inline reader with everything behind it, in a process of its own: reader, engine, cache, store, writer.

    glacic_queue.py QUEUE [QUEUE ...] [--pure] [--maxlen N] [--buffer BYTES]

Wired as glacic/ctlplane/parts.py does it, one thread for each queue, counters and latency histogram included. What is
missing is what packets do not pass: control socket, ruleset, and the kernel's learned sets, so a change of state goes
to the writer alone. bench/rows has rows where the whole service runs.

--pure: the reader in Python, also where it is compiled. Limits on learning are raised: senders here are few.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
import time
from pathlib import Path

from bench.contestants.ending import report, say_ready
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.nfqueue import MAX_LENGTH, QueueReader
from glacic.ctlplane.reading import RECEIVE_BUFFER, Holder, Latency, Rules
from glacic.learning.cache import FlowCache
from glacic.learning.engine import Engine, Limits, open_cache
from glacic.learning.store import Store
from glacic.learning.switch import LearningSwitch
from glacic.learning.writer import Writer
from glacic.native import road

POLICY = LearningPolicy(name="lan_wan", number=3)  # bench/queue_bed.py marks packets with its number
CACHE_SIZE = 10_000  # the configuration's default
LEARN_MAX = 10_000_000


def main() -> None:
    """Answers until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("queues", type=int, nargs="+")
    parser.add_argument("--pure", action="store_true")
    parser.add_argument("--maxlen", type=int, default=MAX_LENGTH)
    parser.add_argument("--buffer", type=int, default=RECEIVE_BUFFER)
    arguments = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in every thread that comes: sigwait() below gets it
    with tempfile.TemporaryDirectory(prefix="glacic-bench-") as folder:
        serve(arguments, Path(folder), False if arguments.pure else None)


def serve(asked: argparse.Namespace, folder: Path, compiled: bool | None) -> None:
    """Opens the queues, answers until SIGTERM, says what was done."""
    store = Store.open(folder / "flows.db")
    cache = open_cache(store, CACHE_SIZE, compiled=compiled)
    writer = Writer(store, cache)
    holder = Holder(Rules(engine=make_engine(store, cache, writer), highest_number=POLICY.number))
    readers = [
        QueueReader(number, holder, max_length=asked.maxlen, receive_buffer=asked.buffer, compiled=compiled)
        for number in asked.queues
    ]
    threads = [threading.Thread(target=reader.run, name=f"queue {reader.number}") for reader in readers]
    writer.start()
    for reader, thread in zip(readers, threads, strict=True):
        reader.open()
        thread.start()
    say_ready()
    signal.sigwait({signal.SIGTERM})
    for reader, thread in zip(readers, threads, strict=True):
        reader.stop()
        thread.join()
    stats = [reader.stats() for reader in readers]
    latency = Latency.summary(reader.latency for reader in readers)
    is_compiled = compiled is not False and road is not None
    report(sum(int(one["processed"]) for one in stats), compiled=is_compiled, stats=stats, latency_us=latency)
    writer.close()
    store.close()


def make_engine(store: Store, cache: FlowCache, writer: Writer) -> Engine:
    """Learning, for as long as it runs."""
    return Engine(
        (POLICY,),
        store=store,
        cache=cache,
        switch=LearningSwitch.restore(
            None, file_mode=True, learn_for_s=None, policies=(POLICY.name,), now_ns=time.time_ns()
        ),
        limits=Limits(LEARN_MAX, LEARN_MAX),
        on_change=lambda _: writer.hasten(),
    )


if __name__ == "__main__":
    main()
