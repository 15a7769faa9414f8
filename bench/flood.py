"""A flood of spoofed keys, and what it does to everybody else: `python -m bench.flood [on|off]` prints the figures.

    client 10.0.0.1, any MAC ---- lan0 [                  ]
                                       [ router: Glacic   ] wan0 ---- server 10.0.1.2
    quiet  10.0.2.1 ------------- lan1 [                  ]

The client sends `keys` packets in `seconds`, each of a MAC that was never seen. The quiet host sends, at the same time,
packets of a flow that was learned before (each begins a connection: the kernel decides), and first packets of flows
that nobody has seen (the engine decides): what of both arrives is `answered`. Its policy learns; the client's does or
does not. Where that one learns, and more than learn_max come, nobody learns any more: that is what the limit is for.

The whole service runs, inline, over the stand-in where the kernel lacks `queue` (bench/standin.py). Refuses to judge.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import processes
from bench.sending import mac_text
from bench.service import (
    CLIENT,
    HOST_INTERFACE,
    LAN_INTERFACE,
    QUEUE,
    ROUTER_MAC,
    SERVER,
    WAN_INTERFACE,
    BenchGlacic,
    Road,
    memory_kib,
    road,
    scratch,
)
from glacic.lab.net import Host, Network, Port

KEYS, SECONDS = 1_000_000, 60.0
KNOWN_PER_S, NEW_PER_S = 20, 4  # in a minute fewer new flows than learn_max_per_source
_QUIET, _QUIET_MAC, _QUIET_ROUTER_MAC = "10.0.2.1", "02:00:00:00:02:01", "02:00:00:00:02:ff"
_QUIET_INTERFACE = "lan1"
_KNOWN_PORT, _NEW_PORTS, _FLOOD_PORT = 30_000, (31_000, 39_999), 9
_FIRST_MAC = 0x02_30_00_00_00_00
_SETTLE_S = 3.0


def config(*, learn_max: int = 100_000) -> str:
    """Two policies that learn, each from a zone of its own. Everything else is the default."""
    return f"""\
rule_learning {{
  enabled       = true
  learning_mode = true
  inline_mode   = true
  log_group     = {QUEUE}
  learn_max     = {learn_max}
}}
zone "lan" {{
  interface = "{LAN_INTERFACE}"
}}
zone "quiet" {{
  interface = "{_QUIET_INTERFACE}"
}}
zone "wan" {{
  interface = "{WAN_INTERFACE}"
  external  = true
}}
policy "lan" "wan" {{
  name = "lan_wan"
}}
policy "quiet" "wan" {{
  name = "quiet_wan"
}}
"""


@dataclass(slots=True)
class _Memory:
    """Resident sizes of both processes, sampled."""

    service: BenchGlacic
    before: dict[str, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    def now(self) -> dict[str, int]:
        """Of the two processes, KiB."""
        pids = zip(("control", "worker"), self.service.pids(), strict=True)
        return {name: memory_kib(pid)["rss"] for name, pid in pids}

    def moved(self) -> dict[str, int]:
        """How much more each has had than at the first look, at most, KiB."""
        return {name: self.highest[name] - rss for name, rss in self.before.items()}

    def sample(self) -> None:
        """Look."""
        for name, rss in self.now().items():
            self.before.setdefault(name, rss)
            self.highest[name] = max(self.highest.get(name, 0), rss)


def flood(
    *, learning: bool, keys: int = KEYS, seconds: float = SECONDS, learn_max: int = 100_000, folder: Path | None = None
) -> dict[str, Any]:
    """Flood a service, and say what came of it.

    learning: of the policy that is flooded. Returns counts of packets, flows and restarts; sizes in MiB:
    {"learning", "sent", "seconds", "known": {"sent", "answered"}, "new": {...}, "rss_before", "rss_most",
    "rss_after": {"control", "worker"}, "moved": the most that either grew, "flows", "decisions", "kernel_dropped",
    "user_dropped", "latency_us", "worker_starts", "log_lines"}.
    """
    with scratch() as made, Network() as network:
        bed = road(network)
        quiet = _quiet_host(network, bed)
        text = config(learn_max=learn_max)
        with BenchGlacic(bed.router, folder or made, text) as service:
            if not learning:
                service.call("learn.off", policies=["lan_wan"])
            _send(quiet, _KNOWN_PORT, _KNOWN_PORT, rate=1, count=1)
            _warm_up(bed, service)
            memory = _Memory(service)
            memory.sample()
            found = _flood(bed, quiet, keys, seconds, memory)
            time.sleep(_SETTLE_S)
            memory.sample()
            after = {
                name: memory_kib(pid)["rss"] for name, pid in zip(("control", "worker"), service.pids(), strict=True)
            }
            stats, queue = service.call("stats"), service.queue()
            return {
                "learning": learning,
                **found,
                "rss_before": _mib(memory.before),
                "rss_most": _mib(memory.highest),
                "rss_after": _mib(after),
                "moved": max(
                    _mib({name: memory.highest[name] - memory.before[name] for name in memory.before}).values()
                ),
                "flows": stats["flows"],
                "decisions": queue["decisions"],
                "kernel_dropped": queue["kernel_dropped"],
                "user_dropped": queue["user_dropped"],
                "latency_us": queue["latency_us"],
                "worker_starts": service.call("status")["worker_starts"],
                "log_lines": service.log.read_text().count("\n"),
            }


def _flood(bed: Road, quiet: Host, keys: int, seconds: float, memory: _Memory) -> dict[str, Any]:
    """The three at the same time."""
    ended = threading.Event()
    said: dict[str, Any] = {}
    count = int(seconds)
    last_new = _NEW_PORTS[0] + NEW_PER_S * count - 1

    def send_flood() -> None:
        options = ("--source-macs", keys, "--first-mac", mac_text(_FIRST_MAC), "--new", "--count", keys)
        ports = ("--ports", f"{_FLOOD_PORT}-{_FLOOD_PORT}", "--rate", keys / seconds)
        addresses = ("--source", CLIENT, "--destination", SERVER)
        said["flood"] = processes.send(
            bed.client, HOST_INTERFACE, ROUTER_MAC, *addresses, *options, *ports, core=0, timeout_s=10 * seconds + 60
        )

    def send_known() -> None:
        said["known"] = _send(quiet, _KNOWN_PORT, _KNOWN_PORT, rate=KNOWN_PER_S, count=KNOWN_PER_S * count)

    def send_new() -> None:
        said["new"] = _send(quiet, _NEW_PORTS[0], last_new, rate=NEW_PER_S, count=NEW_PER_S * count)

    def watch() -> None:
        while not ended.wait(0.5):
            memory.sample()

    known = processes.program("sink", "--interface", HOST_INTERFACE, "--ports", f"{_KNOWN_PORT}-{_KNOWN_PORT}")
    new = processes.program("sink", "--interface", HOST_INTERFACE, "--ports", f"{_NEW_PORTS[0]}-{last_new}")
    with processes.running(bed.server, known) as known_sink, processes.running(bed.server, new) as new_sink:
        watching = threading.Thread(target=watch)
        watching.start()
        senders = [threading.Thread(target=send) for send in (send_flood, send_known, send_new)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        time.sleep(_SETTLE_S)
        ended.set()
        watching.join()
        arrived = {"known": known_sink.end()["received"], "new": new_sink.end()["received"]}
    return {
        "sent": said["flood"]["sent"],
        "seconds": round(said["flood"]["seconds"], 1),
        **{name: {"sent": said[name]["sent"], "answered": arrived[name]} for name in arrived},
    }


def _quiet_host(network: Network, bed: Road) -> Host:
    quiet = network.host("quiet")
    network.cable(
        Port(quiet, HOST_INTERFACE, _QUIET_MAC, (f"{_QUIET}/24",)),
        Port(bed.router, _QUIET_INTERFACE, _QUIET_ROUTER_MAC, ("10.0.2.254/24",)),
    )
    bed.router.ip(f"neighbour replace {_QUIET} lladdr {_QUIET_MAC} dev {_QUIET_INTERFACE}")
    return quiet


def _send(quiet: Host, first: int, last: int, *, rate: float, count: int) -> dict[str, Any]:
    """One packet for each port in turn, from as many source ports, so that each begins a connection."""
    options = ("--source", _QUIET, "--destination", SERVER, "--first-mac", _QUIET_MAC, "--source-macs", 1)
    ports = ("--ports", f"{first}-{last}", "--source-ports", "2000-61999", "--rate", rate, "--count", count)
    return processes.send(quiet, HOST_INTERFACE, _QUIET_ROUTER_MAC, *options, *ports, core=0)


def _warm_up(bed: Road, service: BenchGlacic) -> None:
    """What both processes need once, before memory is compared: they are asked everything that they are asked later."""
    options = (
        "--source",
        CLIENT,
        "--destination",
        SERVER,
        "--source-macs",
        2000,
        "--first-mac",
        mac_text(0x02_2F << 32),
    )
    ports = ("--ports", f"{_FLOOD_PORT}-{_FLOOD_PORT}", "--new", "--count", 2000, "--rate", 2000)
    processes.send(bed.client, HOST_INTERFACE, ROUTER_MAC, *options, *ports, core=0)
    service.call("flows.list", limit=100)
    service.call("stats")


def _mib(kib: dict[str, int]) -> dict[str, float]:
    return {name: round(size / 1024, 1) for name, size in kib.items()}


def main(words: Sequence[str]) -> int:
    """Both floods, or the one that is named."""
    for word in words or ("on", "off"):
        json.dump(flood(learning=word == "on"), sys.stdout, indent=2)
        sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
