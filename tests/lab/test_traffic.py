"""glacic.lab.traffic: what the small clients say happened is what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from glacic.lab import traffic
from glacic.lab.net import Host, Network, Port
from glacic.lab.traffic import Echo

HERE, THERE = "10.0.0.1", "10.0.0.2"
THERE_6 = "fd00::2"
COMMAND = [sys.executable, "-m", "glacic.lab.traffic"]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """A client and a server that echoes on tcp 80 and udp 53."""
    with Network() as network:
        client, server = network.host("client"), network.host("server")
        network.cable(
            Port(client, "eth0", addresses=(f"{HERE}/24", "fd00::1/64")),
            Port(server, "eth0", addresses=(f"{THERE}/24", f"{THERE_6}/64")),
        )
        with server.call(Echo, [80], [53]):
            yield client, server


@pytest.mark.parametrize("address", [THERE, THERE_6])
def test_many_connections_and_datagrams_are_all_answered(hosts: tuple[Host, Host], address: str) -> None:
    client, _ = hosts
    assert _counts(client.call(traffic.tcp, address, 80, count=50)) == (True, "", 50, 50, 0)
    assert _counts(client.call(traffic.udp, address, 53, count=50)) == (True, "", 50, 50, 0)
    assert _counts(client.call(traffic.ping, address, count=5)) == (True, "", 5, 5, 0)


@pytest.mark.parametrize("address", [THERE, THERE_6])
def test_a_closed_port_is_refused(hosts: tuple[Host, Host], address: str) -> None:
    client, _ = hosts
    assert client.call(traffic.tcp, address, 81).error == "refused"
    assert client.call(traffic.udp, address, 81).error == "refused"


def test_an_address_that_nobody_has_is_unreachable(hosts: tuple[Host, Host]) -> None:
    client, _ = hosts
    assert client.call(traffic.tcp, "192.0.2.1", 80).error == "unreachable"
    assert client.call(traffic.udp, "192.0.2.1", 80).error == "unreachable"
    assert client.call(traffic.ping, "192.0.2.1").error == "unreachable"


def test_what_is_dropped_times_out(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    server.run(["nft", "table ip t { chain c { type filter hook input priority 0; drop; }; }"])
    assert _counts(client.call(traffic.tcp, THERE, 80, timeout_s=0.2)) == (False, "timed out", 1, 0, 0)
    assert _counts(client.call(traffic.udp, THERE, 53, timeout_s=0.2)) == (False, "timed out", 1, 0, 0)
    assert _counts(client.call(traffic.ping, THERE, timeout_s=0.2)) == (False, "timed out", 1, 0, 0)


def test_a_lost_first_syn_is_a_retransmission_and_the_connection_comes_up_all_the_same(
    hosts: tuple[Host, Host],
) -> None:
    client, server = hosts
    server.run(["nft", LOSE_THE_FIRST_SYN])
    result = client.call(traffic.tcp, THERE, 80)
    assert _counts(result) == (True, "", 1, 1, 1)
    assert result.connect_ms > 900  # TCP waits a second before it sends a SYN again (RFC 6298)
    assert client.call(traffic.tcp, THERE, 80).retransmits == 0


# The first packet of each source puts it into the set and is dropped.
LOSE_THE_FIRST_SYN = """
table ip t {
    set seen { type ipv4_addr; flags dynamic; size 16; }
    chain c {
        type filter hook input priority 0;
        tcp flags syn ip saddr != @seen add @seen { ip saddr } drop
    }
}
"""


def test_an_open_connection_answers_until_it_is_cut(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    with client.call(traffic.connect, THERE, 80, timeout_s=2) as connection:
        assert traffic.answers(connection)
        server.run(["nft", "table ip t { chain c { type filter hook input priority 0; drop; }; }"])
        connection.settimeout(0.2)
        assert not traffic.answers(connection)


def test_a_failed_connect_raises_and_leaves_no_socket(hosts: tuple[Host, Host]) -> None:
    client, _ = hosts
    with pytest.raises(ConnectionRefusedError):
        client.call(traffic.connect, THERE, 81)


def test_a_port_that_is_taken_is_an_error_and_leaves_no_socket(hosts: tuple[Host, Host]) -> None:
    _, server = hosts
    with pytest.raises(OSError, match="in use"):
        server.call(Echo, [81, 80])


def test_the_commands_say_the_same_as_json_and_in_their_exit_status(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    served = server.popen([*COMMAND, "serve", "--tcp", "8080", "--udp", "8053"], stdout=subprocess.PIPE)
    assert served.stdout is not None
    assert json.loads(served.stdout.readline()) == {"listening": {"tcp": [8080], "udp": [8053]}}
    for arguments in (["tcp", THERE, "8080", "--count", "3"], ["udp", THERE_6, "8053"], ["ping", THERE]):
        done = client.run([*COMMAND, *arguments])
        assert json.loads(done.stdout)["ok"], arguments
    refused = client.run([*COMMAND, "tcp", THERE, "8081", "--timeout", "1"], check=False)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"] == "refused"


def test_a_server_started_as_a_command_answers_on_both_families(hosts: tuple[Host, Host]) -> None:
    client, server = hosts
    served = server.popen([*COMMAND, "serve", "--tcp", "8080"], stdout=subprocess.PIPE)
    assert served.stdout is not None
    served.stdout.readline()
    assert [client.call(traffic.tcp, address, 8080).ok for address in (THERE, THERE_6)] == [True, True]


def test_the_commands_are_light() -> None:
    """A guest imports 10 to 20 times slower: nothing of the configuration, the store or scapy comes along."""
    code = "import sys, glacic.lab.traffic; print(sorted({'hcl2', 'sqlalchemy', 'scapy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _counts(result: traffic.Result) -> tuple[bool, str, int, int, int]:
    return result.ok, result.error, result.count, result.answered, result.retransmits
