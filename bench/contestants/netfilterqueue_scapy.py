"""NetfilterQueue with scapy: the callback that most tutorials begin with, which looks at addresses and ports.

netfilterqueue_scapy.py QUEUE [MAX_LENGTH SOCKET_BUFFER]
"""

from __future__ import annotations

import contextlib
import sys

import netfilterqueue
from scapy.layers.inet import IP, TCP, UDP

from bench.contestants.ending import Ended, end_on_sigterm, report, say_ready

MAX_LENGTH = 1024  # packets; as many as the others hold
SOCKET_BUFFER = 4 << 20  # bytes; as the others
PORT = 9  # what traffic sends to


def main(number: int, max_length: int = MAX_LENGTH, buffer: int = SOCKET_BUFFER) -> None:
    """Answers until SIGTERM."""
    count = 0
    known: set[tuple[str, str, int]] = set()

    def answer(held: netfilterqueue.Packet) -> None:
        nonlocal count
        packet = IP(held.get_payload())
        for protocol in (UDP, TCP):
            if packet.haslayer(protocol):
                known.add((packet.src, packet.dst, packet[protocol].dport))
        held.accept()
        count += 1

    queue = netfilterqueue.NetfilterQueue()
    queue.bind(number, answer, max_len=max_length, sock_len=buffer)
    end_on_sigterm()
    say_ready()
    with contextlib.suppress(Ended):
        queue.run()
    report(count, flows=len(known))
    queue.unbind()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
