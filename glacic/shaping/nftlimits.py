"""Limits, the nft engine: policing by a table of its own, `inet glacic_limits` (decision 0011; its text: nftscript.py).

The bucket belongs to the limit, not to the cgroup: a unit that restarts has another cgroup, whose id becomes one more
element that leads to the same chain, so it gets no second bucket and its counters go on. The id of the old one stays
for LINGER_S, because its sockets may still have something to send.

libnftables takes a cgroup only by a path below /sys/fs/cgroup. It is given an open descriptor of the cgroup in that
form: no path that is gone refuses a transaction, no name has to be quoted, any mount will do, and the element of a
cgroup that is gone can be deleted.
"""

from __future__ import annotations

import fcntl
import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from glacic.errors import KernelRefused
from glacic.firewall.claims import LIMITS_TABLE
from glacic.firewall.dump import Dump
from glacic.firewall.nft import Nft
from glacic.shaping.cgroups import find
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Counted, Item
from glacic.shaping.nftscript import EMPTY, Bucket, Element, T, Table, difference, whole

LINGER_S = 60.0  # TCP gives a socket without a process that long to close (net.ipv4.tcp_fin_timeout)
_HIGH = 4096  # descriptors are held above, out of the way of select(2), which takes none over 1023


class NftLimits:
    """See Engine. It belongs to the network namespace that it is made in, as `nft` does.

    mount: where the cgroups' paths begin, asked only when there are some. now: seconds."""

    name = "nft"

    def __init__(
        self,
        nft: Nft,
        *,
        mount: Callable[[], Path] = lambda: find().mount,
        dump: Dump | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nft, self._mount, self._now = nft, mount, now
        self._dump = dump or Dump(LIMITS_TABLE)
        self._table: Table | None = None  # what is in the kernel; None: not known
        self._held: dict[int, int] = {}  # cgroup id -> descriptor
        self._gone: dict[int, float] = {}  # cgroup id -> since when it is gone

    def put(self, items: Sequence[Item]) -> None:
        """See Engine.put."""
        wanted = self._wanted(items)
        if self._table is not None and self._table.buckets and not self._dump.present():
            self._table = None  # somebody has removed it
        if self._table is None or not wanted.buckets:
            self._renew(wanted)
        elif wanted != self._table:
            try:
                self._run(difference(self._table, wanted, self._place))
            except KernelRefused:  # somebody has changed it: it is made anew
                self._renew(wanted)
        self._table = wanted
        self._release(wanted)

    def counters(self) -> dict[tuple[str, str], Counted]:
        """See Engine.counters."""
        buckets = self._table.buckets.values() if self._table is not None else ()
        counted = self._dump.counters() if buckets else {}
        found: dict[tuple[str, str], Counted] = {}
        for bucket in buckets:
            passed, dropped = counted.get(f"passed_{bucket.chain}"), counted.get(f"dropped_{bucket.chain}")
            if passed is not None and dropped is not None:
                found[bucket.name, bucket.direction] = Counted(
                    passed.bytes, passed.packets, dropped.bytes, dropped.packets
                )
        return found

    def adopt(self) -> None:
        """See Engine.adopt: what is there holds until the first `put`, which takes its place in one transaction."""
        self._table = None

    def remove(self) -> None:
        """See Engine.remove."""
        if self._dump.present():
            self._run([f"delete table {T}"])
        self._table = None
        self._release(EMPTY)

    def _renew(self, wanted: Table) -> None:
        self._table = None
        if wanted.buckets:
            self._run(whole(wanted, self._place))
        elif self._dump.present():
            self._run([f"delete table {T}"])

    def _run(self, lines: Iterable[str]) -> None:
        self._nft.run("".join(f"{line}\n" for line in lines))

    def _wanted(self, items: Sequence[Item]) -> Table:
        """The table for these items, with what lingers of the one that there is."""
        buckets: dict[str, Bucket] = {}
        elements: dict[tuple[str, int], Element] = {}
        for item in items:
            for direction, rate in ((UPLOAD, item.upload), (DOWNLOAD, item.download)):
                if rate and self._hold(item.cgroup):
                    bucket = Bucket(direction, item.name, rate, item.traffic)
                    buckets[bucket.chain] = bucket
                    key = direction, item.cgroup.id
                    elements[key] = Element(direction, item.cgroup.level, item.cgroup.id, bucket.chain)
        before = self._table or EMPTY
        for key, element in before.elements.items():
            if key not in elements and element.id in self._held and self._lingers(element.id):
                elements[key] = element
                buckets.setdefault(element.chain, before.buckets[element.chain])
        return Table(buckets, elements)

    def _hold(self, cgroup: Cgroup) -> bool:
        """Have a descriptor of this very cgroup. False where it is gone: then there is nothing to limit."""
        if cgroup.id in self._held:
            return True
        try:
            descriptor = os.open(self._mount() / cgroup.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                return False
            raise KernelRefused(f"cannot open the cgroup {cgroup.path}: {error.strerror}") from None
        try:
            if os.fstat(descriptor).st_ino != cgroup.id:
                return False
            self._held[cgroup.id] = _moved_up(descriptor)
            return True
        finally:
            os.close(descriptor)

    def _lingers(self, id_: int) -> bool:
        """Whether this cgroup went, and not long ago."""
        with suppress(OSError):  # which it is of a cgroup that was removed, by any name
            os.stat("cgroup.procs", dir_fd=self._held[id_])
            return False
        return self._now() - self._gone.setdefault(id_, self._now()) < LINGER_S

    def _place(self, id_: int) -> str:
        return f"../../../proc/self/fd/{self._held[id_]}"

    def _release(self, table: Table) -> None:
        used = {element.id for element in table.elements.values()}
        for id_ in [each for each in self._held if each not in used]:
            os.close(self._held.pop(id_))
            self._gone.pop(id_, None)


def _moved_up(descriptor: int) -> int:
    """The same file under a number out of the way. Raises KernelRefused where there is no room."""
    with suppress(OSError, ValueError):  # a hardened unit may not, and says LimitNOFILE= instead
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for lowest in (_HIGH, 0):
        with suppress(OSError):
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    raise KernelRefused("too many cgroups with limits: raise LimitNOFILE= of the service")
