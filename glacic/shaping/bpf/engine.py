"""Limits in eBPF, the engine: for each limit a map with its buckets, and a link for each direction that has a rate.

A link is held by this process and gone with it, also after kill -9: the legacy attachment, which stays, is never used.
With a `place` for it, it is pinned as well (pins.py), stays in force without a process, and the next one takes it over.
Without one, what is pinned anywhere is not looked at: it is another service's.

A rate is changed in the map. Where the scope (`traffic`) is another one, or the cgroup was made anew, there is a new
link over the old map: buckets and counts live on. What is new is attached before what is old goes; where that fails,
nothing has changed. A cgroup that has gone since the limits were worked out is left out.

A socket can outlive its cgroup: TCP goes on sending what a process that was ended has left. So the link of a cgroup
that is gone is kept for `LINGER_S` more; programs run for such sockets as before.

Nothing is looked up and nothing runs for cgroups without a limit. Programs of others on the same cgroup run as well.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.shaping.bpf import bucket, program, syscall
from glacic.shaping.bpf.pins import Pins, folder_of
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Counted, Item

_ATTACH = {UPLOAD: syscall.CGROUP_INET_EGRESS, DOWNLOAD: syscall.CGROUP_INET_INGRESS}
LINGER_S = 60.0  # TCP gives a socket without a process that long to close (net.ipv4.tcp_fin_timeout)
_EACH, _SPARE = 4, 256  # descriptors that a limit takes, and that everything else may


@dataclass(slots=True)
class _Link:
    descriptor: int
    cgroup: int  # the id that it is attached to
    path: str  # of that cgroup; "" where an earlier run has attached it
    traffic: Traffic | None  # what its program limits; None where an earlier run has loaded it


@dataclass(slots=True)
class _Held:
    """One limit in the kernel."""

    map: int
    links: dict[str, _Link] = field(default_factory=dict)


@dataclass(slots=True)
class _Step:
    """What one item of a `put` comes to: the limit, and the links that are new in it."""

    item: Item
    held: _Held
    new: bool
    links: dict[str, _Link] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)

    def undo(self) -> None:
        """Leave the kernel as it was."""
        for link in self.links.values():
            os.close(link.descriptor)
        if self.new:
            os.close(self.held.map)


class BpfLimits:
    """See glacic.shaping.engine.Engine. mount: where the cgroups are (cgroup2). place: the folder in a BPF file system
    where links are pinned; None: they are only held. now: seconds."""

    name = "bpf"

    def __init__(
        self,
        mount: Path,
        *,
        place: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mount, self._now = mount, now
        self._pins = Pins(place) if place is not None else None
        self._held: dict[str, _Held] = {}  # by the limit's name
        self._adopted: dict[str, _Held] = {}  # by the folder's, until a `put` says which limit that is
        self._lingering: list[tuple[float, int]] = []  # until when, the descriptor of a link

    def put(self, items: Sequence[Item]) -> None:
        """See Engine.put."""
        _room_for(len(items))
        self._let_go(self._now())
        steps: list[_Step] = []
        try:
            for item in items:
                steps.append(self._prepare(item))
            wanted = {step.item.name for step in steps if step.rates}
            while steps:
                self._take(steps[0])
                steps.pop(0)
        except BaseException:  # what was not taken yet stays as it was
            for step in steps:
                step.undo()
            raise
        for name in self._held.keys() - wanted:
            self._drop(folder_of(name), self._held.pop(name))
        for folder in list(self._adopted):
            self._drop(folder, self._adopted.pop(folder))

    def counters(self) -> Mapping[tuple[str, str], Counted]:
        """See Engine.counters."""
        return {
            (name, direction): bucket.counted(held.map, direction)
            for name, held in self._held.items()
            for direction in held.links
        }

    def adopt(self) -> None:
        """See Engine.adopt. What was pinned waits for the next `put`."""
        if self._pins is None:
            return
        known = {folder_of(name) for name in self._held} | set(self._adopted)
        for kept in self._pins.kept(known):
            held = _Held(kept.map)
            for direction, descriptor in kept.links.items():
                held.links[direction] = _Link(descriptor, syscall.link_info(descriptor).cgroup, "", None)
            self._adopted[kept.folder] = held

    def remove(self) -> None:
        """See Engine.remove."""
        self.adopt()
        self.put(())
        self._let_go(float("inf"))

    def _prepare(self, item: Item) -> _Step:
        """Attach what is new for this item; nothing that is there changes. A gone cgroup makes a step without rates."""
        held = self._held.get(item.name) or self._adopted.get(folder_of(item.name))
        step = _Step(item, held or _Held(bucket.create()), new=held is None)
        try:
            self._attach(step)
        except BaseException:
            step.undo()
            raise
        return step

    def _attach(self, step: _Step) -> None:
        item = step.item
        try:
            directory = os.open(self._mount / item.cgroup.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise KernelRefused(f"the cgroup {item.cgroup.path} cannot be opened: {error.strerror}") from None
        try:
            cgroup = os.fstat(directory).st_ino
            for direction, rate in ((UPLOAD, item.upload), (DOWNLOAD, item.download)):
                if not rate:
                    continue
                step.rates[direction] = rate
                link = step.held.links.get(direction)
                if link is not None and (link.cgroup, link.traffic) == (cgroup, item.traffic):
                    continue
                if link is None:
                    bucket.set_rate(step.held.map, direction, rate)
                descriptor = _attached(step.held.map, direction, item, directory)
                step.links[direction] = _Link(descriptor, cgroup, item.cgroup.path, item.traffic)
        finally:
            os.close(directory)

    def _take(self, step: _Step) -> None:
        """Make what a step has prepared the limit that there is."""
        folder, held = folder_of(step.item.name), step.held
        if not step.rates:
            step.undo()
            return
        if step.new and self._pins is not None:
            self._pins.keep_map(folder, held.map)
        self._held[step.item.name] = held
        self._adopted.pop(folder, None)
        step.new = False
        for direction in list(step.links):
            if self._pins is not None:
                self._pins.keep_link(folder, direction, step.links[direction].descriptor)
            if direction in held.links:
                self._detach(held.links[direction])
            held.links[direction] = step.links.pop(direction)
        for direction, rate in step.rates.items():
            bucket.set_rate(held.map, direction, rate)
        for direction in held.links.keys() - step.rates.keys():
            if self._pins is not None:
                self._pins.drop_link(folder, direction)
            self._detach(held.links.pop(direction))

    def _drop(self, folder: str, held: _Held) -> None:
        for link in held.links.values():
            self._detach(link)
        os.close(held.map)
        if self._pins is not None:
            self._pins.drop(folder)

    def _detach(self, link: _Link) -> None:
        """Take a link away; that of a cgroup that is gone lingers."""
        try:
            there = not link.path or (self._mount / link.path).stat().st_ino == link.cgroup
        except OSError:
            there = False
        if there:
            os.close(link.descriptor)
        else:
            self._lingering.append((self._now() + LINGER_S, link.descriptor))

    def _let_go(self, now: float) -> None:
        """Close the links that have lingered until `now`."""
        for until, descriptor in self._lingering:
            if until <= now:
                os.close(descriptor)
        self._lingering = [(until, descriptor) for until, descriptor in self._lingering if until > now]


def _attached(descriptor: int, direction: str, item: Item, directory: int) -> int:
    """A link of a new program over a limit's map to a cgroup."""
    loaded = program.load(descriptor, direction, item.traffic)
    try:
        return syscall.create_link(loaded, directory, _ATTACH[direction])
    except KernelRefused as refused:
        raise KernelRefused(f"limit {item.name} on {item.cgroup.path}: {refused}") from None
    finally:
        os.close(loaded)  # the link holds it


def _room_for(limits: int) -> None:
    """Allow this process as many descriptors as it needs, up to what it may allow itself (getrlimit(2)). Where it may
    not even ask (a unit's filter of system calls), too many are an error that says what to do."""
    needed = limits * _EACH + _SPARE
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < needed and soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
