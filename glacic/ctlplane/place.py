"""Where the control socket lies: its folder, its file, its mode. Never open to more than it will be, not for a moment.

Refuses a folder in which others could put a socket of theirs in its place.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from glacic.ctlplane import logs
from glacic.ctlplane.rights import Doorkeeper
from glacic.errors import GlacicError

_log = logs.logger("server")

MODE = 0o660
FOLDER_MODE = 0o750


def listening(path: Path, group: int, backlog: int) -> socket.socket:
    """A listening, non-blocking socket at `path`, MODE, of `group`. Raises GlacicError.

    bind(2) makes the file with the mode of the socket's own inode, less the umask (net/unix/af_unix.c, unix_bind), so
    it is born for its owner only, whatever the umask; it gets its group, then its mode, and only then is listened on.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # what accept(2) gives has it, too
        os.fchmod(bound.fileno(), 0o600)
        bound.bind(str(path))
        give_group(path, group)
        path.chmod(MODE)
        bound.listen(backlog)
    except OSError as error:
        bound.close()
        raise _no_socket(path, error) from None
    return bound


def give_group(path: Path, group: int) -> None:
    """Where that is not allowed, the file keeps the group it has, which is the service's own."""
    if path.stat(follow_symlinks=False).st_gid == group:
        return  # as under the unit, which forbids the call
    try:
        os.chown(path, -1, group, follow_symlinks=False)
    except PermissionError:
        _log.warning("the control socket keeps the service's own group", path=str(path), wanted_gid=group)


def make_folder(place: Path, group: int) -> None:
    """The folder of the socket at `place`: FOLDER_MODE and of `group` where it is made here. Raises GlacicError.

    One that is there is left as it is, and refused where everybody may rename what is in it.
    """
    path = place.parent
    try:
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
            give_group(path, group)
            path.chmod(FOLDER_MODE)
        mode = path.stat().st_mode
    except OSError as error:
        raise _no_socket(place, error) from None
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise GlacicError(f"{path} is writable by everybody, who could put a socket of theirs there: chmod o-w {path}")


def make_way(path: Path, group: int | None = None) -> None:
    """Make the socket's folder and remove a socket that nobody listens on. Raises GlacicError where somebody does.

    group: the folder's, where it is made here; by itself that of Doorkeeper.socket_group().
    """
    try:
        make_folder(path, Doorkeeper().socket_group() if group is None else group)
        there = path.exists()
    except OSError as error:
        raise _no_socket(path, error) from None
    if not there:
        return
    if not path.is_socket():
        raise GlacicError(f"{path} is there and is no socket: remove it, or name another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise GlacicError(f"cannot tell whether a service listens at {path}: {error}") from None
    raise GlacicError(f"a service is already running at {path}: stop it first, or name another --socket")


def _no_socket(path: Path, error: OSError) -> GlacicError:
    return GlacicError(f"cannot make the control socket {path}: {error.strerror or error}; name another --socket")
