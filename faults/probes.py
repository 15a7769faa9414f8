"""Packets that go on while something fails: small streams of each kind of traffic, and what became of every packet.

    unknown      each one is a flow that nobody has seen: a new port on the server
    learned      one allowed flow, each packet a new connection: the kernel's set answers
    established  one open connection
    denied       one flow that a person has denied, each packet a new connection
    outside      from the other side of the firewall, to the router and to what lies behind it
    quiet        a second host, a new flow now and then

Each is a UDP datagram with its number in it, which a server sends back. Refuses to judge: result.py says what was lost.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from glacic.lab.net import Host

FIRST_PORT, LAST_PORT = 10_000, 59_999  # of unknown flows; the server answers on all of them
KEPT_S = 15.0  # how long a socket waits for its answer: emulated machines are slow
_NUMBER = struct.Struct("!Q")


@dataclass(slots=True)
class Packet:
    """One that was sent. sent, answered: time.monotonic(); answered None: not (yet)."""

    kind: str
    port: int
    sent: float
    answered: float | None = None


@dataclass(frozen=True, slots=True)
class Road:
    """Where packets of one kind go. opens: each from a socket of its own, so that it is a new connection."""

    address: str
    ports: tuple[int, ...]  # in turn; a new flow each where they are many
    opens: bool = False
    times: int = 1  # packets to each of them in a row, as a client sends its first one again


class Stream:
    """Sends to every road in turn from one host, `per_s` packets a second of each, while the block lasts."""

    def __init__(self, host: Host, roads: Mapping[str, Road], per_s: float) -> None:
        self.packets: list[Packet] = []
        self._host = host
        self._roads = roads
        self._pause_s = 1 / per_s
        self._sent = dict.fromkeys(roads, 0)
        self._selector = selectors.DefaultSelector()
        self._opened: deque[tuple[float, socket.socket]] = deque()
        self._quiet = threading.Event()
        self._ended = threading.Event()
        self._trouble: Exception | None = None
        self._lasting = {kind: self._register(host.call(_open)) for kind, road in roads.items() if not road.opens}
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)  # noqa: S101 -- nothing else is registered
            key.fileobj.close()
        self._selector.close()
        if self._trouble is not None:
            raise self._trouble

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it sends."""
        return tuple(self._roads)

    def rest(self, settle_s: float) -> None:
        """Send nothing more, and wait for the answers that are still under way."""
        self._quiet.set()
        time.sleep(settle_s)

    def between(self, kind: str, begin: float, end: float) -> list[Packet]:
        """What was sent of a kind in that time, in order."""
        return [packet for packet in self.packets if packet.kind == kind and begin <= packet.sent < end]

    def _run(self) -> None:
        try:
            for kind in self._turns():
                self._send(kind)
        except Exception as error:  # raised again where the block ends
            self._trouble = error

    def _turns(self) -> Iterator[str]:
        """Kinds in turn, at their times; answers are read in between."""
        due = time.monotonic()
        while not self._ended.is_set():
            for kind in self._roads:
                due += self._pause_s / len(self._roads)
                self._read_until(due)
                if not self._quiet.is_set():
                    yield kind
            due = max(due, time.monotonic() - self._pause_s)  # what this machine could not send is not made up for

    def _read_until(self, due: float) -> None:
        while not self._ended.is_set():
            left_s = due - time.monotonic()
            for key, _ in self._selector.select(max(0.0, min(left_s, 0.1))):
                self._read(key.fileobj)  # type: ignore[arg-type]  # sockets alone are registered
            if left_s <= 0:
                return

    def _read(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a refusal by ICMP is no answer
            while True:
                data = client.recv(64)
                if len(data) != _NUMBER.size:
                    continue  # an answer to somebody else's packet, who made up this port
                packet = self.packets[_NUMBER.unpack(data)[0]]
                packet.answered = packet.answered or time.monotonic()

    def _send(self, kind: str) -> None:
        road = self._roads[kind]
        port = road.ports[self._sent[kind] // road.times % len(road.ports)]
        self._sent[kind] += 1
        client = self._fresh() if road.opens else self._lasting[kind]
        number = _NUMBER.pack(len(self.packets))
        self.packets.append(Packet(kind, port, time.monotonic()))
        with contextlib.suppress(OSError):  # no road there now, or a full buffer: the packet is not answered
            client.sendto(number, (road.address, port))

    def _fresh(self) -> socket.socket:
        """A new socket, from a port of its own; one that is old enough goes."""
        now = time.monotonic()
        while self._opened and self._opened[0][0] < now - KEPT_S:
            old = self._opened.popleft()[1]
            self._selector.unregister(old)
            old.close()
        client = self._register(self._host.call(_open))
        self._opened.append((now, client))
        return client

    def _register(self, client: socket.socket) -> socket.socket:
        self._selector.register(client, selectors.EVENT_READ)
        return client


def _open() -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    return client
