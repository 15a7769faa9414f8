"""Limits, the seam to the kernel: what one engine is told, and what it says back. Opens nothing.

An `Item` is one limit on one cgroup that exists now. An engine makes the kernel have exactly the items of the last
`put`, and nothing else of its own; what others made is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from glacic.config.model import Traffic

UPLOAD, DOWNLOAD = "upload", "download"


@dataclass(frozen=True, slots=True, order=True)
class Cgroup:
    """A cgroup of version 2 that exists: its path relative to the mount ("system.slice/backup.service"), the inode
    number that is its id, and the depth of its path (the level of nft's `socket cgroupv2 level N`)."""

    path: str
    id: int
    level: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Item:
    """One limit on one cgroup. upload, download: bytes per second, 0 where there is none in that direction.

    name: the limit's, unique among all items. interface: for the engines that need one, else ""."""

    name: str
    cgroup: Cgroup
    upload: int = 0
    download: int = 0
    traffic: Traffic = Traffic.ALL
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one limit has let through and thrown away in one direction, since the engine made it. An engine that cannot
    tell bytes or packets says 0."""

    bytes: int = 0
    packets: int = 0
    dropped_bytes: int = 0
    dropped_packets: int = 0


class Engine(Protocol):
    """One way to hold limits in the kernel. Not thread-safe: one caller at a time. Raises KernelRefused."""

    name: str

    def put(self, items: Sequence[Item]) -> None:
        """Have exactly these in the kernel, in one transaction where the kernel has such. What stays the same keeps
        its counters; another rate holds at once, for running connections too."""

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        """By the item's name and direction."""

    def adopt(self) -> None:
        """At a start: what an earlier run left is taken over or removed, by its name."""

    def remove(self) -> None:
        """Take everything of ours out of the kernel."""
