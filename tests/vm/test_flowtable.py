"""Connections in the flow table, where the kernel has one: past the chains, and still ended by a person's no."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glacic.lab import traffic
from glacic.lab.home import LAPTOP_MAC, SERVER, SERVER_6, Home, home
from glacic.lab.service import Glacic

PATIENT_S = 60.0
SHORT_S = 3.0
PORT, RULE_PORT = 8100, 8101
WATCHER = """
table inet watcher {
    chain forward {
        type filter hook forward priority filter - 20; policy accept;
        tcp dport { 8100, 8101 } counter
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


@pytest.fixture
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, [PORT, RULE_PORT]):
        hosts.router.run(["nft", "-f", "-"], text=WATCHER)
        yield hosts


@contextmanager
def running(lab: Home, folder: Path, text: str) -> Iterator[Glacic]:
    with Glacic(lab.router, folder, text) as glacic:
        yield glacic


def connected(lab: Home, address: str, port: int) -> socket.socket:
    client = lab.laptop.call(traffic.connect, address, port, timeout_s=PATIENT_S)
    for _ in range(4):
        traffic.exchange(client, b"1234567890")
    return client


def offloaded(lab: Home, port: int) -> bool:
    listed = [lab.router.run(["conntrack", "-L", "-f", family]).stdout for family in ("ipv4", "ipv6")]
    return any(f"dport={port} " in line and "[OFFLOAD]" in line for text in listed for line in text.splitlines())


def watched(lab: Home) -> int:
    """How many packets of connections have gone through the chains."""
    listed = lab.router.run(["nft", "list", "chain", "inet", "watcher", "forward"]).stdout
    return int(listed.split("packets ")[1].split()[0])


@pytest.mark.parametrize("address", [SERVER, SERVER_6])
@pytest.mark.parametrize("port", [PORT, RULE_PORT])
def test_an_accepted_connection_goes_past_the_chains(lab: Home, tmp_path: Path, address: str, port: int) -> None:
    with running(lab, tmp_path, config()), connected(lab, address, port) as client:
        assert offloaded(lab, port)
        before = watched(lab)
        for _ in range(10):
            traffic.exchange(client, b"1234567890")
        assert watched(lab) == before


def test_without_the_setting_it_does_not(lab: Home, tmp_path: Path) -> None:
    with running(lab, tmp_path, config(flowtable="")), connected(lab, SERVER, PORT) as client:
        assert not offloaded(lab, PORT)
        before = watched(lab)
        traffic.exchange(client, b"1234567890")
        assert watched(lab) > before


@pytest.mark.parametrize("address", [SERVER, SERVER_6])
def test_a_denied_flow_ends_its_connection_in_the_flow_table_too(lab: Home, tmp_path: Path, address: str) -> None:
    with running(lab, tmp_path, config()) as glacic, connected(lab, address, PORT) as client:
        assert offloaded(lab, PORT)
        ended = glacic.json("flows", "deny", f"lan_wan/{LAPTOP_MAC}/tcp/{PORT}")
        assert ended["connections_ended"] == 1
        client.settimeout(SHORT_S)
        assert not traffic.answers(client)
        assert not offloaded(lab, PORT)


def test_a_reload_leaves_the_connection_and_offloads_it_again(lab: Home, tmp_path: Path) -> None:
    with running(lab, tmp_path, config()) as glacic, connected(lab, SERVER, PORT) as client:
        glacic.reload(config("cache_size = 100"))
        for _ in range(5):
            traffic.exchange(client, b"1234567890")
        assert offloaded(lab, PORT)
        glacic.reload(config(flowtable=""))
        traffic.exchange(client, b"1234567890")
        assert glacic.flows()


def test_a_connection_in_its_packet_window_stays_in_the_chains(lab: Home, tmp_path: Path) -> None:
    with running(lab, tmp_path, config("packet_window = 40")), connected(lab, SERVER, PORT) as client:
        assert not offloaded(lab, PORT)  # 3 packets of the handshake, and some 12 of four exchanges
        for _ in range(40):
            traffic.exchange(client, b"1234567890")
        assert offloaded(lab, PORT)
