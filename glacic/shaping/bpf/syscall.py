"""Limits in eBPF, the seam to the kernel: bpf(2), its commands as functions on descriptors.

Every descriptor that the kernel gives is closed on exec (bpf(2)). Structures: union bpf_attr and the info structures
in linux/bpf.h; what is left out at the end of one is 0 to the kernel. Refuses to know what programs and maps are for.

Errors: KernelRefused, which says what was asked for, the kernel's own word, and what that means here. LostObject, a
kind of it, where the thing that was named is not there.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from dataclasses import dataclass

from glacic.errors import KernelRefused

# enum bpf_cmd
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _OBJ_PIN, _OBJ_GET = 0, 1, 2, 5, 6, 7
_OBJ_GET_INFO_BY_FD, _LINK_CREATE = 15, 28

MAP_TYPE_ARRAY = 2  # enum bpf_map_type
PROG_TYPE_CGROUP_SKB = 8  # enum bpf_prog_type
CGROUP_INET_INGRESS, CGROUP_INET_EGRESS = 0, 1  # enum bpf_attach_type
LINK_TYPE_CGROUP = 3  # enum bpf_link_type

# <asm/unistd.h>; the rest of the world uses asm-generic/unistd.h
_NUMBERS = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_GENERIC = 280

_NAME = 16  # BPF_OBJ_NAME_LEN, with its zero byte
_LOG = 1 << 18  # bytes; where they do not suffice, the kernel keeps the end (Linux 6.4) or answers ENOSPC
_LOG_SHOWN = 12  # lines, the last ones: there the verifier says what it refuses

_MEANING = {
    errno.EPERM: "CAP_BPF and CAP_NET_ADMIN are needed, or a program of somebody else is attached exclusively",
    errno.EINVAL: "this kernel does not know it: Linux 5.12 or newer with CONFIG_CGROUP_BPF is needed",
    errno.ENOSYS: "a kernel with CONFIG_BPF_SYSCALL=y is needed",
    errno.EMFILE: "too many open files: raise LimitNOFILE= of the unit",
}


class LostObject(KernelRefused):
    """No object of this name or number: it has ended, or was never there."""


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """struct bpf_prog_info."""

    id: int
    type: int
    name: str
    tag: bytes
    gpl_compatible: bool


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    name: str


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """struct bpf_link_info. cgroup: the id of the cgroup, 0 where that is gone or the link is of another type."""

    id: int
    type: int
    program: int
    cgroup: int
    attach_type: int


def create_map(kind: int, key_size: int, value_size: int, entries: int, name: str) -> int:
    """A new map's descriptor. name: up to 15 letters, digits and underscores."""
    attributes = struct.pack("=7I16s", kind, key_size, value_size, entries, 0, 0, 0, _named(name))
    return _call(_MAP_CREATE, attributes, f"map {name}")


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Put a value into a map."""
    with_key, with_value = _buffer(key), _buffer(value)
    attributes = struct.pack("=I4xQQQ", descriptor, _address(with_key), _address(with_value), 0)
    _call(_MAP_UPDATE, attributes, "element of a map")


def lookup(descriptor: int, key: bytes, size: int) -> bytes:
    """The value of a key, of `size` bytes (the map's, or it is overrun). LostObject where there is none."""
    with_key, value = _buffer(key), ctypes.create_string_buffer(size)
    _call(_MAP_LOOKUP, struct.pack("=I4xQQQ", descriptor, _address(with_key), _address(value), 0), "element of a map")
    return value.raw


def load_program(kind: int, attach_type: int, code: bytes, licence: str, name: str) -> int:
    """A new program's descriptor. KernelRefused ends with the verifier's last lines."""
    instructions, text = _buffer(code), _buffer(licence.encode() + b"\0")

    def attributes(level: int, size: int, log: int) -> bytes:
        begin = struct.pack("=IIQQIIQ", kind, len(code) // 8, _address(instructions), _address(text), level, size, log)
        return begin + struct.pack("=II16sII", 0, 0, _named(name), 0, attach_type)

    try:
        return _call(_PROG_LOAD, attributes(0, 0, 0), f"program {name}")
    except KernelRefused as refused:
        log = ctypes.create_string_buffer(_LOG)
        try:  # the same again, for the reason
            return _call(_PROG_LOAD, attributes(1, _LOG, _address(log)), f"program {name}")
        except KernelRefused:
            lines = log.value.decode(errors="replace").strip().splitlines()[-_LOG_SHOWN:]
        raise type(refused)("\n".join([str(refused), *(f"  verifier: {line}" for line in lines)])) from None


def create_link(program: int, target: int, attach_type: int) -> int:
    """Attach a program to a cgroup (an open directory) or an interface (its number); gone when the descriptor is
    closed, unless it is pinned. Programs of others stay and run as well."""
    return _call(_LINK_CREATE, struct.pack("=4I", program, target, attach_type, 0), "attachment of a program")


def pin(descriptor: int, path: str) -> None:
    """Give an object a name in a BPF file system, by which it lives on without a process."""
    name = _buffer(path.encode() + b"\0")
    _call(_OBJ_PIN, struct.pack("=QII", _address(name), descriptor, 0), f"pin {path}")


def pinned(path: str) -> int:
    """A descriptor of a pinned object."""
    name = _buffer(path.encode() + b"\0")
    return _call(_OBJ_GET, struct.pack("=QII", _address(name), 0, 0), f"pin {path}")


def program_info(descriptor: int) -> ProgramInfo:
    """What the kernel says of a program. KernelRefused where the descriptor is none."""
    raw = _info(descriptor, 88)
    kind, number = struct.unpack_from("=II", raw)
    flags = struct.unpack_from("=I", raw, 84)[0]
    return ProgramInfo(number, kind, _text(raw[64:80]), raw[8:16], bool(flags & 1))


def map_info(descriptor: int) -> MapInfo:
    """What the kernel says of a map."""
    raw = _info(descriptor, 40)
    kind, number, key, value, entries, _ = struct.unpack_from("=6I", raw)
    return MapInfo(number, kind, key, value, entries, _text(raw[24:40]))


def link_info(descriptor: int) -> LinkInfo:
    """What the kernel says of a link."""
    raw = _info(descriptor, 32)
    kind, number, program = struct.unpack_from("=3I", raw)
    cgroup, attach_type = struct.unpack_from("=QI", raw, 16) if kind == LINK_TYPE_CGROUP else (0, 0)
    return LinkInfo(number, kind, program, cgroup, attach_type)


def _info(descriptor: int, size: int) -> bytes:
    raw = ctypes.create_string_buffer(size)
    _call(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, size, _address(raw)), "object")
    return raw.raw


def _call(command: int, attributes: bytes, what: str) -> int:
    return call(command, _buffer(attributes), what)


def call(command: int, attributes: ctypes.Array[ctypes.c_char], what: str) -> int:
    """bpf(2) itself, on attributes that the kernel may write answers into. what: named in the error."""
    function = _function()
    answer: int = function(command, attributes, len(attributes))
    if answer >= 0:
        return answer
    number = ctypes.get_errno()
    said = f"eBPF, {what}: {os.strerror(number)}"
    if number == errno.ENOENT:
        raise LostObject(said)
    raise KernelRefused(f"{said}; {_MEANING[number]}" if number in _MEANING else said)


@functools.cache
def _function():  # type: ignore[no-untyped-def]  # ctypes' function objects have no type of their own
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_NUMBERS.get(platform.machine(), _GENERIC))
    libc.syscall.restype = ctypes.c_long
    return lambda command, attributes, size: libc.syscall(
        number, ctypes.c_int(command), attributes, ctypes.c_uint(size)
    )


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content))


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _named(name: str) -> bytes:
    if len(name) >= _NAME:
        raise ValueError(f"{name}: the kernel takes names of up to {_NAME - 1} bytes")
    return name.encode()


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode(errors="replace")
