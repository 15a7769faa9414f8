"""What was put in force, and may come back: numbered revisions in the state directory, with the files they came from.

    history.json      the standing: which revision is in force, which are confirmed, which one is on trial until when
    history/N.json.gz one revision: the files it was read from, and the script that they became. Never changed

A change on trial comes back by itself to the revision before it, unless somebody confirms it. A configuration file
that did not hold (not confirmed, or rolled back from) is remembered by what is in it: a start of the service does not
take it again, an administrator's `apply` or `reload` does.

The service and, without one, the command line work on it, one at a time (flock). Refuses to know the kernel.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glacic.config.files import Kept
from glacic.ctlplane.wholefile import like_its_folder, locked, write_whole
from glacic.errors import GlacicError

CONFIRMED = "confirmed"
ON_TRIAL = "on trial"
REVERTED = "reverted"

KEPT = 20  # revisions; those that may come back are always among them
LOCK_S = 10.0  # how long a change of the history waits for another one, which takes milliseconds
_WORD_MAX = 200  # characters of who and from where


@dataclass(frozen=True, slots=True)
class Revision:
    """One configuration that was put in force. at: RFC 3339, UTC. digest: of all its files (`digest_of`)."""

    number: int
    at: str
    who: str
    source: str  # from where, as far as it is known
    what: str  # "start", "apply", "reload", "rollback to 3"
    config: str  # the path of its first file
    digest: str
    state: str = CONFIRMED
    restores: int | None = None  # the revision that was rolled back to


@dataclass(frozen=True, slots=True)
class Trial:
    """A change that waits to be confirmed. back_to None: to no ruleset at all. until: seconds since the epoch."""

    number: int
    back_to: int | None
    until: float


@dataclass(frozen=True, slots=True)
class Standing:
    """Which revision is in force, and what else must be known after a crash. overruled: a digest, "" for none."""

    revisions: tuple[Revision, ...] = ()
    in_force: int | None = None
    trial: Trial | None = None
    overruled: str = ""
    panic: bool = False

    def revision(self, number: int | None) -> Revision | None:
        """The revision of this number, None where it is not kept."""
        return next((revision for revision in self.revisions if revision.number == number), None)

    def before(self, number: int | None) -> Revision:
        """The revision of this number; without one the last that held before what is in force. Raises GlacicError.

        Where that was rolled back to, it is what held before its original: one rollback after the other goes further
        back, and never forth again.
        """
        if number is None:
            now = self.revision(self.in_force)
            while now is not None and now.restores is not None and (original := self.revision(now.restores)):
                now = original
            oldest = now.number if now is not None else 0
            held = [one for one in self.revisions if one.state == CONFIRMED and one.number < oldest]
            found = held[-1] if held else None
        else:
            found = self.revision(number)
        if found is None:
            which = f"revision {number}" if number is not None else "earlier revision"
            raise GlacicError(f"there is no {which}; `glacic history` lists those that are kept")
        return found

    def taken_back(self) -> Standing:
        """The change on trial did not hold: the revision before it is in force again."""
        if self.trial is None:
            return self
        failed = self.revision(self.trial.number)
        return replace(
            self,
            revisions=_without_trial(self),
            in_force=self.trial.back_to,
            trial=None,
            overruled=failed.digest if failed else "",
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, as `glacic history` shows it."""
        return {
            "revisions": [
                {**asdict(revision), "in_force": revision.number == self.in_force} for revision in self.revisions
            ],
            "in_force": self.in_force,
            "trial": trial_dict(self.trial),
            "panic": self.panic,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who changes something, and from where."""

    who: str
    what: str
    source: str = ""


@dataclass(slots=True)
class Revisions:
    """The revisions of one state directory."""

    state_dir: Path
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = self.state_dir / "history"

    def standing(self) -> Standing:
        """As it is now. A file that is no history any more is set aside, and history begins anew."""
        try:
            return _standing_of(json.loads(self._path().read_text()))
        except FileNotFoundError:
            return Standing()
        except (ValueError, TypeError, KeyError, AttributeError):
            with suppress(OSError):
                self._path().replace(self._path().with_suffix(f".damaged-{int(time.time())}"))
            return Standing()
        except OSError as error:
            raise GlacicError(f"cannot read {self._path()}: {error.strerror}; be root, or the service's user") from None

    def record(
        self,
        origin: Origin,
        config: Path,
        contents: Mapping[str, bytes],
        script: str,
        *,
        trial_s: float | None = None,
        restores: int | None = None,
    ) -> Revision:
        """What was just put in force becomes a revision, unless it is the one in force already. Raises GlacicError.

        trial_s: it is on trial for so long. A second trial comes back to where the first one would have.
        restores: the revision whose files these are.
        """
        with self._changing() as before:
            current, digest = before.revision(before.in_force), digest_of(contents)
            if before.trial is None and current is not None and current.digest == digest:
                self._write(replace(before, overruled=""))
                return current
            number = 1 + max([revision.number for revision in before.revisions] + self._numbers(), default=0)
            revision = Revision(
                number=number,
                at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                who=origin.who[:_WORD_MAX],
                source=origin.source[:_WORD_MAX],
                what=origin.what,
                config=str(config),
                digest=digest,
                state=CONFIRMED if trial_s is None else ON_TRIAL,
                restores=restores,
            )
            self._keep(revision, contents, script)
            back_to = before.trial.back_to if before.trial else before.in_force
            kept = _pruned((*_without_trial(before), revision), {number, back_to})
            self._write(
                replace(
                    before,
                    revisions=kept,
                    in_force=number,
                    trial=None if trial_s is None else Trial(number, back_to, time.time() + trial_s),
                    overruled="",
                )
            )
            self._forget_all_but(kept)  # not before it is written: a history names no file that is gone
            return revision

    def confirm(self) -> Revision:
        """The change on trial stays. Raises GlacicError where there is none."""
        with self._changing() as before:
            if before.trial is None:
                raise GlacicError("nothing waits to be confirmed; `glacic history` shows what is in force")
            number = before.trial.number
            revisions = tuple(
                replace(one, state=CONFIRMED) if one.number == number else one for one in before.revisions
            )
            self._write(replace(before, revisions=revisions, trial=None))
            return next(one for one in revisions if one.number == number)

    def reverted(self) -> Standing:
        """The change on trial did not hold: the revision before it is in force again. Returns the new standing."""
        with self._changing() as before:
            after = before.taken_back()
            if after is not before:
                self._write(after)
            return after

    def withdrawn(self, number: int, before: Standing) -> None:
        """This trial never came into force: what was so `before` it is so again, also a trial that it replaced."""
        with self._changing() as now:
            if now.trial is None or now.trial.number != number:
                return
            states = {number: REVERTED, **({before.trial.number: ON_TRIAL} if before.trial else {})}
            revisions = tuple(replace(one, state=states.get(one.number, one.state)) for one in now.revisions)
            again = replace(now, in_force=before.in_force, trial=before.trial, overruled=before.overruled)
            self._write(replace(again, revisions=revisions))

    def make_sure(self) -> None:
        """That something can be written down: before what cannot be undone. Raises GlacicError."""
        with self._changing() as now:
            self._write(now)

    def tidy(self) -> None:
        """Remove what a kill in the midst of writing has left."""
        with suppress(GlacicError), self._changing():
            for path in (*self.state_dir.glob(".*.new"), *self._folder.glob(".*.new")):
                with suppress(OSError):
                    path.unlink()

    def overrule(self, digest: str) -> None:
        """The next start of the service does not take a configuration of this digest, but what is in force now."""
        with self._changing() as before:
            self._write(replace(before, overruled=digest))

    def unloaded(self) -> None:
        """Nothing is in force any more."""
        with self._changing() as before:
            self._write(replace(before, revisions=_without_trial(before), in_force=None, trial=None))

    def panic(self, on: bool) -> None:
        """Remember whether there is a panic: it outlives a restart."""
        with self._changing() as before:
            self._write(replace(before, panic=on))

    def files(self, number: int) -> Kept:
        """The files of a revision. Raises GlacicError."""
        return Kept(
            {name: text.encode("utf-8", "surrogateescape") for name, text in self._read(number)["files"].items()}
        )

    def document(self, number: int) -> dict[str, Any]:
        """A revision's files, by path, and the script that they became, JSON-ready. Raises GlacicError."""
        return {"number": number, **self._read(number)}

    def _path(self) -> Path:
        return self.state_dir / "history.json"

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.json.gz"

    def _numbers(self) -> list[int]:
        """Of the revisions that have a file, whatever the history says: a number is never used again."""
        try:
            names = [path.name.partition(".")[0] for path in self._folder.iterdir()]
        except OSError:
            return []
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, number: int) -> dict[str, Any]:
        try:
            with gzip.open(self._file(number), "rt", encoding="utf-8") as file:
                document = json.load(file)
            return {"files": dict(document["files"]), "script": document["script"]}
        except FileNotFoundError:
            raise GlacicError(f"there is no revision {number}; `glacic history` lists those that are kept") from None
        except PermissionError as error:
            raise GlacicError(f"cannot read {self._file(number)}: {error.strerror}") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise GlacicError(f"revision {number} is damaged ({error}); choose another one") from None

    def _keep(self, revision: Revision, contents: Mapping[str, bytes], script: str) -> None:
        files = {name: content.decode("utf-8", "surrogateescape") for name, content in contents.items()}
        document = json.dumps({**asdict(revision), "files": files, "script": script})
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700)
                like_its_folder(self._folder)
        except OSError as error:
            raise GlacicError(f"cannot make {self._folder}: {error.strerror}") from None
        write_whole(self._file(revision.number), gzip.compress(document.encode(), 6, mtime=0))

    def _forget_all_but(self, kept: tuple[Revision, ...]) -> None:
        for number in set(self._numbers()) - {revision.number for revision in kept}:
            with suppress(OSError):
                self._file(number).unlink()

    def _write(self, standing: Standing) -> None:
        write_whole(self._path(), json.dumps(asdict(standing), indent=1).encode())

    @contextmanager
    def _changing(self) -> Iterator[Standing]:
        """One change at a time, whoever makes it."""
        with locked(self.state_dir / "history.lock", LOCK_S):
            yield self.standing()


def trial_dict(trial: Trial | None, left_s: float | None = None) -> dict[str, Any] | None:
    """JSON-ready. left_s: where somebody knows it better than the clock, which may have been set meanwhile."""
    if trial is None:
        return None
    until = datetime.fromtimestamp(trial.until, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    left = max(0, round(trial.until - time.time() if left_s is None else left_s))
    return {"number": trial.number, "back_to": trial.back_to, "until": until, "seconds_left": left}


def digest_of(contents: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents of files, in hex."""
    total = hashlib.sha256()
    for name in sorted(contents):
        called = name.encode("utf-8", "surrogateescape")
        total.update(b"%d %s %d " % (len(called), called, len(contents[name])))
        total.update(contents[name])
    return total.hexdigest()


def _without_trial(standing: Standing) -> tuple[Revision, ...]:
    """The revisions, with the one on trial as one that did not hold."""
    return tuple(
        replace(one, state=REVERTED) if standing.trial and one.number == standing.trial.number else one
        for one in standing.revisions
    )


def _pruned(revisions: tuple[Revision, ...], needed: set[int | None]) -> tuple[Revision, ...]:
    """The newest ones, and those that may come back."""
    newest = {revision.number for revision in revisions[-KEPT:]} | needed
    return tuple(revision for revision in revisions if revision.number in newest)


def _standing_of(document: dict[str, Any]) -> Standing:
    known = {field.name for field in fields(Revision)}  # a later version may have written more
    return Standing(
        revisions=tuple(
            Revision(**{name: value for name, value in revision.items() if name in known})
            for revision in document["revisions"]
        ),
        in_force=document["in_force"],
        trial=Trial(**document["trial"]) if document["trial"] else None,
        overruled=document["overruled"],
        panic=bool(document["panic"]),
    )
