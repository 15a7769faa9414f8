"""kill -9 in the middle of learning: `python -m bench.kill` prints what was accepted and what is remembered.

First packets of new flows come in at `rate` a second; the whole service, inline, is killed with its worker; `fail_mode`
is closed, so whatever came to the server was accepted by the engine. With `durable` every flow of it is in the
database; without, those of the last group commit interval (200 ms) may be missing, and no other.

Refuses to judge.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from bench import processes
from bench.sending import mac_text
from bench.service import CLIENT, HOST_INTERFACE, ROUTER_MAC, SERVER, BenchGlacic, Road, config, road, scratch
from glacic.lab.net import Network
from glacic.learning.store import Store

_FIRST_MAC = 0x02_40_00_00_00_00
_PORT = 9
_QUIET_S = 0.5  # what was accepted has arrived by then


def killed(*, durable: bool, rate: float = 300, after_s: float = 2.0) -> dict[str, Any]:
    """Kill a service that learns. Returns {"durable", "accepted", "remembered", "forgotten", "forgotten_ms": what they
    come to at this rate}: numbers of flows."""
    text = config().replace("  log_group ", f'  durable = {str(durable).lower()}\n  fail_mode = "closed"\n  log_group ')
    with scratch() as folder, Network() as network:
        bed = road(network)
        service = BenchGlacic(bed.router, folder, text)
        service.start()
        sink = processes.program("sink", "--interface", HOST_INTERFACE, "--ports", f"{_PORT}-{_PORT}")
        with processes.running(bed.server, sink) as arriving:
            sender = threading.Thread(target=_send, args=(bed, rate, 2 * after_s))
            sender.start()
            time.sleep(after_s)
            service.kill()
            time.sleep(_QUIET_S)
            sender.join()
            accepted = int(arriving.end()["received"])
        with Store.open(service.database) as store:
            remembered = store.count()
    forgotten = max(accepted - remembered, 0)
    return {
        "durable": durable,
        "accepted": accepted,
        "remembered": remembered,
        "forgotten": forgotten,
        "forgotten_ms": round(1000 * forgotten / rate, 1),
    }


def _send(bed: Road, rate: float, seconds: float) -> None:
    count = int(rate * seconds)
    macs = ("--source-macs", count, "--first-mac", mac_text(_FIRST_MAC), "--new")
    options = ("--source", CLIENT, "--destination", SERVER, "--ports", f"{_PORT}-{_PORT}", *macs)
    processes.send(bed.client, HOST_INTERFACE, ROUTER_MAC, *options, "--count", count, "--rate", rate, core=0)


if __name__ == "__main__":
    for chosen in (True, False):
        json.dump(killed(durable=chosen), sys.stdout, indent=2)
        sys.stdout.write("\n")
