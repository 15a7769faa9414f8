"""NetfilterQueue with a callback that accepts: what Python costs before it has looked at anything.

netfilterqueue_accept.py QUEUE [MAX_LENGTH SOCKET_BUFFER]
"""

from __future__ import annotations

import contextlib
import itertools
import sys

import netfilterqueue

from bench.contestants.ending import Ended, end_on_sigterm, report, say_ready

MAX_LENGTH = 1024  # packets; as many as the others hold
SOCKET_BUFFER = 4 << 20  # bytes; as the others


def main(number: int, max_length: int = MAX_LENGTH, buffer: int = SOCKET_BUFFER) -> None:
    """Answers until SIGTERM."""
    count = itertools.count()

    def answer(held: netfilterqueue.Packet) -> None:
        held.accept()
        next(count)

    queue = netfilterqueue.NetfilterQueue()
    queue.bind(number, answer, max_len=max_length, sock_len=buffer)
    end_on_sigterm()
    say_ready()
    with contextlib.suppress(Ended):
        queue.run()
    report(next(count))
    queue.unbind()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
