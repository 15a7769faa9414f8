"""The lab, eBPF: which programs and links there are in the kernel, whoever's; and a packet put through one program.

For tests and measurements: a service has no business with the programs of others, and lacks the right to see them
(CAP_SYS_ADMIN).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from typing import TypeVar

from glacic.shaping.bpf import syscall
from glacic.shaping.bpf.syscall import LinkInfo, LostObject, ProgramInfo

T = TypeVar("T")

# enum bpf_cmd
_TEST_RUN, _PROG_NEXT, _PROG_BY_ID, _LINK_BY_ID, _LINK_NEXT = 10, 11, 13, 30, 31

_ETHERNET = bytes(12)  # both addresses; the type follows
_IFINDEX, _CONTEXT = 40, 192  # struct __sk_buff: where the interface's number stands, and its size


def programs() -> list[ProgramInfo]:
    """Every program in the kernel, by its number."""
    return _every(_PROG_NEXT, _PROG_BY_ID, syscall.program_info)


def links() -> list[LinkInfo]:
    """Every link in the kernel, by its number."""
    return _every(_LINK_NEXT, _LINK_BY_ID, syscall.link_info)


def put_through(program: int, packet: bytes, *, interface: int, times: int = 1) -> tuple[int, int]:
    """Run a program on an IP packet as if it came from this interface (its number): what it answers in the end, and the
    nanoseconds that one run took on average (BPF_PROG_TEST_RUN). The packet has less than a page."""
    protocol = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    frame = ctypes.create_string_buffer(_ETHERNET + protocol + packet, 14 + len(packet))
    context = ctypes.create_string_buffer(bytes(_IFINDEX) + struct.pack("=I", interface), _CONTEXT)
    where, what = ctypes.addressof(frame), ctypes.addressof(context)
    attributes = struct.pack("=4IQQIIIIQQ", program, 0, len(frame), 0, where, 0, times, 0, _CONTEXT, 0, what, 0)
    answer = ctypes.create_string_buffer(attributes, len(attributes))
    syscall.call(_TEST_RUN, answer, "trial run")
    verdict, duration = struct.unpack_from("=4xI", answer)[0], struct.unpack_from("=I", answer, 36)[0]
    return verdict, duration


def _every(following: int, opened: int, read: Callable[[int], T]) -> list[T]:
    number = 0
    found: list[T] = []
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12)
        try:
            syscall.call(following, attributes, "list")
        except LostObject:
            return found
        number = struct.unpack_from("=I", attributes, 4)[0]
        try:
            descriptor = syscall.call(
                opened, ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12), "list"
            )
        except LostObject:  # ended meanwhile
            continue
        try:
            found.append(read(descriptor))
        finally:
            os.close(descriptor)
