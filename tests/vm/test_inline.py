"""The inline road, whole: the kernel's own `queue` statement, the service, and packets.

One service for all tests here, so every test uses ports (or sources) of its own and leaves learning on behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.lab import traffic
from glacic.lab.home import CAMERA_MAC, LAPTOP_MAC, ROUTER_LAN, ROUTER_WAN, SERVER, SERVER_6, Home, home
from glacic.lab.service import Glacic

PATIENT_S = 60.0  # for what must succeed, however slow
SHORT_S = 2.0  # for what must fail

CONFIG = """\
rule_learning {
  enabled       = true
  learning_mode = true
  inline_mode   = true
  log_group     = 100
}
zone "lan" {
  interface = "lan0"
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {
  name   = "lan_wan"
  action = "drop"
  rule "web" {
    proto     = "tcp"
    dest_port = 80
    action    = "accept"
  }
}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, [80, *range(8000, 8030)], [53, *range(8000, 8030)]):
        yield hosts


@pytest.fixture(scope="module")
def service(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path_factory.mktemp("inline"), CONFIG) as running:
        yield running


@pytest.fixture
def glacic(service: Glacic) -> Glacic:
    service.call("learn.on")
    return service


def state(glacic: Glacic, port: int, source: str = LAPTOP_MAC) -> str | None:
    """The state of the flow of this port, None if it is unknown."""
    flows = glacic.flows(source=source, port=port)
    return flows[0]["state"] if flows else None


def set_flow(glacic: Glacic, verb: str, port: int, source: str = LAPTOP_MAC) -> dict[str, int]:
    result: dict[str, int] = glacic.call("flows.set", verb=verb, filters={"source": source, "port": port})
    assert result["changed"] == 1
    return result


@pytest.mark.parametrize(("server", "port"), [(SERVER, 8001), (SERVER_6, 8002)], ids=["IPv4", "IPv6"])
def test_the_first_syn_is_kept_and_a_thousand_connections_later_the_queue_has_seen_nothing_more(
    lab: Home, glacic: Glacic, server: str, port: int
) -> None:
    first = lab.laptop.call(traffic.tcp, server, port, timeout_s=PATIENT_S)
    assert (first.ok, first.retransmits) == (True, 0)
    assert state(glacic, port) == "allowed"
    before = glacic.queued()
    assert lab.laptop.call(traffic.tcp, server, port, count=1000, timeout_s=PATIENT_S).ok
    assert glacic.queued() == before
    assert glacic.flows(source=LAPTOP_MAC, port=port)[0]["packets"] == 1001


def test_udp_and_ping_are_learned_by_their_first_packet(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.udp, SERVER, 8003, count=3, timeout_s=PATIENT_S).ok
    assert lab.laptop.call(traffic.ping, SERVER, count=3, timeout_s=PATIENT_S).ok
    learned = {(flow["protocol"], flow["port"]) for flow in glacic.flows(source=LAPTOP_MAC, state="allowed")}
    assert {("udp", 8003), ("icmp", 8)} <= learned


def test_what_a_rule_decides_is_not_learned(lab: Home, glacic: Glacic) -> None:
    before = glacic.queued()
    assert lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=PATIENT_S).ok
    assert (glacic.queued(), state(glacic, 80)) == (before, None)


def test_with_learning_off_a_flow_waits_until_it_is_approved_and_stops_when_it_is_denied(
    lab: Home, glacic: Glacic
) -> None:
    glacic.call("learn.off")
    assert lab.camera.call(traffic.tcp, SERVER, 8004, timeout_s=SHORT_S).error == "timed out"
    assert state(glacic, 8004, CAMERA_MAC) == "pending"
    set_flow(glacic, "approve", 8004, CAMERA_MAC)
    with lab.camera.call(traffic.connect, SERVER, 8004, timeout_s=PATIENT_S) as connection:
        assert traffic.total_retransmits(connection) == 0
        assert traffic.answers(connection)
        assert set_flow(glacic, "deny", 8004, CAMERA_MAC)["connections_ended"] == 1
        connection.settimeout(SHORT_S)
        assert not traffic.answers(connection)
    assert lab.camera.call(traffic.tcp, SERVER, 8004, timeout_s=SHORT_S).error == "timed out"


def test_a_denied_connection_may_be_kept(lab: Home, glacic: Glacic) -> None:
    with lab.laptop.call(traffic.connect, SERVER, 8005, timeout_s=PATIENT_S) as connection:
        chosen = {"source": LAPTOP_MAC, "port": 8005}
        glacic.call("flows.set", verb="deny", filters=chosen, keep_connections=True)
        assert traffic.answers(connection)
    assert lab.laptop.call(traffic.tcp, SERVER, 8005, timeout_s=SHORT_S).error == "timed out"


def test_a_pending_flow_stays_pending_when_learning_comes_on_again(lab: Home, glacic: Glacic) -> None:
    glacic.call("learn.off")
    lab.laptop.call(traffic.tcp, SERVER, 8006, timeout_s=SHORT_S)
    glacic.call("learn.on")
    lab.laptop.call(traffic.tcp, SERVER, 8006, timeout_s=SHORT_S)
    assert state(glacic, 8006) == "pending"
    glacic.call("learn.on", promote_pending=True)
    result = lab.laptop.call(traffic.tcp, SERVER, 8006, timeout_s=PATIENT_S)
    assert (result.ok, result.retransmits, state(glacic, 8006)) == (True, 0, "allowed")


def test_an_ignored_flow_is_dropped_by_the_kernel_and_a_forgotten_one_is_new_again(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.udp, SERVER, 8007, timeout_s=PATIENT_S).ok
    set_flow(glacic, "ignore", 8007)
    before = glacic.queued()
    assert not lab.laptop.call(traffic.udp, SERVER, 8007, timeout_s=SHORT_S).ok
    assert (glacic.queued(), state(glacic, 8007)) == (before, "ignored")
    set_flow(glacic, "forget", 8007)
    assert lab.laptop.call(traffic.udp, SERVER, 8007, timeout_s=PATIENT_S).ok
    assert state(glacic, 8007) == "allowed"


def test_what_is_sent_to_the_firewall_itself_is_learned_as_drop_input(lab: Home, glacic: Glacic) -> None:
    with lab.router.call(traffic.Echo, [8008]):
        result = lab.laptop.call(traffic.tcp, ROUTER_LAN, 8008, timeout_s=PATIENT_S)
    assert (result.ok, result.retransmits) == (True, 0)
    assert [flow["policy"] for flow in glacic.flows(port=8008)] == ["DROP_INPUT"]


def test_the_outside_never_reaches_a_hook(lab: Home, glacic: Glacic) -> None:
    before = glacic.queued()
    with lab.router.call(traffic.Echo, [8009]), lab.laptop.call(traffic.Echo, [8009]):
        assert lab.server.call(traffic.tcp, ROUTER_WAN, 8009, timeout_s=SHORT_S).error == "timed out"
        assert lab.server.call(traffic.tcp, "10.1.0.10", 8009, timeout_s=SHORT_S).error == "timed out"
    assert (glacic.queued(), glacic.flows(port=8009)) == (before, [])


def test_a_packet_in_the_middle_of_a_connection_makes_no_flow(lab: Home, glacic: Glacic) -> None:
    connection = lab.laptop.call(traffic.connect, SERVER, 8010, timeout_s=PATIENT_S)
    with connection:
        set_flow(glacic, "forget", 8010)  # ends the connection: its next packet comes up as new
        connection.settimeout(SHORT_S)
        assert not traffic.answers(connection)
    assert state(glacic, 8010) is None


def test_a_hung_worker_is_ended_by_its_parent_and_nothing_learned_is_missing(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.tcp, SERVER, 8011, timeout_s=PATIENT_S).ok
    assert state(glacic, 8011) == "allowed"
    hung = glacic.worker()
    os.kill(hung, signal.SIGSTOP)
    glacic.wait("rid of the hung worker", lambda: not Path(f"/proc/{hung}").exists())
    glacic.wait("in force again", lambda: glacic.state() == "running")
    assert glacic.call("status")["worker_starts"] > 1
    assert state(glacic, 8011) == "allowed"
    before = glacic.queued()
    assert lab.laptop.call(traffic.tcp, SERVER, 8011, timeout_s=PATIENT_S).ok
    assert glacic.queued() == before
    result = lab.laptop.call(traffic.tcp, SERVER, 8012, timeout_s=PATIENT_S)
    assert (result.ok, result.retransmits) == (True, 0)


def test_a_reload_keeps_what_was_learned_and_its_counters(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.tcp, SERVER, 8013, count=5, timeout_s=PATIENT_S).ok
    glacic.reload(CONFIG.replace("dest_port = 80", "dest_port = [80, 8014]"))
    before = glacic.queued()
    assert lab.laptop.call(traffic.tcp, SERVER, 8013, count=5, timeout_s=PATIENT_S).ok
    assert lab.laptop.call(traffic.tcp, SERVER, 8014, timeout_s=PATIENT_S).ok
    assert glacic.queued() == before
    assert glacic.flows(port=8013)[0]["packets"] == 10
    glacic.reload(CONFIG)


def test_the_stats_have_every_figure(lab: Home, glacic: Glacic) -> None:
    assert lab.laptop.call(traffic.udp, SERVER, 8015, timeout_s=PATIENT_S).ok
    stats = glacic.json("stats")
    (queue,) = stats["queues"]
    assert queue["num"] == 100
    assert queue["processed"] == queue["accepted"] + queue["dropped"]
    assert queue["processed"] > 0
    assert all(queue[name] == 0 for name in ("verdict_errors", "depth", "kernel_dropped", "user_dropped"))
    assert stats["cache"]["capacity"] == 10_000
    assert stats["latency_us"]["max"] >= stats["latency_us"]["p99"] >= stats["latency_us"]["p50"] > 0
    assert stats["flows"]["allowed"] > 0
    assert stats["learning"] == {"on": True, "until": None}
