"""`glacic limits run`: a command under a limit of its own, from its first socket on.

A socket belongs to the cgroup in which it was made, so the command begins in a cgroup of its own, and waits there for
its limit before it is executed: a gate does both, and becomes the command. With systemd the cgroup is a scope, made by
systemd-run; without, it is made below the cgroup2 mount. Nothing that runs already is ever moved.

The limit ends, and the cgroup goes, when all that the command has started has ended. Signals are passed on, and so is
how the command ended: by its exit code, or by the same signal.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from glacic.config.model import LimitEngine, LimitKind, Traffic
from glacic.config.source import printable
from glacic.ctlplane.cli.limits_change import about, add_rates, valid_interface, valid_name
from glacic.ctlplane.cli.options import Options, add_common, warn
from glacic.ctlplane.client import Client
from glacic.errors import GlacicError, KernelRefused, NoCommand, NoProgram, Unreachable, UsageError

SYSTEMD = Path("/run/systemd/system")  # there while systemd is the init system: sd_booted(3)
ACTIVE_S = 10.0  # until a limit is in force: the service sees a new cgroup within 200 ms
_PREFIX = "glacic-run-"  # of cgroups; the number of the process that has made one follows
_PAUSE_S = 0.02
_LEAVE_S = 0.1  # between looks at whether what the command left behind has ended
_DESCRIPTION_MAX = 200  # characters of the command that systemctl shows
_TTY = 0x80  # SI_KERNEL of siginfo_t: a terminal's key, which the command has got too
# The gate: enters the cgroup it is given, if any, says that it is there, waits to be let go, and becomes the command.
# It is Python because a shell need not know descriptors above 9, and could not keep these two from the command.
_GATE = """\
import os, signal, sys
folder, says, hears, words = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
try:
    if folder:
        with open(folder + "/cgroup.procs", "w") as procs:
            procs.write("0")
    os.write(says, b"there\\n")
    if not os.read(hears, 1):
        os._exit(125)
    os.close(says)
    os.close(hears)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    with open("/proc/self/environ", "rb") as given:
        lines = [line.partition(b"=") for line in given.read().split(b"\\0")]
    os.execvpe(words[0], words, {name: value for name, equals, value in lines if equals})
except OSError as error:
    sys.stderr.write("glacic: cannot run %a: %s\\n" % (words[0], error.strerror))
    os._exit(127 if isinstance(error, FileNotFoundError) else 126)
"""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def add_run(commands: Any) -> None:
    """`limits run -- COMMAND`."""
    parser = commands.add_parser("run", help="run a command under a limit of its own")
    add_rates(parser, none=False)
    parser.add_argument("--name", metavar="NAME", help="what the limit is called (default: run-NUMBER)")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what is run, with its arguments")
    parser.set_defaults(run=run_run)
    add_common(parser)


def run_run(arguments: argparse.Namespace, options: Options) -> int:
    """The command's exit code; where a signal ended it, this process ends by the same one."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise UsageError("limits run: say which command, behind --")
    if not arguments.upload and not arguments.download:
        raise UsageError("limits run: say --upload, --download or both")
    token = f"{os.getpid()}-{secrets.token_hex(3)}"
    name = f"run-{token}" if arguments.name is None else valid_name(arguments.name)
    said = {"engine": arguments.engine or LimitEngine.AUTO, "traffic": arguments.traffic or Traffic.ALL}
    valid_interface(arguments, None, said)
    _look_for(words[0])
    with options.client() as service:
        standing = service.call("limits.list")
    if any(limit["name"] == name for limit in standing["limits"]):
        raise UsageError(f"there is a limit {name} already: say another --name")
    place = Place.new(f"{_PREFIX}{token}", standing["mount"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # one that was ignored would take the command's end away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    try:
        status = _run(arguments, words, options, name, place, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if status < 0:
        _end_by(-status)
    return status


def _look_for(command: str) -> None:
    """Raises NoCommand or NoProgram, before anything is made."""
    if shutil.which(command) is not None:
        return
    folders = [""] if os.path.dirname(command) else os.get_exec_path()  # noqa: PTH120 - "" where it has no slash
    if command and any(Path(folder, command).exists() for folder in folders):
        raise NoProgram(f"{command} is no program that can be run: it has no right to be executed, or is a folder")
    raise NoCommand(f"there is no command {command} to run")


def _run(
    arguments: argparse.Namespace, words: list[str], options: Options, name: str, place: Place, mask: set[Any]
) -> int:
    """What the command ended with: its code, or minus the signal."""
    gate, limited = None, False
    try:
        gate = Gate(place, words, mask)
        cgroup = gate.cgroup()
        with options.client() as service:
            try:
                limit = _set(service, arguments, name, cgroup)
            except Unreachable:  # nobody knows how far it came
                limited = True
                raise
            limited = True
            about(_in_force(service, limit))
        gate.open()
        status = gate.wait()
        place.wait_until_empty(cgroup)
    finally:
        if gate is not None:
            gate.close()
        if limited:
            _clear(options, name)
        place.remove()
    return status


def _set(service: Client, arguments: argparse.Namespace, name: str, cgroup: str) -> dict[str, Any]:
    """Have the service hold the limit."""
    wanted: dict[str, Any] = {"name": name, "kind": str(LimitKind.CGROUP), "target": cgroup}
    wanted |= {direction: getattr(arguments, direction) for direction in ("upload", "download")}
    wanted |= {key: value for key in ("engine", "traffic", "interface") if (value := getattr(arguments, key))}
    limit: dict[str, Any] = service.call("limits.set", **wanted)
    return limit


def _in_force(service: Client, limit: dict[str, Any]) -> dict[str, Any]:
    """Wait until the kernel has it."""
    ends = time.monotonic() + ACTIVE_S
    while limit["state"] != "active":
        if time.monotonic() > ends:
            raise GlacicError(
                f"the limit is not in force after {ACTIVE_S:g} s: {limit['why']}; the command was not run"
            )
        time.sleep(_PAUSE_S)
        limit = service.call("limits.show", name=limit["name"])
    return limit


def _clear(options: Options, name: str) -> None:
    """It may be gone with the service, which is no reason to fail a command that has run."""
    try:
        with options.client() as service:
            service.call("limits.clear", name=name)
    except GlacicError as error:
        warn(f"the limit {name} is not cleared: {error}")


class Place:
    """Where the command runs. folder: a cgroup made here, or None where systemd makes one."""

    def __init__(self, name: str, mount: Path, folder: Path | None) -> None:
        self.mount, self._name, self._folder = mount, name, folder

    @classmethod
    def new(cls, name: str, mount: str | None) -> Place:
        """A scope's, or a new cgroup's. Raises GlacicError."""
        if mount is None:  # the service has not looked yet: nothing is limited so far
            from glacic.shaping.cgroups import find

            mount = str(find().mount)
        where = Path(mount)
        if SYSTEMD.is_dir() and shutil.which("systemd-run"):
            return cls(name, where, None)
        _sweep(where)
        folder = where / name
        try:
            folder.mkdir()
        except OSError as error:
            raise KernelRefused(f"cannot make the cgroup {folder}: {error.strerror}; be root") from None
        return cls(name, where, folder)

    def start(self, gate: list[str], words: list[str]) -> list[str]:
        """How the gate of a command is started there."""
        if self._folder is not None:
            return gate
        whose = [] if os.geteuid() == 0 else ["--user"]
        names = f"--unit={self._name}.scope", f"--description={printable(' '.join(words), _DESCRIPTION_MAX)}"
        return ["systemd-run", *whose, "--scope", "--quiet", "--collect", *names, "--", *gate]

    def entered(self) -> str:
        """The cgroup that the gate has to enter by itself; "" where systemd-run does."""
        return str(self._folder) if self._folder is not None else ""

    def wait_until_empty(self, cgroup: str) -> None:
        """Return when all that the command has left running has ended. Meanwhile signals go to them."""
        told = False
        while _populated(self.mount / cgroup):
            if not told:
                warn("the command has ended and left processes running: they stay limited, and are waited for")
                told = True
            info = signal.sigtimedwait(_PASSED_ON, _LEAVE_S)
            for pid in _processes(self.mount / cgroup) if info is not None else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, info.si_signo if info is not None else 0)

    def remove(self) -> None:
        """The cgroup goes, if it is one of ours; systemd takes a scope away by itself."""
        if self._folder is None:
            return
        ends = time.monotonic() + 1.0  # a process that has just ended leaves its cgroup in its own time
        while True:
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if time.monotonic() < ends:
                    time.sleep(_PAUSE_S)
                    continue
                warn(f"the cgroup {self._folder} stays: {error.strerror}")
            return


def _sweep(mount: Path) -> None:
    """Remove the empty cgroups of earlier ones that were killed."""
    for left in mount.glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            with suppress(OSError):  # what its command has left still runs there
                left.rmdir()


class Gate:
    """The child: it enters the cgroup, and becomes the command once it is let go."""

    def __init__(self, place: Place, words: list[str], mask: set[Any]) -> None:
        there, says = os.pipe()
        hears, go = os.pipe()
        self._there, self._go = there, go
        self._mount = place.mount
        gate = [sys.executable, "-I", "-S", "-c", _GATE, place.entered(), str(says), str(hears), *words]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command is the caller's own
                place.start(gate, words),
                pass_fds=(says, hears),
                env=environment(),
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),  # noqa: PLW1509 - no threads here
            )
        finally:
            os.close(says)
            os.close(hears)

    def cgroup(self) -> str:
        """The cgroup that the child is in, relative to the mount, once it is there. Raises GlacicError."""
        with os.fdopen(self._there) as there:
            self._there = -1
            if not there.readline():
                raise KernelRefused(
                    f"the command could not be put into its cgroup (exit {self._process.wait()}): be root"
                )
        path = cgroup_of(self._process.pid)
        if not path or str(self._process.pid) not in (self._mount / path / "cgroup.procs").read_text().split():
            raise GlacicError(f"cannot tell the cgroup of process {self._process.pid} below {self._mount}")
        return path

    def open(self) -> None:
        """Let it become the command."""
        with suppress(BrokenPipeError):
            os.write(self._go, b"\n")

    def wait(self) -> int:
        """What it ends with: a code, or minus a signal. Signals that come meanwhile are passed on."""
        while (status := self._process.poll()) is None:
            info = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
            if info.si_signo != signal.SIGCHLD and info.si_code != _TTY:
                self._process.send_signal(info.si_signo)
        return status

    def close(self) -> None:
        """End what has not been let go."""
        for end in (self._there, self._go):
            if end >= 0:
                with suppress(OSError):
                    os.close(end)
        self._there = self._go = -1
        if self._process.poll() is None:
            self._process.wait()


def environment(proc: Path = Path("/proc")) -> dict[bytes, bytes] | None:
    """The environment that this process was given: where it says nothing of LC_CTYPE Python may have put that in (PEP
    538), which is not for the command. The gate, Python too, does the same. None: as it is now, without /proc."""
    try:
        lines = [line.partition(b"=") for line in (proc / "self" / "environ").read_bytes().split(b"\0")]
    except OSError:
        return None
    return {name: value for name, equals, value in lines if equals}


def cgroup_of(pid: int, proc: Path = Path("/proc")) -> str:
    """The cgroup of version 2 that a process is in, relative to the mount; "" where there is none, or the root."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text(errors="surrogateescape").split("\n")
    except OSError:
        return ""
    return next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")


def _populated(folder: Path) -> bool:
    """Whether there are processes in a cgroup or below (cgroup.events)."""
    return _events(folder).get("populated") == "1"


def _events(folder: Path) -> Mapping[str, str]:
    try:
        lines = (folder / "cgroup.events").read_text().splitlines()
    except OSError:  # it is gone: systemd has taken it away
        return {}
    return dict(line.split(" ", 1) for line in lines if " " in line)


def _processes(folder: Path) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    return []


def _end_by(number: int) -> None:
    """End as the command did, so that who started this sees it; without a second core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # SIGKILL has no handler to take away
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
