"""Beside limits: the names of the systemd units that this machine has, for a person who may have mistyped one.

The names of the files in systemd's folders. Asks no systemd, and refuses to know what is in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from glacic.config.cgroups import WITH_PROCESSES

# systemd.unit(5), the system's unit search path; /lib is a link to /usr/lib but on hosts of old
FOLDERS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
_SUFFIXES = tuple(f".{suffix}" for suffix in (*WITH_PROCESSES, "slice"))


def known_units(folders: Iterable[str | Path] = FOLDERS) -> frozenset[str]:
    """Every unit with processes that has a file there, templates as "name@.service"; none where nothing can be read."""
    found: set[str] = set()
    for folder in folders:
        with suppress(OSError):
            found.update(name for name in os.listdir(folder) if name.endswith(_SUFFIXES))  # noqa: PTH208 - names alone
    return frozenset(found)
