"""The engine process, confined: before it reads a packet it gives up what no packet may ever gain.

    rights    CAP_NET_ADMIN alone, in every set; no program that it could start gets more (no_new_privs)
    files     what its imports and libnftables read, the folder of the database to write in, nothing else (Landlock)
    programs  none can be started (Landlock)
    network   no TCP, neither in nor out, where the kernel knows that restriction (Linux 6.7)
    others    no signals and no abstract sockets to anybody outside, where it knows those (Linux 6.12)
    core      none: it would hold other people's packets

What was open before stays open. Threads inherit all of it, so it is entered before there are any. Everything is best
effort, because the ruleset does not hang on it: what the kernel does not know is left out and said in the answer.

Sources of the numbers: linux/landlock.h, linux/prctl.h, linux/capability.h; landlock(7), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CAP_DAC_OVERRIDE, CAP_NET_ADMIN = 1, 12
_LAST_CAP = 63  # more than any kernel has: asking for one that is not there answers EINVAL

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture (asm-generic/unistd.h)
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FS_BY_ABI = ((5, 0xFFFF), (3, 0x7FFF), (2, 0x3FFF), (1, 0x1FFF))  # what it can restrict: truncate from 3, refer from 2
_TCP_FROM, _TCP = 4, 0b11  # bind, connect
_SCOPES_FROM, _SCOPES = 6, 0b11  # abstract sockets, signals

# In the folder of the database: files and folders are made, written, cut, renamed and removed. No sockets, no devices.
_WRITE = (1 << 1) | _READ_FILE | _READ_DIR | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 13) | (1 << 14)

# What is read beside Python's own folders: shared libraries and how they are found, names that libnftables and Python
# turn numbers into, time zones, what the kernel says of itself and of its queues.
_READABLE = (
    *("/usr", "/lib", "/lib64", "/proc", "/dev/null", "/dev/urandom"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/os-release"),
    *("/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/protocols", "/etc/services", "/etc/ethertypes"),
    *("/etc/iproute2", "/etc/xtables", "/etc/nftables", "/etc/ssl/openssl.cnf"),
)


@dataclass(frozen=True, slots=True)
class Confined:
    """What is in force. landlock: the ABI of the kernel, 0 where it has none; then files are not restricted."""

    landlock: int
    capabilities: tuple[int, ...]
    reason: str = ""  # why there is no Landlock


def enter(folder: Path | None) -> Confined:
    """Confine this process, and every thread and process that it makes from now on, to `folder` (the database's)."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    writable = [] if folder is None else [folder, folder.resolve()]
    kept = _rights(writable)
    _keep_capabilities(libc, kept)
    try:
        return Confined(_landlock(libc, writable), kept)
    except OSError as error:
        return Confined(0, kept, str(error))


def _rights(writable: Iterable[Path]) -> tuple[int, ...]:
    """CAP_NET_ADMIN; and where root works in somebody else's folder, what it takes to do that (Landlock bounds it)."""
    foreign = os.geteuid() == 0 and any(folder.exists() and folder.stat().st_uid != 0 for folder in writable)
    return (CAP_DAC_OVERRIDE, CAP_NET_ADMIN) if foreign else (CAP_NET_ADMIN,)


def _keep_capabilities(libc: ctypes.CDLL, kept: tuple[int, ...]) -> None:
    """Give up all others, in the bounding set too where that is allowed (root; a unit has done it already)."""
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(_LAST_CAP + 1):
        if number not in kept and libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    permitted = _permitted()
    wanted = permitted & sum(1 << number for number in kept)
    if permitted == wanted:
        return  # nothing to give up, and the unit does not allow the call
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = wanted & 0xFFFF_FFFF, wanted >> 32
    libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0))  # effective, permitted, inheritable


def _permitted() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:")), 16)


def _landlock(libc: ctypes.CDLL, writable: Iterable[Path]) -> int:
    """Restrict files, programs and network. Returns the kernel's ABI. Raises OSError where it has none."""
    abi = _call(libc, _CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    handled = next(rights for since, rights in _FS_BY_ABI if abi >= since)
    fields = [handled, _TCP if abi >= _TCP_FROM else 0, _SCOPES if abi >= _SCOPES_FROM else 0]
    words = 1 + (abi >= _TCP_FROM) + (abi >= _SCOPES_FROM)  # a kernel takes no more of the structure than it knows
    attributes = struct.pack(f"={words}Q", *fields[:words])
    ruleset = _call(libc, _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in _readable():
            _allow(libc, ruleset, path, handled & (_READ_FILE | _READ_DIR))
        for path in writable:
            _allow(libc, ruleset, path, handled & _WRITE)
        _call(libc, _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _readable() -> list[Path]:
    """Every folder that Python imports from, and what is listed above."""
    python = [sys.base_prefix, sys.prefix, *sysconfig.get_paths().values(), *sys.path]
    return [Path(name) for name in dict.fromkeys([*python, *_READABLE]) if name]


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """A rule for one path; one that is not there needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _READ_FILE  # a rule on a file may name nothing that only folders have
        _call(libc, _ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    """A system call that libc has no function for. Raises OSError."""
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    answer: int = libc.syscall(ctypes.c_long(number), *values)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
