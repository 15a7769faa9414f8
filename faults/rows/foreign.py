"""Other programs' tables beside Glacic's: the same bytes before, during and after."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.service import BenchGlacic
from faults.bed import LEARNED, PATIENCE_S, config, kernel
from faults.result import Case
from glacic.lab import traffic
from glacic.lab.home import SERVER, home
from glacic.lab.net import Host

NAME = "foreign"
TITLE = "Other programs' tables"
PLACES = ("here", "vm")
PROMISE = """\
Tables of Docker, libvirt, fail2ban and CrowdSec (or of any other program) are never touched: what `nft` lists of each is
byte for byte the same before Glacic starts, while it learns and reloads, after a crash, after `glacic unload`."""
ADVICE = "Nothing. Beware that a packet has to pass every table: what another one drops, Glacic cannot let in."

TABLES = """
table ip nat {
    chain DOCKER {
        iifname "docker0" counter packets 0 bytes 0 return
        tcp dport 8080 dnat to 172.17.0.2:80
    }
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "docker0" ip saddr 172.17.0.0/16 masquerade
    }
}
table ip filter {
    chain DOCKER-USER { return; }
    chain FORWARD {
        type filter hook forward priority filter; policy accept;
        iifname "docker0" jump DOCKER-USER
    }
}
table ip libvirt_network {
    chain guest_input { tcp dport { 53, 67 } accept; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "virbr0" jump guest_input
    }
}
table inet f2b-table {
    set addr-set-sshd { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.7 } }
    chain f2b-chain {
        type filter hook input priority filter - 1; policy accept;
        tcp dport 22 ip saddr @addr-set-sshd reject with icmp port-unreachable
    }
}
table ip crowdsec {
    set crowdsec-blacklists { type ipv4_addr; flags timeout; elements = { 198.51.100.1 } }
    chain crowdsec-chain-input {
        type filter hook input priority filter - 10; policy accept;
        ip saddr @crowdsec-blacklists drop
    }
}
"""


def measure() -> Iterator[Case]:
    """All of them, through a life of the service."""
    yield life()


def life() -> Case:
    """Before, in force and learning, after reloads, killed, again, unloaded."""
    seen: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="glacic-faults-") as name, home() as hosts:
        hosts.router.run(["nft", "-f", "-"], text=TABLES)
        seen["before"] = checksums(hosts.router)
        glacic = BenchGlacic(hosts.router, Path(name), config())
        glacic.start()
        try:
            with hosts.server.call(traffic.Echo, [], [LEARNED]):
                answered = hosts.laptop.call(traffic.udp, SERVER, LEARNED, timeout_s=PATIENCE_S).ok
            seen["learning"] = checksums(hosts.router)
            for more in ('fail_mode = "closed"', 'fail_mode = "open"'):
                glacic.reload(config(more))
            seen["reloaded"] = checksums(hosts.router)
            glacic.kill()
            seen["killed"] = checksums(hosts.router)
            glacic.start()
            seen["started again"] = checksums(hosts.router)
            glacic.stop()
            glacic.cli("unload")
            seen["unloaded"] = checksums(hosts.router)
        finally:
            if glacic.process is not None:
                hosts.router.end(glacic.process)
    broken = [f"{when}: {', '.join(_changed(seen['before'], found))}" for when, found in seen.items()]
    broken = [text for text in broken if not text.endswith(": ")]
    if not answered:
        broken.append("nothing was learned")
    return Case(
        setting=", ".join(seen),
        kernel=kernel(),
        numbers={table: f"`{digest[:16]}` each time" for table, digest in seen["before"].items()},
        broken=tuple(broken),
    )


def checksums(host: Host) -> dict[str, str]:
    """SHA-256 of what nft lists of each table that is not ours; what a stand-in for the queue needs is not theirs."""
    listed = json.loads(host.run(["nft", "--json", "list", "tables"]).stdout)["nftables"]
    tables = [entry["table"] for entry in listed if "table" in entry]
    found = {}
    for table in tables:
        name: tuple[Any, Any] = table["family"], table["name"]
        if name != ("inet", "glacic") and table["name"] != "security":
            text = host.run(["nft", "--handle", "list", "table", *name]).stdout
            found[" ".join(name)] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
