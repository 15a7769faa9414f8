"""Limits, trying them: a network of two hosts and two cgroups that exist for one question, in processes of their own.

    inside(work)     forks; the child makes everything below, calls work(Scratch) and sends back what it returns

      glacic-try-PID.limited   a cgroup          "here"  glacic0 192.0.2.1, 2001:db8::1   a network namespace
      glacic-try-PID.free      another one          |
                                                 "there" glacic1 192.0.2.2, 2001:db8::2   another one, with a Far in it

Namespaces end with the processes in them, and both processes end with whoever asked (PR_SET_PDEATHSIG). Cgroups do not:
they bear the number of the process that made them, and what a dead one left is removed the next time. They are made at
the top of the hierarchy, the only place where a cgroup may have both processes and children. A socket belongs to the
cgroup that its process was in when it was made; so one process has sockets of both.

Needs root (CAP_SYS_ADMIN for namespaces). Refuses to touch the namespaces and cgroups of the caller.
"""
# ruff: noqa: S603 -- commands of iproute2, found on PATH as an administrator's shell finds them

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from glacic.errors import GlacicError, KernelRefused
from glacic.shaping.cgroups import find
from glacic.shaping.engine import Cgroup
from glacic.shaping.far import PORT, Far, serve

INTERFACE, _FAR_INTERFACE = "glacic0", "glacic1"
HERE, THERE = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}  # RFC 5737, RFC 3849

_CLONE_NEWNET, _PR_SET_PDEATHSIG = 0x4000_0000, 1  # linux/sched.h, linux/prctl.h
_PREFIX = "glacic-try-"
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Scratch:
    """What `work` is given. mount: of cgroup2."""

    mount: Path
    limited: Cgroup
    free: Cgroup
    far: Far

    @contextmanager
    def of(self, cgroup: Cgroup) -> Iterator[None]:
        """Sockets and processes that are made in the block belong to a cgroup."""
        top = self.mount / "cgroup.procs"
        (self.mount / cgroup.path / "cgroup.procs").write_text("0")
        try:
            yield
        finally:
            top.write_text("0")

    def command(self, *words: str) -> None:
        """Run ip(8) or tc(8) here. KernelRefused with what it says."""
        _command(*words)


def inside(work: Callable[[Scratch], Any], *, patience_s: float = _PATIENCE_S) -> Any:
    """What `work` returns, by way of JSON. Raises KernelRefused for its GlacicErrors and OSErrors, where there are no
    rights, and where it takes too long."""
    mount = find().mount
    sweep(mount)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(work, mount, writer)
    os.close(writer)
    try:
        text = _read(reader, patience_s)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        _remove(mount, child)
    answer = json.loads(text or '{"error": "the trial ended without an answer, or took too long"}')
    if "error" in answer:
        raise KernelRefused(answer["error"])
    return answer["answer"]


def sweep(mount: Path) -> None:
    """Remove the cgroups of trials whose process is dead."""
    for path in mount.glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).split(".")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with suppress(OSError):
                path.rmdir()


def _child(work: Callable[[Scratch], Any], mount: Path, writer: int) -> NoReturn:
    """Never returns into the caller's code."""
    try:
        _end_with_parent()
        os.setpgid(0, 0)  # an interrupt is for whoever asked
        try:
            answer = {"answer": work(_made(mount))}
        except (GlacicError, OSError) as error:
            answer = {"error": str(error)}
        except BaseException:  # nobody above will report it
            traceback.print_exc()
            raise
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _made(mount: Path) -> Scratch:
    try:
        return _make(mount)
    except OSError as error:
        raise KernelRefused(f"no scratch namespace and cgroup: {error}; run it as root") from None


def _make(mount: Path) -> Scratch:
    limited, free = (_cgroup(mount, f"{_PREFIX}{os.getpid()}.{name}") for name in ("limited", "free"))
    ours, theirs = socket.socketpair()
    peer = os.fork()
    if peer == 0:
        try:
            _end_with_parent()
            ours.close()
            _unshare()
            theirs.sendall(b"\n")
            serve(theirs, lambda: _up(_FAR_INTERFACE, THERE))
        except BaseException:  # nobody above will report it
            traceback.print_exc()
        finally:
            os._exit(0)
    theirs.close()
    _unshare()
    if not ours.recv(1):
        raise KernelRefused("no scratch namespace for the other end")
    _command("ip", "link", "set", "lo", "up")
    _command("ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", _FAR_INTERFACE, "netns", str(peer))
    far = Far(ours)
    far.ask("up")
    _up(INTERFACE, HERE)
    for address in THERE.values():  # both know each other's link addresses before anything is counted
        socket.create_connection((address, PORT), _PATIENCE_S).close()
    return Scratch(mount, limited, free, far)


def _up(interface: str, addresses: dict[int, str]) -> None:
    """Give an interface its addresses, usable at once."""
    _command("ip", "address", "add", f"{addresses[4]}/24", "dev", interface)
    _command("ip", "address", "add", f"{addresses[6]}/64", "dev", interface, "nodad")
    _command("ip", "link", "set", interface, "up")


def _cgroup(mount: Path, name: str) -> Cgroup:
    path = mount / name
    path.mkdir()
    return Cgroup(name, path.stat().st_ino, 1)


def _remove(mount: Path, owner: int) -> None:
    until = time.monotonic() + 2.0
    for path in mount.glob(f"{_PREFIX}{owner}.*"):
        while True:
            try:
                path.rmdir()
            except FileNotFoundError:
                break
            except OSError:  # its last process is on its way out
                if time.monotonic() > until:
                    break
                time.sleep(0.01)


def _read(descriptor: int, patience_s: float) -> bytes:
    until, data = time.monotonic() + patience_s, b""
    while (left := until - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
        more = os.read(descriptor, 1 << 16)
        if not more:
            return data
        data += more
    return b""


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # No connection takes over what an earlier one, under another limit, has learned of the path.
    Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise KernelRefused(f"the command {words[0]} is missing: install iproute2") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise KernelRefused(f"{' '.join(words)}: {said[0].removeprefix('Error: ').rstrip('.')}")
