"""Where readers of queues are measured alone: a client sends to a firewall that hands each datagram to a queue.

    client 10.0.1.1  02:..:01  ----eth0/lan0----  fw 10.0.0.2
                                                  mark: ASKED and policy 3
                                                  port 9 -> NFQUEUE 100, port 10 -> NFQUEUE 110, ... one for each lane
                                                  behind it: counted, dropped

The kernel's queue is reached through the xtables NFQUEUE target, which every kernel with nfnetlink_queue has, so that
figures of different kernels speak of the same. What is accepted is dropped behind the queue: how a datagram is
delivered is not the question, and nobody answers it. All contestants run all the time, each on a lane of its own, and
sleep where no packets come to them; so they alternate quickly, and none is measured while it starts.

The sender's core does everything up to the queue, and drops what finds it full; the reader's core does the rest.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import pinning, processes
from bench.contestants.glacic_queue import POLICY
from glacic.ctlplane.nfqueue import QueueTruth
from glacic.errors import LabError
from glacic.firewall.claims import field, mark_of
from glacic.lab.net import Network, Port

OTHERS_MARK = 0x1234  # somebody's routing mark, which has to come through; so the mark is never just cleared
WARM_S = 0.3
WAITING = 4096  # packets in each queue that are worked off at once
_FIRST_QUEUE, _QUEUES_APART = 100, 10
_FIRST_PORT = 9
_LOOKS = 10  # at least, while they go
_PAUSE_S = 0.0003  # between two looks, where the core that looks is needed
_DRAIN_S = 5.0
_DISAGREEMENT = 0.001

_CLIENT, _FIREWALL = "10.0.1.1", "10.0.0.2"
_FIREWALL_MAC = "02:00:00:00:00:02"

_BEHIND = """
table inet behind {
    chain input {
        type filter hook input priority 10; policy accept;
        meta l4proto udp counter drop
    }
}
"""

Command = Sequence[str | float]


@dataclass(frozen=True, slots=True)
class Given:
    """Verdicts, per second, and what each cost: user and system time of the process, in us."""

    per_s: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Lane:
    """A contestant that runs, and where packets reach it."""

    port: int
    queues: tuple[int, ...]
    started: tuple[processes.Running, ...]
    sources: int  # how many addresses, each with a MAC of its own
    waiting: int  # packets in each queue that are worked off at once
    anywhere: bool  # on both cores, not on the receiver's alone

    @property
    def options(self) -> list[str | float]:
        """What `traffic` is to be told."""
        roads: list[str | float] = ["--source", _CLIENT, "--destination", _FIREWALL, "--ports", self.port]
        return [*roads, "--sources", self.sources, "--source-macs", self.sources]


def room(waiting: int) -> tuple[int, int]:
    """Packets that a queue must hold for work_off(), and bytes for its reader's socket.

    Two queues share what is sent by address, so not evenly; a message takes a buffer of 1 to 2 KiB.
    """
    return waiting + waiting // 2, (waiting + waiting // 2) * 2048


class QueueBed:
    """Use `queue_bed`."""

    def __init__(self, network: Network, stack: contextlib.ExitStack) -> None:
        self.client, self.fw = network.host("client"), network.host("fw")
        network.cable(
            Port(self.client, "eth0", "02:00:00:00:00:01", (f"{_CLIENT}/16",)),
            Port(self.fw, "lan0", _FIREWALL_MAC, (f"{_FIREWALL}/16",)),
        )
        self.fw.run(["nft", "-f", "-"], text=_BEHIND)
        mark = f"{mark_of(POLICY.number) | OTHERS_MARK:#x}/{field(POLICY.number) | 0xFFFF:#x}"
        marking = f"iptables-nft -t mangle -A INPUT -p udp -j MARK --set-xmark {mark}"
        self.fw.run(marking.split())
        self.truth = self.fw.call(QueueTruth)
        stack.callback(self.truth.close)
        self.cores = pinning.cores()
        self._stack = stack
        self._lanes: list[Lane] = []

    def start(
        self,
        commands: Callable[[tuple[int, ...]], Sequence[Command]],
        *,
        queues: int = 1,
        sources: int = 1,
        waiting: int = WAITING,
        anywhere: bool = False,
    ) -> Lane:
        """One more contestant: the processes that `commands` names for these queues, which share by address."""
        port = _FIRST_PORT + len(self._lanes)
        first = _FIRST_QUEUE + _QUEUES_APART * len(self._lanes)
        numbers = tuple(range(first, first + queues))
        to = f"--queue-num {first}" if queues == 1 else f"--queue-balance {first}:{numbers[-1]}"
        rule = f"iptables-nft -A INPUT -p udp --dport {port} -j NFQUEUE {to} --queue-bypass"
        self.fw.run(rule.split())
        started = [self._stack.enter_context(processes.running(self.fw, command)) for command in commands(numbers)]
        lane = Lane(port, numbers, tuple(started), sources, waiting, anywhere)
        for place, process in enumerate(started):
            everywhere = self.cores if len(started) == 1 else (self.cores[place % 2],)
            pinning.pin(process.pid, *(everywhere if anywhere else (self.cores.receiver,)))
        self._lanes.append(lane)
        return lane

    def flood(self, lane: Lane, seconds: float, rate: float = 0) -> Given:
        """What it does with so many packets a second; 0: as many as can be sent."""
        command = processes.program("traffic", "eth0", _FIREWALL_MAC, "--core", self.cores.sender, *lane.options)
        with processes.running(self.client, [*command, "--rate", rate], ready=False) as traffic:
            time.sleep(WARM_S)
            began, given, cpu_s = time.monotonic(), self._given(lane), _cpu_s(lane)
            time.sleep(seconds)
            given, cpu_s, lasted = self._given(lane) - given, _cpu_s(lane) - cpu_s, time.monotonic() - began
            traffic.end()
        self._drain(lane)
        if not given:
            raise LabError(f"{lane.started[0].name} has given no verdict in {seconds:g} s")
        return Given(given / lasted, cpu_s * 1e6 / given)

    def work_off(self, lane: Lane) -> Given | None:
        """What it does where packets wait and nobody sends; None where too little was seen of it.

        It is stopped (SIGSTOP) while so many packets are sent to each of its queues, and goes on. The rate is counted
        from the first look at which packets have gone to the last at which every queue has some.
        """
        with pinning.here(self.cores.sender):
            self._stop(lane)
            try:
                count = lane.waiting * len(lane.queues)
                options = [*lane.options, "--count", count]
                processes.send(self.client, "eth0", _FIREWALL_MAC, *options, core=self.cores.sender, timeout_s=30)
                depths, cpu_s = [self._depths(lane)], _cpu_s(lane)
            finally:
                for process in lane.started:
                    process.process.send_signal(signal.SIGCONT)
            times = [time.perf_counter()]
            while all(depths[-1]) and times[-1] < times[0] + _DRAIN_S:
                time.sleep(_PAUSE_S if lane.anywhere else 0)
                depths.append(self._depths(lane))
                times.append(time.perf_counter())
            self._drain(lane)
        cpu_s = _cpu_s(lane) - cpu_s
        full = sum(depths[0])
        began = next((n for n, depth in enumerate(depths) if sum(depth) < full), len(depths))
        if len(depths) - began < _LOOKS:
            return None
        per_s = (sum(depths[began]) - sum(depths[-2])) / (times[-2] - times[began])
        return Given(per_s, cpu_s * 1e6 / full)

    def end(self) -> None:
        """Ends all. Raises LabError where they, their queues and the chain behind do not count the same."""
        kernel = sum(self._given(lane) for lane in self._lanes)
        listed = json.loads(self.fw.run(["nft", "-j", "list", "table", "inet", "behind"]).stdout)
        rules = [item["rule"]["expr"] for item in listed["nftables"] if "rule" in item]
        behind = sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)
        for lane in self._lanes:
            kernel_of_it = self._given(lane)
            said = sum(int(process.end()["verdicts"]) for process in lane.started)
            _must_agree(lane.started[0].name, said, kernel_of_it)
        _must_agree("the chain behind the queues", behind, kernel)

    def _given(self, lane: Lane) -> int:
        """Packets that it has answered so far, as the kernel counts: numbered, neither waiting nor lost."""
        truths = [truth for number, truth in self.truth.read().items() if number in lane.queues]
        return sum(truth.id_sequence - truth.depth - truth.user_dropped for truth in truths)

    def _depths(self, lane: Lane) -> list[int]:
        truths = self.truth.read()
        return [truths[number].depth for number in lane.queues]

    def _drain(self, lane: Lane) -> None:
        ends = time.monotonic() + _DRAIN_S
        while any(self._depths(lane)):
            if time.monotonic() > ends:
                raise LabError(f"packets stay in the queue of {lane.started[0].name} unanswered")
            time.sleep(0.002)

    def _stop(self, lane: Lane) -> None:
        for process in lane.started:
            process.process.send_signal(signal.SIGSTOP)
        for process in lane.started:
            while Path("/proc", str(process.pid), "stat").read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.0005)


@contextlib.contextmanager
def queue_bed() -> Iterator[QueueBed]:
    """A client and a firewall, without contestants yet; what they count is compared at the end."""
    with Network() as network, contextlib.ExitStack() as stack:
        bed = QueueBed(network, stack)
        yield bed
        bed.end()


def _cpu_s(lane: Lane) -> float:
    return sum(pinning.precise_cpu_s(process.pid) for process in lane.started)


def _must_agree(name: str, counted: Any, kernel: int) -> None:
    if abs(counted - kernel) > kernel * _DISAGREEMENT + 1:
        raise LabError(f"{name}: {counted} verdicts are counted there, and {kernel} by the kernel's queue")
