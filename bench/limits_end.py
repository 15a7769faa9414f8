"""One end of a limited transfer, as a process: sends what it can, or takes it and tells when how much came.

    python limits_end.py near|far ORDER     ORDER is JSON: see Order

`near` is the limited one and begins; `far` prints "ready" when it waits for it. Who takes prints {"bins", "flows"},
who sends {"sent", "again"}, as one line of JSON. Bytes are payload, so those that a program gets. Only the standard
library is imported, as every cell of the table starts two of these. Refuses to know of limits.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypedDict

PORT = 9
DATAGRAM = 1400  # bytes of payload
BIN_S = 0.1
OVER = 2.0  # a flood's rate, of the limit

_CHUNK = 1 << 16
_ROOM = 8 << 20  # of a UDP socket's buffers: what is lost is lost on its way
_FIRST_S = 60.0  # to wait for the other end's first byte
_LATE_S = 0.02  # what a flood makes up for, where it did not get the processor
_MORE_S = {"udp": 0.3, "tcp": 5.0}  # a sender goes on for so long, or until it is told that nobody takes any more
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_TCP_CONGESTION, _TCP_INFO = 13, 11  # linux/tcp.h
_INFO = struct.Struct("=200x2Q")  # struct tcp_info: tcpi_bytes_sent, tcpi_bytes_retrans


class Order(TypedDict):
    """upload: whether `near` sends. protocol: "tcp" or "udp". congestion: TCP's, by name. addresses: of `far`, one for
    each flow. rate: the limit, bytes/s. seconds: from the first byte."""

    upload: bool
    protocol: str
    congestion: str
    addresses: list[str]
    rate: int
    seconds: float


def near(order: Order) -> dict[str, Any]:
    """Connects, and sends or takes."""
    sockets = [_made(socket.AF_INET6 if ":" in one else socket.AF_INET, order) for one in order["addresses"]]
    for made, address in zip(sockets, order["addresses"], strict=True):
        made.connect((address, PORT))
    if not order["upload"] and order["protocol"] == "udp":
        for made in sockets:
            made.send(b"to here")
    if not order["upload"]:
        return taken(sockets, order["seconds"])
    return _flooded(sockets, order) if order["protocol"] == "udp" else _sent(sockets, order)


def far(order: Order) -> dict[str, Any]:
    """Waits for `near`, and takes or sends."""
    listener = _made(socket.AF_INET6, order)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", PORT))
    if order["protocol"] == "udp":
        _ready()
        if order["upload"]:
            return taken([listener], order["seconds"])
        listener.settimeout(_FIRST_S)
        listener.connect(listener.recvfrom(_CHUNK)[1])
        return _flooded([listener], order)
    listener.listen()
    listener.settimeout(_FIRST_S)
    _ready()
    sockets = [listener.accept()[0] for _ in order["addresses"]]
    return taken(sockets, order["seconds"]) if order["upload"] else _sent(sockets, order)


def taken(sockets: Sequence[socket.socket], seconds: float) -> dict[str, Any]:
    """Takes for so long, from the first byte on. "bins": bytes in each tenth of a second, "flows": bytes of each."""
    bins, flows = [0] * round(seconds / BIN_S), [0] * len(sockets)
    places = {made: place for place, made in enumerate(sockets)}
    for made in sockets:
        made.setblocking(False)
    began, left = 0.0, _FIRST_S
    while left > 0:
        for made in select.select(sockets, [], [], left)[0]:
            count = len(made.recv(_CHUNK))
            now = time.monotonic()
            began = began or now
            place = int((now - began) / BIN_S)
            if place < len(bins):
                bins[place] += count
                flows[places[made]] += count
        left = began + seconds - time.monotonic() if began else 0.0
    return {"bins": bins, "flows": flows}


def _sent(sockets: Sequence[socket.socket], order: Order) -> dict[str, Any]:
    """Sends until the other end is gone. Bytes sent, and of these sent more than once."""
    until = time.monotonic() + order["seconds"] + _MORE_S["tcp"]
    data = bytes(_CHUNK)
    going = list(sockets)
    for made in going:
        made.setblocking(False)
    while going and time.monotonic() < until:
        for made in select.select([], going, [], 0.5)[1]:
            try:
                made.send(data)
            except BlockingIOError:
                pass
            except OSError:
                going.remove(made)
    infos = [_INFO.unpack(made.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO.size)) for made in sockets]
    for made in sockets:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))  # what waits is not sent
        made.close()
    return {"sent": sum(sent for sent, _ in infos), "again": sum(again for _, again in infos)}


def _flooded(sockets: Sequence[socket.socket], order: Order) -> dict[str, Any]:
    """Sends datagrams at twice the limit's rate, whatever becomes of them."""
    rate, data = OVER * order["rate"], bytes(DATAGRAM)
    began = time.monotonic()
    until, due_from, sent = began + order["seconds"] + _MORE_S["udp"], began, 0.0
    while (now := time.monotonic()) < until:
        due_from = max(due_from, now - sent / rate - max(_LATE_S, DATAGRAM / rate))
        while sent < (now - due_from) * rate:
            for made in sockets:
                with suppress(OSError):  # dropped on its way out (EPERM, ENOBUFS), or the other end has gone
                    made.send(data)
                sent += DATAGRAM
        time.sleep(min(0.002, DATAGRAM / rate))
    return {"sent": round(sent), "again": 0}


def _made(family: socket.AddressFamily, order: Order) -> socket.socket:
    """A socket of the order's kind; its buffers and its congestion control are inherited by accepted ones."""
    if order["protocol"] == "tcp":
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, order["congestion"].encode())
        return made
    made = socket.socket(family, socket.SOCK_DGRAM)
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        made.setsockopt(socket.SOL_SOCKET, option, _ROOM)
    return made


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"near": near, "far": far}[sys.argv[1]](json.loads(sys.argv[2]))) + "\n")
