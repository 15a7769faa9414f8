"""The audit trail: who changed which flow or ruleset, when, from where, and what came of it. Append-only.

One file, `audit.log` in the state directory, opened for each entry, appended to and synced, by the service and by
commands that change the kernel without it. Above MAX_BYTES it becomes `audit.log.1`, and so on up to KEPT; the chain of
hashes (auditfile.py) goes on across files, also where logrotate renames them. Refuses to stop what it records: where an
entry cannot be written, the entry itself goes to the log, as an error.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glacic.ctlplane.auditfile import (
    GENESIS,
    MAX_ITEMS,
    MAX_OUTCOME,
    MAX_TEXT,
    SHOWN,
    Reading,
    bounded,
    first_number,
    gap,
    last_entry,
    line_of,
    parse,
    read,
    text,
)
from glacic.errors import AuditError

NAME = "audit.log"
MODE = 0o640
MAX_BYTES = 16 * 1024 * 1024
KEPT = 4  # older files
LOCK_S = 5.0  # how long another writer may take
MAX_PAGE = 1000  # entries asked for at once
MAX_KEYS = MAX_ITEMS  # flows that are named in one entry; a count says how many there were

_notes: ContextVar[dict[str, Any] | None] = ContextVar("notes", default=None)


def take_notes() -> dict[str, Any]:
    """Begin to collect what note() says in this task: arguments of the entry to be written."""
    notes: dict[str, Any] = {}
    _notes.set(notes)
    return notes


def note(**args: Any) -> None:
    """Say more of the request that is being carried out, such as the keys of the flows that were given by number."""
    notes = _notes.get()
    if notes is not None:
        notes.update(args)


def report(entries: list[dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    """Entries as people and programs see them, and whether the trail is whole."""
    shown = [{name: entry.get(name) for name in SHOWN} for entry in entries]
    return {"entries": shown, "intact": not problems, "problems": problems}


class AuditTrail:
    """The trail at one path. Any thread; several processes may write it."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._lock = threading.Lock()
        self._head: tuple[int, str] = (0, GENESIS)  # number and hash of the last entry that was written or seen here

    def record(
        self,
        *,
        who: str,
        action: str,
        args: dict[str, Any],
        outcome: str,
        source: str = "",
        uid: int | None = None,
        pid: int | None = None,
    ) -> None:
        """Append an entry; never raises. outcome: "ok", or why not. uid, pid: this process's, unless said."""
        from glacic.ctlplane import logs  # not for commands, which append()

        log = logs.logger("audit")
        entry = self._entry(who, action, args, outcome, source, uid, pid)
        try:
            cut, sealed = self._append(entry)
        except (OSError, AuditError) as error:
            log.critical("AUDIT ENTRY NOT WRITTEN", error=str(error), path=str(self._path), entry=entry)
            return
        if cut:
            log.error("THE AUDIT TRAIL WAS CUT", path=str(self._path), missing=cut)
        log.info("audited", **{name: sealed[name] for name in ("number", "who", "action", "outcome", "hash")})

    def append(self, *, who: str, action: str, args: dict[str, Any], outcome: str, source: str = "") -> None:
        """The same for a command, which says itself what went wrong. Raises AuditError."""
        try:
            self._append(self._entry(who, action, args, outcome, source, None, None))
        except OSError as error:
            raise AuditError(f"cannot write {self._path}: {error.strerror}; {action} is not on the trail") from None

    def entries(
        self, *, limit: int = 0, since: str = "", who: str = "", before: int | None = None, verify: bool = False
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """The last `limit` entries (0: all), oldest first, and what is wrong with the files that were read for them.

        since: a time as entries have it. who: a user's name or number. before: only lower numbers. verify: read all
        files. Raises AuditError.
        """

        def wanted(entry: dict[str, Any]) -> bool:
            return (
                (before is None or entry["number"] < before)
                and entry["at"] >= since
                and (not who or who in (entry["who"], entry["who"].removeprefix("user "), str(entry.get("uid"))))
            )

        chosen: deque[dict[str, Any]] = deque()
        problems: list[str] = []
        newer: Reading | None = None
        try:
            for first, path in sorted(((first_number(path), path) for path in self._files()), reverse=True):
                left = limit - len(chosen) if limit else None
                if not verify and (left == 0 or (before is not None and first >= before)):
                    continue
                found = read(path, wanted, left)
                if newer is not None and newer.first is not None and (link := gap(found.last, newer.first)):
                    problems.insert(0, f"after {path.name}: entry {newer.first['number']}: {link}")
                problems = [*found.problems, *problems]
                chosen.extendleft(reversed(found.entries))
                newer = found if found.first is not None else newer
        except (OSError, EOFError) as error:
            raise AuditError(f"cannot read the audit trail {self._path}: {error}") from None
        return list(chosen), problems

    def _entry(
        self, who: str, action: str, args: dict[str, Any], outcome: str, source: str, uid: int | None, pid: int | None
    ) -> dict[str, Any]:
        return {
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "who": text(who, MAX_TEXT),
            "uid": os.getuid() if uid is None else uid,
            "pid": os.getpid() if pid is None else pid,
            "source": text(source, 2 * MAX_TEXT),
            "action": text(action, MAX_TEXT),
            "args": bounded(args),
            "outcome": text(outcome, MAX_OUTCOME),
        }

    def _append(self, entry: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """How many entries were found missing at the end, and the entry as it was written."""
        with self._lock:
            descriptor = self._open()
            try:
                return self._write(descriptor, entry)
            finally:
                os.close(descriptor)

    def _open(self) -> int:
        """The current file, locked, after what rotation it needs."""
        ends = time.monotonic() + LOCK_S
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, MODE)
            try:
                if self._locked(descriptor) and self._is_current(descriptor):
                    state = os.fstat(descriptor)
                    if state.st_size < self._max_bytes:
                        if state.st_size == 0:
                            self._dress(descriptor)
                        return descriptor
                    self._rotate()
                else:
                    self._still_in_time(ends)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            time.sleep(0.01)

    def _still_in_time(self, ends: float) -> None:
        if time.monotonic() > ends:
            raise AuditError(f"somebody else holds {self._path} locked")

    def _locked(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still names this file: another writer may have rotated it meanwhile."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _dress(self, descriptor: int) -> None:
        """A new file: its mode whatever the umask; and of the state directory's owner, where a command of root's was
        first."""
        os.fchmod(descriptor, MODE)
        folder = self._path.parent.stat()
        if os.geteuid() == 0 and folder.st_uid != 0:
            os.fchown(descriptor, folder.st_uid, folder.st_gid)

    def _rotate(self) -> None:
        for number in range(self._kept, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number}"))

    def _write(self, descriptor: int, entry: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        last, torn = last_entry(self._path)
        if last is None:
            last = self._last_of_older()
        number, previous = (last["number"], last["hash"]) if last else (0, GENESIS)
        cut = max(0, self._head[0] - number) or int(number == self._head[0] and previous != self._head[1])
        if cut:  # go on from what is remembered: then it shows to everybody
            number, previous = self._head
        sealed: dict[str, Any] = {
            "number": number + 1,
            **entry,
            "previous": previous,
            **({"torn": torn} if torn else {}),
        }
        line = line_of(sealed)
        size = os.fstat(descriptor).st_size
        left = (b"\n" if torn else b"") + line
        try:
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        written = parse(line) or sealed
        self._head = (written["number"], written["hash"])
        return cut, written

    def _last_of_older(self) -> dict[str, Any] | None:
        """The last entry before this file: of the older one that goes on furthest."""
        found = [read(path, lambda _: False, 0).last for path in self._files() if path != self._path]
        return max(
            (entry for entry in found if entry is not None), key=lambda entry: int(entry["number"]), default=None
        )

    def _files(self) -> list[Path]:
        """This file and the older ones, also those that logrotate named by date or packed."""
        folder, name = self._path.parent, self._path.name
        try:
            names = os.listdir(folder)  # noqa: PTH208 - raises where the folder cannot be read; glob says nothing
        except FileNotFoundError:
            return []
        return [folder / other for other in names if other == name or other.startswith((f"{name}.", f"{name}-"))]
