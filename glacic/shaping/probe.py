"""Limits, what this kernel can do: every engine's way is tried in each direction, with datagrams that are counted.

    table()      tries; takes some seconds, needs root, leaves nothing (scratch.py)
    keep, kept   the table as a JSON file in the state directory: the service itself may make no namespaces, so a unit
                 beside it tries (glacic-engines.service), and the service reads what came of it
    recent       whether that need not be done again: not before the next boot, or another version of Glacic

What another kernel could do says nothing: its table is as good as none.

A row: {"engine", "direction", "available", "missing", "per_cgroup", "accuracy"}. available: of the datagrams of a
limited cgroup at most half came through; missing: else why, in words, "" where nothing is. per_cgroup: a cgroup beside
it lost none, so it is not the whole interface that is limited. accuracy: achieved / target as the self-test last
measured it, None where it has not.

No exit status is taken for an answer: what the kernel accepted and then did not do is "missing" too.
"""

from __future__ import annotations

import json
import os
import platform
import select
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glacic import __version__
from glacic.errors import GlacicError
from glacic.shaping import scratch
from glacic.shaping.engine import UPLOAD, Cgroup
from glacic.shaping.far import DATAGRAM, DATAGRAMS, PORT, roomy
from glacic.shaping.pieces import Attempt, attempts
from glacic.shaping.scratch import THERE, Scratch

FILE = "limit-engines.json"  # in the state directory
_BOOT = Path("/proc/sys/kernel/random/boot_id")

Row = dict[str, Any]

_NAMES = ("engine", "direction", "available", "missing", "per_cgroup", "accuracy")
_WINDOW_S, _PATIENCE_S = 0.2, 5.0  # how long limited datagrams are waited for; and those that nothing should limit
_FEW = DATAGRAMS // 2


def table(tried: Mapping[tuple[str, str], Attempt] | None = None) -> list[Row]:
    """Try everything. Raises KernelRefused only where there can be no scratch network at all."""
    ways = attempts() if tried is None else tried
    rows: list[Row] = scratch.inside(
        lambda made: [_row(made, engine, direction, way) for (engine, direction), way in ways.items()]
    )
    return rows


def keep(path: Path, rows: Iterable[Row]) -> None:
    """Write the table; accuracies that it does not have are taken over from what is there."""
    before = {(row["engine"], row["direction"]): row["accuracy"] for row in kept(path)}
    merged = [
        {
            **row,
            "accuracy": before.get((row["engine"], row["direction"])) if row["accuracy"] is None else row["accuracy"],
        }
        for row in rows
    ]
    _write(path, merged, _now())


def measured(path: Path, results: Iterable[Row]) -> None:
    """Put what a self-test has measured (its rows) into the table. What was not tried before has its row from that."""
    rows = {(row["engine"], row["direction"]): row for row in kept(path)}
    for result in results:
        key = result["engine"], result["direction"]
        tried = {"available": result["available"], "missing": result["missing"], "per_cgroup": None}
        row = rows.setdefault(key, dict(zip(_NAMES[:2], key, strict=True)) | tried | {"accuracy": None})
        if result["ratio"] is not None:
            rows[key] = row | {"accuracy": result["ratio"]}
    _write(path, list(rows.values()), _tried(path))


def kept(path: Path) -> list[Row]:
    """What was written last, by this kernel; [] where nothing was, or it cannot be read: then nothing is known."""
    try:
        table = json.loads(path.read_text())
        if table["kernel"] != _kernel():
            return []
        return [{name: row[name] for name in _NAMES} for row in table["engines"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def recent(path: Path) -> bool:
    """Whether this version of Glacic has tried all of them since the machine was booted."""
    return bool(kept(path)) and _tried(path) == _now()


class Kept:
    """The table in a file, read again when the file is another one: cheap enough to ask at every turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        """See kept()."""
        try:
            status = self._path.stat()
        except OSError:
            seen = None
        else:
            seen = status.st_ino, status.st_mtime_ns
        if seen != self._seen:
            self._seen, self._rows = seen, kept(self._path)
        return self._rows


def available(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """(engine, direction) -> what is missing, "" where nothing is: what shaping.choose chooses from."""
    return {(row["engine"], row["direction"]): row["missing"] for row in rows}


def _tried(path: Path) -> str:
    """When all of them were tried last; "" where they were not."""
    try:
        return str(json.loads(path.read_text())["tried"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write(path: Path, rows: list[Row], tried: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        table = {"kernel": _kernel(), "tried": tried, "engines": rows}
        beside.write_text(json.dumps(table, indent=1) + "\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise GlacicError(f"what the limit engines can do cannot be kept in {path}: {error.strerror}") from None


def _kernel() -> str:
    return f"{platform.release()} {platform.version()}"


def _now() -> str:
    """Another one after a boot or an upgrade."""
    return f"{_BOOT.read_text().strip()} {__version__}"


def _row(made: Scratch, engine: str, direction: str, way: Attempt) -> Row:
    missing, per_cgroup = "", None
    try:
        with way(made):
            limited, free = _came(made, direction)
        per_cgroup = free == DATAGRAMS
        if limited > _FEW:
            missing = f"the kernel takes it and does not limit: {limited} of {DATAGRAMS} packets came through"
    except (GlacicError, OSError) as error:
        missing = " ".join(str(error).split())
    answers = (engine, direction, not missing, missing, None if missing else per_cgroup, None)
    return dict(zip(_NAMES, answers, strict=True))


def _came(made: Scratch, direction: str) -> tuple[int, int]:
    """How many datagrams of the limited cgroup came through, and how many of the free one."""
    with _socket(made, made.limited) as limited, _socket(made, made.free) as free:
        return _sent(made, limited, free) if direction == UPLOAD else _fetched(limited, free)


def _socket(made: Scratch, cgroup: Cgroup) -> socket.socket:
    with made.of(cgroup):
        udp = roomy(socket.SOCK_DGRAM)
    udp.connect((f"::ffff:{THERE[4]}", PORT))
    udp.setblocking(False)
    return udp


def _sent(made: Scratch, limited: socket.socket, free: socket.socket) -> tuple[int, int]:
    before = made.far.ask("counts")
    for udp, tag in ((limited, b"l"), (free, b"f")):
        for _ in range(DATAGRAMS):
            try:
                udp.send(tag * DATAGRAM)
            except OSError:  # dropped on its way out (EPERM, ENOBUFS): it is not counted either
                continue
    begun = time.monotonic()
    while True:
        time.sleep(0.02)
        now = made.far.ask("counts")
        came = {tag: now.get(tag, 0) - before.get(tag, 0) for tag in "lf"}
        waited = time.monotonic() - begun
        if waited > _WINDOW_S and (came["f"] >= DATAGRAMS or came["f"] <= _FEW or waited > _PATIENCE_S):
            return came["l"], came["f"]


def _fetched(limited: socket.socket, free: socket.socket) -> tuple[int, int]:
    came = {limited: 0, free: 0}
    for udp in came:
        udp.send(b"Gd")
    begun = time.monotonic()
    while True:
        for udp in select.select([limited, free], [], [], 0.02)[0]:
            udp.recv(DATAGRAM)
            came[udp] += 1
        waited = time.monotonic() - begun
        if waited > _WINDOW_S and (came[free] >= DATAGRAMS or came[free] <= _FEW or waited > _PATIENCE_S):
            return came[limited], came[free]
