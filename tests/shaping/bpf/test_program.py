"""glacic.shaping.bpf.program: the bucket, packet by packet, and which packets it is for.

The kernel puts packets through the loaded program (BPF_PROG_TEST_RUN), without a network. In the scratch network there
is one interface beside the loopback, and its number goes with them.
"""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from glacic.config.model import Traffic
from glacic.lab import ebpf
from glacic.shaping import scratch
from glacic.shaping.bpf import bucket, program, syscall
from glacic.shaping.engine import DOWNLOAD, UPLOAD
from glacic.shaping.scratch import INTERFACE, Scratch

PASS, DROP, DROP_AND_SLOW_DOWN = 1, 0, 2
LOOPBACK = 1
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOCAL = [
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "224.0.0.0/4"),
    *("255.255.255.255/32", "fc00::/7", "fe80::/10", "ff00::/8"),
]


def _packet(source: Address | str, destination: Address | str, length: int = 100) -> bytes:
    one, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if one.version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP, 0) + one.packed + other.packed
    else:
        header = struct.pack("!IHBB", 6 << 28, length - 40, socket.IPPROTO_UDP, 64) + one.packed + other.packed
    return header + bytes(length - len(header))


ANY = _packet("192.0.2.1", "192.0.2.2")


class Bench:
    """One limit, and a way to put packets through it."""

    def __init__(self, direction: str, rate: int, traffic: Traffic = Traffic.ALL) -> None:
        self.direction = direction
        self.map = bucket.create()
        bucket.set_rate(self.map, direction, rate)
        self.program = program.load(self.map, direction, traffic)
        self.interface = socket.if_nametoindex(INTERFACE)

    def put(self, packet: bytes = ANY, *, times: int = 1, interface: int = 0) -> int:
        return ebpf.put_through(self.program, packet, interface=interface or self.interface, times=times)[0]

    def counted(self) -> list[int]:
        counted = bucket.counted(self.map, self.direction)
        return [counted.bytes, counted.packets, counted.dropped_bytes, counted.dropped_packets]

    def close(self) -> None:
        os.close(self.map)
        os.close(self.program)


def _inside(work: Any) -> Any:
    return scratch.inside(work)


@pytest.mark.parametrize("traffic", Traffic)
@pytest.mark.parametrize("direction", [UPLOAD, DOWNLOAD])
def test_every_variant_passes_the_verifier_without_a_claim_to_be_gpl(direction: str, traffic: Traffic) -> None:
    descriptor = bucket.create()
    loaded = program.load(descriptor, direction, traffic)
    try:
        info = syscall.program_info(loaded)
    finally:
        os.close(loaded)
        os.close(descriptor)
    assert info.name == program.name_of(direction, traffic)
    assert not info.gpl_compatible


@pytest.mark.parametrize(("direction", "refusal"), [(UPLOAD, DROP_AND_SLOW_DOWN), (DOWNLOAD, DROP)])
def test_a_full_bucket_lets_its_depth_through_and_one_packet_more(direction: str, refusal: int) -> None:
    """1000 bytes per second hold 300 bytes: three packets of 100, and one that is lent."""

    def work(_: Scratch) -> Any:
        bench = Bench(direction, 1000)
        return [bench.put(times=4), bench.counted(), bench.put(times=6), bench.counted()]

    passed, after_four, refused, after_ten = _inside(work)
    assert (passed, after_four) == (PASS, [400, 4, 0, 0])
    assert (refused, after_ten) == (refusal, [400, 4, 600, 6])


def test_a_packet_larger_than_the_bucket_passes_and_is_paid_for_afterwards() -> None:
    """3000 bytes through a bucket of 300; what follows would wait for 2.7 seconds."""

    def work(_: Scratch) -> Any:
        bench = Bench(DOWNLOAD, 1000)
        return [bench.put(_packet("192.0.2.1", "192.0.2.2", 3000)), bench.put(times=100), bench.counted()]

    assert _inside(work) == [PASS, DROP, [3000, 1, 10_000, 100]]


def test_processors_that_charge_one_bucket_at_once_let_no_more_through_than_one_would() -> None:
    def work(_: Scratch) -> Any:
        bench = Bench(UPLOAD, 1000)
        threads = [threading.Thread(target=bench.put, kwargs={"times": 20_000}) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return bench.counted()

    _, passed, _, dropped = _inside(work)
    assert passed + dropped == 80_000
    assert 4 <= passed <= 14  # the bucket, and what a slow machine's second or so adds


def test_ipv4_and_ipv6_draw_on_one_bucket() -> None:
    def work(_: Scratch) -> Any:
        bench = Bench(DOWNLOAD, 1000)
        return [bench.put(times=4), bench.put(_packet("2001:db8::1", "2001:db8::2")), bench.counted()]

    assert _inside(work) == [PASS, DROP, [400, 4, 100, 1]]


def test_loopback_is_neither_limited_nor_counted() -> None:
    def work(_: Scratch) -> Any:
        bench = Bench(UPLOAD, 1)
        return [bench.put(times=100, interface=LOOPBACK), bench.counted()]

    assert _inside(work) == [PASS, [0, 0, 0, 0]]


def test_a_rate_that_is_not_reached_drops_nothing() -> None:
    def work(_: Scratch) -> Any:
        bench = Bench(UPLOAD, 17 << 30)
        return [bench.put(times=1000), bench.counted()]

    assert _inside(work) == [PASS, [100_000, 1000, 0, 0]]


def _addresses() -> Iterator[Address]:
    """The edges of every network that counts as local, what lies right outside, and some by chance."""
    chance = random.Random(5)
    for text in LOCAL:
        network = ipaddress.ip_network(text)
        kind = type(network.network_address)
        for number in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
            if 0 <= number < 1 << network.max_prefixlen:
                yield kind(number)
    for _ in range(40):
        yield ipaddress.IPv4Address(chance.getrandbits(32))
        yield ipaddress.IPv6Address(chance.getrandbits(128))


def _is_local(address: Address) -> bool:
    return any(
        address in ipaddress.ip_network(text) for text in LOCAL if ipaddress.ip_network(text).version == address.version
    )


@pytest.mark.parametrize("direction", [UPLOAD, DOWNLOAD])
@pytest.mark.parametrize("traffic", [Traffic.INTERNET, Traffic.LOCAL])
def test_the_other_ends_address_decides_whether_a_packet_is_of_the_limited_traffic(
    direction: str, traffic: Traffic
) -> None:
    """Against the slow twin, Python's ipaddress. Our own address is local in one half and not in the other."""
    addresses = list(_addresses())

    def work(_: Scratch) -> Any:
        bench = Bench(direction, 17 << 30, traffic)
        wrong = []
        for number, far in enumerate(addresses):
            here = {4: ["10.1.1.1", "192.0.2.1"], 6: ["fd00::1", "2001:db8::1"]}[far.version][number % 2]
            before = bench.counted()[1]
            bench.put(_packet(here, far) if direction == UPLOAD else _packet(far, here))
            limited = bench.counted()[1] - before == 1
            if limited is not (_is_local(far) is (traffic is Traffic.LOCAL)):
                wrong.append(str(far))
        return wrong

    assert _inside(work) == []


def test_all_traffic_means_local_addresses_too() -> None:
    def work(_: Scratch) -> Any:
        bench = Bench(UPLOAD, 17 << 30)
        for address in ("10.0.0.1", "8.8.8.8"):
            bench.put(_packet("192.0.2.1", address))
        return bench.counted()

    assert _inside(work) == [200, 2, 0, 0]
