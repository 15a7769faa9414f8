"""What a service needs before it can run: rights, a folder of its own, and a configuration that may be put in force.

Usually that is the file's. It is the one that was in force before where the file did not hold (it was on trial when the
service ended, or somebody rolled back from it), and where the file is broken: then nothing runs, and what is closed
stays closed, until somebody mends it. Refuses to start anything.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glacic.config.files import DISK, Recorder
from glacic.config.load import load
from glacic.config.model import Config
from glacic.ctlplane.revisions import Revision, Revisions, Standing, digest_of
from glacic.errors import ConfigError, GlacicError, KernelRefused
from glacic.learning.database import give_to_owner


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration, the files it was read from, and why it is not the file's.

    broken: what is wrong with the file; this one must not run, it is only to be closed. note: why this one runs.
    tried: a change was on trial, and is over once this is in force: the history still has it."""

    config: Config
    contents: Mapping[str, bytes]
    broken: str = ""
    note: str = ""
    tried: bool = False


def choose(path: Path, revisions: Revisions) -> Choice:
    """What a start puts in force. Raises ConfigError where the file is broken and nothing was in force before.

    Writes nothing down: until the start has come to its end, the guard of a trial must go on watching.
    """
    standing = revisions.standing()
    tried = standing.trial is not None
    standing = standing.taken_back()
    recorder = Recorder(DISK)
    try:
        config = load(path, recorder)
    except ConfigError as error:
        before = in_force(revisions, standing)
        if before is None:
            raise
        return Choice(_as(before[0], path), before[1], broken=str(error), tried=tried)
    if standing.overruled and standing.overruled == digest_of(recorder.contents):
        before = in_force(revisions, standing)
        if before is not None:
            why = "it was on trial when the service ended" if tried else "it was rolled back"
            note = f"{path} is not what runs ({why}): revision {standing.in_force} does; `glacic apply` takes the file"
            return Choice(_as(before[0], path), before[1], note=note, tried=tried)
    return Choice(config, recorder.contents, tried=tried)


def _as(config: Config, path: Path) -> Config:
    """What a revision kept may have been read from another path; the service goes on with its own file."""
    return replace(config, path=path)


def in_force(revisions: Revisions, standing: Standing) -> tuple[Config, Mapping[str, bytes]] | None:
    """The configuration that the history says is in force, and its files; None where there is none that can be read."""
    revision = standing.revision(standing.in_force)
    if revision is None:
        return None
    try:
        files = revisions.files(revision.number)
        return load(Path(revision.config), files), files.contents
    except GlacicError:  # damaged, or of a language that this program no longer speaks
        return None


def overrule(revisions: Revisions, path: Path, runs: Revision) -> bool:
    """The next start takes the revision that runs, as long as the file at `path` is what it is now.

    Whether that is another one."""
    recorder = Recorder(DISK)
    with suppress(ConfigError):
        load(path, recorder)
    digest = digest_of(recorder.contents)
    differs = digest != runs.digest
    revisions.overrule(digest if differs else "")
    return differs


def make_folder(path: Path) -> None:
    """Make a private folder (0700) where there is none. Raises GlacicError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GlacicError(
            f"cannot make the state directory {path}: {error.strerror}; name another --state-dir"
        ) from None


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock that a second service on the same state directory cannot get. Raises GlacicError."""
    try:
        lock = path.open("w")
        give_to_owner(path, lock.fileno())
    except OSError as error:
        raise GlacicError(f"cannot write {path}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GlacicError(f"another service uses the state directory {path.parent}: stop it first") from None
        yield


def check_rights() -> None:
    """Raise KernelRefused where this process may not change the network's rules."""
    if os.geteuid() != 0 and not _may_administer_networks():
        raise KernelRefused("the service needs CAP_NET_ADMIN: run it as root, or through its systemd unit")


def _may_administer_networks() -> bool:
    """CAP_NET_ADMIN is bit 12 of the effective set (linux/capability.h)."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) & 1 << 12)
