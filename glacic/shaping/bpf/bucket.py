"""Limits in eBPF, the map: one limit's buckets and counts, as program.py lays them out, read and written from outside.

How deep a bucket is: `DEPTH_S` of its rate. A TCP sender whose packet is dropped on its way out tries again after
200 ms (its smallest timeout); with less than that in the bucket, what the limit allows meanwhile would be lost.
There is no smallest depth in bytes: a packet of any size passes a bucket that is not behind (program.py).
"""

from __future__ import annotations

import time

from glacic.shaping.bpf import program, syscall
from glacic.shaping.bpf.pins import MAP_NAME
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted

DEPTH_S = 0.3

_BUCKET = {UPLOAD: program.UPLOAD_BUCKET, DOWNLOAD: program.DOWNLOAD_BUCKET}
_COUNTS = {UPLOAD: program.UPLOAD_COUNTS, DOWNLOAD: program.DOWNLOAD_COUNTS}


def create() -> int:
    """A map for one limit, without rates yet: its descriptor. Raises KernelRefused."""
    return syscall.create_map(syscall.MAP_TYPE_ARRAY, program.KEY.size, program.ENTRY.size, program.ENTRIES, MAP_NAME)


def set_rate(descriptor: int, direction: str, rate: int) -> None:
    """The rate in bytes per second, from the next packet on; the same again changes nothing.

    A bucket that is behind stays behind by as many bytes where it becomes faster (else it would go on paying at the old
    rate), and for as long where it becomes slower (else a fast one that was drained would stand still for minutes).
    """
    old, tolerance, full_at, _ = _read(descriptor, _BUCKET[direction])
    depth_ns = round(DEPTH_S * program.NS)
    if (old, tolerance) == (rate, depth_ns):
        return
    now = time.monotonic_ns()
    behind = max(full_at - now, 0) * old // max(old, rate)
    entry = program.ENTRY.pack(rate, depth_ns, now + behind, 0)
    syscall.update(descriptor, program.KEY.pack(_BUCKET[direction]), entry)


def counted(descriptor: int, direction: str) -> Counted:
    """What has passed and what was dropped since the map was made."""
    return Counted(*_read(descriptor, _COUNTS[direction]))


def _read(descriptor: int, key: int) -> tuple[int, int, int, int]:
    raw = syscall.lookup(descriptor, program.KEY.pack(key), program.ENTRY.size)
    entry: tuple[int, int, int, int] = program.ENTRY.unpack(raw)
    return entry
