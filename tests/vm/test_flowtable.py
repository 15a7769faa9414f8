"""Connections in the flow table, where the kernel has one: past the chains, and still ended by a person's no.

One service for all tests here; each has the configuration that it needs reloaded, and no connection of another one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from glacic.lab import traffic
from glacic.lab.home import LAPTOP_MAC, SERVER, SERVER_6, Home, home
from glacic.lab.service import Glacic

PATIENT_S = 60.0
SHORT_S = 3.0
PORT, RULE_PORT = 8100, 8101
DENIED = {SERVER: 8102, SERVER_6: 8103}
WATCHER = """
table inet watcher {
    chain forward {
        type filter hook forward priority filter - 20; policy accept;
    }
}
"""


def config(more: str = "", flowtable: str = "flowtable = true") -> str:
    return f"""\
{flowtable}
rule_learning {{
  enabled       = true
  learning_mode = true
  inline_mode   = true
  log_group     = 100
{more}
}}
zone "lan" {{
  interfaces = ["lan*", "absent0"]
}}
zone "wan" {{
  interface = "wan0"
  external  = true
}}
policy "lan" "wan" {{
  name = "lan_wan"
  rule "plain" {{
    proto     = "tcp"
    dest_port = {RULE_PORT}
    action    = "accept"
  }}
}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, [PORT, RULE_PORT, *DENIED.values()]):
        hosts.router.run(["nft", "-f", "-"], text=WATCHER)
        yield hosts


@pytest.fixture(scope="module")
def service(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path_factory.mktemp("flowtable"), config()) as running:
        yield running


@pytest.fixture
def glacic(lab: Home, service: Glacic) -> Glacic:
    """The service with the configuration that has a flow table, and nothing in that."""
    service.reload(config())
    lab.router.run(["conntrack", "-F"])
    return service


def connected(lab: Home, address: str, port: int) -> socket.socket:
    client = lab.laptop.call(traffic.connect, address, port, timeout_s=PATIENT_S)
    for _ in range(4):
        traffic.exchange(client, b"1234567890")
    own = str(client.getsockname()[1])
    lab.router.run(["nft", "add", "rule", "inet", "watcher", "forward", "tcp", "sport", own, "counter"])
    return client


def offloaded(lab: Home, port: int) -> bool:
    listed = [lab.router.run(["conntrack", "-L", "-f", family]).stdout for family in ("ipv4", "ipv6")]
    return any(f"dport={port} " in line and "[OFFLOAD]" in line for text in listed for line in text.splitlines())


def watched(lab: Home, client: socket.socket) -> int:
    """How many packets of this connection have gone through the chains since it was there."""
    listed = lab.router.run(["nft", "list", "chain", "inet", "watcher", "forward"]).stdout
    return int(listed.split(f"tcp sport {client.getsockname()[1]} counter packets ")[1].split()[0])


@pytest.mark.parametrize("address", [SERVER, SERVER_6])
@pytest.mark.parametrize("port", [PORT, RULE_PORT])
@pytest.mark.usefixtures("glacic")
def test_an_accepted_connection_goes_past_the_chains(lab: Home, address: str, port: int) -> None:
    with connected(lab, address, port) as client:
        assert offloaded(lab, port)
        before = watched(lab, client)
        for _ in range(10):
            traffic.exchange(client, b"1234567890")
        assert watched(lab, client) == before


def test_without_the_setting_it_does_not(lab: Home, glacic: Glacic) -> None:
    glacic.reload(config(flowtable=""))
    with connected(lab, SERVER, PORT) as client:
        assert not offloaded(lab, PORT)
        before = watched(lab, client)
        traffic.exchange(client, b"1234567890")
        assert watched(lab, client) > before


@pytest.mark.parametrize("address", [SERVER, SERVER_6])
def test_a_denied_flow_ends_its_connection_in_the_flow_table_too(lab: Home, glacic: Glacic, address: str) -> None:
    port = DENIED[address]
    with connected(lab, address, port) as client:
        assert offloaded(lab, port)
        ended = glacic.json("flows", "deny", f"lan_wan/{LAPTOP_MAC}/tcp/{port}")
        assert ended["connections_ended"] == 1
        client.settimeout(SHORT_S)
        assert not traffic.answers(client)
        assert not offloaded(lab, port)


def test_a_reload_leaves_the_connection_and_offloads_it_again(lab: Home, glacic: Glacic) -> None:
    with connected(lab, SERVER, PORT) as client:
        glacic.reload(config("cache_size = 100"))
        for _ in range(5):
            traffic.exchange(client, b"1234567890")
        assert offloaded(lab, PORT)
        glacic.reload(config(flowtable=""))
        traffic.exchange(client, b"1234567890")
        assert glacic.flows()


def test_a_connection_in_its_packet_window_stays_in_the_chains(lab: Home, glacic: Glacic) -> None:
    glacic.reload(config("packet_window = 40"))
    with connected(lab, SERVER, PORT) as client:
        assert not offloaded(lab, PORT)  # 3 packets of the handshake, and some 12 of four exchanges
        for _ in range(40):
            traffic.exchange(client, b"1234567890")
        assert offloaded(lab, PORT)
