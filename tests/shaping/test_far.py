"""glacic.shaping.far: the other end sends what it is asked for, and counts what comes."""

from __future__ import annotations

import socket
import time
from typing import Any

from glacic.shaping import scratch
from glacic.shaping.far import DATAGRAM, DATAGRAMS, PORT, roomy
from glacic.shaping.scratch import THERE, Scratch


def test_datagrams_are_counted_by_their_first_byte() -> None:
    def work(made: Scratch) -> Any:
        with roomy(socket.SOCK_DGRAM) as udp:
            for family, data in ((4, b"abc"), (6, b"a"), (6, b"z")):
                udp.sendto(data, (THERE[family] if family == 6 else f"::ffff:{THERE[4]}", PORT))
        until = time.monotonic() + 5
        while sum(made.far.ask("counts").values()) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        return made.far.ask("counts")

    assert scratch.inside(work) == {"a": 2, "z": 1}


def test_a_datagram_that_asks_for_more_is_answered_with_as_many_as_there_are_to_be() -> None:
    def work(_: Scratch) -> Any:
        with roomy(socket.SOCK_DGRAM) as udp:
            udp.connect((THERE[6], PORT))
            udp.settimeout(5)
            udp.send(b"Gq")
            return sum(udp.recv(2000) == b"q" * DATAGRAM for _ in range(DATAGRAMS))

    assert scratch.inside(work) == DATAGRAMS


def test_a_connection_that_asks_is_sent_zeros_until_it_is_closed() -> None:
    def work(_: Scratch) -> Any:
        with socket.create_connection((THERE[4], PORT), 5) as tcp:
            tcp.sendall(b"D")
            count = 0
            while count < 5_000_000:
                count += len(tcp.recv(1 << 16).strip(b"\0") or b"x" * 65536)
            return count >= 5_000_000

    assert scratch.inside(work)
