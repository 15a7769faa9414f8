"""The lab, transfers: how fast bytes arrive, between two hosts and from a socket that belongs to a cgroup of its own.

A socket keeps the cgroup of the process that made it, so this process enters a cgroup just for as long as it makes one.
Bytes are counted where they arrive. The first second is left out: it may carry a limit's burst.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from glacic.lab.net import Host

_CHUNK = 64 << 10
_PATIENCE_S = 60.0


@contextlib.contextmanager
def cgroups(mount: Path, *names: str) -> Iterator[list[Path]]:
    """New cgroups below a cgroup2 mount, outer ones first; gone afterwards."""
    with contextlib.ExitStack() as stack:
        for name in names:
            (mount / name).mkdir()
            stack.callback((mount / name).rmdir)
        yield [mount / name for name in names]


@contextlib.contextmanager
def inside(mount: Path, cgroup: Path) -> Iterator[None]:
    """This process is in a cgroup for the length of the block, and back where it was after it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    before = next(line.removeprefix("0::/") for line in lines if line.startswith("0::"))
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (mount / before / "cgroup.procs").write_text(str(os.getpid()))


@contextlib.contextmanager
def connection(
    mount: Path, cgroup: Path, near: Host, far: Host, address: str
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection: the near end, made in the cgroup, and the far end, which has the address."""

    def listen() -> socket.socket:
        return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    with far.call(listen) as listener:
        port = listener.getsockname()[1]
        with inside(mount, cgroup):
            near_end = near.call(socket.create_connection, (address, port), _PATIENCE_S)
        with near_end, listener.accept()[0] as far_end:
            yield near_end, far_end


def rate(sender: socket.socket, receiver: socket.socket, *, seconds: float = 4.0, skip: float = 1.0) -> float:
    """Bytes per second that arrive while the sender sends what it can, after the first `skip` seconds."""
    stop = threading.Event()

    def send() -> None:
        sender.settimeout(0.2)
        data = bytes(_CHUNK)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                sender.send(data)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    receiver.settimeout(_PATIENCE_S)
    receiver.recv(_CHUNK)
    started = time.monotonic()
    counted, since = 0, started + skip
    while (now := time.monotonic()) < since + seconds:
        if now < since:
            receiver.recv(_CHUNK)
        else:
            counted += len(receiver.recv(_CHUNK))
    stop.set()
    thread.join()
    return counted / (now - since)
