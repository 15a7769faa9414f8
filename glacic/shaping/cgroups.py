"""Limits, step 1: which cgroups there are, and which of them a unit's name means. Reads, and changes nothing.

The hierarchy of version 2 is taken from the mount table: pure (`/sys/fs/cgroup`) or hybrid (`/sys/fs/cgroup/unified`),
or wherever it is. Paths are relative to that mount, so a level is counted inside cgroup2, as nft_socket counts it.

A unit of the system's manager lies below slices and nothing else (systemd.slice(5)). What lies deeper, below a service
or a scope, is delegated: users and containers name cgroups there as they like, so a name is never looked for in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glacic.config.cgroups import VALID
from glacic.errors import GlacicError
from glacic.shaping.engine import Cgroup

MOUNTS = Path("/proc/self/mounts")
_USUAL = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_SLICE = ".slice"
_PROCESSES = (".service", ".scope")  # units that processes of their own run in


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The cgroup2 hierarchy, by its mount point."""

    mount: Path

    def cgroup(self, path: str) -> Cgroup | None:
        """The cgroup at a path relative to the mount; None where there is none."""
        try:
            status = (self.mount / path).stat(follow_symlinks=False)
        except (OSError, ValueError):
            return None
        return Cgroup(path, status.st_ino, level_of(path))


def find(mounts: Path = MOUNTS) -> Hierarchy:
    """The hierarchy of this machine. Raises GlacicError where there is none of version 2."""
    try:
        # In bytes: anybody who may mount something names a place, and the kernel escapes blanks of ASCII alone.
        lines = [line.split(b" ") for line in mounts.read_bytes().split(b"\n") if line]
    except OSError as error:
        raise GlacicError(f"cannot read {mounts}: {error.strerror}; limits need the cgroup2 mount") from None
    kinds = {words[2] for words in lines}
    places = [
        os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), words[1]))
        for words in lines
        if words[2] == b"cgroup2"
    ]
    for place in (*(usual for usual in _USUAL if usual in places), *places):
        return Hierarchy(Path(place))
    only = "only cgroups of version 1 are mounted" if b"cgroup" in kinds else "no cgroup hierarchy is mounted"
    raise GlacicError(
        f"{only}, and limits need version 2: boot with systemd.unified_cgroup_hierarchy=1,"
        " or mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def level_of(path: str) -> int:
    """The depth of a path: what `socket cgroupv2 level N` calls it. The root is 0, which no limit can name."""
    return len(PurePosixPath(path).parts)


def unit_of(path: str) -> str:
    """The name of the system's unit that has this cgroup; "" where it is none's: delegated, the root, or by a name
    that no unit has (somebody has made a directory; it may not even be text)."""
    *above, name = path.split("/")
    return _unescaped(name) if VALID.fullmatch(name) and all(part.endswith(_SLICE) for part in above) else ""


def holds_units(path: str) -> bool:
    """Whether units may lie right below: the root, and slices in slices."""
    return all(part.endswith(_SLICE) for part in path.split("/")) if path else True


def runs_processes(unit: str) -> bool:
    """Whether it is a unit that processes run in, and that a default limit is for."""
    return unit.endswith(_PROCESSES)


def units(tree: Mapping[str, Cgroup]) -> dict[str, Cgroup]:
    """Unit name -> its cgroup, of the cgroups in a tree. A unit is in one place; of two the first path is taken."""
    found: dict[str, Cgroup] = {}
    for path in sorted(tree):
        if unit := unit_of(path):
            found.setdefault(unit, tree[path])
    return found


def _unescaped(name: str) -> str:
    """systemd puts a `_` before names that the kernel might mean something by (`_memory.service`; cg_escape)."""
    return name.removeprefix("_")
