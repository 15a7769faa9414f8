"""What the tests of shaping/ share: cgroups of their own, and two hosts with a cable.

    near  10.0.0.1 fd00::1 ── far  10.0.0.2 fd00::2
          192.0.2.1 2001:db8::1    192.0.2.2 2001:db8::2

Processes on `near` are the ones that are limited; each is in a cgroup before it opens a socket.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from glacic.firewall.nft import Libnftables
from glacic.lab.cgroups import Slice
from glacic.lab.cgroups import hierarchy as lab_hierarchy
from glacic.lab.net import Host, Network, Port
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.nftlimits import NftLimits

MIB = 1 << 20


@pytest.fixture(scope="session")
def hierarchy() -> Iterator[Hierarchy]:
    with lab_hierarchy() as found:
        yield found


@pytest.fixture
def folder(hierarchy: Hierarchy) -> Iterator[Slice]:
    with Slice(hierarchy) as made:
        yield made


@dataclass
class Wire:
    """The two hosts. `far` answers on TCP and UDP port 9000 (it takes) and TCP port 9001 (it gives)."""

    near: Host
    far: Host
    folder: Slice

    def engine(self) -> NftLimits:
        """The engine, at work on `near`."""
        mount = self.folder.hierarchy.mount
        return self.near.call(lambda: NftLimits(Libnftables(), mount=lambda: mount))

    def start(self, name: str, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Python code on `near`, in the cgroup of this name below the folder."""
        command = self.folder.command(name, [sys.executable, "-c", code, *arguments])
        return self.near.popen(command, stdout=subprocess.PIPE)

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
def wire(hosts: tuple[Host, Host], folder: Slice) -> Iterator[Wire]:
    near, far = hosts
    yield Wire(near, far, folder)
    near.run(["nft", "flush", "ruleset"])
