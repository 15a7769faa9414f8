"""What is said of nftables and cgroups, and is not so; and what is. Each with real sockets and packets.

The claims come from a widely copied analysis. What limits build on is pinned here, so that a kernel where it is
otherwise is noticed. (That `tc cgroup` does not classify a download on an ifb is pinned with the shape engine.)
"""

from __future__ import annotations

import os
import re

import pytest

from glacic.errors import KernelRefused, LabError
from glacic.firewall.nft import Libnftables

from .conftest import Wire

V4, V6 = "10.0.0.2", "fd00::2"
FETCH = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 9001), timeout=30)
count = 1_000_000
while count > 0: count -= len(sock.recv(min(count, 1 << 16)))
"""
# Opens a socket, then moves itself into the cgroup of argv[1], sends on it, and then on a new one if argv[2] says so.
MOVED = """
import os, socket, sys
def send(sock):
    for _ in range(10): sock.sendto(bytes(100), ("10.0.0.2", 9000))
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
send(old)
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
send(socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if sys.argv[2] == "new" else old)
"""


def count(wire: Wire, hook: str, name: str, level: int) -> None:
    """Have the packets of a cgroup counted at a hook. nft takes the path below /sys/fs/cgroup."""
    place = f"../../..{wire.folder.place(name)}"
    wire.near.run(
        ["nft", "-f", "-"],
        text=f"""
        table inet watch {{
          counter total {{ }}
          counter ours {{ }}
          chain {hook}_{level} {{
            type filter hook {hook} priority 20
            meta l4proto != {{ tcp, udp }} accept
            counter name total
            socket cgroupv2 level {level} "{place}" counter name ours
          }}
        }}
        """,
    )


def counted(wire: Wire) -> tuple[int, int]:
    """Packets of anybody, packets of the cgroup."""
    listed = wire.nft("list", "counters", "table", "inet", "watch")
    found = dict(re.findall(r"counter (\w+) \{\s*packets (\d+)", listed))
    return int(found["total"]), int(found["ours"])


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("hook", ["input", "prerouting"])
def test_a_download_matches_on_input_its_first_packet_too(wire: Wire, hook: str, address: str) -> None:
    wire.folder.make("a.service")
    count(wire, hook, "a.service", 2)
    wire.run("a.service", FETCH, address)
    in_all, ours = counted(wire)
    assert ours > 20
    assert in_all - ours <= 4  # what comes after the socket has closed


def test_level_0_is_the_root_and_never_a_cgroup_in_it(wire: Wire) -> None:
    wire.folder.make("a.service")
    count(wire, "output", "a.service", 0)
    wire.run("a.service", FETCH, V4)
    in_all, ours = counted(wire)
    assert in_all > 20
    assert ours == 0


def test_the_level_is_that_of_the_ancestor(wire: Wire) -> None:
    wire.folder.make("a.service")
    count(wire, "output", "", 1)
    wire.run("a.service", FETCH, V4)
    in_all, ours = counted(wire)
    assert ours == in_all > 20


@pytest.mark.parametrize(("socket", "limited"), [("old", 0), ("new", 10)])
def test_a_socket_keeps_the_cgroup_that_it_was_opened_in(wire: Wire, socket: str, limited: int) -> None:
    wire.folder.make("a.service")
    count(wire, "output", "a.service", 2)
    wire.near.python(MOVED, str(wire.folder.place("a.service")), socket)
    assert counted(wire) == (20, limited)


@pytest.mark.parametrize("hook", ["forward", "postrouting"])
def test_other_hooks_have_no_socket_and_are_refused(wire: Wire, hook: str) -> None:
    wire.folder.make("a.service")
    with pytest.raises(LabError, match="Operation not supported"):
        count(wire, hook, "a.service", 2)


def test_a_path_that_is_gone_refuses_the_whole_script_and_an_open_descriptor_does_not(wire: Wire) -> None:
    nft = wire.near.call(Libnftables)
    wire.folder.make("a.service")
    descriptor = os.open(wire.folder.place("a.service"), os.O_PATH)
    wire.folder.remove("a.service")
    script = """
    add table inet watch
    add map inet watch m { type cgroupsv2 : verdict; }
    add element inet watch m { "PLACE" : accept }
    """
    try:
        with pytest.raises(KernelRefused, match="No such file"):
            nft.run(script.replace("PLACE", f"../../..{wire.folder.place('a.service')}"))
        assert "watch" not in wire.nft("list", "tables")
        nft.run(script.replace("PLACE", f"../../../proc/self/fd/{descriptor}"))
        nft.run(f'delete element inet watch m {{ "../../../proc/self/fd/{descriptor}" }}\n')
    finally:
        os.close(descriptor)


def test_a_limit_that_is_there_is_not_changed_by_adding_it_again(wire: Wire) -> None:
    wire.nft("add", "table", "inet", "watch")
    for rate in (1000, 2000):
        wire.nft("add", "limit", "inet", "watch", "l", f"{{ rate over {rate} bytes/second burst 5000 bytes ; }}")
    assert "rate over 1000 bytes/second" in wire.nft("list", "table", "inet", "watch")
