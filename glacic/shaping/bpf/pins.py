"""Limits in eBPF, kept: the names in a BPF file system by which maps and links outlive the process.

    /sys/fs/bpf/glacic/<limit>/map  upload  download

One folder for a limit; its name is the limit's, with everything but letters, digits, `-` and `_` written as %XX (a BPF
file system has no dots in names). A link that takes the place of another is pinned beside it and renamed over it, so
there is no moment without. Only those files, and only where the map is one of ours, are ever opened or removed;
whatever else lies there stays, and so does /sys/fs/bpf/glacic itself: who wants links to be pinned makes it for the
service (`own`), since only root may make folders there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from glacic.errors import KernelRefused
from glacic.shaping.bpf import program, syscall
from glacic.shaping.engine import DOWNLOAD, UPLOAD

PLACE = Path("/sys/fs/bpf/glacic")
MAP_NAME = "glacic_limit"

_MAP, _LINKS, _NEW = "map", (UPLOAD, DOWNLOAD), "_new"
_FILES = (_MAP, *_LINKS, *(name + _NEW for name in _LINKS))
_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_LONGEST = 200  # of a file name's 255 bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What a limit of an earlier run has left: descriptors of its map and of its links by direction."""

    folder: str
    map: int
    links: dict[str, int]


def folder_of(name: str) -> str:
    """The name of a limit's folder: one for each name, readable where that fits."""
    quoted = "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) else f"%{byte:02X}" for byte in name.encode(errors="surrogateescape")
    )
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[:_LONGEST]}%{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}"


def own(place: Path = PLACE) -> Path | None:
    """The folder of folders, where it is there and this user's. Another user's is another service's."""
    try:
        return place if place.stat().st_uid == os.geteuid() else None
    except OSError:
        return None


class Pins:
    """The folder of folders. Raises KernelRefused where it cannot be written."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def keep_map(self, folder: str, descriptor: int) -> None:
        """Name a limit's map; its folder is made."""
        try:
            (self._place / folder).mkdir(exist_ok=True, mode=0o700)
            (self._place / folder / _MAP).unlink(missing_ok=True)
        except OSError as error:
            raise KernelRefused(f"{self._place / folder} cannot be made: {error.strerror}; {self._advice()}") from None
        try:
            syscall.pin(descriptor, str(self._place / folder / _MAP))
        except KernelRefused as refused:
            _remove_if_empty(self._place / folder)
            raise KernelRefused(f"{refused}; {self._advice()}") from None

    def _advice(self) -> str:
        return (
            f"{self._place} has to be a folder in a BPF file system that this user may write in; "
            f"as root, `mount -t bpf bpf {self._place.parent}` makes such a file system"
        )

    def keep_link(self, folder: str, direction: str, descriptor: int) -> None:
        """Name a limit's link, in the place of the one there may be."""
        path = self._place / folder / direction
        beside = path.with_name(direction + _NEW)
        beside.unlink(missing_ok=True)
        syscall.pin(descriptor, str(beside))
        beside.rename(path)

    def drop_link(self, folder: str, direction: str) -> None:
        """Take back the name of a link."""
        (self._place / folder / direction).unlink(missing_ok=True)

    def drop(self, folder: str) -> None:
        """Take back all names of a limit."""
        for name in _FILES:
            (self._place / folder / name).unlink(missing_ok=True)
        _remove_if_empty(self._place / folder)

    def kept(self, known: Container[str] = ()) -> Iterator[Kept]:
        """What is there of ours, but for the folders that are known. The descriptors are the caller's to close."""
        try:
            folders = sorted(path.name for path in self._place.iterdir() if path.is_dir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise KernelRefused(f"{self._place} cannot be read: {error.strerror}") from None
        for folder in folders:
            found = None if folder in known else self._open(folder)
            if found is not None:
                yield found

    def _open(self, folder: str) -> Kept | None:
        try:
            descriptor = syscall.pinned(str(self._place / folder / _MAP))
        except KernelRefused:
            return None
        if not _is_ours(descriptor):
            os.close(descriptor)
            return None
        links = {}
        for direction in _LINKS:
            try:
                links[direction] = syscall.pinned(str(self._place / folder / direction))
            except syscall.LostObject:
                continue
        return Kept(folder, descriptor, links)


def _is_ours(descriptor: int) -> bool:
    """Whether it is a map of this layout; one of another is as good as somebody else's."""
    try:
        info = syscall.map_info(descriptor)
    except KernelRefused:
        return False
    layout = (info.name, info.type, info.key_size, info.value_size, info.max_entries)
    return layout == (MAP_NAME, syscall.MAP_TYPE_ARRAY, program.KEY.size, program.ENTRY.size, program.ENTRIES)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # somebody else's things are in it, or it is gone
        return
