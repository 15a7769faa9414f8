"""Limits, trying them, the other end: sends, and counts what comes, in the network namespace of its process.

TCP and UDP on one port, both families. A TCP connection that begins with `D` is sent zeros until it is closed; from any
other everything is read. A datagram `G` + tag is answered with datagrams that hold the tag; all others are counted by
their first byte. What was counted is asked for, and told, over a socket pair, so no limit is ever in the way of that.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

PORT = 9
DATAGRAMS, DATAGRAM = 100, 1000  # sent for one `G`, and the payload of each, in bytes
_CHUNK = 1 << 16
_ROOM = 4 << 20  # of a socket's buffer, in bytes: what is lost is lost on its way


class Far:
    """The near side of the socket pair."""

    def __init__(self, talk: socket.socket) -> None:
        self._file = talk.makefile("rw")

    def ask(self, word: str) -> Any:
        """Send one word and wait for the answer. "counts": {"tcp": bytes, tag: datagrams}."""
        self._file.write(f"{word}\n")
        self._file.flush()
        return json.loads(self._file.readline())


def serve(talk: socket.socket, up: Callable[[], None]) -> None:
    """Answer until the other side of the socket pair is closed. At the word "up", bring the interface up and listen."""
    counts: Counter[str] = Counter()
    with talk.makefile("rw") as file:
        for line in file:
            if line.strip() == "up":
                up()
                _listen(counts)
            file.write(json.dumps(dict(counts)) + "\n")
            file.flush()


def roomy(kind: socket.SocketKind) -> socket.socket:
    """A socket for both families with large buffers."""
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if kind == socket.SOCK_DGRAM:
        made.setsockopt(socket.SOL_SOCKET, 33, _ROOM)  # SO_RCVBUFFORCE, asm-generic/socket.h
        made.setsockopt(socket.SOL_SOCKET, 32, _ROOM)  # SO_SNDBUFFORCE
    return made


def _listen(counts: Counter[str]) -> None:
    tcp, udp = roomy(socket.SOCK_STREAM), roomy(socket.SOCK_DGRAM)
    for made in (tcp, udp):
        made.bind(("::", PORT))
    tcp.listen()
    threading.Thread(target=_datagrams, args=(udp, counts), daemon=True).start()
    threading.Thread(target=_connections, args=(tcp, counts), daemon=True).start()


def _datagrams(udp: socket.socket, counts: Counter[str]) -> None:
    while True:
        data, sender = udp.recvfrom(_CHUNK)
        if data[:1] == b"G":
            for _ in range(DATAGRAMS):
                udp.sendto(data[1:2] * DATAGRAM, sender)
        else:
            counts[data[:1].decode(errors="replace")] += 1


def _connections(tcp: socket.socket, counts: Counter[str]) -> None:
    while True:
        connection, _ = tcp.accept()
        threading.Thread(target=_connection, args=(connection, counts), daemon=True).start()


def _connection(connection: socket.socket, counts: Counter[str]) -> None:
    zeros = bytes(_CHUNK)
    try:
        first = connection.recv(1)
        while first == b"D":
            connection.sendall(zeros)
        if first:
            counts["tcp"] += len(first)
        while data := connection.recv(_CHUNK):
            counts["tcp"] += len(data)
    except OSError:  # closed by the other side
        return
    finally:
        connection.close()
