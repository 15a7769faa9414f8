"""What the tests of firewall/ share: a configuration from text, a scratch kernel, and hosts with traffic.

    laptop  10.1.0.2 fd01::2 ── lan0 ┐
    camera  10.2.0.2 fd02::2 ── iot0 ┼ router ┬ wan0 ── server 192.0.2.2 2001:db8::2
    guest   10.3.0.2         ── odd0 ┘  (.1 and ::1 everywhere)

That network is made once for all tests of a module; each puts its own ruleset in force.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.config.model import Config
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables
from glacic.firewall.ruleset import Chain, Rule, Ruleset
from glacic.lab.net import Host, Network, Port

PATIENCE_S = 0.3  # how long a packet that is expected to be lost is waited for; one that passes takes microseconds


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Config]:
    """A configuration from HCL text."""

    def from_text(text: str) -> Config:
        path = tmp_path / "glacic.hcl"
        path.write_text(text)
        return load(path)

    return from_text


@pytest.fixture
def scratch() -> Iterator[Host]:
    """A host without cables: a kernel to load rulesets into."""
    with Network() as net:
        yield net.host("scratch")


@pytest.fixture
def nft(scratch: Host) -> Libnftables:
    """The scratch host's nf_tables."""
    return scratch.call(Libnftables)


ZONES = """
zone "wan" {
  interface = "wan0"
  external  = true
}
zone "lan" { interface = "lan0" }
"""


@dataclass(frozen=True)
class Place:
    router: Host
    laptop: Host
    camera: Host
    guest: Host
    server: Host
    nft: Libnftables

    def rules(self, chain: str) -> str:
        return self.router.run(["nft", "list", "chain", "inet", "glacic", chain]).stdout

    def packets(self, set_: str) -> list[int]:
        listed = self.router.run(["nft", "list", "set", "inet", "glacic", set_]).stdout
        words = listed.split()
        return [int(words[at + 1]) for at, word in enumerate(words) if word == "packets"]

    def logged(self, chain: str) -> int:
        """How many packets the chain's log line has counted."""
        line = next(line for line in self.rules(chain).splitlines() if "log prefix" in line)
        return int(line.split("packets ")[1].split()[0])


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Network() as net:
        router = net.host("router", forwards=True)
        ends = {}
        for number, (name, interface) in enumerate((("laptop", "lan0"), ("camera", "iot0"), ("guest", "odd0")), 1):
            host = ends[name] = net.host(name)
            near, far = (f"10.{number}.0.1", f"fd0{number}::1"), (f"10.{number}.0.2", f"fd0{number}::2")
            net.cable(
                Port(host, "eth0", f"02:00:00:00:0{number}:02", (f"{far[0]}/24", f"{far[1]}/64")),
                Port(router, interface, f"02:00:00:00:0{number}:01", (f"{near[0]}/24", f"{near[1]}/64")),
            )
            host.ip(f"route add default via {near[0]}", f"route add default via {near[1]}")
        server = ends["server"] = net.host("server")
        net.cable(
            Port(server, "eth0", "02:00:00:00:09:02", ("192.0.2.2/24", "2001:db8::2/64")),
            Port(router, "wan0", "02:00:00:00:09:01", ("192.0.2.1/24", "2001:db8::1/64")),
        )
        server.ip("route add default via 192.0.2.1", "route add default via 2001:db8::1")
        yield Place(router, nft=router.call(Libnftables), **ends)


@pytest.fixture
def enforce(place: Place, config: Callable[[str], Config]) -> Callable[[str], Config]:
    """Puts a configuration in force on the router."""

    def put(text: str) -> Config:
        loaded = config(text)
        apply(place.nft, compile_config(loaded))
        return loaded

    return put


def answered_by(ruleset: Ruleset, statement: str) -> Ruleset:
    """The same ruleset with `statement` where it asks a queue: what an answer, or a fail mode, does to the packet."""

    def answered(chain: Chain) -> Chain:
        rules = (Rule(re.sub("^queue num .*", statement, rule.statement), rule.note) for rule in chain.rules)
        return replace(chain, rules=tuple(rules))

    return Ruleset(tuple(answered(part) if isinstance(part, Chain) else part for part in ruleset.parts))


def tcp(client: Host, server: Host, address: str, port: int, *, listen: tuple[str, int] | None = None) -> str:
    """Tries a TCP connection: "open", "lost", or the errno's name. The server listens on every address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = server.call(bound, family, socket.SOCK_STREAM, *(listen or ("", port)))
    listener.listen()
    with listener, client.call(socket.socket, family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect((address, port))
        except TimeoutError:
            return "lost"
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "open"


def udp(client: Host, server: Host, address: str, port: int, *, source_port: int = 0) -> str:
    """Sends one datagram: "open" if the server gets it, "lost", or the name of the errno that came back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = server.call(bound, family, socket.SOCK_DGRAM, "", port)
    with listener, client.call(bound, family, socket.SOCK_DGRAM, "", source_port) as sock:
        sock.settimeout(PATIENCE_S)
        listener.settimeout(PATIENCE_S)
        sock.connect((address, port))
        sock.send(b"?")
        try:
            listener.recv(16)
        except TimeoutError:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return errno.errorcode[error] if error else "lost"
        return "open"


def ping(client: Host, address: str) -> str:
    """Sends one ICMP or ICMPv6 echo request: "open" if the reply comes back, else "lost"."""
    if ":" in address:
        family, protocol, request, reply, header = socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129, 0
    else:
        family, protocol, request, reply, header = socket.AF_INET, socket.IPPROTO_ICMP, 8, 0, 20
    with client.call(socket.socket, family, socket.SOCK_RAW, protocol) as sock:
        sock.settimeout(PATIENCE_S)
        checksum = 0xFFFF - (request << 8) - 7  # of ICMP, over type, code and identifier 7; the kernel does ICMPv6's
        sock.sendto(struct.pack("!BBHHH", request, 0, checksum, 7, 0), (address, 0))
        try:
            while sock.recv(256)[header] != reply:
                pass
        except TimeoutError:
            return "lost"
        return "open"


def bound(family: int, kind: int, address: str, port: int) -> socket.socket:
    """A socket of this kind on a port; "" is every address."""
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    return sock
