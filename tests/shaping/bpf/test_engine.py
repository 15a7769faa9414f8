"""glacic.shaping.bpf.engine: what a limited cgroup gets through, of every kind of packet; and whose programs are there.

Everything happens in a scratch network: `scratch.inside` calls each `work` in a process of its own, and the test looks
at what it returns. Bounds are wide where a clock is in them: these machines are busy.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.lab import ebpf
from glacic.shaping import scratch, selftest
from glacic.shaping.bpf import program, syscall
from glacic.shaping.bpf.engine import LINGER_S, BpfLimits
from glacic.shaping.bpf.insns import R0, Code
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Item
from glacic.shaping.far import PORT
from glacic.shaping.scratch import THERE, Scratch

MIB = 1 << 20
CLONE_NEWNS, MS_REC_PRIVATE = 0x20000, 0x44000
DATAGRAM = bytes(1000)
QUIET_S = 0.3  # after that nothing more is on its way


def _item(cgroup: Cgroup, name: str = "backup", **more: Any) -> Item:
    return Item(name=name, cgroup=cgroup, **more)


def _udp(made: Scratch, cgroup: Cgroup, family: int = 4) -> socket.socket:
    with made.of(cgroup):
        udp = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    udp.connect((THERE[family], PORT))
    return udp


def _arrived(made: Scratch, tag: str = "\0") -> int:
    count: int = made.far.ask("counts").get(tag, 0)
    return count


def _burst(made: Scratch, udp: socket.socket, count: int = 100) -> int:
    """How many of so many datagrams of 1000 bytes arrive."""
    before = _arrived(made)
    for _ in range(count):
        udp.send(DATAGRAM)
    came, quiet_since = 0, time.monotonic()
    while came < count and time.monotonic() < quiet_since + QUIET_S:
        time.sleep(0.01)
        if (now := _arrived(made) - before) != came:
            came, quiet_since = now, time.monotonic()
    return came


def _flood(made: Scratch, udps: list[socket.socket], seconds: float) -> float:
    """Datagrams per second that arrive while far more are sent, from all of these in turn."""
    for udp in udps:
        udp.setblocking(False)
    before, begun = _arrived(made), time.monotonic()
    while time.monotonic() < begun + seconds:
        for udp in udps:
            for _ in range(20):
                with suppress(BlockingIOError):
                    udp.send(DATAGRAM)
        time.sleep(0.002)
    return (_arrived(made) - before) / (time.monotonic() - begun)


def _ours(cgroup: int) -> list[int]:
    """The numbers of the links on a cgroup."""
    return [link.id for link in ebpf.links() if link.cgroup == cgroup]


def _soon(look: Callable[[], Any], wanted: Any) -> Any:
    """What it says in the end: the kernel lets go of programs and links a moment after their last user has."""
    until = time.monotonic() + 5
    while (seen := look()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    return seen


def test_tcp_gets_its_rate_in_both_directions() -> None:
    rows = selftest.run({"bpf": lambda made: BpfLimits(made.mount)}, 4, MIB)
    assert [row["direction"] for row in rows] == [UPLOAD, DOWNLOAD]
    assert all(0.80 < row["ratio"] < 1.15 for row in rows), rows


def test_a_udp_flood_over_both_families_gets_one_rate_between_them() -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        engine.put([_item(made.limited, upload=MIB)])
        udps = [_udp(made, made.limited, family) for family in (4, 6)]
        _flood(made, udps, 0.5)  # what the bucket begins with
        per_second = _flood(made, udps, 3)
        counted = engine.counters()["backup", UPLOAD]
        return [per_second * 1034 / MIB, counted.dropped_packets > counted.packets]  # 28 or 48 bytes of headers

    ratio, most_dropped = scratch.inside(work)
    assert 0.80 < ratio < 1.15
    assert most_dropped


def test_the_cgroup_beside_it_loses_nothing() -> None:
    def work(made: Scratch) -> Any:
        BpfLimits(made.mount).put([_item(made.limited, upload=1000, download=1000)])
        return [_burst(made, _udp(made, made.free)), _burst(made, _udp(made, made.limited))]

    free, limited = scratch.inside(work)
    assert free == 100
    assert 1 <= limited <= 5


def test_a_cgroup_below_a_limited_one_is_limited_with_it() -> None:
    """A slice and its units share the slice's bucket."""

    def work(made: Scratch) -> Any:
        below = made.mount / made.limited.path / "unit"
        below.mkdir()
        try:
            BpfLimits(made.mount).put([_item(made.limited, upload=1000)])
            unit = Cgroup(f"{made.limited.path}/unit", below.stat().st_ino, 2)
            return [_burst(made, _udp(made, unit)), _burst(made, _udp(made, made.limited))]
        finally:
            below.rmdir()

    unit, slice_ = scratch.inside(work)
    assert 1 <= unit <= 5
    assert slice_ <= 2


def test_a_process_in_another_network_namespace_is_limited_by_its_cgroup() -> None:
    """As those of containers are."""
    code = f"import socket\nfor n in range(100): socket.socket(2, 2).sendto(bytes(1000), ('{scratch.HERE[4]}', 4711))"

    def work(made: Scratch) -> Any:
        (peer,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        came = []
        BpfLimits(made.mount).put([_item(made.limited, upload=1000)])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((scratch.HERE[4], 4711))
            udp.settimeout(0.2)
            for cgroup in (made.limited, made.free):
                with made.of(cgroup):
                    subprocess.run(["nsenter", "-t", peer, "-n", sys.executable, "-c", code], check=True)
                came.append(0)
                with suppress(TimeoutError):
                    while udp.recv(2000):
                        came[-1] += 1
        return came

    limited, free = scratch.inside(work)
    assert 1 <= limited <= 5
    assert free > 50  # the receiver's buffer may overflow


def test_a_socket_is_told_of_no_error_where_its_packet_is_dropped() -> None:
    """send() would raise PermissionError, as it does where a firewall rejects."""

    def work(made: Scratch) -> Any:
        BpfLimits(made.mount).put([_item(made.limited, upload=1)])
        udp = _udp(made, made.limited)
        return [udp.send(DATAGRAM) for _ in range(50)]

    assert scratch.inside(work) == [1000] * 50


@pytest.mark.parametrize("family", [4, 6])
def test_icmp_of_raw_sockets_is_limited_in_both_directions(family: int) -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        engine.put([_item(made.limited, upload=10 * MIB, download=1000)])
        with made.of(made.limited):
            raw = (
                socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
                if family == 4
                else socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            )
        for number in range(50):
            body = struct.pack("!BBHHH", 8 if family == 4 else 128, 0, 0, 1, number) + bytes(1000)
            raw.sendto(body[:2] + _checksum(body) + body[4:] if family == 4 else body, (THERE[family], 0))
        down = _soon(lambda: _seen(engine, DOWNLOAD), 50)
        up = engine.counters()["backup", UPLOAD]
        passed = 0
        while select.select([raw], [], [], 0.1)[0]:
            raw.recv(2000)
            passed += 1
        return [down >= 50, up.packets, passed]

    seen, sent, passed = scratch.inside(work)
    assert seen
    assert sent == 50
    assert 1 <= passed <= 5


def _seen(engine: BpfLimits, direction: str) -> int:
    counted = engine.counters()["backup", direction]
    return counted.packets + counted.dropped_packets


def _checksum(body: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


@pytest.mark.parametrize("address", ["127.0.0.1", scratch.HERE[4]])
def test_loopback_is_never_limited(address: str) -> None:
    """Also where the machine talks to itself by an address of another interface."""

    def work(made: Scratch) -> Any:
        BpfLimits(made.mount).put([_item(made.limited, upload=1, download=1)])
        with made.of(made.limited), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind((address, 0))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.connect(receiver.getsockname())
                for _ in range(50):
                    sender.send(DATAGRAM)
                    receiver.settimeout(5)
                    receiver.recv(2000)
        return True

    assert scratch.inside(work)


def test_local_and_internet_traffic_are_told_apart_on_the_wire() -> None:
    """192.0.2.2 is of the internet, and the only other end there is."""

    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        udp, came = _udp(made, made.limited), []
        for traffic in (Traffic.LOCAL, Traffic.INTERNET, Traffic.LOCAL):
            engine.put([_item(made.limited, upload=1000, traffic=traffic)])
            came.append(_burst(made, udp))
        return came

    local, internet, local_again = scratch.inside(work)
    assert (local, local_again) == (100, 100)
    assert 1 <= internet <= 5


def test_another_rate_holds_at_once_for_open_sockets_over_the_same_links() -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        udp, rates, links = _udp(made, made.limited), [], []
        for rate in (MIB // 4, 2 * MIB, MIB // 4):
            engine.put([_item(made.limited, upload=rate)])
            links.append(_ours(made.limited.id))
            _flood(made, [udp], 0.5)
            rates.append(_flood(made, [udp], 1.5) * 1028 / rate)
        return [rates, links]

    rates, links = scratch.inside(work)
    assert all(0.75 < rate < 1.2 for rate in rates), rates
    assert links[0] == links[1] == links[2] != []


def test_the_same_again_changes_nothing_and_a_direction_less_takes_its_link_away() -> None:
    def work(made: Scratch) -> Any:
        engine, seen = BpfLimits(made.mount), []
        for rates in ({"upload": 1, "download": 2}, {"upload": 1, "download": 2}, {"download": 2}, {"download": 3}):
            engine.put([_item(made.limited, **rates)])
            seen.append([_ours(made.limited.id), sorted(direction for _, direction in engine.counters())])
        engine.put(())
        return [*seen, _soon(lambda: _ours(made.limited.id), [])]

    first, again, one, faster, none = scratch.inside(work)
    assert first == again
    assert first[1] == [DOWNLOAD, UPLOAD]
    assert one == faster == [first[0][1:], [DOWNLOAD]]
    assert none == []


def test_counters_say_what_passed_and_what_was_dropped() -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        engine.put([_item(made.limited, upload=1000)])
        came = _burst(made, _udp(made, made.limited))
        counted = engine.counters()["backup", UPLOAD]
        return [came, counted.packets, counted.bytes, counted.dropped_packets, counted.dropped_bytes]

    came, packets, passed, dropped_packets, dropped = scratch.inside(work)
    assert came == packets
    assert passed == 1028 * packets
    assert dropped_packets == 100 - packets
    assert dropped == 1028 * dropped_packets


def test_a_cgroup_that_was_made_anew_is_limited_again_out_of_the_same_bucket() -> None:
    def work(made: Scratch) -> Any:
        engine, path = BpfLimits(made.mount), made.mount / made.limited.path
        engine.put([_item(made.limited, upload=1000)])
        first = _burst(made, _udp(made, made.limited))
        path.rmdir()
        path.mkdir()
        anew = Cgroup(made.limited.path, path.stat().st_ino, 1)
        engine.put([_item(anew, upload=1000)])
        counted_before = engine.counters()["backup", UPLOAD].packets
        return [anew.id != made.limited.id, first, counted_before, _burst(made, _udp(made, anew))]

    other_id, first, counted, second = scratch.inside(work)
    assert other_id
    assert counted == first
    assert second <= 2  # the bucket was empty


def test_a_socket_that_outlives_its_cgroup_stays_limited_for_a_while() -> None:
    def work(made: Scratch) -> Any:
        now = [100.0]
        engine = BpfLimits(made.mount, now=lambda: now[0])
        engine.put([_item(made.limited, upload=1000)])
        udp = _udp(made, made.limited)
        _burst(made, udp)
        (made.mount / made.limited.path).rmdir()
        engine.put(())
        lingering = _burst(made, udp)
        now[0] += LINGER_S
        engine.put(())
        return [lingering, _soon(lambda: _burst(made, udp), 100)]

    lingering, afterwards = scratch.inside(work)
    assert lingering <= 2
    assert afterwards == 100


def test_a_cgroup_that_is_not_there_is_left_out_and_the_others_are_limited() -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        gone = Cgroup("glacic-never-made", 1, 1)
        engine.put([_item(gone, "gone", upload=1000), _item(made.limited, upload=1000)])
        return [sorted(engine.counters()), _burst(made, _udp(made, made.limited))]

    counters, came = scratch.inside(work)
    assert counters == [["backup", UPLOAD]]
    assert came <= 5


def test_what_the_kernel_refuses_changes_nothing(tmp_path: Path) -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        engine.put([_item(made.limited, upload=1000)])
        before = [_ours(made.limited.id), _ours(made.free.id)]
        no_cgroup = Cgroup(os.path.relpath(tmp_path, made.mount), 1, 1)
        try:
            engine.put(
                [_item(made.free, "new", upload=5), _item(made.limited, upload=9), _item(no_cgroup, "bad", upload=5)]
            )
        except KernelRefused as error:
            refused = str(error)
        came = _burst(made, _udp(made, made.limited))
        return [refused, before == [_ours(made.limited.id), _soon(lambda: _ours(made.free.id), [])], came]

    refused, same, came = scratch.inside(work)
    assert refused.startswith("limit bad on ")
    assert same
    assert 1 <= came <= 5


def _somebody_elses(cgroup: int) -> int:
    """A link of a program that lets everything through."""
    code = Code()
    code.set(R0, 1)
    code.exit()
    loaded = syscall.load_program(
        syscall.PROG_TYPE_CGROUP_SKB, syscall.CGROUP_INET_EGRESS, code.assemble(), "Proprietary", "somebody"
    )
    try:
        return syscall.create_link(loaded, cgroup, syscall.CGROUP_INET_EGRESS)
    finally:
        os.close(loaded)


def test_programs_and_links_of_others_are_the_same_before_and_after() -> None:
    """Those on the cgroups of this test: whatever else is on the machine comes and goes by itself."""

    def work(made: Scratch) -> Any:
        for cgroup in (made.limited, made.free):
            _somebody_elses(os.open(made.mount / cgroup.path, os.O_RDONLY))

        def there() -> Any:
            links = [link for link in ebpf.links() if link.cgroup in (made.limited.id, made.free.id)]
            return [[link.id, link.program, link.cgroup, link.attach_type] for link in links]

        before = there()
        engine = BpfLimits(made.mount)
        engine.adopt()
        engine.put([_item(made.limited, upload=1000, download=1000)])
        limited, during = _burst(made, _udp(made, made.limited)), there()
        engine.put([_item(made.free, "another", upload=5)])
        engine.remove()
        after = _soon(there, before)
        ours = {program for _, program, *_ in during} - {program for _, program, *_ in before}
        loaded = _soon(lambda: sorted(ours & {info.id for info in ebpf.programs()}), [])
        return [before, during, limited, after, loaded]

    before, during, limited, after, loaded = scratch.inside(work)
    assert len(before) == 2
    assert during[:2] == before
    assert len(during) == 4
    assert 1 <= limited <= 5
    assert after == before
    assert loaded == []


def _in_a_process(made: Scratch, act: Callable[[], None]) -> int:
    """Starts a process that does this and then stays. Returns its pid when it is done."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(writer, b"\n")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"\n"
    return pid


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_links_that_a_killed_process_held_are_gone() -> None:
    def work(made: Scratch) -> Any:
        pid = _in_a_process(made, lambda: BpfLimits(made.mount).put([_item(made.limited, upload=1000, download=1000)]))
        held = len(_ours(made.limited.id))
        limited = _burst(made, _udp(made, made.limited))
        _kill(pid)
        left = _soon(lambda: _ours(made.limited.id), [])
        return [held, limited, left, _burst(made, _udp(made, made.limited))]

    held, limited, left, free = scratch.inside(work)
    assert held == 2
    assert limited <= 5
    assert left == []
    assert free == 100


def _with_bpffs(place: Path, work: Callable[[Scratch, Path], Any]) -> Any:
    def inside(made: Scratch) -> Any:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
        assert libc.mount(b"bpf", str(place).encode(), b"bpf", 0, None) == 0
        (place / "glacic").mkdir()
        return work(made, place / "glacic")

    return scratch.inside(inside)


def test_pinned_links_outlive_a_killed_process_and_the_next_one_takes_them_over(tmp_path: Path) -> None:
    def work(made: Scratch, place: Path) -> Any:
        item = _item(made.limited, "default:backup.service", upload=1000)
        pid = _in_a_process(made, lambda: BpfLimits(made.mount, place=place).put([item]))
        udp = _udp(made, made.limited)
        first = _burst(made, udp)
        _kill(pid)
        still = _burst(made, udp)
        engine = BpfLimits(made.mount, place=place)
        engine.adopt()
        engine.put([item])
        counted = engine.counters()["default:backup.service", UPLOAD]
        links = _soon(lambda: len(_ours(made.limited.id)), 1)
        engine.remove()
        gone = _soon(lambda: _ours(made.limited.id), [])
        return [first, still, counted.packets, counted.dropped_packets, links, gone, sorted(map(str, place.iterdir()))]

    first, still, packets, dropped, links, gone, left = _with_bpffs(tmp_path, work)
    assert 1 <= first <= 5
    assert still <= 2
    assert (packets, dropped) == (first + still, 200 - first - still)
    assert links == 1
    assert gone == left == []


def test_pinned_links_of_limits_that_are_gone_go_with_the_next_start(tmp_path: Path) -> None:
    def work(made: Scratch, place: Path) -> Any:
        before = BpfLimits(made.mount, place=place)
        before.put([_item(made.limited, "old", upload=1000), _item(made.free, "kept", download=1000)])
        (place / "old" / "notes").mkdir()  # somebody else's
        after = BpfLimits(made.mount, place=place)
        after.adopt()
        after.put([_item(made.free, "kept", download=1000)])
        left = sorted(str(path.relative_to(place)) for path in place.rglob("*"))
        held = BpfLimits(made.mount)  # pins nothing, and so takes nothing from who does
        held.adopt()
        held.remove()
        assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == left
        BpfLimits(made.mount, place=place).remove()
        return [left, sorted(str(path.relative_to(place)) for path in place.rglob("*"))]

    left, cleaned = _with_bpffs(tmp_path, work)
    assert left == ["kept", "kept/download", "kept/map", "old", "old/notes"]
    assert cleaned == ["old", "old/notes"]


def test_pins_where_there_is_no_bpf_file_system_are_refused_and_nothing_is_limited(tmp_path: Path) -> None:
    def work(made: Scratch) -> Any:
        (tmp_path / "glacic").mkdir()
        engine = BpfLimits(made.mount, place=tmp_path / "glacic")
        try:
            engine.put([_item(made.limited, upload=1)])
        except KernelRefused as error:
            said = str(error)
        left = [*(tmp_path / "glacic").iterdir()]
        return [said, _soon(lambda: _ours(made.limited.id), []), dict(engine.counters()), len(left)]

    said, *left = scratch.inside(work)
    assert "mount -t bpf bpf" in said
    assert left == [[], {}, 0]


def test_a_pin_that_is_refused_leaves_the_limits_that_there_are(tmp_path: Path) -> None:
    def work(made: Scratch, place: Path) -> Any:
        engine = BpfLimits(made.mount, place=place)
        engine.put([_item(made.limited, "old", upload=1000)])
        (place / "bad").symlink_to("/nowhere")
        try:
            engine.put([_item(made.free, "bad", upload=1000), _item(made.limited, "old", upload=2000)])
        except KernelRefused as error:
            said = str(error)
        return [
            said,
            sorted(engine.counters()),
            _burst(made, _udp(made, made.limited)),
            _soon(lambda: _ours(made.free.id), []),
        ]

    said, counters, came, left = _with_bpffs(tmp_path, work)
    assert "glacic/bad cannot be made: File exists" in said
    assert counters == [["old", UPLOAD]]
    assert 1 <= came <= 5
    assert left == []


def test_a_place_that_cannot_be_looked_into_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "glacic"
    with pytest.raises(KernelRefused, match="cannot be read: Not a directory"):
        BpfLimits(tmp_path, place=place).adopt()


def test_a_hundred_limits_are_put_and_changed_in_moments() -> None:
    def work(made: Scratch) -> Any:
        paths = [made.mount / made.free.path / f"unit{number}" for number in range(100)]
        for path in paths:
            path.mkdir()
        items = [
            _item(Cgroup(f"{made.free.path}/{path.name}", path.stat().st_ino, 2), path.name, upload=MIB, download=MIB)
            for path in paths
        ]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))  # fewer than they take
        engine, times = BpfLimits(made.mount), []
        for wanted in (items, items[:50], ()):
            begun = time.monotonic()
            engine.put(wanted)
            times.append(time.monotonic() - begun)
        for path in paths:
            path.rmdir()
        return times

    assert all(took < 5.0 for took in scratch.inside(work))


def test_too_few_descriptors_are_an_error_that_says_where_to_get_more_and_nothing_has_changed() -> None:
    def work(made: Scratch) -> Any:
        engine = BpfLimits(made.mount)
        engine.put([_item(made.limited, upload=1000)])
        open_now = {int(path.name) for path in Path("/proc/self/fd").iterdir()}  # of the tests before, too
        before, few = len(open_now), sorted(set(range(1000)) - open_now)[30]
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
        try:
            engine.put([_item(made.limited, f"limit{number}", upload=1) for number in range(40)])
        except KernelRefused as error:
            return [
                str(error),
                len([*Path("/proc/self/fd").iterdir()]) - before,
                _soon(lambda: len(_ours(made.limited.id)), 1),
            ]

    said, more, links = scratch.inside(work)
    assert "Too many open files" in said
    assert "LimitNOFILE" in said
    assert (more, links) == (0, 1)


def test_the_name_in_the_kernel_says_whose_it_is() -> None:
    assert program.name_of(UPLOAD, Traffic.ALL) == "glacic_up_all"
    assert program.name_of(DOWNLOAD, Traffic.INTERNET) == "glacic_dn_inet"
