"""Limits, how true they are: each engine limits one cgroup, and a TCP transfer shows what comes through.

In a scratch network (scratch.py): nothing of the machine's own is limited or sent. Measured is what arrives as payload,
after two seconds, in which the bucket that every limit begins with is used up. Whoever calls says how each engine is
made; it is made in the scratch network, where those that belong to a namespace have to be.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from glacic.errors import GlacicError
from glacic.shaping import scratch
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Engine, Item
from glacic.shaping.far import PORT
from glacic.shaping.scratch import INTERFACE, THERE, Scratch

Maker = Callable[[Scratch], Engine]
Row = dict[str, Any]

SETTLE_S = 2.0
_CHUNK = 1 << 16
_NAMES = ("engine", "direction", "target", "achieved", "ratio", "available", "missing")
_SPARE_S = 30.0  # for making and removing everything


def run(engines: Mapping[str, Maker], seconds: float, rate: int) -> list[Row]:
    """One row for each engine and direction: {"engine", "direction", "target", "achieved" (bytes per second, None where
    nothing was measured), "ratio" (achieved / target), "available", "missing" (why not, "" where it is)}.

    seconds: of each measurement. rate: bytes per second. Raises KernelRefused where there can be no scratch network.
    """
    patience_s = _SPARE_S + 2 * len(engines) * (seconds + SETTLE_S + 2.0)
    rows: list[Row] = scratch.inside(
        lambda made: [
            _row(made, name, maker, direction, seconds, rate)
            for name, maker in engines.items()
            for direction in (UPLOAD, DOWNLOAD)
        ],
        patience_s=patience_s,
    )
    return rows


def _row(made: Scratch, name: str, maker: Maker, direction: str, seconds: float, rate: int) -> Row:
    achieved, missing = None, ""
    try:
        achieved = round(_achieved(made, maker, direction, seconds, rate))
    except (GlacicError, OSError) as error:
        missing = " ".join(str(error).split())
    ratio = None if achieved is None else round(achieved / rate, 3)
    answers = (name, direction, rate, achieved, ratio, not missing, missing)
    return dict(zip(_NAMES, answers, strict=True))


def _achieved(made: Scratch, maker: Maker, direction: str, seconds: float, rate: int) -> float:
    engine = maker(made)
    upload, download = (rate, 0) if direction == UPLOAD else (0, rate)
    engine.put([Item(name="self-test", cgroup=made.limited, upload=upload, download=download, interface=INTERFACE)])
    try:
        with made.of(made.limited):
            tcp = socket.socket()
        with tcp:
            tcp.connect((THERE[4], PORT))
            return _uploaded(made, tcp, seconds) if direction == UPLOAD else _downloaded(tcp, seconds)
    finally:
        engine.remove()


def _downloaded(tcp: socket.socket, seconds: float) -> float:
    """Bytes per second."""
    tcp.sendall(b"D")
    tcp.setblocking(False)

    def receive(until: float) -> int:
        count = 0
        while (left := until - time.monotonic()) > 0:
            if select.select([tcp], [], [], left)[0]:
                count += len(tcp.recv(_CHUNK))
        return count

    receive(time.monotonic() + SETTLE_S)
    begun = time.monotonic()
    return receive(begun + seconds) / (time.monotonic() - begun)


def _uploaded(made: Scratch, tcp: socket.socket, seconds: float) -> float:
    """Bytes per second, as the other end counts them."""
    zeros = bytes(_CHUNK)
    tcp.setblocking(False)

    def send(until: float) -> int:
        while (left := until - time.monotonic()) > 0:
            if select.select([], [tcp], [], left)[1]:
                tcp.send(zeros)
        arrived: int = made.far.ask("counts").get("tcp", 0)
        return arrived

    before, begun = send(time.monotonic() + SETTLE_S), time.monotonic()
    return (send(begun + seconds) - before) / (time.monotonic() - begun)
