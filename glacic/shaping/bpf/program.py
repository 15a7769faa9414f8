"""Limits in eBPF, the program: a token bucket for one cgroup and one direction, attached as cgroup_skb.

It runs for each IP packet that a socket of the cgroup (or of one below) sends or receives: TCP, UDP, ICMP, raw; IPv4
and IPv6 from the same bucket; in whatever network namespace the socket is, so containers too. It answers pass or drop.

The bucket is one number, the moment at which it will be full again (the theoretical arrival time of the generic cell
rate algorithm, ITU-T I.371 annex A). `behind` is how far that lies ahead; a packet costs length / rate seconds:

    behind > tolerance   ->  drop; nothing is charged
    else                 ->  pass; the moment moves on by the packet's cost, from now if it was past

So the packet's own length is not compared with anything: whoever is not behind may send one more, and owes for it. A
packet of 64 KiB (segments that the kernel keeps together) passes a bucket of 4 KiB as it must, for else it would never
pass, and what follows waits until it is paid for: over time it is the rate, to the byte. In any stretch of time at most
rate * time + bucket + one packet pass.

One number can be changed without a lock: read, compute, exchange if nobody else has (compare-and-swap). Who loses that
`ATTEMPTS` times passes and is charged by an atomic addition: no processor ever waits for another, and nothing is free.

A map of one program pair holds four entries of four u64 (host byte order), by key:

    UPLOAD_BUCKET, DOWNLOAD_BUCKET      rate (bytes per second), tolerance (ns), full_at (ns, CLOCK_MONOTONIC), 0
    UPLOAD_COUNTS, DOWNLOAD_COUNTS      bytes and packets passed, bytes and packets dropped

The bucket is written from both sides, the counts by the program alone. Bytes are those of the IP packet.

Loopback is free: its interface has the number 1 in every namespace (LOOPBACK_IFINDEX, include/net/flow.h).

What is dropped on its way out answers NET_XMIT_DROP (2: drop, congestion), not an error: TCP keeps the packet and slows
down (no loss, nothing sent twice), and a UDP sender sees what a full queue looks like. With a plain drop (0), sendto()
would fail with EPERM, which programs take for a firewall.

The licence is Glacic's own, under its SPDX name, which the kernel does not count as compatible with GPL-only helpers
(include/linux/license.h); none is used. Linux 5.12 is needed, for BPF_CMPXCHG.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network, IPv6Network

from glacic.config.model import Traffic
from glacic.shaping.bpf import syscall
from glacic.shaping.bpf.insns import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Code
from glacic.shaping.engine import UPLOAD

UPLOAD_BUCKET, UPLOAD_COUNTS, DOWNLOAD_BUCKET, DOWNLOAD_COUNTS = range(4)
ENTRIES = 4
ENTRY = struct.Struct("=4Q")
KEY = struct.Struct("=I")

LICENCE = "GPL-2.0-or-later"
ATTEMPTS = 8  # measured, two processors on one bucket: of 10 million packets 39 lost twice, none three times

NS = 1_000_000_000

_RATE, _TOLERANCE, _FULL_AT = 0, 8, 16  # of a bucket
_PASSED, _DROPPED = 0, 16  # of the counts; each bytes, then packets 8 bytes on

_LENGTH, _PROTOCOL, _IFINDEX = 0, 16, 40  # struct __sk_buff, linux/bpf.h
_LOOKUP, _NOW, _LOAD_BYTES = 1, 5, 26  # bpf_map_lookup_elem, bpf_ktime_get_ns, bpf_skb_load_bytes
_LOOPBACK = 1
_PASS, _DROP, _DROP_AND_SLOW_DOWN = 1, 0, 2
_IPV4, _IPV6 = socket.htons(0x0800), socket.htons(0x86DD)  # linux/if_ether.h; skb->protocol is in network byte order
_SOURCE_4, _DESTINATION_4, _SOURCE_6, _DESTINATION_6 = 12, 16, 8, 24  # offsets of addresses, RFC 791, RFC 8200
_KEY_AT, _ADDRESS_AT = -4, -8  # in the frame
_SHORT = {Traffic.ALL: "all", Traffic.INTERNET: "inet", Traffic.LOCAL: "local"}  # the kernel takes 15 bytes of a name

# What `local` means (glacic.config.model.Traffic). Of an IPv6 address the first 32 bits tell.
LOCAL_4 = tuple(
    IPv4Network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "169.254.0.0/16",  # RFC 3927
        "100.64.0.0/10",  # RFC 6598
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",
    )
)
LOCAL_6 = tuple(IPv6Network(text) for text in ("fc00::/7", "fe80::/10", "ff00::/8"))  # RFC 4193, RFC 4291


def load(map_descriptor: int, direction: str, traffic: Traffic) -> int:
    """The program for one direction over this map, in the kernel: its descriptor. Raises KernelRefused."""
    attach_type = syscall.CGROUP_INET_EGRESS if direction == UPLOAD else syscall.CGROUP_INET_INGRESS
    code = assemble(map_descriptor, direction, traffic)
    return syscall.load_program(syscall.PROG_TYPE_CGROUP_SKB, attach_type, code, LICENCE, name_of(direction, traffic))


def name_of(direction: str, traffic: Traffic) -> str:
    """What the program is called in the kernel, for people who look ("glacic_up_all")."""
    return f"glacic_{'up' if direction == UPLOAD else 'dn'}_{_SHORT[traffic]}"


def assemble(map_descriptor: int, direction: str, traffic: Traffic) -> bytes:
    """The instructions. R6 the packet, R7 its length, R8 the bucket, R9 the counts."""
    code = Code()
    code.copy(R6, R1)
    code.load(R1, R6, "w", _IFINDEX)
    code.jump("==", R1, _LOOPBACK, "free")
    if traffic is not Traffic.ALL:
        _leave_out(code, direction, traffic)
    code.load(R7, R6, "w", _LENGTH)
    upload = direction == UPLOAD
    _find(code, map_descriptor, UPLOAD_BUCKET if upload else DOWNLOAD_BUCKET, R8)
    _find(code, map_descriptor, UPLOAD_COUNTS if upload else DOWNLOAD_COUNTS, R9)
    _decide(code)

    code.label("pass")
    _count(code, _PASSED)
    code.label("free")
    code.set(R0, _PASS)
    code.exit()

    code.label("drop")
    _count(code, _DROPPED)
    code.set(R0, _DROP_AND_SLOW_DOWN if upload else _DROP)
    code.exit()
    return code.assemble()


def _find(code: Code, map_descriptor: int, key: int, into: int) -> None:
    """into = the address of an entry. There always is one, which the verifier does not know."""
    code.store_number(FP, _KEY_AT, "w", key)
    code.copy(R2, FP)
    code.compute_number(R2, "+", _KEY_AT)
    code.load_map(R1, map_descriptor)
    code.call(_LOOKUP)
    code.jump("==", R0, 0, "free")
    code.copy(into, R0)


def _decide(code: Code) -> None:
    """Go to "drop", or charge the packet and go on. R0 full_at as read, R1 now, R2 tolerance, R3 cost, R4 from when the
    packet counts, R5 a copy of R0."""
    code.call(_NOW)
    code.copy(R1, R0)
    code.load(R2, R8, "dw", _RATE)
    code.copy(R3, R7)
    code.compute_number(R3, "*", NS)  # fits: a packet has at most 2**19 bytes
    code.compute(R3, "/", R2)
    code.load(R2, R8, "dw", _TOLERANCE)
    for attempt in range(ATTEMPTS):
        again = f"lost {attempt}"
        code.load(R0, R8, "dw", _FULL_AT)
        code.copy(R4, R1)
        code.jump_registers("<=", R0, R1, f"not behind {attempt}")
        code.copy(R4, R0)
        code.copy(R5, R0)
        code.compute(R5, "-", R1)
        code.jump_registers(">", R5, R2, "drop")
        code.label(f"not behind {attempt}")
        code.compute(R4, "+", R3)
        code.copy(R5, R0)
        code.exchange_if_equal(R8, _FULL_AT, R4)
        code.jump_registers("!=", R0, R5, again)
        code.go("pass")
        code.label(again)
    code.add_atomically(R8, _FULL_AT, R3)


def _count(code: Code, which: int) -> None:
    code.add_atomically(R9, which, R7)
    code.set(R1, 1)
    code.add_atomically(R9, which + 8, R1)


def _leave_out(code: Code, direction: str, traffic: Traffic) -> None:
    """Go to "free" where the other end is not of the traffic that is limited; what cannot be read is limited."""
    if_local, if_not = ("free", "limited") if traffic is Traffic.INTERNET else ("limited", "free")
    upload = direction == UPLOAD
    code.load(R1, R6, "w", _PROTOCOL)
    code.jump("==", R1, _IPV6, "IPv6")
    code.jump("!=", R1, _IPV4, "limited")
    _first_32_bits(code, _DESTINATION_4 if upload else _SOURCE_4)
    _compare(code, [(int(net.network_address), int(net.netmask)) for net in LOCAL_4], if_local)
    code.go(if_not)
    code.label("IPv6")
    _first_32_bits(code, _DESTINATION_6 if upload else _SOURCE_6)
    _compare(code, [(int(net.network_address) >> 96, int(net.netmask) >> 96) for net in LOCAL_6], if_local)
    if if_not == "free":
        code.go("free")
    code.label("limited")


def _first_32_bits(code: Code, offset: int) -> None:
    """R3 = the four bytes of the packet there, in the machine's byte order."""
    code.copy(R1, R6)
    code.set(R2, offset)
    code.copy(R3, FP)
    code.compute_number(R3, "+", _ADDRESS_AT)
    code.set(R4, 4)
    code.call(_LOAD_BYTES)
    code.jump("!=", R0, 0, "limited")
    code.load(R3, FP, "w", _ADDRESS_AT)
    code.to_host_order(R3, 32)


def _compare(code: Code, networks: list[tuple[int, int]], to: str) -> None:
    """Go to a label if R3 lies in one of the networks, each (address, mask)."""
    for address, mask in networks:
        code.copy(R4, R3)
        code.mask(R4, mask)
        code.set_unsigned(R5, address)
        code.jump_registers("==", R4, R5, to)
