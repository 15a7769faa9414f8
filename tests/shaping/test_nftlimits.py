"""The nft engine with real cgroups, real sockets and real packets."""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.firewall.nft import FakeNft, Libnftables
from glacic.shaping import nftlimits
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Item
from glacic.shaping.nftlimits import NftLimits

from .conftest import MIB, Wire

SEND = """
import socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
sock = socket.create_connection((address, 9000), timeout=30)
sock.sendall(bytes(count))
"""
FETCH = """
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])
sock = socket.create_connection((address, 9001), timeout=30)
while count > 0: count -= len(sock.recv(min(count, 1 << 16)))
"""
DATAGRAMS = """
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])
sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(count):
    try: sock.sendto(bytes(100), (address, 9000))
    except PermissionError: pass  # dropped on output
"""
V4, V6, PUBLIC_4, PUBLIC_6 = "10.0.0.2", "fd00::2", "192.0.2.2", "2001:db8::2"


def item(name: str, cgroup: Cgroup, **rates: int) -> Item:
    return Item(name=name, cgroup=cgroup, **(rates or {"upload": MIB, "download": MIB}))  # type: ignore[arg-type]


def packets(engine: NftLimits, name: str, direction: str) -> int:
    """How many it has seen."""
    counted = engine.counters()[name, direction]
    return counted.packets + counted.dropped_packets


def table(wire: Wire) -> str:
    return wire.nft("-s", "list", "table", "inet", "glacic_limits")


def test_both_directions_and_both_families_of_a_cgroup_are_counted_and_no_others(wire: Wire) -> None:
    engine = wire.engine()
    engine.put([item("a", wire.folder.make("a.service"))])
    wire.folder.make("b.service")
    for address in (V4, V6):
        wire.run("b.service", SEND, address, "10000")
    assert all(packets(engine, "a", direction) == 0 for direction in (UPLOAD, DOWNLOAD))
    for address in (V4, V6):
        before = packets(engine, "a", UPLOAD), packets(engine, "a", DOWNLOAD)
        wire.run("a.service", SEND, address, "10000")
        assert packets(engine, "a", UPLOAD) > before[0] + 3
        assert packets(engine, "a", DOWNLOAD) > before[1] + 1


def test_what_is_over_the_rate_is_thrown_away_and_counted(wire: Wire) -> None:
    engine = wire.engine()
    engine.put([item("a", wire.folder.make("a.service"), upload=1000)])
    wire.run("a.service", DATAGRAMS, V4, "3000")  # of 128 bytes with their headers; the bucket is 128 KiB
    counted = engine.counters()["a", UPLOAD]
    assert counted.packets + counted.dropped_packets == 3000
    assert counted.bytes == counted.packets * 128
    assert 1000 <= counted.packets <= 1132  # and a second or a minute's rate, on a machine that is busy
    assert counted.dropped_bytes == counted.dropped_packets * 128


def test_loopback_is_never_limited(wire: Wire) -> None:
    engine = wire.engine()
    engine.put([item("a", wire.folder.make("a.service"), upload=1, download=1)])
    for address in ("127.0.0.1", "::1", "10.0.0.1"):
        wire.run("a.service", DATAGRAMS, address, "100")
    assert packets(engine, "a", UPLOAD) == 0


@pytest.mark.parametrize(
    ("traffic", "counted"),
    [(Traffic.INTERNET, (0, 10, 0, 10)), (Traffic.LOCAL, (10, 0, 10, 0)), (Traffic.ALL, (10,) * 4)],
)
def test_a_scope_counts_by_the_other_ends_address(wire: Wire, traffic: Traffic, counted: tuple[int, ...]) -> None:
    engine = wire.engine()
    engine.put([replace(item("a", wire.folder.make("a.service")), traffic=traffic)])
    for address, expected in zip((V4, PUBLIC_4, V6, PUBLIC_6), counted, strict=True):
        before = packets(engine, "a", UPLOAD)
        wire.run("a.service", DATAGRAMS, address, "10")
        assert packets(engine, "a", UPLOAD) - before == expected, address
    before = packets(engine, "a", DOWNLOAD)
    wire.run("a.service", FETCH, PUBLIC_4, "1000")
    assert (packets(engine, "a", DOWNLOAD) > before) == (traffic != Traffic.LOCAL)


def test_a_slice_and_a_unit_in_it_both_count(wire: Wire) -> None:
    engine = wire.engine()
    wire.folder.make("s.slice")
    unit = wire.folder.make("s.slice/a.service")
    slice_ = wire.folder.hierarchy.cgroup(wire.folder.path("s.slice"))
    assert slice_ is not None
    engine.put([item("slice", slice_, upload=MIB), item("unit", unit, upload=1000)])
    wire.run("s.slice/a.service", DATAGRAMS, V4, "3000")
    counted = engine.counters()
    passed = counted["unit", UPLOAD].packets
    assert counted["unit", UPLOAD].dropped_packets == 3000 - passed
    assert counted["slice", UPLOAD].packets == passed  # what the unit's limit drops does not use up the slice's


def test_a_changed_rate_holds_at_once_for_the_connection_that_runs(wire: Wire) -> None:
    engine = wire.engine()
    cgroup = wire.folder.make("a.service")
    engine.put([item("a", cgroup, upload=20_000)])
    process = wire.start("a.service", SEND, V4, str(8 * MIB))  # 160 ms of the second rate, 400 seconds of the first
    time.sleep(0.5)
    assert process.poll() is None
    before = engine.counters()["a", UPLOAD]
    engine.put([item("a", cgroup, upload=50 * MIB)])
    assert process.wait(20) == 0
    after = engine.counters()["a", UPLOAD]
    assert before.bytes > 0
    assert after.bytes > 8 * MIB  # counters went on
    wire.near.end(process)


def test_a_cgroup_made_anew_comes_back_to_its_bucket(wire: Wire) -> None:
    engine = wire.engine()
    engine.put([item("a", wire.folder.make("a.service"), upload=1000)])
    wire.run("a.service", DATAGRAMS, V4, "2000")
    first = engine.counters()["a", UPLOAD]
    assert first.dropped_packets > 0
    engine.put([item("a", wire.folder.remake("a.service"), upload=1000)])
    wire.run("a.service", DATAGRAMS, V4, "2000")
    second = engine.counters()["a", UPLOAD]
    assert second.packets + second.dropped_packets == 4000
    assert second.packets - first.packets < 500  # no second bucket of 1032 packets


def test_a_cgroup_that_is_gone_keeps_its_limit_for_a_while(wire: Wire) -> None:
    clock = [0.0]
    engine = wire.engine()
    engine._now = lambda: clock[0]
    engine.put([item("a", wire.folder.make("a.service"))])
    wire.folder.remove("a.service")
    engine.put([])
    assert "jump upload_a" in table(wire)
    clock[0] += nftlimits.LINGER_S - 1
    engine.put([])
    assert "jump upload_a" in table(wire)
    clock[0] += 2
    engine.put([])
    assert "glacic_limits" not in wire.nft("list", "tables")
    assert engine._held == {}


def test_a_limit_that_is_taken_away_is_gone_at_once_while_its_cgroup_lives(wire: Wire) -> None:
    engine = wire.engine()
    a, b = wire.folder.make("a.service"), wire.folder.make("b.service")
    engine.put([item("a", a), item("b", b)])
    engine.put([item("b", b)])
    assert "upload_a" not in table(wire)
    assert engine.counters().keys() == {("b", UPLOAD), ("b", DOWNLOAD)}
    engine.put([])
    assert "glacic_limits" not in wire.nft("list", "tables")


def test_a_cgroup_that_went_before_it_was_put_is_left_out(wire: Wire) -> None:
    engine = wire.engine()
    gone, here = wire.folder.make("gone.service"), wire.folder.make("here.service")
    wire.folder.remove("gone.service")
    stale = wire.folder.make("stale.service")
    wire.folder.remake("stale.service")
    engine.put([item("gone", gone), item("here", here), item("stale", stale)])
    assert {name for name, _ in engine.counters()} == {"here"}


def test_names_of_any_kind_are_told_apart(wire: Wire) -> None:
    names = ['a"b', "a'b", "a b", "a_b", "ä", "default:x.service", "2", "x" * 300, "dropped", "input"]
    cgroups = [wire.folder.make(f"{number}.service") for number in range(len(names))]
    engine = wire.engine()
    engine.put([item(name, cgroup) for name, cgroup in zip(names, cgroups, strict=True)])
    for number, name in enumerate(names):
        wire.run(f"{number}.service", DATAGRAMS, V4, str(number + 1))
        assert packets(engine, name, UPLOAD) == number + 1


def test_a_cgroup_of_any_name_is_limited(wire: Wire) -> None:
    name = os.fsdecode(b'a"b }\\x2d\xff.service')
    engine = wire.engine()
    engine.put([item("a", wire.folder.make(name))])
    wire.run(name, DATAGRAMS, V4, "10")
    assert packets(engine, "a", UPLOAD) == 10


def test_any_way_from_one_set_of_limits_to_another_ends_in_the_same_table(wire: Wire) -> None:
    clock = [0.0]
    engine, twin = wire.engine(), wire.engine()
    engine._now = lambda: clock[0]
    wire.folder.make("s.slice")
    names = ["a.service", "b.service", "s.slice/c.service", "s.slice/d.service"]
    made = {name: wire.folder.make(name) for name in names}
    chance = random.Random(5)
    for _ in range(25):
        for name in chance.sample(names, chance.randrange(3)):
            made[name] = wire.folder.remake(name)
        items = [
            Item(
                name=name,
                cgroup=made[name],
                upload=chance.choice((0, 1000, 2000)),
                download=chance.choice((1000, 3000)),
                traffic=chance.choice(list(Traffic)),
            )
            for name in chance.sample(names, chance.randrange(len(names) + 1))
        ]
        engine.put(items)
        clock[0] += 2 * nftlimits.LINGER_S
        engine.put(items)  # nothing lingers
        stepwise = _parts(wire)
        twin.adopt()
        twin.put(items)
        assert _parts(wire) == stepwise
        engine.adopt() if chance.random() < 0.2 else None
    twin.remove()


def _parts(wire: Wire) -> set[str]:
    """The table without the order in which its objects were made; of a chain the rules keep theirs."""
    if "glacic_limits" not in wire.nft("list", "tables"):
        return set()
    _, _, body = table(wire).partition('limits list shows them"\n')
    text = re.sub(r"elements = \{([^}]*)\}", lambda found: " ".join(sorted(found[1].split(","))), body)
    return {part.strip() for part in text.rstrip().removesuffix("}").split("\n\n")}


def test_tables_of_others_are_the_same_before_and_after(wire: Wire) -> None:
    wire.near.run(
        ["nft", "-f", "-"],
        text="""
        table inet glacic {
          set learned { type ipv4_addr; elements = { 192.0.2.7 }; }
          chain input { type filter hook input priority 0; counter
 }
        }
        table ip glacic_limits {
          chain download_a { counter
 }
        }
        table inet glacic_limits2 {
          limit a { rate 5/second; }
        }
        table inet others {
          map download_2 { type cgroupsv2 : verdict; }
          chain out { type filter hook output priority 20; meta mark set 7
 }
        }
        """,
    )
    before = wire.nft("-s", "list", "ruleset")
    engine = wire.engine()
    engine.adopt()
    engine.put([item("a", wire.folder.make("a.service"))])
    engine.put([item("a", wire.folder.remake("a.service"), upload=5)])
    engine.put([])
    engine.put([item("b", wire.folder.make("b.service"))])
    assert wire.nft("-s", "list", "ruleset").startswith(before.rstrip())
    engine.remove()
    assert wire.nft("-s", "list", "ruleset") == before


def test_the_next_run_takes_over_what_an_earlier_one_left_with_no_gap(wire: Wire) -> None:
    cgroup = wire.folder.make("a.service")
    wire.engine().put([item("a", cgroup), item("b", wire.folder.make("b.service"))])
    later = wire.engine()
    later.adopt()
    assert "jump upload_b" in table(wire)  # it holds until the first put
    later.put([item("a", cgroup)])
    assert "jump upload_a" in table(wire)
    assert "upload_b" not in table(wire)
    last = wire.engine()
    last.adopt()
    last.put([])
    assert "glacic_limits" not in wire.nft("list", "tables")


@pytest.mark.parametrize("harm", ["delete table inet glacic_limits", "flush ruleset", "flush table inet glacic_limits"])
def test_what_somebody_has_removed_or_changed_is_put_back(wire: Wire, harm: str) -> None:
    engine = wire.engine()
    a, b = wire.folder.make("a.service"), wire.folder.make("b.service")
    engine.put([item("a", a)])
    wire.nft(*harm.split())
    if not harm.startswith("flush table"):  # which only a change meets
        engine.put([item("a", a)])
        assert "jump upload_a" in table(wire)
    wire.nft("delete", "map", "inet", "glacic_limits", "upload_2") if harm.startswith("flush table") else None
    engine.put([item("a", a), item("b", b)])
    wire.run("b.service", DATAGRAMS, V4, "10")
    assert packets(engine, "b", UPLOAD) == 10
    wire.run("a.service", DATAGRAMS, V4, "10")
    assert packets(engine, "a", UPLOAD) == 10


def test_removing_where_there_is_nothing_is_fine(wire: Wire) -> None:
    wire.engine().remove()


def test_what_the_kernel_refuses_is_raised_and_tried_whole_the_next_time(wire: Wire) -> None:
    mount = wire.folder.hierarchy.mount
    nft = wire.near.call(Libnftables)

    class Sometimes(FakeNft):
        def run(self, script: str) -> None:
            super().run(script)
            nft.run(script)

    fake = Sometimes(refuses=("socket",))
    engine = wire.near.call(lambda: NftLimits(fake, mount=lambda: mount))
    wanted = [item("a", wire.folder.make("a.service"))]
    with pytest.raises(KernelRefused):
        engine.put(wanted)
    fake.refuses = ()
    engine.put(wanted)
    assert "jump upload_a" in table(wire)
    scripts = len(fake.scripts)
    engine.put(wanted)
    assert len(fake.scripts) == scripts  # what is there is not put again


def test_descriptors_are_out_of_the_way_and_given_back(wire: Wire) -> None:
    before = _high()
    engine = wire.engine()
    engine.put([item(f"{number}", wire.folder.make(f"{number}.service")) for number in range(5)])
    assert len(engine._held) == 5
    assert min(engine._held.values()) >= 1024  # select(2) takes none above 1023
    engine.remove()
    assert engine._held == {}
    assert _high() <= before


def _high() -> set[int]:
    return {number for path in Path("/proc/self/fd").iterdir() if (number := int(path.name)) >= 1024}


def test_a_mount_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to(tmp_path)
    engine = NftLimits(FakeNft(), mount=lambda: tmp_path)
    with pytest.raises(KernelRefused, match="cannot open the cgroup"):
        engine.put([item("a", Cgroup("x" * 300, 1, 1))])
    assert engine.counters() == {}
