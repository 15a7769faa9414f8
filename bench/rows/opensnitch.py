"""OpenSnitch, where its job and Glacic's overlap: a new outgoing connection waits for somebody who lets it go.

Refuses to compare what only one of them does: OpenSnitch finds out which program connects, Glacic puts what it has
learned into the kernel.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import pinning, processes, rulesets
from bench.contestants.glacic_queue import POLICY
from bench.effort import Effort
from bench.processes import program, python
from bench.result import Figure, Results, Row, paired
from bench.rounds import alternate
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.nfqueue import QueueTruth
from glacic.errors import LabError
from glacic.firewall.claims import field, mark_of
from glacic.firewall.learned import LearnedSets
from glacic.firewall.nft import Libnftables
from glacic.lab.net import Host, Network, Port
from glacic.native import road

NAME = "opensnitch"
TITLE = "New outgoing connections, beside OpenSnitch"
INTRO = """\
A host opens TCP connections to another one (bench/c/connect.c: the time of a connection is one round trip, and whatever
holds its first packet; it ends with a reset). On the host, iptables hands the first packet of each to a queue where a
daemon decides: Debian's opensnitchd, with one rule, which allows this destination, everything else being denied;
Glacic's reader with its whole engine, the flow in its cache; or a C program that accepts everything. Each has its own
two namespaces, and runs on one core; connections are opened on the other.

Not equal: opensnitchd also finds out which program connects, by way of /proc, as Debian's package does on a kernel
without its eBPF module (its method `proc`), and asks for every connection for ever. Glacic knows sources, not programs,
and asks only until a flow is learned: the row "learned" has the flow in Glacic's own ruleset, where the kernel answers.
opensnitchd runs with its own iptables rules, which look at the connection's state as the others do here."""

OPENSNITCH, FLOOR, NOBODY = "OpenSnitch", "C floor", "nobody asks"
GLACIC, PURE, LEARNED = "Glacic", "Glacic, pure Python", "Glacic, learned: in the kernel"
NAMES: tuple[str, ...] = (OPENSNITCH, GLACIC, *((PURE,) if road is not None else ()), FLOOR, LEARNED, NOBODY)
PARALLEL = 16  # connections under way at a time, where the question is how many a second
PER_S = 200  # connections a second, one at a time, where the question is how long one takes
_MOST = 50_000  # connections in a row: there are 60,000 source ports, and connection tracking remembers for 10 s
_NEARLY_ALL = 0.95  # a connection whose port was used before may be taken for that one
_CLIENT, _SERVER, _PORT = "10.0.0.1", "10.0.0.2", 80
_QUEUE = 0  # opensnitchd's default
_READY_S = 15.0
_LEARNED_POLICY = "firewall_wan"

_ASKING = """\
*mangle
-A OUTPUT -m conntrack --ctstate NEW,RELATED -j MARK --set-xmark {mark:#x}/{field:#x}
-A OUTPUT -m conntrack --ctstate NEW,RELATED -j NFQUEUE --queue-num {queue} --queue-bypass
COMMIT
"""
_SETTINGS = {
    "DefaultAction": "deny",
    "DefaultDuration": "once",
    "InterceptUnknown": True,
    "ProcMonitorMethod": "proc",
    "LogLevel": 3,
    "Firewall": "iptables",
    "Stats": {"MaxEvents": 150, "MaxStats": 25},
}
_RULE = {
    "created": "2024-01-01T00:00:00Z",
    "updated": "2024-01-01T00:00:00Z",
    "name": "the server",
    "enabled": True,
    "precedence": False,
    "action": "allow",
    "duration": "always",
    "operator": {"type": "simple", "operand": "dest.ip", "sensitive": False, "data": _SERVER, "list": []},
}
# What the Debian package has in /etc, in a mount namespace of the daemon's own: its place cannot be told otherwise.
_START = (
    'mount --bind "$1" /etc/opensnitchd && exec opensnitchd -rules-path "$2" -ui-socket "unix://$3" -queue-num "$4"'
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A host that connects, under one firewall, and the host that it connects to. daemon: who is asked, if anybody."""

    name: str
    client: Host
    daemon: processes.Running | None

    def connect(self, *options: str | float) -> dict[str, Any]:
        """What `connect` says, and "daemon_us": CPU time of the daemon for each connection."""
        before, asked = self._spent_s(), self._asked()
        command = program("connect", _SERVER, _PORT, "--core", pinning.cores().sender, *options)
        with processes.running(self.client, command, ready=False) as opening:
            said = opening.wait(120)
        if said["failed"] or not said["connections"]:
            raise LabError(f"{self.name}: {said['failed']} connections failed, {said['connections']} did not")
        if self.daemon is not None and self._asked() - asked < _NEARLY_ALL * said["connections"]:
            raise LabError(f"{self.name}: connections were opened that nobody was asked about")
        self.client.run(["conntrack", "-F"], check=False)
        return {**said, "daemon_us": (self._spent_s() - before) * 1e6 / said["connections"]}

    def _spent_s(self) -> float:
        return 0.0 if self.daemon is None else pinning.precise_cpu_s(self.daemon.pid)

    def _asked(self) -> int:
        return 0 if self.daemon is None else self.client.call(_packets_queued)


def measure(effort: Effort) -> Results:
    """Both rows."""
    with _pairs() as pairs:
        for pair in pairs.values():
            pair.connect("--count", 500, "--parallel", PARALLEL)
        seconds = ("--seconds", effort.seconds, "--count", _MOST)
        slow = alternate(NAMES, effort.rounds, lambda name: pairs[name].connect(*seconds, "--rate", PER_S))
        fast = alternate(NAMES, effort.rounds, lambda name: pairs[name].connect(*seconds, "--parallel", PARALLEL))
    return Results([_verdict_row(slow), _rate_row(fast)])


Said = dict[str, list[dict[str, Any]]]


def _verdict_row(said: Said) -> Row:
    columns = {"us to connect, p50": "p50_us", "us to connect, p99": "p99_us"}
    ours, theirs = ([one["p50_us"] for one in said[name]] for name in (GLACIC, OPENSNITCH))
    held = {
        name: sum(a["p50_us"] - b["p50_us"] for a, b in zip(said[name], said[NOBODY], strict=True)) / len(said[name])
        for name in NAMES
        if name not in (NOBODY, LEARNED)
    }
    listed = ", ".join(f"{name} {us:,.0f} us" for name, us in held.items())
    return Row(
        name="time-to-verdict",
        what=f"time of a new outgoing connection, {PER_S} a second, a rule or a learned flow being there",
        figures=_figures(said, columns),
        ratio=paired(ours, theirs),
        ratio_of=f"{GLACIC} / {OPENSNITCH}",
        note=f"Of the middle connection's time the daemon held it for: {listed} (what it takes more than unasked).",
    )


def _rate_row(said: Said) -> Row:
    rates: Said = {
        name: [{**one, "per_s": one["connections"] / one["seconds"]} for one in found] for name, found in said.items()
    }
    ours, theirs = ([one["per_s"] for one in rates[name]] for name in (GLACIC, OPENSNITCH))
    return Row(
        name="new-connections-per-second",
        what=f"new outgoing connections per second, {PARALLEL} at a time",
        figures=_figures(rates, {"connections/s": "per_s", "us CPU of the daemon for each": "daemon_us"}),
        ratio=paired(ours, theirs),
        ratio_of=f"{GLACIC} / {OPENSNITCH}",
    )


def _figures(said: Said, columns: dict[str, str]) -> tuple[Figure, ...]:
    return tuple(
        Figure(contestant=name, unit=unit, values=tuple(float(one[key]) for one in found))
        for unit, key in columns.items()
        for name, found in said.items()
    )


@contextlib.contextmanager
def _pairs() -> Iterator[dict[str, Pair]]:
    with (
        tempfile.TemporaryDirectory(prefix="glacic-bench-") as folder,
        Network() as network,
        contextlib.ExitStack() as stack,
    ):
        yield {name: _pair(name, network, stack, Path(folder)) for name in NAMES}


def _pair(name: str, network: Network, stack: contextlib.ExitStack, folder: Path) -> Pair:
    number = len(network.hosts)
    client, server = network.host(f"c{number}"), network.host(f"s{number}")
    network.cable(Port(client, "eth0", "", (f"{_CLIENT}/24",)), Port(server, "eth0", "", (f"{_SERVER}/24",)))
    cores = pinning.cores()
    stack.enter_context(processes.running(server, program("connect", "--listen", _PORT), core=cores.sender))
    commands: dict[str, list[str | float]] = {
        GLACIC: python("bench.contestants.glacic_queue", _QUEUE),
        PURE: python("bench.contestants.glacic_queue", _QUEUE, "--pure"),
        FLOOR: program("floor", _QUEUE),
    }
    if name == LEARNED:
        _load_learned(client)
    elif name == OPENSNITCH:
        daemon = stack.enter_context(processes.running(client, _opensnitchd(folder), ready=False))
        _wait_bound(client, daemon)
        pinning.pin(daemon.pid, cores.receiver)
        return Pair(name, client, daemon)
    elif name in commands:
        asking = _ASKING.format(mark=mark_of(POLICY.number), field=field(POLICY.number), queue=_QUEUE)
        client.run(["iptables-nft-restore"], text=asking)
        daemon = stack.enter_context(processes.running(client, commands[name], core=cores.receiver))
        return Pair(name, client, daemon)
    return Pair(name, client, None)


def _load_learned(host: Host) -> None:
    """Glacic's own ruleset, with the flow in its set; what is not learned is dropped."""
    script, policies = rulesets.glacic_ruleset(output=True)
    nft = host.call(Libnftables)
    host.call(nft.run, script)
    flow = (_LEARNED_POLICY, bytes(map(int, _CLIENT.split("."))), rulesets.TCP, _PORT, b"")
    host.call(LearnedSets(nft, KernelSets(), policies).reconcile, [(flow, "allowed")])


def _opensnitchd(folder: Path) -> Sequence[str]:
    etc, rules = folder / "etc", folder / "rules"
    installed = Path("/etc/opensnitchd")
    if shutil.which("opensnitchd") is None or not installed.is_dir():
        raise LabError("opensnitchd is missing; on Debian: tools/bench-packages")
    shutil.copytree(installed, etc)
    rules.mkdir()
    socket = folder / "ui.sock"  # nobody is there: rules alone decide
    server = {"Address": f"unix://{socket}", "LogFile": "/dev/null"}
    (etc / "default-config.json").write_text(json.dumps({"Server": server, **_SETTINGS}))
    (rules / "server.json").write_text(json.dumps(_RULE))
    start = ["unshare", "--mount", "--", "sh", "-c", _START, "sh"]
    return [*start, str(etc), str(rules), str(socket), str(_QUEUE)]


def _wait_bound(host: Host, daemon: processes.Running) -> None:
    """Until the queue has an owner and packets a way into it."""
    ends = time.monotonic() + _READY_S
    while not (
        host.call(_is_bound)
        and "NFQUEUE" in host.run(["iptables-nft", "-t", "mangle", "-S", "OUTPUT"], check=False).stdout
    ):
        if time.monotonic() > ends or daemon.process.poll() is not None:
            raise LabError("opensnitchd does not bind its queue")
        time.sleep(0.1)


def _is_bound() -> bool:
    with contextlib.closing(QueueTruth()) as truth:
        return _QUEUE in truth.read()


def _packets_queued() -> int:
    with contextlib.closing(QueueTruth()) as truth:
        return truth.read()[_QUEUE].id_sequence
