"""50 reloads while connections come in as fast as this machine carries them: none lost, none wrongly passed.

    laptop --- connect: port 8100, which a rule accepts; port 8110, which was learned ---> router ---> server: connect
    laptop --- traffic: SYNs to four forbidden ports, a steady stream -----------------> router ---> server: sink

Two configurations take turns that differ in rules, policies' actions, zones and named sets, and agree in what is
allowed and what is not:

    8100 allowed    by a rule with the port in it                        by a named set, behind forty other rules
    8110 allowed    it was learned                                       the same
    9000 forbidden  by a rule                                            by the policy's action, which is reject here
    9001 forbidden  by a rule with a range, before one that accepts it   by a rule with a named set, before such a one
    9002 forbidden  a person has denied the flow                         the same
    9003 forbidden  nobody has decided it, and learning is off           the same: inline, each of its SYNs is held

A connection counts as answered when eight bytes have come back on it; the kernel counts every segment that had to be
sent again, so a single lost SYN is seen. The sink sees every packet that leaves the router for the server.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes
from bench.service import BenchGlacic
from faults.bed import EMULATED, PATIENCE_S, SLOWER, Log, kernel
from faults.result import PASS, STOP, Case, Count
from glacic.lab import traffic
from glacic.lab.home import LAPTOP, ROUTER_LAN_MAC, SERVER, Home, home

NAME = "reloads"
TITLE = "50 reloads under load"
PLACES = ("here", "vm")
PROMISE = """\
A packet meets the old ruleset or the new one, and never none or half of one. What both allow is never lost, what both
forbid never passes, whether a rule, a learned flow or the queue decides it."""
ADVICE = "Nothing: reload whenever you like. A reload that is refused changes nothing, and says why."

RULED, LEARNED = 8100, 8110
FORBIDDEN = range(9000, 9004)
DENIED = 9002
RELOADS = 50
FORBIDDEN_PER_S = 200 if EMULATED else 8_000
PARALLEL = 4 if EMULATED else 24

_HEAD = """\
rule_learning {{
  enabled       = true
  learning_mode = true
  inline_mode   = {inline}
  log_group     = 100
}}
zone "wan" {{
  interface = "wan0"
  external  = true
}}
"""
_ONE = """\
zone "lan" {
  interface = "lan0"
}
policy "lan" "wan" {
  name   = "lan_wan"
  action = "drop"
  rule "service" {
    proto     = "tcp"
    dest_port = 8100
    action    = "accept"
  }
  rule "never" {
    proto     = "tcp"
    dest_port = 9000
    action    = "drop"
  }
  rule "nor this" {
    proto     = "tcp"
    dest_port = [9001, "9400-9410"]
    action    = "drop"
  }
  rule "else that" {
    proto     = "tcp"
    dest_port = 9001
    action    = "accept"
  }
}
"""
_OTHER = """\
set "served" {
  type     = "inet_service"
  elements = ["8100", "8500-8510"]
}
set "refused" {
  type     = "inet_service"
  elements = ["9001", "9500-9510"]
}
zone "lan" {
  interfaces = ["lan0", "lan1"]
  services {
    dns = true
  }
  management {
    ssh = true
  }
}
zone "guests" {
  interface = "guest0"
}
policy "guests" "wan" {
  name   = "guests_wan"
  action = "accept"
}
policy "lan" "wan" {
  name   = "lan_wan"
  action = "reject"
FORTY
  rule "never" {
    proto     = "tcp"
    dest_port = "@refused"
    action    = "reject"
  }
  rule "else that" {
    proto     = "tcp"
    dest_port = 9001
    action    = "accept"
  }
  rule "service" {
    proto     = "tcp"
    dest_port = "@served"
    action    = "accept"
  }
}
"""
_FORTY = "\n".join(
    f'  rule "other_{number}" {{\n    proto = "udp"\n    dest_port = {7000 + number}\n    action = "accept"\n  }}'
    for number in range(40)
)


def configurations(*, inline: bool) -> tuple[str, str]:
    """The two that take turns."""
    head = _HEAD.format(inline="true" if inline else "false")
    return head + _ONE, head + _OTHER.replace("FORTY", _FORTY)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run came to: connections by port as `connect` says them, and what the sink got of forbidden packets."""

    connections: dict[int, dict[str, Any]]
    forbidden: int
    passed: int
    reloads: int
    seconds: float
    slowest_s: float
    workers: int  # that were started: one, unless one was ended
    let_in: int  # by a fail mode, as the kernel counts
    said: dict[str, int]
    seen_without: int  # forbidden packets that came where there was no firewall: the sink does see them

    @property
    def per_s(self) -> float:
        """New connections a second, in all."""
        return float(sum(each["connections"] + each["failed"] for each in self.connections.values()) / self.seconds)

    def lost(self) -> int:
        """Connections that were not answered, and segments that had to be sent again."""
        again = 0 if EMULATED else 1  # an emulated machine stands still for longer than a SYN waits
        return sum(each["failed"] + again * each["retransmits"] for each in self.connections.values())


def measure() -> Iterator[Case]:
    """nflog and inline."""
    for inline in (False, True):
        yield case(load(inline=inline, reloads=20 if EMULATED else RELOADS), inline=inline)


def load(*, inline: bool, reloads: int) -> Load:
    """So many reloads under load."""
    with tempfile.TemporaryDirectory(prefix="glacic-faults-") as folder, home() as hosts:
        configuration = configurations(inline=inline)
        with BenchGlacic(hosts.router, Path(folder), configuration[0]) as glacic, _servers(hosts) as sink:
            _learn(hosts, glacic)
            log = Log(glacic)
            found = _under_load(hosts, glacic, configuration, reloads)
            queues = glacic.call("stats")["queues"]
            found |= {
                "workers": glacic.call("status")["worker_starts"],
                "let_in": queues[0]["fail_open"] if queues else 0,
                "said": log.troubles(),
            }
            passed = sink.end()["received"]
        hosts.router.run([*glacic.command("unload")], environment=None)
        seen = without(hosts)
    return Load(**found, passed=passed, seen_without=seen)


def case(of: Load, *, inline: bool) -> Case:
    """In the table's words."""
    counts = {
        _NAMES[port]: Count(PASS, each["connections"] + each["failed"], each["connections"])
        for port, each in of.connections.items()
    }
    counts["forbidden"] = Count(STOP, of.forbidden, of.passed)
    broken = [f"{of.lost()} connections or segments are lost"] if of.lost() else []
    broken += [f"{of.passed} forbidden packets passed"] if of.passed else []
    if of.workers > 1:
        broken.append("the worker was ended, so a fail mode decided for a while")
    if not of.seen_without:
        broken.append("the sink sees nothing: that nothing passed says nothing")
    sent_again = sum(each["retransmits"] for each in of.connections.values())
    return Case(
        setting="inline" if inline else "nflog",
        kernel=kernel(),
        traffic=counts,
        said=of.said,
        numbers={
            "reloads": str(of.reloads),
            "seconds": f"{of.seconds:.1f}",
            "new connections/s": f"{of.per_s:,.0f}",
            "segments sent again": str(sent_again),
            "forbidden packets/s": f"{of.forbidden / of.seconds:,.0f}",
            "slowest reload": f"{of.slowest_s:.2f} s",
        },
        broken=tuple(broken),
    )


_NAMES = {RULED: "allowed by a rule", LEARNED: "learned"}


@contextlib.contextmanager
def _servers(hosts: Home) -> Iterator[processes.Running]:
    """What answers, and the sink for what must not come."""
    with contextlib.ExitStack() as stack:
        for port in (RULED, LEARNED):
            command = processes.program("connect", "--listen", port, "--answer")
            stack.enter_context(processes.running(hosts.server, command))
        yield stack.enter_context(processes.running(hosts.server, _sink()))


def _sink() -> list[str | float]:
    ports = f"{FORBIDDEN[0]}-{FORBIDDEN[-1]}"
    return processes.program("sink", "--interface", "eth0", "--ports", ports)


def _learn(hosts: Home, glacic: BenchGlacic) -> None:
    """One flow is learned, one is denied, and then nothing is learned any more."""
    hosts.laptop.call(traffic.tcp, SERVER, LEARNED, timeout_s=PATIENCE_S)  # in nflog mode by its second SYN
    glacic.wait("learning", lambda: glacic.flows(port=LEARNED, state="allowed"))
    glacic.call("learn.off")
    hosts.laptop.call(traffic.tcp, SERVER, DENIED, timeout_s=0.2 * SLOWER)
    glacic.wait("asking", lambda: glacic.flows(port=DENIED, state="pending"))
    glacic.call("flows.set", verb="deny", filters={"port": DENIED})


def _under_load(hosts: Home, glacic: BenchGlacic, configuration: tuple[str, str], reloads: int) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        clients = {
            port: stack.enter_context(processes.running(hosts.laptop, _client(port), ready=False))
            for port in (RULED, LEARNED)
        }
        forbidden = stack.enter_context(processes.running(hosts.laptop, _forbidden(), ready=False))
        began, slowest_s = time.monotonic(), 0.0
        time.sleep(0.5 * SLOWER)
        for number in range(1, reloads + 1):
            asked = time.monotonic()
            glacic.configure(configuration[number % 2])
            glacic.call("reload", keep_connections=True)  # else each looks through all that ended a moment ago, first
            slowest_s = max(slowest_s, time.monotonic() - asked)
        time.sleep(0.5 * SLOWER)
        sent = forbidden.end()
        connections = {port: client.end() for port, client in clients.items()}
        seconds = time.monotonic() - began
    return {
        "connections": connections,
        "forbidden": sent["sent"],
        "reloads": reloads,
        "seconds": seconds,
        "slowest_s": slowest_s,
    }


def _client(port: int) -> list[str | float]:
    patience_s = 10 * SLOWER
    return processes.program("connect", SERVER, port, "--ask", "--parallel", PARALLEL, "--patience", patience_s)


def _forbidden(*options: str | float) -> list[str | float]:
    ports = ("--ports", f"{FORBIDDEN[0]}-{FORBIDDEN[-1]}", "--source-ports", "2000-61999")
    road = ("eth0", ROUTER_LAN_MAC, "--source", LAPTOP, "--destination", SERVER, "--first-mac", "02:00:00:00:00:10")
    return processes.program("traffic", *road, *ports, "--protocol", "syn", "--rate", FORBIDDEN_PER_S, *options)


def without(hosts: Home) -> int:
    """How many of 1,000 forbidden packets the sink gets where there is no firewall."""
    with processes.running(hosts.server, _sink()) as sink:
        with processes.running(hosts.laptop, _forbidden("--count", 1_000), ready=False) as sender:
            sender.wait(PATIENCE_S)
        time.sleep(0.3 * SLOWER)
        return int(sink.end()["received"])
