"""Where readers of log groups are measured: a client sends to a firewall that logs each datagram, and drops it.

    client 10.0.1.1  02:..:01  ----eth0/lan0----  fw 10.0.0.2, 10.0.0.3, ... one address for each lane
                                                  ip daddr 10.0.0.2 log group 100 prefix "lan_wan: " counter drop

The rule is Glacic's own, without the rate limit that stands before it: the limit is there so that no reader ever has so
much to read. All contestants run all the time, each on a group of its own, on the receiver's core, and sleep where no
packets come to them. The kernel writes the messages on the sender's core.

What was lost is read where the kernel counts it: the drops of the reader's netlink socket (/proc/net/netlink). A reader
that says by itself what it has read is held to that as well.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench import pinning, processes
from bench.contestants.glacic_queue import POLICY
from glacic.errors import LabError
from glacic.lab.net import Network, Port

FLOWS = 100  # each lane's packets are of so many flows
FIRST_GROUP = 100
_CLIENT, _FIREWALL_MAC = "10.0.1.1", "02:00:00:00:00:02"
_EAGER = ("nice", "-n", "-20")  # who comes first where others want the core: all contestants alike, and the sender
_SETTLED_S = 0.3  # the kernel holds packets back for a tenth of a second at most
_BIND_S = 10.0


class Taken(NamedTuple):
    """Packets sent, per second; whether none was lost; user and system time of the reader for each, in us."""

    per_s: float
    whole: bool
    cpu_us: float


@dataclass(slots=True)
class Lane:
    """A contestant that runs, and where packets reach it. sent: so far; whole: whether nothing was ever lost."""

    name: str
    group: int
    address: str
    started: processes.Running
    sent: int = 0
    whole: bool = True


class LogBed:
    """Use `log_bed`."""

    def __init__(self, network: Network, stack: contextlib.ExitStack) -> None:
        self.client, self.fw = network.host("client"), network.host("fw")
        network.cable(
            Port(self.client, "eth0", "02:00:00:00:00:01", (f"{_CLIENT}/16",)),
            Port(self.fw, "lan0", _FIREWALL_MAC, ("10.0.0.1/16",)),
        )
        self.fw.run(["nft", "add table inet bed"])
        self.fw.run(["nft", "add chain inet bed input { type filter hook input priority 0; policy accept; }"])
        self.cores = pinning.cores()
        self._stack = stack
        self._lanes: list[Lane] = []

    def start(self, name: str, command: Sequence[str | float], *, ready: bool = True) -> Lane:
        """One more contestant. `command` has the group as `group(n)` says it, n counting from 0."""
        number = len(self._lanes)
        group, address = self.group(number), f"10.0.0.{number + 2}"
        self.fw.ip(f"address add {address}/16 dev lan0")
        rule = f'ip daddr {address} meta l4proto udp log group {group} prefix "{POLICY.name}: " counter drop'
        self.fw.run(["nft", f"add rule inet bed input {rule}"])
        started = self._stack.enter_context(processes.running(self.fw, [*_EAGER, *command], ready=ready))
        ends = time.monotonic() + _BIND_S
        while self._port(group) is None:
            if time.monotonic() > ends:
                raise LabError(f"{name} does not bind its log group")
            time.sleep(0.02)
        pinning.pin(started.pid, self.cores.receiver)
        lane = Lane(name, group, address, started)
        self._lanes.append(lane)
        return lane

    @staticmethod
    def group(number: int) -> int:
        """The log group of the n-th contestant."""
        return FIRST_GROUP + number

    def send(self, lane: Lane, rate: float, seconds: float) -> Taken:
        """What it does with so many packets a second."""
        command = processes.program("traffic", "eth0", _FIREWALL_MAC, "--core", self.cores.sender)
        road = ["--source", _CLIENT, "--destination", lane.address, "--ports", f"10000-{10000 + FLOWS - 1}"]
        drops, spent = self._drops(lane), pinning.precise_cpu_s(lane.started.pid)
        pace: list[str | float] = ["--rate", rate, "--seconds", seconds]
        with processes.running(self.client, [*_EAGER, *command, *road, *pace], ready=False) as traffic:
            sent = traffic.wait(seconds + 60)
        time.sleep(_SETTLED_S)
        cpu_s = pinning.precise_cpu_s(lane.started.pid) - spent
        whole = self._drops(lane) == drops
        lane.sent, lane.whole = lane.sent + sent["sent"], lane.whole and whole
        return Taken(sent["sent"] / sent["seconds"], whole, cpu_s * 1e6 / sent["sent"])

    def end(self, lane: Lane) -> None:
        """Ends one that says what it has read. Raises LabError where that is not what was sent."""
        said = lane.started.end()
        read = said["received"] if lane.whole else said["received"] + said["lost"]
        if read > lane.sent or (lane.whole and read < lane.sent):
            raise LabError(f"{lane.name} says that it has read {said['received']} packets of {lane.sent}")

    def _drops(self, lane: Lane) -> int:
        port = self._port(lane.group)
        for line in self.fw.call(_thread_net, "netlink").splitlines()[1:]:
            words = line.split()  # sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
            if int(words[1]) == _NETLINK_NETFILTER and int(words[2]) == port:
                return int(words[8])
        raise LabError(f"{lane.name} has no netlink socket")

    def _port(self, group: int) -> int | None:
        """The netlink port of the group's owner."""
        for line in self.fw.call(_thread_net, "netfilter/nfnetlink_log").splitlines():
            words = line.split()  # group, port, waiting, ...: net/netfilter/nfnetlink_log.c, seq_show
            if int(words[0]) == group:
                return int(words[1])
        return None


_NETLINK_NETFILTER = 12  # linux/netlink.h


def _thread_net(name: str) -> str:
    """A file of /proc/net, of the namespace that this thread is in."""
    return Path("/proc/thread-self/net", name).read_text()


@contextlib.contextmanager
def log_bed() -> Iterator[LogBed]:
    """A client and a firewall, without contestants yet."""
    with Network() as network, contextlib.ExitStack() as stack:
        yield LogBed(network, stack)
