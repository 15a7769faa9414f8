"""What packets get when nobody answers: each fail mode with the kernel's own `queue` statement.

From outside nothing gets in, in any of them. One service for all tests here: each has its configuration reloaded, all
flows forgotten but one that it learns, and leaves the service running.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.lab import traffic
from glacic.lab.home import LAPTOP_MAC, ROUTER_WAN, SERVER, SERVER_6, Home, home
from glacic.lab.service import Glacic

PATIENT_S = 60.0
SHORT_S = 2.0
LEARNED, NEW, OTHER = 8100, 8101, 8102


def config(more: str = "", action: str = "drop") -> str:
    return f"""\
rule_learning {{
  enabled       = true
  learning_mode = true
  inline_mode   = true
  log_group     = 100
{more}
}}
zone "lan" {{
  interface = "lan0"
}}
zone "wan" {{
  interface = "wan0"
  external  = true
}}
policy "lan" "wan" {{
  name   = "lan_wan"
  action = "{action}"
}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, [LEARNED, NEW, OTHER], [LEARNED, NEW, OTHER]):
        yield hosts


@pytest.fixture(scope="module")
def service(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path_factory.mktemp("fail-modes"), config()) as started:
        yield started


def running(lab: Home, service: Glacic, more: str = "", action: str = "drop") -> Glacic:
    """The service with this configuration, learning, with one flow learned and no connection left."""
    if service.process is None:  # a test before this one has failed
        service.start()
    service.reload(config(more, action))
    service.call("flows.set", verb="forget", filters={})
    service.call("learn.on")
    lab.router.run(["conntrack", "-F"])
    assert lab.laptop.call(traffic.tcp, SERVER, LEARNED, timeout_s=PATIENT_S).ok
    return service


def outside_gets_in(lab: Home) -> bool:
    with lab.router.call(traffic.Echo, [NEW]), lab.laptop.call(traffic.Echo, [NEW]):
        return any(
            lab.server.call(traffic.tcp, address, NEW, timeout_s=SHORT_S).ok for address in (ROUTER_WAN, "10.1.0.10")
        )


def fail_open(glacic: Glacic) -> int:
    return int(glacic.call("stats")["queues"][0]["fail_open"])


def fill_the_queue() -> None:
    """More new flows than any queue holds: one datagram each to every port of a range."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(20_000, 30_000):
            sender.sendto(b"x", (SERVER, port))


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_killed_under_traffic_the_service_leaves_what_fail_mode_says(lab: Home, service: Glacic, mode: str) -> None:
    glacic = running(lab, service, f'  fail_mode = "{mode}"')
    let_through = fail_open(glacic)
    flood = lab.laptop.popen(["bash", "-c", f"while :; do echo x > /dev/udp/{SERVER}/{LEARNED}; done"])
    try:
        glacic.wait("under traffic", lambda: glacic.flows(protocol="udp", port=LEARNED, state="allowed"))
        glacic.kill()
    finally:
        lab.laptop.end(flood)
    for server in (SERVER, SERVER_6):
        assert lab.laptop.call(traffic.tcp, server, NEW, timeout_s=PATIENT_S if mode == "open" else SHORT_S).ok is (
            mode == "open"
        )
    assert lab.laptop.call(traffic.tcp, SERVER, LEARNED, timeout_s=PATIENT_S).ok  # the kernel knows it
    assert not outside_gets_in(lab)
    marked = lab.router.run(["conntrack", "-L", "--mark", "0x800000/0x800000"]).stdout
    assert (str(NEW) in marked) is (mode == "open")
    glacic.start()
    assert [flow["state"] for flow in glacic.flows(source=LAPTOP_MAC, protocol="tcp", port=LEARNED)] == ["allowed"]
    assert glacic.flows(port=NEW) == []  # what a fail mode let in is not learned
    let_through = fail_open(glacic) - let_through
    assert (let_through >= 2) if mode == "open" else (let_through == 0)


@pytest.mark.parametrize("back", ["learning off", "allowed by now", "learning on", "fail_open_keep"])
def test_what_a_fail_mode_let_in_ends_when_the_worker_is_back_unless_it_may_stay(
    lab: Home, service: Glacic, back: str
) -> None:
    more = f'  fail_mode = "open"\n  fail_open_keep = {"true" if back == "fail_open_keep" else "false"}'
    glacic = running(lab, service, more)
    glacic.flows()  # what was learned is on disk
    if back != "learning on":
        glacic.call("learn.off")
    glacic.kill()
    if back == "allowed by now":
        allow(glacic.state_dir)
    with lab.laptop.call(traffic.connect, SERVER, NEW, timeout_s=PATIENT_S) as connection:
        assert traffic.answers(connection)
        assert f"dport={NEW}" in let_in(lab)
        glacic.start()
        glacic.wait("settled", lambda: glacic.state() == "running")
        ends, marked = back == "learning off", back in ("learning on", "fail_open_keep")
        listed = glacic.call("connections")
        assert listed["total"] == glacic.call("status")["fail_open_connections"] == (1 if marked else 0)
        assert [row["port"] for row in listed["connections"]] == ([NEW] if marked else [])
        assert (f"dport={NEW}" in let_in(lab)) is marked
        connection.settimeout(SHORT_S if ends else PATIENT_S)
        assert traffic.answers(connection) is not ends


def let_in(lab: Home) -> str:
    return lab.router.run(["conntrack", "-L", "-p", "tcp", "--mark", "0x800000/0x800000"]).stdout


def allow(folder: Path) -> None:
    """The new flow is in the database beside the learned one, and nobody runs who could tell the kernel."""
    columns = "policy, source, protocol, destination, first_seen, last_seen, packets, origin"
    with sqlite3.connect(next(folder.rglob("flows.db"))) as database:
        where = f"FROM flow WHERE port = {LEARNED} AND protocol = 6"
        database.execute(f"INSERT INTO flow (port, state, {columns}) SELECT {NEW}, 2, {columns} {where}")


@pytest.mark.parametrize("full", ["closed", "open"])
def test_a_full_queue_drops_unless_told_otherwise(lab: Home, service: Glacic, full: str) -> None:
    glacic = running(lab, service, f'  queue_full = "{full}"')
    let_through = fail_open(glacic)
    assert glacic.process is not None
    stopped = [glacic.process.pid, glacic.worker()]  # the parent first, or it would end its worker
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        lab.laptop.call(fill_the_queue)
        assert lab.laptop.call(traffic.tcp, SERVER, OTHER, timeout_s=PATIENT_S if full == "open" else SHORT_S).ok is (
            full == "open"
        )
        assert not outside_gets_in(lab)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    glacic.wait("in force again", lambda: glacic.state() == "running")
    assert (fail_open(glacic) > let_through) is (full == "open")


def test_a_policy_that_rejects_says_so_for_what_it_does_not_allow(lab: Home, service: Glacic) -> None:
    glacic = running(lab, service, action="reject")
    glacic.call("learn.off")
    for server in (SERVER, SERVER_6):
        assert lab.laptop.call(traffic.tcp, server, NEW, timeout_s=PATIENT_S).error == "refused"
        assert lab.laptop.call(traffic.udp, server, NEW, timeout_s=PATIENT_S).error in {"refused", "unreachable"}
    glacic.call("flows.set", verb="deny", filters={"protocol": "tcp", "port": NEW})
    before = glacic.queued()
    assert lab.laptop.call(traffic.tcp, SERVER, NEW, timeout_s=PATIENT_S).error == "refused"  # by the kernel alone
    assert glacic.queued() == before


def test_several_queues_share_the_work(lab: Home, service: Glacic) -> None:
    glacic = running(lab, service, "  queues = 4")
    assert lab.laptop.call(traffic.tcp, SERVER, NEW, timeout_s=PATIENT_S).retransmits == 0
    queues = glacic.call("stats")["queues"]
    assert [queue["num"] for queue in queues] == [100, 101, 102, 103]
    assert sum(queue["processed"] for queue in queues) >= 2


def test_a_packet_window_sends_the_first_packets_of_a_connection_through_the_queue(lab: Home, service: Glacic) -> None:
    more = '  packet_window = 5\n  offload_mark  = "0x10000000"'
    glacic = running(lab, service, more)
    before = glacic.queued()
    with lab.laptop.call(traffic.connect, SERVER, LEARNED, timeout_s=PATIENT_S) as connection:
        for _ in range(20):
            assert traffic.answers(connection)
        assert 5 <= glacic.queued() - before <= 8  # those on their way when the fifth was answered come too
        offloaded = lab.router.run(["conntrack", "-L", "--mark", "0x10000000/0x10000000"]).stdout
        assert f"dport={LEARNED}" in offloaded


def test_a_rate_limit_keeps_packets_from_user_space_and_decides_nothing_for_a_fail_mode(
    lab: Home, service: Glacic
) -> None:
    glacic = running(lab, service, '  rate_limit = "5/minute"\n  fail_mode = "open"')
    glacic.call("learn.off")
    before = glacic.queued()
    assert lab.laptop.call(traffic.udp, SERVER, NEW, timeout_s=SHORT_S).error == "timed out"
    lab.laptop.call(send_many, NEW)
    assert 0 < glacic.queued() - before <= 12
    glacic.kill()
    assert lab.laptop.call(traffic.udp, SERVER, NEW, count=30, timeout_s=PATIENT_S).ok  # nobody listens: all pass
    glacic.start()


def send_many(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(200):
            sender.sendto(b"x", (SERVER, port))
