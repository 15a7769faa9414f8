"""The watch over the table in a namespace: cheap while the worker learns, and not deceived when events are lost."""

from __future__ import annotations

import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.tablewatch import Report, TableWatch
from glacic.firewall.nft import Libnftables
from glacic.lab.net import Host, Network

PATIENT_S = 20.0
TABLE = """\
table inet glacic {
	set allowed_lan_mac_port { typeof ether saddr . meta l4proto . th dport; counter; }
	set named { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 } }
	chain learned_lan { ether saddr . meta l4proto . th dport @allowed_lan_mac_port accept; }
	chain input {
		type filter hook input priority 0; policy drop;
		tcp dport { 22, 80 } ip saddr @named counter accept
		jump learned_lan
	}
}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("host")


class Watched:
    """A watch in a host of the lab, and what it has told."""

    def __init__(self, host: Host, owners: Callable[[], set[int]] = lambda: {os.getpid()}, **options: Any) -> None:
        self.host = host
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.watch: TableWatch = host.call(self._begin, owners, options)
        self._ours: ThreadPoolExecutor = host.call(self._begin_thread)
        self.ours(self._load)
        assert self.watch.settle(PATIENT_S)

    def _begin(self, owners: Callable[[], set[int]], options: dict[str, Any]) -> TableWatch:
        watch = TableWatch(owners, self.reports.put, **options)
        watch.start()
        return watch

    def _begin_thread(self) -> ThreadPoolExecutor:
        """Our own thread in the host, which lives on after what it has done, as the service's threads do."""
        executor = ThreadPoolExecutor(1)
        executor.submit(int).result()  # it enters no namespace: it is born in this one
        return executor

    def _load(self) -> None:
        Libnftables().run(TABLE)

    def ours(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have something done by a thread of ours."""
        return self._ours.submit(function, *arguments).result()

    def told(self) -> list[str]:
        """What is different now."""
        assert self.watch.look(PATIENT_S)
        last: list[str] = []
        while not self.reports.empty():
            last = [found.what for found in self.reports.get().findings]
        return last

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.shutdown()
        self.watch.stop()


def keys(count: int, first: int = 0) -> list[bytes]:
    return [struct.pack("!6s2xB3xH2x", number.to_bytes(6, "big"), 6, 80) for number in range(first, first + count)]


def learn(count: int, at_once: int = 20) -> None:
    kernel = KernelSets()
    every = keys(count)
    for at in range(0, count, at_once):
        kernel.change({}, {"allowed_lan_mac_port": every[at : at + at_once]})


def test_ten_thousand_learned_elements_cost_nothing_and_are_no_change(host: Host) -> None:
    with Watched(host) as watched:
        before = _cpu_of(watched.watch)
        watched.ours(learn, 10_000)
        assert watched.told() == []
        assert watched.reports.empty()
        assert _cpu_of(watched.watch) - before < 0.5  # seconds; measured: a few milliseconds


def _cpu_of(thread: threading.Thread) -> float:
    fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_same_from_another_socket_of_ours_is_no_change_either(host: Host) -> None:
    with Watched(host) as watched:
        first, other = KernelSets(), KernelSets()
        watched.ours(first.change, {}, {"allowed_lan_mac_port": keys(1)})  # has the port
        watched.ours(other.change, {}, {"allowed_lan_mac_port": keys(50, 100)})
        assert watched.told() == []


def test_a_set_made_on_need_with_its_lookup_is_no_change_and_its_loss_is_one(host: Host) -> None:
    made = "add set inet glacic refused_lan_mac_port { typeof ether saddr . meta l4proto . th dport; counter; }\n"
    rule = (
        "flush chain inet glacic learned_lan\nadd rule inet glacic learned_lan ether saddr . meta l4proto . th dport "
    )
    with Watched(host) as watched:
        nft = watched.ours(Libnftables)
        watched.ours(nft.run, f"{made}{rule}@refused_lan_mac_port drop\n")
        assert watched.told() == []
        host.run(["nft", "flush", "chain", "inet", "glacic", "learned_lan"])
        assert watched.told() == ["rule deleted from chain learned_lan (number 1 of 1)"]
        watched.ours(nft.run, f"{rule}@refused_lan_mac_port drop\n")
        assert watched.told() == []


def test_a_change_that_is_lost_among_others_is_found_by_comparing(host: Host) -> None:
    """The smallest receive buffer there is, and more events at once than fit in it."""
    with Watched(host, buffer=1) as watched:
        crowd = "".join(f"add element inet other many {{ {number} }}\n" for number in range(1, 3000))
        theirs = "add table inet other\nadd set inet other many { type mark; }\n"
        host.run(["nft", "-f", "-"], text=f"{theirs}{crowd}add rule inet glacic input accept\n")
        report = watched.reports.get(timeout=PATIENT_S)
        while not report.findings:
            report = watched.reports.get(timeout=PATIENT_S)
        assert [found.what for found in report.findings] == ["rule added to chain input: (immediate)"]
        assert report.lost


def test_while_a_ruleset_is_put_in_force_a_loss_is_not_judged(host: Host) -> None:
    busy = True
    with Watched(host, buffer=1, busy=lambda: busy) as watched:
        nft = watched.ours(Libnftables)
        many = "".join(f"add rule inet glacic input ip saddr 192.0.2.{number} accept\n" for number in range(250)) * 20
        watched.ours(nft.run, many)
        assert watched.told() == []
        assert watched.watch.settle(PATIENT_S)
        busy = False
        assert watched.told() == []
        host.run(["nft", "add", "chain", "inet", "glacic", "input", "{ policy accept; }"])
        assert watched.told() == ["chain input: policy changed from drop to accept"]


def test_a_change_between_two_looks_is_found_although_no_event_says_so(host: Host) -> None:
    """By a program that has taken the port whose events are not looked at."""
    with Watched(host, look_s=0.2) as watched:
        host.call(_drop_named, "named")
        report = watched.reports.get(timeout=PATIENT_S)
        assert [found.what for found in report.findings] == ["element deleted from set named: 192.0.2.0"]
        assert report.findings[0].by == "unknown"


def _drop_named(name: str) -> None:
    KernelSets().change({name: [bytes([192, 0, 2, 0]), bytes([192, 0, 3, 0])]}, {})


def test_it_says_who_did_it_also_by_a_thread(host: Host) -> None:
    code = (
        "import threading, nftables\n"
        "nft = nftables.Nftables()\n"
        "def work(): nft.cmd('add chain inet glacic theirs'); print('done', flush=True); input()\n"
        "threading.Thread(target=work).start()\n"
    )
    with Watched(host) as watched:
        rival = host.popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
        assert rival.stdout is not None
        assert rival.stdin is not None
        assert rival.stdout.readline() == b"done\n"
        report = watched.reports.get(timeout=PATIENT_S)
        assert report.findings[0].by.endswith(f"(pid {rival.pid})")
        host.end(rival)


def test_the_table_can_be_deleted_and_come_back(host: Host) -> None:
    with Watched(host) as watched:
        host.run(["nft", "delete", "table", "inet", "glacic"])
        assert watched.told() == ["table deleted"]
        host.run(["nft", "-f", "-"], text=TABLE)
        assert watched.told() == []


def test_a_busy_neighbour_is_not_waited_for(host: Host) -> None:
    with Watched(host) as watched:
        began = time.monotonic()
        host.run(["nft", "add", "chain", "inet", "glacic", "theirs"])
        assert watched.reports.get(timeout=PATIENT_S).new[0].what == "chain added: theirs"
        assert time.monotonic() - began < 2.0
