"""Captures of any size, always the same for the same size: what the row about `replay` is fed with.

A pcap file of Ethernet frames cut at 128 bytes, as `tcpdump -s 128` leaves them: TCP connections with their handshake,
data, acknowledgements and end, UDP questions with answers and long UDP streams, three quarters of it over IPv4. Some
hundred connections are under way at any time. New flows (source, protocol, port) are rare: a host has a few services
that it goes to again and again. TCP and UDP checksums are 0: nobody who reads a capture believes them.

Refuses to measure.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator
from pathlib import Path

SEED = 20
_HOSTS = 250
_SERVERS = 60
_SNAP = 128  # bytes of each frame that are kept
_UNDER_WAY = 300  # connections at any time
_FIRST_SECOND = 1_700_000_000
_STEP_US = 20  # 50,000 packets each second
_SYN_OR_FIN = 0x03
_FIN_ACK, _SYN, _SYN_ACK, _PSH_ACK, _ACK = 0x11, 0x02, 0x12, 0x18, 0x10
_TCP, _UDP = 6, 17
_TCP_PORTS = (443, 443, 443, 80, 22, 993, 8883, 8080)
_UDP_PORTS = (53, 53, 443, 123, 51820)

_RECORD = struct.Struct("<IIII")
_NUMBERS = struct.Struct("!II")  # TCP: sequence and acknowledgement; UDP: the first bytes of the data
_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAP, 1)  # link type 1: Ethernet


def write_capture(path: Path, packets: int) -> None:
    """A capture with so many packets: about 110 bytes of file each."""
    frames = itertools.islice(_mixed(random.Random(SEED)), packets)  # noqa: S311 -- the same every time is the point
    with path.open("wb", buffering=1 << 20) as file:
        file.write(_HEADER)
        for number, (frame, length) in enumerate(frames):
            second, microsecond = divmod(number * _STEP_US, 1_000_000)
            file.write(_RECORD.pack(_FIRST_SECOND + second, microsecond, len(frame), length) + frame)


Frame = tuple[bytes, int]  # what is kept of it, and how long it was


def _mixed(numbers: random.Random) -> Iterator[Frame]:
    """Endlessly, the next packet of one of the connections that are under way."""
    running = [_connection(numbers) for _ in range(_UNDER_WAY)]
    while True:
        at = numbers.randrange(_UNDER_WAY)
        for _ in range(numbers.randrange(1, 5)):  # packets come in small bursts
            frame = next(running[at], None)
            if frame is None:
                running[at] = _connection(numbers)
                break
            yield frame


def _connection(numbers: random.Random) -> Iterator[Frame]:
    host, server = numbers.randrange(_HOSTS), numbers.randrange(_SERVERS)
    version = 4 if numbers.random() < 0.75 else 6
    source_port = numbers.randrange(32_768, 61_000)
    if numbers.random() < 0.75:
        port = _TCP_PORTS[(host + server) % len(_TCP_PORTS)]
        return _tcp(_Pair(host, server, version, _TCP, source_port, port), numbers)
    port = _UDP_PORTS[(host + server) % len(_UDP_PORTS)]
    return _udp(_Pair(host, server, version, _UDP, source_port, port), numbers)


def _tcp(pair: _Pair, numbers: random.Random) -> Iterator[Frame]:
    yield pair.frame(True, 0, _SYN)
    yield pair.frame(False, 0, _SYN_ACK)
    yield pair.frame(True, 0, _ACK)
    yield pair.frame(True, 517, _PSH_ACK)
    for _ in range(min(int(numbers.expovariate(1 / 20)), 400)):
        yield pair.frame(False, 1448, _ACK)
        if numbers.random() < 0.5:
            yield pair.frame(True, 0, _ACK)
        if numbers.random() < 0.2:
            yield pair.frame(True, 200, _PSH_ACK)
    yield pair.frame(True, 0, _FIN_ACK)
    yield pair.frame(False, 0, _FIN_ACK)
    yield pair.frame(True, 0, _ACK)


def _udp(pair: _Pair, numbers: random.Random) -> Iterator[Frame]:
    exchanges = 1 if pair.port in (53, 123) else min(int(numbers.expovariate(1 / 60)), 1_000) + 1
    for _ in range(exchanges):
        yield pair.frame(True, 60, 0)
        yield pair.frame(False, 120 if exchanges == 1 else 1200, 0)


class _Pair:
    """Two hosts that talk: their frames, each kind built once."""

    def __init__(self, host: int, server: int, version: int, protocol: int, source_port: int, port: int) -> None:
        self.port = port
        self._version, self._protocol, self._ports = version, protocol, (source_port, port)
        self._macs = (bytes.fromhex("0200000000fe"), b"\x02\0\0\0" + struct.pack("!H", host))
        self._addresses = (_address(version, 10, host), _address(version, 203, server))
        self._built: dict[tuple[bool, int, int], Frame] = {}
        self._sent = {True: 0, False: 0}  # bytes so far, in both directions: TCP's sequence numbers
        self._at = 14 + (20 if version == 4 else 40) + (4 if protocol == _TCP else 8)  # what differs in every frame

    def frame(self, there: bool, payload: int, flags: int) -> Frame:
        """`payload` bytes of data, from the host to the server (`there`) or back; flags: TCP's."""
        found = self._built.get((there, payload, flags))
        if found is None:
            found = self._built[there, payload, flags] = self._build(there, payload, flags)
        frame, length = found
        numbers = _NUMBERS.pack(self._sent[there], self._sent[not there])
        self._sent[there] += payload + bool(flags & _SYN_OR_FIN)
        return frame[: self._at] + numbers + frame[self._at + 8 :], length

    def _build(self, there: bool, payload: int, flags: int) -> Frame:
        step = 1 if there else -1
        (source, target), (source_port, port) = self._addresses[::step], self._ports[::step]
        if self._protocol == _TCP:
            header = struct.pack("!HHIIBBHHH", source_port, port, 0, 0, 5 << 4, flags, 502, 0, 0)
        else:
            header = struct.pack("!HHHH", source_port, port, 8 + payload, 0)
        rest = header + bytes(payload)
        ip = _ip4(source, target, self._protocol, len(rest)) if self._version == 4 else b""
        ip = ip or struct.pack("!IHBB", 6 << 28, len(rest), self._protocol, 64) + source + target
        ether = b"".join(self._macs[::step]) + (b"\x08\x00" if self._version == 4 else b"\x86\xdd")
        whole = ether + ip + rest
        return whole[:_SNAP], len(whole)


def _ip4(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    """An IPv4 header, its checksum right."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, protocol, 0) + source + target
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", total ^ 0xFFFF) + header[12:]


def _address(version: int, net: int, number: int) -> bytes:
    if version == 4:
        return bytes([net, 0, number >> 8, number & 0xFF])
    return bytes([0xFD, net]) + bytes(12) + struct.pack("!H", number)
