"""Integrity, the watch: notices within moments that somebody else has changed our table, and says what and who.

The kernel tells of every transaction (NFNLGRP_NFTABLES): first each change, then a message with the generation and the
thread that did it. Whose thread it is tells our own transactions from foreign ones. What our own touched is taken over
from the table into the reference; after a foreign one, after a loss of events and now and then, the table is read and
compared with the reference. So a change that somebody undid is none, and what the worker makes on need is none.

Learned elements come and go by the thousand. They are changed through a socket with a port of its own
(elements.PORT), and a filter in the kernel throws their events away. A foreign change of one comes from another port,
and is known by its event; after a loss nobody knows, and `Report.lost` says so: the numbers have to be compared.

One thread of its own, which never waits for anybody. Refuses to change anything: integrity.py does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from glacic.ctlplane import drift, elements, logs, netlink
from glacic.ctlplane import tablecodec as codec
from glacic.ctlplane.nlsocket import NETLINK_NETFILTER, SOL_NETLINK, NetlinkSocket, refused, set_receive_buffer
from glacic.ctlplane.structure import Parts, Structure, is_learned, merged, read_structure
from glacic.ctlplane.tablecodec import Commit, Key, Object
from glacic.errors import KernelRefused
from glacic.firewall.claims import TABLE
from glacic.firewall.quoting import printable

_log = logs.logger("integrity")

GATHER_S, GATHER_MAX_S = 0.02, 0.5  # after each reading: what comes meanwhile is read at once
SHARE = 10  # ... and this many times as long as the judgement took: a flood of changes takes a tenth of a processor
LOOK_S = 60.0  # between two comparisons that nobody asked for
BUFFER = 8 << 20  # bytes; a reload with 50,000 elements of named sets
MAX_HELD = 4096  # datagrams of one transaction that are kept; of a larger one the rest is not named
MAX_LEARNED = 1000  # foreign elements in learned sets that are known one by one
MAX_FINDINGS = 50
MAX_ROUNDS = 5  # readings of a table that is being changed all the time
SEEN_S = 60.0  # how long a thread that has ended is remembered as ours
UNKNOWN = "unknown"

_NETLINK_ADD_MEMBERSHIP = 1  # linux/netlink.h
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_DATAGRAM = 1 << 16


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was put there. number: grows with time, so that what is mended can be told from what
    came after."""

    key: Key
    what: str
    by: str
    at: datetime
    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """What is different now. new: those that were not told before. lost: events were lost since the last report, so of
    learned elements nothing is known."""

    findings: tuple[Finding, ...]
    new: tuple[Finding, ...]
    lost: bool
    in_force: bool


@dataclass(slots=True)
class _Transaction:
    own: bool
    by: str
    objects: list[Object]


@dataclass(slots=True)
class _Seen:
    """What one or several readings of the socket brought."""

    transactions: list[_Transaction] = field(default_factory=list)
    lost: bool = False


class TableWatch(threading.Thread):
    """Watches one table of the network namespace of the thread that makes it.

    owners: the processes whose transactions are ours. busy: whether a ruleset is being put in force; what is different
    meanwhile is judged afterwards. changed: called in this thread whenever what is different is not what it was.
    """

    def __init__(
        self,
        owners: Callable[[], Iterable[int]],
        changed: Callable[[Report], None],
        *,
        busy: Callable[[], bool] = lambda: False,
        texts: drift.Texts = drift.no_texts,
        table: str = TABLE,
        buffer: int = BUFFER,
        look_s: float = LOOK_S,
    ) -> None:
        super().__init__(name="table watch", daemon=True)
        self._owners, self._changed, self._busy, self._texts, self._table = owners, changed, busy, texts, table
        self._needle = table.encode() + b"\0"
        self._look_s = look_s
        self._socket = _listen(buffer)
        self._wake, self._woken = socket.socketpair()
        self._stopping = threading.Event()
        self._waiting: list[tuple[threading.Event, bool]] = []
        self._mended = 0  # findings of learned elements up to this number are mended
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._threads: dict[int, float] = {}  # ours, and when they were seen
        self._reference: Parts | None = None
        self._findings: dict[tuple[Key, str], Finding] = {}
        self._learned: dict[tuple[Key, bytes], Finding] = {}
        self._unsure: dict[Key, Finding] = {}  # touched by somebody while we put it there
        self._unjudged = False
        self._lost = False
        self._last: dict[Key, str] = {}  # who of the others touched what, since it was compared last
        self._last_by = UNKNOWN
        self._number = 0
        self._same_numbers = True
        self._told: tuple[Finding, ...] = ()

    def number(self) -> int:
        """The number of the latest finding."""
        with self._lock:
            return self._number

    def look(self, timeout_s: float) -> bool:
        """Return when everything that happened before is judged and told; False where that took too long. From any
        other thread."""
        return self._ask(timeout_s, settles=False)

    def settle(self, timeout_s: float, mended: int = 0) -> bool:
        """The same, and a ruleset was put in force: where events were lost, the table as it is now is the one to be.

        mended: findings of learned elements up to this number are put right.
        """
        with self._lock:
            self._mended = max(self._mended, mended)
        return self._ask(timeout_s, settles=True)

    def _ask(self, timeout_s: float, *, settles: bool) -> bool:
        done = threading.Event()
        with self._lock:
            self._waiting.append((done, settles))
        with contextlib.suppress(OSError):  # it is ending
            self._wake.send(b"\0")
        return done.wait(timeout_s)

    def stop(self) -> None:
        """End, and wait for it."""
        self._stopping.set()
        self._wake.send(b"\0")
        if self.ident is not None:
            self.join()
        for each in (self._socket, self._wake, self._woken):
            each.close()

    def run(self) -> None:
        """Until stopped."""
        self._same_numbers = _own_number() in (None, threading.get_native_id())
        look_at = time.monotonic() + self._look_s
        while not self._stopping.is_set():
            due = 0.5 if self._unjudged else max(look_at - time.monotonic(), 0.0)
            ready, _, _ = select.select([self._socket, self._woken], [], [], due)
            if self._woken in ready:
                self._woken.recv(4096)
            looking = time.monotonic() >= look_at
            if looking:
                look_at = time.monotonic() + self._look_s
            with self._lock:
                waiting, self._waiting = self._waiting, []
            settles = any(settles for _, settles in waiting)
            began = time.monotonic()
            try:
                self._judge(self._read(), looking=looking, settle=settles)
            except KernelRefused as error:
                self._unjudged = True
                _log.error("the table cannot be looked at; trying again", error=str(error))
                self._stopping.wait(1.0)
            for done, _ in waiting:
                done.set()
            pause = min(max(SHARE * (time.monotonic() - began), GATHER_S), GATHER_MAX_S)
            select.select([self._woken], [], [], pause)  # whoever asks is not kept waiting

    # ---- events

    def _read(self) -> _Seen:
        """Everything that has come."""
        seen = _Seen()
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return seen
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelRefused(f"cannot read what changes in nf_tables: {refused(error)}") from None
                seen.lost = True
                self._held.clear()
                continue
            if datagram[4:6] == bytes([codec.NEWGEN, codec.SUBSYSTEM]):
                if self._held:
                    self._take(datagram, seen)
            elif self._needle in datagram and len(self._held) < MAX_HELD:
                self._held.append(datagram)

    def _take(self, datagram: bytes, seen: _Seen) -> None:
        """A transaction that had to do with our table, as it seems, is in force."""
        held, self._held = self._held, []
        commit = next((found for message in netlink.messages(datagram) if (found := codec.commit_in(message))), None)
        objects = [
            each
            for part in held
            for message in netlink.messages(part)
            for each in codec.objects_in(message, self._table)
        ]
        if commit is not None and objects:
            own = self._is_own(commit)
            seen.transactions.append(_Transaction(own, "" if own else _by(commit), objects))
            seen.lost |= len(held) >= MAX_HELD

    def _is_own(self, commit: Commit) -> bool:
        """Whether a thread of ours did it, also one that has ended meanwhile."""
        if not self._same_numbers:  # we are in a pid namespace, and the kernel counts as the first one does
            return commit.name == Path("/proc/thread-self/comm").read_text().rstrip("\n")
        now = time.monotonic()
        for owner in self._owners():
            with contextlib.suppress(OSError):
                tasks = Path(f"/proc/{owner}/task").iterdir()
                self._threads.update({int(task.name): now for task in tasks})
        self._threads = {pid: at for pid, at in self._threads.items() if now - at < SEEN_S}
        at = self._threads.get(commit.pid)
        return at is not None and (at == now or not Path(f"/proc/{commit.pid}").exists())

    # ---- judgement

    def _judge(self, seen: _Seen, *, looking: bool, settle: bool) -> None:
        """Compare, where there is a reason to, and tell what is different."""
        if not (seen.transactions or seen.lost or looking or settle or self._unjudged):
            return
        lost = seen.lost
        actual = read_structure(self._table)
        for _ in range(MAX_ROUNDS):
            more = self._read()
            lost |= more.lost
            seen.transactions += more.transactions
            if not more.transactions:
                break
            actual = read_structure(self._table)
        self._lost |= lost
        self._follow(seen.transactions, actual)
        if actual.in_force():
            if settle and (self._lost or self._reference is None):
                self._reference, self._unsure = dict(actual.parts), {}
            elif self._lost and self._reference is not None:
                self._reference = merged(self._reference, actual.parts, _by_worker(actual.parts))
        with self._lock:
            mended = self._mended
        self._learned = {at: found for at, found in self._learned.items() if found.number > mended}
        self._unjudged = self._busy() and not settle
        if self._reference is None or self._unjudged:
            return
        lost, self._lost = self._lost, False
        self._compare(actual)
        self._tell(lost, actual)

    def _follow(self, transactions: Iterable[_Transaction], actual: Structure) -> None:
        """Take over what we have touched, and remember what nobody can read off the table."""
        last_own: dict[Key, bool] = {}
        for transaction in transactions:
            touched = {key for each in transaction.objects for key in _touched(each, self._reference or {})}
            for key in touched:
                if not transaction.own and last_own.get(key) and not is_learned(key.name):
                    self._unsure[key] = self._finding(
                        key,
                        f"{key.thing} {printable(key.name)} changed while a ruleset was put in force",
                        transaction.by,
                    )
                last_own[key] = transaction.own
                if not transaction.own:
                    self._last[key] = self._last_by = transaction.by
            for each in transaction.objects:
                if each.key.thing == "element" and is_learned(each.key.name):
                    self._learned_changed(each, transaction)
                elif each.key.thing == "set" and each.gone:
                    self._learned = {at: found for at, found in self._learned.items() if at[0].name != each.key.name}
        ours = {key for key, own in last_own.items() if own}
        if self._reference is None:
            self._reference = dict(actual.parts) if ours and actual.in_force() else None
        elif actual.in_force():
            self._reference = merged(self._reference, actual.parts, ours)
        self._unsure = {key: found for key, found in self._unsure.items() if key not in ours}

    def _learned_changed(self, each: Object, transaction: _Transaction) -> None:
        """A learned element came or went. What came and went again by the same hands is no change."""
        at = (each.key, codec.element_key(each.definition))
        before = self._learned.pop(at, None)
        if transaction.own or self._reference is None:
            return
        verb = "deleted from" if each.gone else "added to"
        if before is not None and f" {verb} " not in before.what:
            return
        text = drift.learned_text(each.key.name, at[1])
        if len(self._learned) < MAX_LEARNED:
            what = f"element {verb} learned set {printable(each.key.name)}: {text}"
            self._learned[at] = before or self._finding(each.key, what, transaction.by)

    def _compare(self, actual: Structure) -> None:
        """Find what is different, and who did it: the last one that touched it, or else anything."""
        last, by = self._last, self._last_by
        self._last, self._last_by = {}, UNKNOWN
        texts = self._texts if actual.learned is not None and actual.learned < MAX_LEARNED else drift.no_texts
        found: dict[tuple[Key, str], Finding] = {}
        for key, what in drift.differences(self._reference or {}, actual.parts, texts)[:MAX_FINDINGS]:
            found[key, what] = self._findings.get((key, what)) or self._finding(key, what, last.get(key, by))
        self._findings = found

    def _finding(self, key: Key, what: str, by: str) -> Finding:
        with self._lock:
            self._number += 1
            return Finding(key, what, by, datetime.now(UTC), self._number)

    def _tell(self, lost: bool, actual: Structure) -> None:
        everything = [*self._findings.values(), *self._unsure.values(), *self._learned.values()]
        now = tuple(sorted(everything, key=lambda found: found.number))
        if now != self._told or lost:
            new = tuple(found for found in now if found not in self._told)
            self._told = now
            self._changed(Report(now, new, lost, actual.in_force()))


def _by_worker(actual: Parts) -> Iterator[Key]:
    """What the worker may have made while nobody looked: learned sets, and chains with nothing but their lookups."""
    for key, part in actual.items():
        lookups = isinstance(part, tuple) and all(any(map(is_learned, map(str, rule.sets))) for rule in part)
        if is_learned(key.name) or (key.thing == "rule" and key.name.startswith("learned_") and lookups):
            yield key


def _touched(each: Object, reference: Parts) -> set[Key]:
    """The parts of a table that an event has to do with."""
    thing, name = each.key
    if thing == "table":
        return {each.key, *(reference if each.gone else ())}
    if thing == "chain" and each.gone:
        return {each.key, Key("rule", name)}
    if thing == "chain":
        return {each.key, *({Key("rule", name)} - reference.keys())}
    return {Key("set", name), Key("element", name)} if thing == "set" else {each.key}


def _by(commit: Commit) -> str:
    """Who did it, in words; a thread is told as its process, as long as that lives."""
    pid = commit.pid
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        pid = int(next(line.split()[1] for line in lines if line.startswith("Tgid:")))
    return f"{printable(commit.name) or UNKNOWN} (pid {pid})"


def _listen(buffer: int) -> socket.socket:
    """A socket with the kernel's news of nf_tables, without those of learned elements. Raises KernelRefused."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        set_receive_buffer(sock, buffer)
        _attach(sock, elements.PORT)
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, codec.GROUP)
    except OSError as error:
        sock.close()
        raise KernelRefused(f"cannot watch nf_tables: {refused(error)}") from None
    return sock


def _attach(sock: socket.socket, port: int) -> None:
    """Throw away, in the kernel, what transactions of this netlink port did: nlmsg_pid, in the header's last word."""
    as_loaded = int.from_bytes(port.to_bytes(4, "little" if struct.pack("=H", 1)[0] else "big"), "big")
    program = [(0x20, 0, 0, 12), (0x15, 0, 1, as_loaded), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF)]  # ld jeq ret ret
    code = ctypes.create_string_buffer(b"".join(struct.pack("=H B B I", *line) for line in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@H 6x P", len(program), ctypes.addressof(code)))


def _own_number() -> int | None:
    """The number that the kernel gives this thread when it says who has committed; None where it does not say."""
    with NetlinkSocket() as sock:
        sock.socket.send(codec.request(codec.GETGEN))
        for message in netlink.messages(sock.socket.recv(_DATAGRAM)):
            commit = codec.commit_in(message)
            if commit is not None and commit.pid:
                return commit.pid
    return None
