"""The limits that are wanted, by name, and that the kernel has them: with real cgroups, an engine that takes notes, and
in the end the whole service with real packets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from glacic.config.model import Config, DefaultLimit, Limit, LimitEngine, LimitKind
from glacic.ctlplane import limiting
from glacic.ctlplane.limiting import Limiting, limiting_of
from glacic.errors import GlacicError, KernelRefused
from glacic.firewall.nft import FakeNft
from glacic.lab.cgroups import Slice, hierarchy
from glacic.lab.net import Host, Network, Port
from glacic.lab.service import Glacic
from glacic.shaping import cgroups
from glacic.shaping.choose import NFT_ALONE
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted, Item

MIB = 1 << 20
NICE = limiting.NICE
PATIENCE_S = 20.0


class Notes:
    """An engine that keeps what it was told, and refuses when it is told to."""

    def __init__(self, name: str = "nft") -> None:
        self.name = name
        self.adopted = 0
        self.puts: list[tuple[Item, ...]] = []
        self.refuses = ""

    def put(self, items: Sequence[Item]) -> None:
        if self.refuses:
            raise KernelRefused(self.refuses)
        self.puts.append(tuple(items))

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        return {(item.name, UPLOAD): Counted(bytes=7) for item in self.puts[-1]} if self.puts else {}

    def adopt(self) -> None:
        self.adopted += 1

    def remove(self) -> None:
        raise AssertionError("a service leaves its limits when it stops")

    def names(self) -> list[str]:
        return [item.name for item in self.puts[-1]]


@pytest.fixture(autouse=True)
def priority_of_the_tests_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "NICE", os.getpriority(os.PRIO_PROCESS, 0))


@pytest.fixture
def system() -> Iterator[Slice]:
    """In the machine's hierarchy."""
    with hierarchy() as found, Slice(found) as made:
        yield made


@pytest.fixture
def folder(system: Slice) -> Iterator[Slice]:
    """In a hierarchy where no other units are: a part of the machine's."""
    with Slice(cgroups.Hierarchy(system.place(""))) as made:
        yield made


def unit(name: str, **rates: Any) -> Limit:
    return Limit(name=name, kind=LimitKind.UNIT, target=f"{name}.service", **(rates or {"upload": MIB}))


def config(*limits: Limit, default: DefaultLimit | None = None) -> Config:
    return Config(path=Path("glacic.hcl"), limits=limits, default_limit=default)


def managed(folder: Slice, *engines: Notes, **named: Any) -> Limiting:
    available = {(engine.name, direction): "" for engine in engines for direction in (UPLOAD, DOWNLOAD)}
    return Limiting({engine.name: engine for engine in engines}, available, lambda: folder.hierarchy, **named)


def running(limits: Limiting, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Tells a story while the manager follows the cgroups."""

    async def tell() -> None:
        following = asyncio.create_task(limits.run())
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(story(), PATIENCE_S)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            limits.close()

    asyncio.run(tell())


def test_what_a_stop_takes_back_is_held_although_nothing_is_followed_any_more(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)
    cgroup = folder.make("a.service")

    async def tell() -> None:
        following = asyncio.create_task(limits.run())
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await limits.configure(config(unit("a")))
        limits.close()

    asyncio.run(tell())
    assert engine.puts[-1] == (Item(name="a", cgroup=cgroup, upload=MIB),)


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 -- what is waited for is written by a thread that knows no event
        await asyncio.sleep(0.005)


def test_a_unit_that_comes_gets_its_limit_and_one_that_restarts_gets_it_again(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)

    async def story() -> None:
        await limits.configure(config(unit("a"), unit("b")))
        assert engine.puts == [()]
        first = folder.make("a.service")
        await until(lambda: engine.puts[-1] != ())
        assert engine.puts[-1] == (Item(name="a", cgroup=first, upload=MIB),)
        second = folder.remake("a.service")
        await until(lambda: engine.puts[-1] == (Item(name="a", cgroup=second, upload=MIB),))
        folder.make("b.service")
        await until(lambda: engine.names() == ["a", "b"])
        folder.remove("a.service")
        await until(lambda: engine.names() == ["b"])

    running(limits, story)
    assert engine.adopted == 1


def test_a_restart_is_in_force_within_200_ms(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)
    took: list[float] = []

    async def story() -> None:
        await limits.configure(config(unit("a")))
        for _ in range(20):
            made = folder.make("a.service")
            began = time.monotonic()
            await until(lambda made=made: [item.cgroup for item in engine.puts[-1]] == [made])  # type: ignore[misc]
            took.append(time.monotonic() - began)
            folder.remove("a.service")

    running(limits, story)
    assert sorted(took)[len(took) // 2] < 0.2, took  # most, for this machine may be busy


def test_limits_that_wait_are_kept_with_the_reason(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)
    folder.make("b.service")

    async def story() -> None:
        path = Limit(name="c", kind=LimitKind.CGROUP, target=folder.path("b.service"), upload=1)
        await limits.configure(config(unit("a"), unit("b"), path))
        found = {one.limit.name: one for one in await limits.standing()}
        assert found["a"].item is None
        assert found["a"].why_waiting == "a.service does not run"
        assert found["b"].item is not None
        assert found["c"].why_waiting == 'limit "b" has this cgroup'
        assert found["b"].counted[UPLOAD].bytes == 7

    running(limits, story)


def test_a_default_limit_is_for_the_units_without_one(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)
    folder.make("a.service")
    folder.make("b.service")

    async def story() -> None:
        await limits.configure(config(unit("a"), default=DefaultLimit(download=5)))
        mine = [one for one in await limits.standing() if one.item and one.item.cgroup.path.startswith(folder.name)]
        assert [(one.limit.name, one.origin) for one in mine] == [("a", "config"), ("default:b.service", "default")]
        assert (mine[1].limit.target, mine[1].limit.download) == ("b.service", 5)

    running(limits, story)


def test_a_directory_that_has_no_units_name_gets_no_default_limit(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)

    async def story() -> None:
        await limits.configure(config(default=DefaultLimit(download=7)))
        folder.make("\udcff.service")  # bytes that are no text: an engine has no name for it
        folder.make("a.service")
        await until(lambda: "default:a.service" in engine.names())
        assert engine.names() == ["default:a.service"]

    running(limits, story)


def test_what_is_set_holds_over_the_file_until_it_is_cleared_or_the_file_says_the_same(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)
    folder.make("a.service")

    async def rates() -> dict[str, tuple[str, int]]:
        return {one.limit.name: (one.origin, one.limit.upload) for one in await limits.standing()}

    async def story() -> None:
        await limits.configure(config(unit("a", upload=1)))
        await limits.set(unit("a", upload=2))
        await limits.set(unit("b", upload=3))
        assert await rates() == {"a": ("runtime", 2), "b": ("runtime", 3)}
        assert engine.puts[-1][0].upload == 2
        await limits.configure(config(unit("a", upload=1), unit("b", upload=3, description="saved")))
        assert await rates() == {"a": ("runtime", 2), "b": ("config", 3)}
        await limits.clear("a")
        await limits.clear("b")
        assert await rates() == {}
        assert engine.puts[-1] == ()
        await limits.configure(config(unit("a", upload=1), unit("b", upload=3, description="saved")))
        assert await rates() == {}  # cleared until the next start
        await limits.configure(config(unit("a", upload=9)))
        assert await rates() == {"a": ("config", 9)}  # which is not what was cleared

    running(limits, story)


def test_what_cannot_be_held_is_refused_and_nothing_has_changed(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)
    folder.make("a.service")

    async def story() -> None:
        await limits.configure(config(unit("a", upload=1)))
        with pytest.raises(GlacicError, match=r'limit "a" is for a\.service already'):
            await limits.set(Limit(name="other", kind=LimitKind.UNIT, target="a.service", upload=1))
        with pytest.raises(GlacicError, match=r'limit "a" is for a\.service already'):
            await limits.set(Limit(name="other", kind=LimitKind.CGROUP, target="system.slice/a.service", upload=1))
        with pytest.raises(GlacicError, match='limit "b" cannot be held: bpf: not in this service'):
            await limits.set(unit("b", upload=1, engine=LimitEngine.BPF))
        engine.refuses = "no"
        with pytest.raises(KernelRefused, match="no"):
            await limits.set(unit("a", upload=2))
        engine.refuses = ""
        await limits.hold()
        assert [one.limit.upload for one in await limits.standing()] == [1]
        assert engine.puts[-1][0].upload == 1

    running(limits, story)


def test_changes_at_one_time_do_not_undo_each_other(folder: Slice) -> None:
    engine = Notes()
    limits = managed(folder, engine)

    async def story() -> None:
        await limits.configure(config())
        names = [f"u{number}" for number in range(8)]
        engine.refuses = "no"
        refused = [asyncio.create_task(limits.set(unit(name))) for name in names[:4]]
        await asyncio.gather(*refused, return_exceptions=True)
        engine.refuses = ""
        await asyncio.gather(*(limits.set(unit(name)) for name in names[4:]))
        assert list(limits.wanted()) == names[4:]

    running(limits, story)


def test_a_kernel_that_refuses_is_trouble_and_tried_again(folder: Slice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "LOOK_S", 0.02)
    engine = Notes()
    engine.refuses = "nft_socket is missing"
    limits = managed(folder, engine)

    async def story() -> None:
        await limits.configure(config(unit("a")))
        assert limits.trouble == "bandwidth limits: nft_socket is missing"
        folder.make("a.service")
        await until(lambda: limits._follower is not None and folder.path("a.service") in limits._follower.tree)
        (one,) = await limits.standing()
        assert (one.item, one.why_waiting) == (None, limits.trouble)
        engine.refuses = ""
        await until(lambda: not limits.trouble)
        count = len(engine.puts)
        await until(lambda: len(engine.puts) > count)  # what somebody has removed comes back

    running(limits, story)


def test_each_engine_gets_its_own_directions(folder: Slice) -> None:
    nft, bpf = Notes(), Notes("bpf")
    available = {("nft", UPLOAD): "", ("nft", DOWNLOAD): "broken", ("bpf", UPLOAD): "", ("bpf", DOWNLOAD): ""}
    limits = Limiting({"nft": nft, "bpf": bpf}, available, lambda: folder.hierarchy)
    folder.make("a.service")
    folder.make("b.service")

    async def story() -> None:
        await limits.configure(
            config(unit("a", upload=1, download=2), unit("b", upload=3, download=4, engine=LimitEngine.BPF))
        )
        assert [(item.name, item.upload, item.download) for item in nft.puts[-1]] == [("a", 1, 0)]
        assert [(item.name, item.upload, item.download) for item in bpf.puts[-1]] == [("a", 0, 2), ("b", 3, 4)]

    running(limits, story)


def test_a_limit_that_moves_to_another_engine_is_at_no_moment_without_one(folder: Slice) -> None:
    story_of: list[tuple[str, list[str]]] = []

    class Telling(Notes):
        def put(self, items: Sequence[Item]) -> None:
            super().put(items)
            story_of.append((self.name, self.names()))

    limits = managed(folder, Telling("nft"), bpf := Telling("bpf"))
    folder.make("a.service")

    async def story() -> None:
        await limits.configure(config(unit("a", upload=1, engine=LimitEngine.NFT)))
        story_of.clear()
        await limits.set(unit("a", upload=1, engine=LimitEngine.BPF))
        assert story_of == [("nft", ["a"]), ("bpf", ["a"]), ("nft", [])]
        story_of.clear()
        await limits.set(unit("a", upload=1, engine=LimitEngine.NFT))
        assert story_of == [("nft", ["a"]), ("bpf", ["a"]), ("bpf", [])]
        bpf.refuses = "no"
        story_of.clear()
        with pytest.raises(KernelRefused):
            await limits.set(unit("a", upload=1, engine=LimitEngine.BPF))
        assert ("nft", []) not in story_of

    running(limits, story)


def test_an_engine_that_fails_does_not_take_the_others_with_it(folder: Slice) -> None:
    nft, bpf = Notes(), Notes("bpf")
    nft.refuses = "no"
    limits = managed(folder, nft, bpf)
    folder.make("b.service")

    async def story() -> None:
        await limits.configure(config(unit("b", upload=3, engine=LimitEngine.BPF)))
        assert limits.trouble == "bandwidth limits: no"
        assert [item.name for item in bpf.puts[-1]] == ["b"]
        folder.make("c.service")
        await limits.set(unit("c", upload=4, engine=LimitEngine.BPF))
        with pytest.raises(KernelRefused, match="no"):
            await limits.set(unit("c", upload=5, engine=LimitEngine.NFT))
        assert [item.upload for item in bpf.puts[-1]] == [3, 4]
        await limits.clear("c")
        assert (bpf.names(), limits.trouble) == (["b"], "bandwidth limits: no")
        nft.refuses = ""
        await limits.hold()
        assert (limits.trouble, nft.adopted, bpf.adopted) == ("", 1, 1)

    running(limits, story)


def test_a_limit_of_the_file_that_no_engine_can_hold_is_trouble(folder: Slice) -> None:
    limits = managed(folder, Notes())

    async def story() -> None:
        await limits.configure(config(unit("a", upload=1, engine=LimitEngine.SHAPE)))
        assert limits.trouble == "bandwidth limits: limit a cannot be held: shape: not in this service"
        default = DefaultLimit(download=1, engine=LimitEngine.SHAPE)
        await limits.configure(config(unit("a", upload=1), default=default))
        assert limits.trouble == "bandwidth limits: default_limit cannot be held: shape: not in this service"
        await limits.configure(config(unit("a", upload=1)))
        assert limits.trouble == ""

    running(limits, story)


def test_a_machine_without_cgroups_of_version_2_is_trouble_only_where_limits_are_wanted() -> None:
    def nowhere() -> cgroups.Hierarchy:
        raise GlacicError("only cgroups of version 1 are mounted")

    engine = Notes()
    limits = Limiting({"nft": engine}, NFT_ALONE, nowhere)

    async def story() -> None:
        await limits.configure(config())
        assert limits.trouble == ""
        assert engine.puts == [()]  # what an earlier run left is taken away
        with pytest.raises(GlacicError, match="version 1"):
            await limits.set(unit("a"))
        await limits.configure(config(unit("a")))
        assert limits.trouble == "bandwidth limits: only cgroups of version 1 are mounted"
        assert [one.why_waiting for one in await limits.standing()] == [limits.trouble]
        await limits.configure(config(unit("a"), unit("b")))
        with pytest.raises(GlacicError, match="version 1"):
            await limits.set(unit("c"))
        await limits.clear("a")
        assert list(limits.wanted()) == ["b"]
        await limits.clear("b")
        assert limits.trouble == ""

    running(limits, story)


def test_a_service_that_loads_nothing_limits_nothing_and_says_so(tmp_path: Path) -> None:
    limits = limiting_of(FakeNft(), False, tmp_path)

    async def story() -> None:
        with pytest.raises(GlacicError, match="loads nothing into the kernel"):
            await limits.set(unit("a"))
        await limits.configure(config())

    running(limits, story)


# ---- the whole service

UNIT = f"glaciclab{os.getpid()}.service"  # whatever else runs here
CONFIG = 'zone "lan" { interface = "lan0" }'
SEND = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    try: sock.sendto(bytes(1000), ("10.0.0.2", 9000))
    except PermissionError: pass
"""


@pytest.fixture
def near() -> Iterator[Host]:
    with Network() as net:
        near, far = net.host("near"), net.host("far")
        net.cable(Port(near, "eth0", "", ("10.0.0.1/24",)), Port(far, "eth0", "", ("10.0.0.2/24",)))
        yield near


def sent(near: Host, system: Slice, name: str, packets: int) -> None:
    """So many datagrams of 1028 bytes, from a process in that cgroup."""
    process = near.popen(system.command(name, [sys.executable, "-c", SEND, str(packets)]), stderr=subprocess.PIPE)
    assert process.wait(PATIENCE_S) == 0
    near.end(process)


def test_a_limit_from_the_socket_to_the_packets_through_restarts_and_a_kill(
    near: Host, system: Slice, tmp_path: Path
) -> None:
    def shown() -> dict[str, Any]:
        row: dict[str, Any] = glacic.call("limits.show", name="backup")
        return row

    def tables() -> str:
        return near.run(["nft", "list", "tables"]).stdout

    glacic = Glacic(near, tmp_path, CONFIG)
    with glacic:
        assert "glacic_limits" not in tables()  # nobody wants any
        row = glacic.call("limits.set", name="backup", target=UNIT, upload=10_000)
        assert (row["state"], row["why"]) == ("waiting", f"{UNIT} does not run")
        made = system.make(UNIT)
        glacic.wait("limiting the unit", lambda: shown()["cgroup_id"] == made.id)
        sent(near, system, UNIT, 1000)
        row = shown()
        assert row["packets_upload"] + row["dropped_packets_upload"] == 1000
        assert row["dropped_packets_upload"] > 500
        assert row["bytes_upload"] == row["packets_upload"] * 1028

        again = system.remake(UNIT)
        glacic.wait("limiting it again", lambda: shown()["cgroup_id"] == again.id)
        assert shown()["dropped_packets_upload"] >= row["dropped_packets_upload"]  # its bucket and counters go on

        glacic.call("reload")
        assert shown()["state"] == "active"  # a reload of the firewall is none of its business
        glacic.call("panic", force=True)
        assert shown()["state"] == "active"
        glacic.call("panic", on=False)

        near.run(["nft", "delete", "table", "inet", "glacic_limits"])
        glacic.call("limits.set", name="backup", upload=20_000)
        assert "inet glacic_limits" in tables()

        assert glacic.process is not None
        assert os.getpriority(os.PRIO_PROCESS, glacic.process.pid) == NICE  # it may, as root

        entries = glacic.call("audit", limit=50)["entries"]
        changes = [entry["args"] for entry in entries if entry["action"] == "limits.set"]
        assert changes[0]["target"] == UNIT

        glacic.kill()
        assert "inet glacic_limits" in tables()  # the kernel goes on
        system.remake(UNIT)
        glacic.start()
        assert "inet glacic_limits" not in tables()  # set at run time, and nothing of it is in the file
        glacic.call("limits.set", name="backup", target=UNIT, upload=20_000)
        assert shown()["state"] == "active"
    assert "inet glacic_limits" in tables()  # also after a clean stop
    glacic.cli("unload")
    assert tables() == ""


# A unit that restarts: makes its cgroup argv[1] once per line, and floods from in there, at once, for 0.1 s.
RESTARTED = """
import os, socket, sys, time
for _ in sys.stdin:
    if os.fork() == 0:
        os.mkdir(sys.argv[1])
        with open(sys.argv[1] + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ends = time.monotonic() + 0.1
        while time.monotonic() < ends:
            try: sock.sendto(bytes(1000), ("10.0.0.2", 9000))
            except PermissionError: pass
        os._exit(0)
    os.wait()
    os.rmdir(sys.argv[1])
    print("restarted", flush=True)
"""


def test_a_unit_that_restarts_100_times_under_load_gets_little_through_without_its_limit(
    near: Host, system: Slice, tmp_path: Path
) -> None:
    """What passes in the moment between a cgroup's making and its limit; on two idle cores a millisecond, and often
    nothing at all (docs/decisions/0011)."""
    with Glacic(near, tmp_path, CONFIG) as glacic:
        glacic.call("limits.set", name="backup", target=UNIT, upload=MIB)
        near.run(
            ["nft", "-f", "-"],
            text=f"""
            table inet watch {{
              counter passed {{ }}
              chain output {{
                type filter hook output priority 30
                socket cgroupv2 level 1 "../../..{system.place("")}" counter name passed
              }}
            }}
            """,
        )
        place = system.place(UNIT)
        process = near.popen(
            [sys.executable, "-c", RESTARTED, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(100):
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"restarted\n"
        row = glacic.call("limits.show", name="backup")
        listed = near.run(["nft", "list", "counter", "inet", "watch", "passed"]).stdout
        passed = int(listed.split(" bytes ")[1].split()[0])
        unlimited = passed - row["bytes_upload"]
        tried = unlimited + row["bytes_upload"] + row["dropped_bytes_upload"]
        sys.stdout.write(f"{tried} bytes tried, {row['bytes_upload']} within the limit, {unlimited} without it\n")
        assert row["bytes_upload"] < 100 * MIB
        assert unlimited < tried / 4, f"{unlimited} of {tried} bytes"  # wide: a busy machine runs us late
        near.end(process)


def test_limits_of_the_file_outlive_a_kill_and_go_with_the_file(near: Host, system: Slice, tmp_path: Path) -> None:
    def row() -> dict[str, Any]:
        shown: dict[str, Any] = glacic.call("limits.show", name="backup")
        return shown

    limit = f'limit "backup" {{\n  unit = "{UNIT}"\n  upload = "1 MiB/s"\n}}\n'
    glacic = Glacic(near, tmp_path, limit)
    first = system.make(UNIT)
    with glacic:
        assert (row()["state"], row()["cgroup_id"], row()["origin"]) == ("active", first.id, "config")
        glacic.kill()
        assert "inet glacic_limits" in near.run(["nft", "list", "tables"]).stdout
        second = system.remake(UNIT)
        glacic.start()
        assert row()["cgroup_id"] == second.id
        glacic.reload(limit.replace("1 MiB/s", "2 MiB/s"))
        assert row()["upload"] == 2 * MIB
        assert "rate over 2 mbytes/second" in near.run(["nft", "list", "table", "inet", "glacic_limits"]).stdout
        glacic.reload(CONFIG)
        assert "glacic_limits" not in near.run(["nft", "list", "tables"]).stdout
