"""The service under test: `glacic run` in a network of its own, started as it is installed and timed from outside.

    client 10.0.0.1  02:..:01:01 ---- lan0 [ router: Glacic ] wan0 ---- server 10.0.1.2  02:..:01:02

What comes from the client is forwarded to the server by policy lan_wan, which learns. Neighbours are written down, so
that no packet waits for ARP; the server drops what arrives, behind the tap of a sink, so that nobody answers; a
connection that is not answered is forgotten after two seconds, so that connection tracking is as large in the
sixtieth second as in the second.

Refuses to make traffic (bench/c/traffic.c) and to say what a figure means (bench/rows).
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import glacic
from bench import standin
from glacic.ctlplane.elements import KernelSets
from glacic.errors import LabError
from glacic.firewall.shapes import Shape, set_name
from glacic.lab.net import Host, Network, Port
from glacic.lab.service import PATIENCE_S, Glacic

POLICY = "lan_wan"
PORT_SET = set_name(POLICY, Shape("mac", "port", ""), allowed=True)  # where learned TCP and UDP flows are

CLIENT, SERVER = "10.0.0.1", "10.0.1.2"
CLIENT_MAC, SERVER_MAC = "02:00:00:00:01:01", "02:00:00:00:01:02"
ROUTER_MAC, ROUTER_WAN_MAC = "02:00:00:00:01:ff", "02:00:00:00:01:fe"
LAN_INTERFACE, WAN_INTERFACE, HOST_INTERFACE = "lan0", "wan0", "eth0"
QUEUE = 100

# Every process of the service imports the glacic that this process imports, wherever it is started.
ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    "PYTHONPATH": f"{Path(glacic.__file__).resolve().parents[1]}:{Path(__file__).resolve().parents[1]}",
}

_QUIET = """
table inet quiet {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        meta l4proto udp counter drop
    }
}
"""
_TRACKED = "add table inet t; add chain inet t c; add rule inet t c ct state new accept; delete table inet t"
_CONNTRACK = {"net/netfilter/nf_conntrack_udp_timeout": "2", "net/netfilter/nf_conntrack_tcp_timeout_syn_sent": "2"}


@dataclass(frozen=True, slots=True)
class Road:
    """Three hosts in a line; traffic goes from left to right."""

    client: Host
    router: Host
    server: Host

    def answers(self) -> None:
        """From now on the server's own sockets get what arrives."""
        self.server.run(["nft", "delete table inet quiet"])

    def arrived(self) -> int:
        """How many packets have come to the server so far."""
        listed = self.server.run(["ip", "-json", "-statistics", "link", "show", "dev", HOST_INTERFACE]).stdout
        return int(json.loads(listed)[0]["stats64"]["rx"]["packets"])


def road(network: Network, name: str = "") -> Road:
    """A new one in this network; `name` tells several apart."""
    client, server = network.host(f"client{name}"), network.host(f"server{name}")
    router = network.host(f"router{name}", forwards=True)
    network.cable(
        Port(client, HOST_INTERFACE, CLIENT_MAC, (f"{CLIENT}/16",)),
        Port(router, LAN_INTERFACE, ROUTER_MAC, ("10.0.0.254/24",)),
    )
    network.cable(
        Port(router, WAN_INTERFACE, ROUTER_WAN_MAC, ("10.0.1.254/24",)),
        Port(server, HOST_INTERFACE, SERVER_MAC, (f"{SERVER}/24",)),
    )
    client.ip(
        f"route add 10.0.1.0/24 via 10.0.0.254 dev {HOST_INTERFACE}",
        f"neighbour replace 10.0.0.254 lladdr {ROUTER_MAC} dev {HOST_INTERFACE}",
    )
    router.ip(
        f"neighbour replace {CLIENT} lladdr {CLIENT_MAC} dev {LAN_INTERFACE}",
        f"neighbour replace {SERVER} lladdr {SERVER_MAC} dev {WAN_INTERFACE}",
    )
    server.ip(
        "route add default via 10.0.1.254",
        f"neighbour replace 10.0.1.254 lladdr {ROUTER_WAN_MAC} dev {HOST_INTERFACE}",
    )
    router.run(["nft", _TRACKED])  # a kernel that has connection tracking as a module loads it
    router.set(_CONNTRACK)
    server.run(["nft", "-f", "-"], text=_QUIET)
    return Road(client, router, server)


def config(*, inline: bool = True, cache_size: int = 10_000, learn_max: int = 5_000_000) -> str:
    """A configuration in which all that the client sends is learned, the limits of learning being out of the way.

    In nflog mode so is the limit of one interface, a thousand flows at the rate of one.
    """
    rate_limit = "" if inline else '\n  rate_limit           = "1000/second"'
    return f"""\
rule_learning {{
  enabled              = true
  learning_mode        = true
  inline_mode          = {"true" if inline else "false"}
  log_group            = {QUEUE}
  cache_size           = {cache_size}
  learn_max            = {learn_max}
  learn_max_per_source = {learn_max}{rate_limit}
}}
zone "lan" {{
  interface = "{LAN_INTERFACE}"
}}
zone "wan" {{
  interface = "{WAN_INTERFACE}"
  external  = true
}}
policy "lan" "wan" {{
  name   = "{POLICY}"
  action = "drop"
}}
"""


class BenchGlacic(Glacic):
    """Glacic as the lab runs it, over the stand-in where the kernel needs one, and timed. `ready_s`: its last start."""

    ready_s: float

    def command(self, *arguments: str) -> list[str]:
        """See Glacic.command."""
        words = super().command(*arguments)
        if arguments[:1] == ("run",) and standin.needed():
            words[words.index("glacic")] = "bench.standin"
        return words

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """See Glacic.cli."""
        return self.host.run(self.command(*arguments), check=check, environment=ENVIRONMENT)

    def start(self, *arguments: str) -> None:
        """Start `glacic run` and wait for READY=1, as systemd would. Raises LabError with its log where it ends."""
        address = self.config.with_name("notify")  # a file: an abstract address is of one network namespace
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self.log.open("ab") as log:
            notified.bind(str(address))
            notified.settimeout(0.2)
            command, environment = self.command("run", *arguments), {"NOTIFY_SOCKET": str(address), **ENVIRONMENT}
            began = time.monotonic()
            self.process = self.host.popen(command, stdout=log, stderr=log, environment=environment)
            self._wait_for_ready(notified, began + PATIENCE_S)
            self.ready_s = time.monotonic() - began
        if self.state() != "running":
            raise LabError(f"the service is ready and not running:\n{self.log.read_text()[-4000:]}")

    def _wait_for_ready(self, notified: socket.socket, ends: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notified.recv(4096).split(b"\n"):
                    return
            if self.process is None or self.process.poll() is not None or time.monotonic() > ends:
                raise LabError(f"the service does not become ready:\n{self.log.read_text()[-4000:]}")

    @property
    def pid(self) -> int:
        """The control process's id."""
        if self.process is None:
            raise LabError("the service is not running")
        return self.process.pid

    def pids(self) -> tuple[int, int]:
        """Control process and worker."""
        return self.pid, self.worker()

    @property
    def database(self) -> Path:
        """The flow database."""
        return self.state_dir / "flows.db"

    def queue(self) -> dict[str, Any]:
        """The figures of the one queue, with `latency_us`."""
        stats = self.call("stats")
        return {**stats["queues"][0], "latency_us": stats["latency_us"]}

    def elements(self, name: str = PORT_SET) -> int:
        """How many elements a set has in the kernel."""
        sets = KernelSets()
        told = self.host.call(sets.sizes).get(name, 0)
        return self.host.call(lambda: sum(1 for _ in sets.elements(name))) if told is None else told


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder on disk for state directories, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="glacic-bench-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def service(configuration: str) -> Iterator[tuple[Road, BenchGlacic]]:
    """A road with a running service and nothing learned, ended with everything."""
    with scratch() as folder, Network() as network:
        bed = road(network)
        with BenchGlacic(bed.router, folder, configuration) as running:
            yield bed, running


def memory_kib(pid: int) -> dict[str, int]:
    """Resident, its highest, and proportional size of one process in KiB (proc(5): VmRSS, VmHWM; Pss)."""
    status = _fields(Path("/proc", str(pid), "status"))
    rollup = _fields(Path("/proc", str(pid), "smaps_rollup"))
    return {"rss": status["VmRSS"], "peak": status["VmHWM"], "pss": rollup["Pss"]}


def _fields(path: Path) -> dict[str, int]:
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0])
    return found
