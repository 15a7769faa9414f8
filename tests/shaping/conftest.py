"""What the tests of shaping/ share: cgroups of their own, and two hosts with a cable.

    near  10.0.0.1 fd00::1 ── far  10.0.0.2 fd00::2
          192.0.2.1 2001:db8::1    192.0.2.2 2001:db8::2

Processes on `near` are the ones that are limited; each is in a cgroup before it opens a socket.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from glacic.errors import GlacicError
from glacic.firewall.nft import Libnftables
from glacic.lab.net import Host, Network, Port
from glacic.shaping import cgroups
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.engine import Cgroup
from glacic.shaping.nftlimits import NftLimits

MIB = 1 << 20
PATIENCE_S = 20.0
_serial = itertools.count(1)


class Folder:
    """A cgroup that units can lie in, a slice, for one test; everything below ends with it."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.name = f"glacictest{os.getpid()}x{next(_serial)}.slice"
        self._made: list[Path] = []
        self.make("")

    def path(self, name: str) -> str:
        """Relative to the mount."""
        return f"{self.name}/{name}" if name else self.name

    def place(self, name: str) -> Path:
        return self.hierarchy.mount / self.path(name)

    def make(self, name: str) -> Cgroup:
        self.place(name).mkdir()
        self._made.append(self.place(name))
        cgroup = self.hierarchy.cgroup(self.path(name))
        assert cgroup is not None
        return cgroup

    def remove(self, name: str) -> None:
        """With the processes in it."""
        _remove(self.place(name))
        self._made.remove(self.place(name))

    def remake(self, name: str) -> Cgroup:
        self.remove(name)
        return self.make(name)

    def close(self) -> None:
        for place in reversed(self._made):
            with suppress(FileNotFoundError):
                _remove(place)


def _remove(place: Path) -> None:
    ends = time.monotonic() + PATIENCE_S
    while True:
        for pid in (place / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            place.rmdir()
        except OSError:  # they are ending
            if time.monotonic() > ends:
                raise
            time.sleep(0.002)
        else:
            return


@pytest.fixture(scope="session")
def hierarchy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hierarchy]:
    """The machine's, or one mounted for the tests where it has none."""
    try:
        yield cgroups.find()
    except GlacicError:
        place = tmp_path_factory.mktemp("cgroup2")
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(b"none", os.fsencode(place), b"cgroup2", 0, None) == 0, os.strerror(ctypes.get_errno())
        yield Hierarchy(place)
        libc.umount(os.fsencode(place))


@pytest.fixture
def folder(hierarchy: Hierarchy) -> Iterator[Folder]:
    made = Folder(hierarchy)
    yield made
    made.close()


# Puts itself into the cgroup of argv[1], then runs argv[2] with the rest.
_IN_CGROUP = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
del sys.argv[1]
exec(sys.argv.pop(1))
"""


@dataclass
class Wire:
    """The two hosts. `far` answers on TCP and UDP port 9000 (it takes) and TCP port 9001 (it gives)."""

    near: Host
    far: Host
    folder: Folder

    def engine(self) -> NftLimits:
        """The engine, at work on `near`."""
        mount = self.folder.hierarchy.mount
        return self.near.call(lambda: NftLimits(Libnftables(), mount=lambda: mount))

    def start(self, name: str, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Python code on `near`, in the cgroup of this name below the folder."""
        return self.near.popen(
            [sys.executable, "-c", _IN_CGROUP, str(self.folder.place(name)), code, *arguments], stdout=subprocess.PIPE
        )

    def run(self, name: str, code: str, *arguments: str) -> str:
        """The same, to its end; what it printed."""
        process = self.start(name, code, *arguments)
        assert process.stdout is not None
        output = process.stdout.read().decode()
        status = self.near.end(process)
        assert status == 0, f"status {status}: {output}"
        return output

    def nft(self, *words: str) -> str:
        return self.near.run(["nft", *words]).stdout


FAR = """
import socket, threading
def listen(port, serve):
    sock = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    def accept():
        while True:
            connection, _ = sock.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
def take(connection):
    with connection:
        try:
            while connection.recv(1 << 16): pass
        except OSError: pass
def give(connection):
    with connection:
        try:
            while True: connection.sendall(bytes(1 << 16))
        except OSError: pass
def flood(sock):  # whoever sends a number of seconds and a rate is sent datagrams for so long
    import time
    while True:
        data, whom = sock.recvfrom(100)
        if not data[:1].isdigit(): continue
        seconds, rate = map(float, data.split())
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            if sent > rate * (time.monotonic() - began):
                time.sleep(0.001)
                continue
            sock.sendto(bytes(1000), whom)
            sent += 1028
listen(9000, take)
listen(9001, give)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(("::", 9000))
threading.Thread(target=flood, args=(udp,), daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with Network() as net:
        near, far = net.host("near"), net.host("far")
        net.cable(
            Port(near, "eth0", "", ("10.0.0.1/24", "fd00::1/64", "192.0.2.1/24", "2001:db8::1/64")),
            Port(far, "eth0", "", ("10.0.0.2/24", "fd00::2/64", "192.0.2.2/24", "2001:db8::2/64")),
        )
        serving = far.popen([sys.executable, "-c", FAR], stdout=subprocess.PIPE)
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"ready\n"
        yield near, far


@pytest.fixture
def wire(hosts: tuple[Host, Host], folder: Folder) -> Iterator[Wire]:
    near, far = hosts
    yield Wire(near, far, folder)
    near.run(["nft", "flush", "ruleset"])


def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Whether it comes true in time."""
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.005)
    return True
