"""Limits and the engine that holds them, with a real service: tried first, told apart, and given back. Root.

near eth0 10.0.0.1 ──── 10.0.0.2 eth0 far
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glacic.errors import GlacicError
from glacic.lab.cgroups import Slice, hierarchy
from glacic.lab.net import Host, Network, Port
from glacic.lab.service import Glacic
from glacic.shaping import probe
from glacic.shaping.engine import DOWNLOAD, UPLOAD

UNIT = f"glaciclab{os.getpid()}.service"  # whatever else runs here
PATIENCE_S = 60
SHAPE = f'limit "backup" {{\n  unit = "{UNIT}"\n  upload = "1 MiB/s"\n  engine = "shape"\n  interface = "eth0"\n}}\n'
NOTHING = 'limit "other" {\n  unit = "glaciclab-none.service"\n  upload = "1 MiB/s"\n}\n'
SEND = """
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    try:
        udp.sendto(bytes(1000), ("10.0.0.2", 9000))
    except PermissionError:  # thrown away
        pass
"""


@pytest.fixture
def system() -> Iterator[Slice]:
    """In the machine's hierarchy."""
    with hierarchy() as found, Slice(found) as made:
        yield made


@pytest.fixture
def near() -> Iterator[Host]:
    with Network() as net:
        near, far = net.host("near"), net.host("far")
        net.cable(Port(near, "eth0", "", ("10.0.0.1/24",)), Port(far, "eth0", "", ("10.0.0.2/24",)))
        yield near


def sent(near: Host, system: Slice, packets: int) -> None:
    """So many datagrams of 1028 bytes, from a process in that unit's cgroup."""
    process = near.popen(system.command(UNIT, [sys.executable, "-c", SEND, str(packets)]), stderr=subprocess.PIPE)
    assert process.wait(PATIENCE_S) == 0
    near.end(process)


def qdiscs(near: Host) -> str:
    return near.run(["tc", "qdisc"]).stdout


def tables(near: Host) -> str:
    return near.run(["nft", "list", "tables"]).stdout


def keep(glacic: Glacic, engine: str, missing: str) -> None:
    """Let a probe have found that."""
    rows = [
        {"engine": engine, "direction": direction, "available": not missing, "missing": missing, "per_cgroup": True}
        for direction in (UPLOAD, DOWNLOAD)
    ]
    probe.keep(glacic.state_dir / probe.FILE, [{**row, "accuracy": None} for row in rows])


def test_an_engine_that_a_limit_asks_for_is_used_also_where_nobody_has_tried_it(
    near: Host, system: Slice, tmp_path: Path
) -> None:
    limit = f'limit "backup" {{\n  unit = "{UNIT}"\n  upload = "10 kB/s"\n  engine = "bpf"\n}}\n'
    system.make(UNIT)
    with Glacic(near, tmp_path, limit) as glacic:
        row = glacic.call("limits.show", name="backup")
        assert (row["state"], row["engine_upload"], row["why"]) == ("active", "bpf", "asked for")
        sent(near, system, 1000)
        row = glacic.call("limits.show", name="backup")
        assert row["packets_upload"] + row["dropped_packets_upload"] == 1000
        assert row["dropped_packets_upload"] > 500
        assert "glacic_limits" not in tables(near)
        tried: list[dict[str, Any]] = glacic.call("limits.engines")["engines"]
        assert {row["engine"] for row in tried} == {"nft", "bpf", "shape", "police"}


def test_an_engine_that_did_nothing_when_it_was_tried_is_refused_until_it_does(
    near: Host, system: Slice, tmp_path: Path
) -> None:
    with Glacic(near, tmp_path, NOTHING) as glacic:
        system.make(UNIT)
        limit = {"name": "backup", "target": UNIT, "upload": 10_000, "engine": "bpf"}
        keep(glacic, "bpf", "no such piece")
        glacic.call("reload")
        with pytest.raises(GlacicError, match="bpf: no such piece"):
            glacic.call("limits.set", **limit)
        keep(glacic, "bpf", "")
        glacic.call("reload")
        assert glacic.call("limits.set", **limit)["state"] == "active"


def test_an_interface_is_shaped_from_the_file_and_given_back_with_it(near: Host, system: Slice, tmp_path: Path) -> None:
    before = qdiscs(near)
    system.make(UNIT)
    with Glacic(near, tmp_path, SHAPE) as glacic:
        row = glacic.call("limits.show", name="backup")
        assert (row["state"], row["engine_upload"]) == ("active", "shape")
        assert "htb 61ac:" in qdiscs(near)
        sent(near, system, 100)
        glacic.wait("passed whole", lambda: glacic.call("limits.show", name="backup")["bytes_upload"] >= 100_000)
        glacic.reload(SHAPE.replace('"shape"\n  interface = "eth0"', '"nft"'))
        assert glacic.call("limits.show", name="backup")["engine_upload"] == "nft"
        assert qdiscs(near) == before
        assert "glacic_shape" not in tables(near)


def test_what_a_killed_service_shaped_is_given_back_by_the_next(near: Host, system: Slice, tmp_path: Path) -> None:
    before = qdiscs(near)
    system.make(UNIT)
    with Glacic(near, tmp_path, SHAPE) as glacic:
        taken = qdiscs(near)
        assert "htb 61ac:" in taken
        glacic.kill()
        assert qdiscs(near) == taken
        glacic.configure(NOTHING)
        glacic.start()
        assert qdiscs(near) == before
        assert "glacic_shape" not in tables(near)


def test_a_stop_leaves_what_is_shaped_and_unload_gives_it_back(near: Host, system: Slice, tmp_path: Path) -> None:
    before = qdiscs(near), tables(near)
    system.make(UNIT)
    with Glacic(near, tmp_path, SHAPE) as glacic:
        pass
    assert "htb 61ac:" in qdiscs(near)
    glacic.cli("unload")
    assert (qdiscs(near), tables(near)) == before


def test_an_interface_that_is_somebody_s_is_left_and_the_limit_says_why_it_waits(
    near: Host, system: Slice, tmp_path: Path
) -> None:
    near.run(
        [
            "tc",
            *[
                "qdisc",
                "add",
                "dev",
                "eth0",
                "root",
                "handle",
                "7:",
                "tbf",
                "rate",
                "1gbit",
                "burst",
                "128k",
                "latency",
                "1s",
            ],
        ]
    )
    theirs = qdiscs(near)
    system.make(UNIT)
    with Glacic(near, tmp_path, NOTHING) as glacic:
        glacic.reload(SHAPE)
        row = glacic.call("limits.show", name="backup")
        assert (glacic.state(), row["state"]) == ("degraded", "waiting")
        assert "eth0 has a qdisc of somebody's choice, tbf 7:" in row["why"]
        assert "somebody's choice" in glacic.call("limits.list")["trouble"]
        assert qdiscs(near) == theirs
        near.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
        glacic.wait("held", lambda: glacic.call("limits.show", name="backup")["state"] == "active")
        assert glacic.state() == "running"
