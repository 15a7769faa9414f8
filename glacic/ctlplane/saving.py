"""`glacic limits set --save` and `clear --save`: a change of one limit goes into the file that has it, or stays out.

What the edited text means is read before it is written: it has to be the old configuration with this one limit
changed, and nothing else. The file is replaced as a whole, and keeps its mode, owner, group and extended attributes; a
link stays a link. Refuses what it may not write before anything is changed, and a file that somebody has just changed.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glacic.config import edit
from glacic.config.files import DISK, Files
from glacic.config.load import examine, load
from glacic.config.model import Config, Limit, LimitEngine, LimitKind, Traffic
from glacic.config.policies import filters
from glacic.config.rates import parse_rate
from glacic.config.reader import HEADER
from glacic.config.source import ERROR, Source
from glacic.errors import GlacicError

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one file that is ready to be written. path: where the file is, behind any link."""

    path: Path
    before: bytes
    after: bytes


class Beside:
    """The files as they are, but for one."""

    def __init__(self, files: Files, path: Path, content: bytes) -> None:
        self._files, self._path, self._content = files, path, content

    def read(self, path: Path, most: int) -> bytes:
        """See Files.read."""
        return self._content[:most] if path == self._path else self._files.read(path, most)

    def matching(self, pattern: Path) -> list[Path]:
        """See Files.matching."""
        return self._files.matching(pattern)


@contextmanager
def alone(config_path: Path) -> Iterator[None]:
    """Within the block no other command of ours edits this configuration: one that comes meanwhile waits."""
    try:
        folder = os.open(config_path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # who reads the file will say what is wrong
        yield
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def prepare_set(config_path: Path, name: str, wanted: edit.Attributes) -> Edit:
    """The change that makes the configuration have this limit. Raises ConfigError or GlacicError."""
    config = load(config_path)
    found = _limit(config, name)
    path = _file_of(found) if found is not None else config_path
    source, before = _read(path)
    return _checked(config, path, before, _edited(path, lambda: edit.with_limit(source, name, wanted)), name, wanted)


def prepare_clear(config_path: Path, name: str) -> Edit | None:
    """The change that takes out this limit, or the one of what has this name; None where the configuration has none.
    Raises ConfigError, GlacicError."""
    config = load(config_path)
    found = _limit(config, name) or next((limit for limit in config.limits if limit.target == name), None)
    if found is None:
        return None
    name = found.name
    path = _file_of(found)
    source, before = _read(path)
    return _checked(config, path, before, _edited(path, lambda: edit.without_limit(source, name)), name, None)


def write(change: Edit) -> None:
    """Replace the file, on disk when this returns. Raises GlacicError; then the file is what it was."""
    fresh: Path | None = None
    try:
        status = change.path.stat()
        handle, name = tempfile.mkstemp(prefix=f".{change.path.name[:200]}.", dir=change.path.parent)
        fresh = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(change.after)
            _like(change.path, status, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        if change.path.read_bytes() != change.before:
            raise GlacicError(f"somebody has just changed {change.path}: nothing is written; try again")
        fresh.replace(change.path)
        folder = os.open(change.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise GlacicError(f"cannot write {change.path}: {error.strerror}; be root, or edit it by hand") from None
    finally:
        if fresh is not None:
            with suppress(OSError):  # it has become the file
                fresh.unlink()


def _like(path: Path, status: os.stat_result, handle: int) -> None:
    """Owner, group, mode, and extended attributes (access control lists are such), as the file has them."""
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, status.st_uid, status.st_gid)
    os.fchmod(handle, status.st_mode & 0o7777)
    with suppress(OSError):  # a file system without them
        for name in os.listxattr(path):
            with suppress(OSError):  # one that only the kernel sets
                os.setxattr(handle, name, os.getxattr(path, name))


def _limit(config: Config, name: str) -> Limit | None:
    return next((limit for limit in config.limits if limit.name == name), None)


def _file_of(limit: Limit) -> Path:
    """The file that has the block: the configuration itself, or one that it includes."""
    return Path(limit.spans[HEADER].source.name)


def _read(path: Path) -> tuple[Source, bytes]:
    try:
        data = path.read_bytes()
        real = path.resolve(strict=True)
        links = real.stat().st_nlink
    except OSError as error:
        raise GlacicError(f"cannot read {path}: {error.strerror}") from None
    if links > 1:
        raise GlacicError(f"{path} has {links} names, which would become different files: edit it by hand")
    if not (os.access(real, os.W_OK) and os.access(real.parent, os.W_OK)):
        raise GlacicError(f"no right to write {path}: be root, or edit it by hand")
    return Source(str(path), data.decode("utf-8-sig")), data


def _edited(path: Path, text: Callable[[], str]) -> str:
    try:
        return text()
    except ValueError as error:
        raise GlacicError(f"cannot edit {path}: {error}; do it by hand") from None


def _checked(config: Config, path: Path, before: bytes, text: str, name: str, wanted: edit.Attributes | None) -> Edit:
    """The change, if the whole configuration then is the old one with the limit as it is wanted."""
    after = (_BOM if before.startswith(_BOM) else b"") + text.encode()
    found, diagnostics = examine(config.path, Beside(DISK, path, after))
    if found is None:
        wrong = "\n\n".join(one.render() for one in diagnostics if one.severity == ERROR)
        raise GlacicError(f"{path} would not be valid any more, so nothing is changed:\n\n{wrong}")
    if filters(found) and not filters(config):
        raise GlacicError(
            f"limit {name} is all that {path} is about: without it, and without zones, it would close the firewall to "
            "everybody; change it by hand"
        )
    if not _is_that(config, found, name, wanted):
        raise GlacicError(f"{path} is written in a way that cannot be edited for you: change limit {name} by hand")
    return Edit(path.resolve(), before, after)


def _is_that(old: Config, new: Config, name: str, wanted: edit.Attributes | None) -> bool:
    """Whether `new` is `old` with this one limit as wanted; None: gone."""
    if replace(old, limits=()) != replace(new, limits=()):
        return False
    before, after = ({limit.name: limit for limit in config.limits} for config in (old, new))
    was, found = before.pop(name, None), after.pop(name, None)
    if before != after or wanted is None or found is None:
        return before == after and (wanted is None) == (found is None)
    kind = next(kind for kind in LimitKind if kind in wanted)
    return found == Limit(
        name=name,
        kind=kind,
        target=wanted[kind],
        upload=parse_rate(wanted["upload"]) if "upload" in wanted else 0,
        download=parse_rate(wanted["download"]) if "download" in wanted else 0,
        engine=LimitEngine(wanted.get("engine", LimitEngine.AUTO)),
        traffic=Traffic(wanted.get("traffic", Traffic.ALL)),
        interface=wanted.get("interface", ""),
        description=was.description if was is not None else "",
    )
