"""The lab, the demo: a network being learned, told as steps with what was measured in each. Nothing here is written,
all is read.

    first      the first connection of a laptop to a server outside, once in each mode
    again      more connections of the same flow: does any of them reach the queue?
    review     learning off; a camera tries something new; pending, approved, denied

Refuses to print: every step is a Step, and table.py shows them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glacic.lab import traffic
from glacic.lab.home import CAMERA_MAC, SERVER, SERVER_6, Home, home
from glacic.lab.service import Glacic
from glacic.lab.traffic import Echo, Result

AGAIN = 100  # further connections of a learned flow
WEB, DNS, CLOUD = 8080, 53, 9000  # ports of the server outside
PATIENT_S = 60.0  # for what is to succeed, however slow the machine
SHORT_S = 2.0  # for what is to fail


@dataclass(frozen=True, slots=True)
class First:
    """The first connection of a flow, in one mode."""

    mode: str
    hook: str
    result: Result


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened: who did what, what came of it, and the figure that shows it."""

    who: str
    what: str
    outcome: str
    figure: str


@dataclass(frozen=True, slots=True)
class Story:
    """All of it. `learned`: the flows as `glacic flows list --json` gives them at the end."""

    kernel: str
    firsts: list[First]
    steps: list[Step]
    learned: list[dict[str, Any]]


def configuration(*, inline: bool) -> str:
    """The router's configuration: one line switches the mode."""
    return f"""\
rule_learning {{
  enabled       = true
  learning_mode = true
  inline_mode   = {str(inline).lower()}
  log_group     = 100
}}

zone "lan" {{
  interface = "lan0"
}}

zone "wan" {{
  interface = "wan0"
  external  = true
}}

policy "lan" "wan" {{
  action = "drop"
  learn  = true
}}
"""


def play(folder: Path, say: Callable[[str], None]) -> Story:
    """Build the network, run the service in both modes, and tell what happened. Raises LabError."""
    say("building a router, a laptop, a camera and a server in network namespaces")
    with home() as hosts, hosts.server.call(Echo, [WEB, CLOUD], [DNS]):
        say("asynchronous mode: the laptop's first connection")
        with Glacic(hosts.router, folder / "nflog", configuration(inline=False)) as glacic:
            nflog = First("asynchronous (nflog)", hook_line(glacic), connect(hosts, WEB))
            glacic.stop()
            glacic.cli("unload")
        say("inline mode: the laptop's first connection")
        with Glacic(hosts.router, folder / "inline", configuration(inline=True)) as glacic:
            inline = First("inline (nfqueue)", hook_line(glacic), connect(hosts, WEB))
            steps = list(review(hosts, glacic, say))
            learned = glacic.flows()
    return Story(platform.release(), [nflog, inline], steps, learned)


def connect(hosts: Home, port: int) -> Result:
    """The laptop's connection to the server outside."""
    return hosts.laptop.call(traffic.tcp, SERVER, port, timeout_s=PATIENT_S)


def review(hosts: Home, glacic: Glacic, say: Callable[[str], None]) -> Iterator[Step]:
    """What an administrator sees after the first connection."""
    before = glacic.queued()
    again = hosts.laptop.call(traffic.tcp, SERVER, WEB, count=AGAIN, timeout_s=PATIENT_S)
    reached = glacic.queued() - before
    yield Step("laptop", f"tcp/{WEB}, {AGAIN} times more", outcome(again), f"{packets(reached)} reached the queue")

    say("inline mode: UDP, and IPv6")
    before = glacic.queued()
    result = hosts.laptop.call(traffic.udp, SERVER, DNS, count=10, timeout_s=PATIENT_S)
    yield Step(
        "laptop", f"udp/{DNS}, 10 times", outcome(result), f"{packets(glacic.queued() - before)} reached the queue"
    )
    result = hosts.laptop.call(traffic.tcp, SERVER_6, WEB, timeout_s=PATIENT_S)
    yield Step("laptop", f"tcp/{WEB} over IPv6, same flow", outcome(result), f"{result.retransmits} retransmissions")

    say("learning off: the camera tries something new")
    glacic.call("learn.off")
    result = hosts.camera.call(traffic.tcp, SERVER, CLOUD, timeout_s=SHORT_S)
    flow = one_flow(glacic, CAMERA_MAC, "tcp", CLOUD)
    yield Step("camera", f"tcp/{CLOUD}, learning off", outcome(result), f"flow {flow['id']} is {flow['state']}")

    glacic.call("flows.set", verb="approve", flows=[str(flow["id"])])
    connection = hosts.camera.call(traffic.connect, SERVER, CLOUD, timeout_s=PATIENT_S)
    with connection:
        works = traffic.answers(connection)
        lost = traffic.total_retransmits(connection)
        yield Step("admin", f"flows approve {flow['id']}", "works" if works else "no answer", f"{lost} retransmissions")

        ended = glacic.call("flows.set", verb="deny", flows=[str(flow["id"])])["connections_ended"]
        connection.settimeout(SHORT_S)
        still = traffic.answers(connection)
        yield Step(
            "admin",
            f"flows deny {flow['id']}",
            "still works" if still else "stops at once",
            f"connections ended: {ended}",
        )


def one_flow(glacic: Glacic, source: str, protocol: str, port: int) -> dict[str, Any]:
    """The one flow of this source, protocol and port; waits until it is listed."""

    def listed() -> list[dict[str, Any]]:
        return glacic.flows(source=source, protocol=protocol, port=port)

    return glacic.wait(f"listing {source} {protocol}/{port}", listed)[0]


def hook_line(glacic: Glacic) -> str:
    """The line of the script that the laptop's packets end at."""
    lines = [line.strip() for line in glacic.cli("show").stdout.splitlines()]
    return next(line for line in lines if line.startswith("queue num") or 'prefix "lan_wan: "' in line)


def packets(count: int) -> str:
    """The count with its noun."""
    return f"{count} packet" if count == 1 else f"{count} packets"


def outcome(result: Result) -> str:
    """ "answered", or why not."""
    return "answered" if result.ok else result.error
