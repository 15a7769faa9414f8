"""glacic.lab.net: hosts that can talk to each other and to nobody else, and nothing left of them afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import net, traffic
from glacic.lab.net import Network, Port

MAC_A, MAC_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def _pair(network: Network) -> tuple[net.Host, net.Host]:
    a, b = network.host("a"), network.host("b")
    network.cable(
        Port(a, "eth0", MAC_A, ("10.0.0.1/24", "fd00::1/64")), Port(b, "up0", MAC_B, ("10.0.0.2/24", "fd00::2/64"))
    )
    return a, b


def test_two_hosts_on_a_cable_reach_each_other_at_once_on_both_families() -> None:
    with Network() as network:
        a, b = _pair(network)
        assert (a.mac("eth0"), b.mac("up0")) == (MAC_A, MAC_B)
        assert a.call(traffic.ping, "10.0.0.2").ok
        assert a.call(traffic.ping, "fd00::2").ok


def test_a_router_forwards_between_a_switch_and_a_cable() -> None:
    with Network() as network:
        switch, router, far = network.switch("switch"), network.host("router", forwards=True), network.host("far")
        near = [network.host(f"near{number}") for number in (1, 2)]
        network.plug(Port(router, "lan0", addresses=("10.0.0.254/24", "fd00::fe/64")), switch)
        for number, host in enumerate(near, start=1):
            network.plug(Port(host, "eth0", addresses=(f"10.0.0.{number}/24", f"fd00::{number}/64")), switch)
            host.ip("route add default via 10.0.0.254", "route add default via fd00::fe")
        network.cable(
            Port(router, "wan0", addresses=("10.9.0.254/24", "fd09::fe/64")),
            Port(far, "eth0", addresses=("10.9.0.1/24", "fd09::1/64")),
        )
        far.ip("route add default via 10.9.0.254", "route add default via fd09::fe")
        assert [
            near[0].call(traffic.ping, address).ok for address in ("10.0.0.2", "10.9.0.1", "fd00::2", "fd09::1")
        ] == [True] * 4


def test_nothing_of_the_machines_own_network_changes() -> None:
    def seen() -> str:
        return subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout

    before = seen()
    with Network() as network:
        _pair(network)
        assert seen() == before
    assert seen() == before


def test_a_function_called_on_a_host_uses_its_network_and_its_socket_stays_there() -> None:
    with Network() as network:
        a, b = _pair(network)
        with (
            b.call(socket.create_server, ("10.0.0.2", 80)) as listening,
            a.call(traffic.connect, "10.0.0.2", 80) as client,
        ):
            served, peer = listening.accept()
            with served:
                assert peer[0] == "10.0.0.1"
                client.sendall(b"hello")
                assert served.recv(5) == b"hello"


def test_an_error_in_a_called_function_is_the_callers() -> None:
    with Network() as network, pytest.raises(ZeroDivisionError):
        network.host("a").call(divmod, 1, 0)


def test_calling_does_not_move_the_caller() -> None:
    before = Path("/proc/self/ns/net").readlink()
    with Network() as network:
        inside = network.host("a").call(lambda: Path("/proc/thread-self/ns/net").readlink())
    assert Path("/proc/thread-self/ns/net").readlink() == before != inside


def test_commands_and_code_run_in_the_host_and_their_failures_are_told() -> None:
    with Network() as network:
        a, _ = _pair(network)
        assert "eth0" in a.run(["ip", "-brief", "link"]).stdout
        assert a.run(["cat"], text="given").stdout == "given"
        assert a.python("import sys; print(sys.argv[1])", "argument").stdout == "argument\n"
        assert a.run(["false"], check=False).returncode == 1
        with pytest.raises(LabError, match=r"a: sh -c echo no >&2; exit 3: status 3: no"):
            a.run(["sh", "-c", "echo no >&2; exit 3"])
        with pytest.raises(LabError, match=r"a: sleep 60: not done within 0.1 s"):
            a.run(["sleep", "60"], timeout_s=0.1)


def test_a_started_process_has_its_own_pid_and_can_be_ended_even_if_it_is_stopped() -> None:
    with Network() as network:
        host = network.host("a")
        process = host.popen(["sleep", "1000"])
        assert process.poll() is None
        process.send_signal(19)  # SIGSTOP
        assert host.end(process) == -15
        assert host.pids() == []


def test_the_end_takes_everything_with_it_even_processes_that_ignore_being_asked() -> None:
    with Network() as network:
        host = network.host("a")
        stubborn = host.popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        child = int(stubborn.stdout.readline())
        assert set(host.pids()) == {stubborn.pid, child}
    assert _ended(child)
    assert stubborn.poll() is not None
    assert net.leftovers(os.getpid()) == []


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if child := os.fork():
    print(child, flush=True)
time.sleep(1000)
"""


def test_an_error_inside_the_block_removes_everything_too() -> None:
    def story() -> None:
        with Network() as network:
            _pair(network)[0].popen(["sleep", "1000"])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        story()
    assert net.leftovers(os.getpid()) == []


def test_a_network_that_cannot_be_built_leaves_nothing() -> None:
    def story() -> None:
        with Network() as network:
            a, b = network.host("a"), network.host("b")
            network.cable(Port(a, "cable-too-long-a-name"), Port(b, "eth0"))

    with pytest.raises(LabError, match="cable-too-long-a-name"):
        story()
    assert net.leftovers(os.getpid()) == []


@pytest.mark.parametrize("number", [15, 2, 1], ids=["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_removes_everything(number: int) -> None:
    with _another_process() as other:
        other.send_signal(number)
        assert other.wait(20) != 0
        assert net.leftovers(other.pid) == []


def test_what_a_killed_process_left_is_swept_by_the_next() -> None:
    with _another_process() as other:
        other.kill()
        other.wait()
    assert len(net.leftovers(other.pid)) == 1
    with Network():
        pass
    assert net.leftovers(other.pid) == []


def test_a_host_by_the_same_name_is_refused() -> None:
    with Network() as network:
        network.host("a")
        with pytest.raises(ValueError, match="a host a already"):
            network.host("a")


def test_an_unknown_setting_is_an_error() -> None:
    with Network() as network, pytest.raises(FileNotFoundError):
        network.host("a").set({"net/ipv4/no_such_setting": "1"})


ANOTHER = """
import signal, time
from glacic.lab.net import Network
signal.signal(signal.SIGINT, signal.default_int_handler)
with Network() as network:
    network.host("a").popen(["sleep", "1000"])
    print("ready", flush=True)
    time.sleep(1000)
"""


def _another_process() -> subprocess.Popen[bytes]:
    """A program with a network of one host and one process in it."""
    other = subprocess.Popen([sys.executable, "-c", ANOTHER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    return other


def _ended(pid: int) -> bool:
    """Whether a process that is not our child is gone, or on its way and only waits to be reaped."""
    for _ in range(500):
        try:
            if Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False
