"""The lab, a network: hosts as network namespaces, joined by cables, gone when the `with` block ends.

    with Network() as net:
        a, b = net.host("a"), net.host("b")
        net.cable(Port(a, "eth0", MAC_A, ("10.0.0.1/24", "fd00::1/64")), Port(b, "eth0", MAC_B, ("10.0.0.2/24",)))
        b.popen(["python3", "-m", "http.server"])
        a.run(["curl", "http://10.0.0.2:8000/"])

Nothing of the machine's own network is touched: cables are made with both ends inside, and only the names under
/run/netns are the machine's. They begin with `glacic-` and the number of the process that made them, so that
leftovers of one that was killed can be told apart and removed (`sweep`). Addresses are usable at once (no duplicate
address detection), answers are never rate limited by the hosts, and nothing depends on the machine's own settings.

This needs root. It refuses to look at packets and to know anything about firewalls.
"""
# ruff: noqa: S603, S607 -- commands of iproute2 and util-linux, found on PATH as an administrator's shell finds them

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from glacic.errors import LabError
from glacic.lab.ending import end_process, ends_cleanly, kill, owner_is_dead
from glacic.lab.kernel import require

T = TypeVar("T")

PREFIX = "glacic-"
NAMESPACES = Path("/run/netns")  # where ip(8) keeps its names
NEEDS = {"ip": "iproute2", "nsenter": "util-linux"}

_CLONE_NEWNET = 0x4000_0000  # <linux/sched.h>
_PATIENCE_S = 2.0
_RUN_TIMEOUT_S = 120.0
_serial = itertools.count(1)

# Set in every host before its first interface appears, so that interfaces inherit them.
SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/all/accept_dad": "0",  # an address is usable at once
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_ra": "0",  # routes are only the ones given
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/icmp_ratelimit": "0",  # each refused connection is told so, however many there are
    "net/ipv6/icmp/ratelimit": "0",
}
FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable: an interface by name (15 bytes at most), its MAC, and addresses as "10.0.0.1/24"."""

    host: Host
    name: str
    mac: str = ""
    addresses: tuple[str, ...] = ()


class Host:
    """One network namespace. Made by `Network.host`; its processes end with the network."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self.path = NAMESPACES / namespace
        self._children: list[subprocess.Popen[bytes]] = []

    def __repr__(self) -> str:
        return f"<host {self.name}>"

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command, to be started in here. Files stay the machine's: /sys/class/net shows its interfaces."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(
        self,
        command: Sequence[str],
        *,
        text: str | None = None,
        check: bool = True,
        timeout_s: float = _RUN_TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, `text` as its input. If `check` and it fails: LabError with what it said."""
        try:
            done = subprocess.run(
                self.command(command),
                input=text or "",
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
                env=_environment(environment),
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {' '.join(command)}: not done within {timeout_s:g} s") from error
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)}: status {done.returncode}: {done.stderr or done.stdout}")
        return done

    def popen(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a command; the pid is its own (nsenter becomes it). It is ended with the network at the latest."""
        process = subprocess.Popen(
            self.command(command), stdin=stdin, stdout=stdout, stderr=stderr, env=_environment(environment)
        )
        self._children.append(process)
        return process

    def python(self, code: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs Python code in an interpreter of its own in here, `arguments` in sys.argv[1:]."""
        return self.run([sys.executable, "-c", code, *arguments], check=check)

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Calls a function on a thread that has entered this host, and returns (or raises) what it does.

        A socket made by the function belongs to this host for good and may be used anywhere. Processes it starts are in
        here too. Beware of /proc/net there: it is the main thread's, and /proc/thread-self/net is this host's.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                _enter(self.path)
                outcome.append(function(*arguments, **named))
            except BaseException as error:  # raised again by the caller, below
                failure.append(error)

        thread = threading.Thread(target=enter, name=f"in {self.name}", daemon=True)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Ends one that `popen` started, and returns its exit status."""
        if process in self._children:
            self._children.remove(process)
        status = end_process(process, patience_s=_PATIENCE_S)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not written to it is lost with it
                    stream.close()
        return status

    def set(self, settings: Mapping[str, str]) -> None:
        """Writes settings below /proc/sys, such as {"net/ipv4/ip_forward": "1"}; an unknown one is an OSError."""

        def write() -> None:
            for name, value in settings.items():
                Path("/proc/sys", name).write_text(value)

        self.call(write)

    def ip(self, *lines: str) -> None:
        """Runs lines of ip(8), such as "link set eth0 down", as one batch."""
        _batch(lines, self.namespace)

    def mac(self, interface: str) -> str:
        """The hardware address of an interface in here."""
        return self.run(["ip", "-brief", "link", "show", "dev", interface]).stdout.split()[2]

    def pids(self) -> list[int]:
        """The processes that are in here, whoever started them."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
        return [int(word) for word in listed.stdout.split()]

    def close(self) -> None:
        """Ends every process in here, then removes the namespace with its interfaces, tables and connections."""
        for process in list(self._children):
            self.end(process)
        kill(self.pids())
        _remove(self.namespace)


class Network:
    """Hosts and the cables between them. Leaving the block, in whatever way, ends and removes everything."""

    def __init__(self) -> None:
        self._prefix = f"{PREFIX}{os.getpid()}-{next(_serial)}-"
        self._ending = contextlib.ExitStack()
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        require(NEEDS, "a network of network namespaces")
        if os.geteuid() != 0:
            raise LabError("a network of network namespaces needs root: run this with sudo")
        self._ending.enter_context(ends_cleanly())
        sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        finally:
            self._ending.close()

    def close(self) -> None:
        """Removes all hosts, the last one first; all of them are tried even if one fails."""
        with contextlib.ExitStack() as stack:
            for host in self.hosts.values():
                stack.callback(host.close)
            self.hosts = {}

    def host(self, name: str, *, forwards: bool = False) -> Host:
        """A new host with its loopback up; `forwards` makes it a router for both families."""
        if name in self.hosts:
            raise ValueError(f"this network has a host {name} already")
        host = Host(name, self._prefix + name)
        self.hosts[name] = host  # before it is made: half made, it is removed as well
        _batch([f"netns add {host.namespace}"])
        host.set({**SETTINGS, **(FORWARDING if forwards else {})})
        host.ip("link set lo up")
        return host

    def switch(self, name: str) -> Host:
        """A host that is nothing but an Ethernet switch: put cables into it with `plug`."""
        switch = self.host(name)
        switch.ip("link add bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0", "link set bridge up")
        return switch

    def cable(self, one: Port, other: Port) -> None:
        """Joins two ports, brings both up and gives them their addresses."""
        ends = [
            f"{port.name} {f'address {port.mac}' if port.mac else ''} netns {port.host.namespace}"
            for port in (one, other)
        ]
        _batch([f"link add {ends[0]} type veth peer {ends[1]}"])
        for port in (one, other):
            addresses = [f"address add {address}{_nodad(address)} dev {port.name}" for address in port.addresses]
            port.host.ip(f"link set {port.name} up", *addresses)

    def plug(self, port: Port, switch: Host) -> None:
        """Joins a port to a switch made by `switch`; the switch's end is named after the port's host."""
        end = f"to-{port.host.name}"[:15]
        self.cable(port, Port(switch, end))
        switch.ip(f"link set {end} master bridge")


def sweep() -> list[str]:
    """Removes what dead processes left behind: their namespaces, and what runs in them. Returns the names."""
    swept = []
    for name in leftovers():
        if owner_is_dead(name.removeprefix(PREFIX)):
            Host(name, name).close()
            swept.append(name)
    return swept


def leftovers(pid: int | None = None) -> list[str]:
    """The namespaces that a process (None: any process) has made and not removed yet."""
    prefix = PREFIX if pid is None else f"{PREFIX}{pid}-"
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in NAMESPACES.iterdir() if path.name.startswith(prefix))
    return []


def _enter(namespace: Path) -> None:
    """Moves the calling thread into a network namespace (setns(2); Python has os.setns from 3.12 on)."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc().setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}", str(namespace))
    finally:
        os.close(descriptor)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _batch(lines: Sequence[str], namespace: str | None = None) -> None:
    """Runs lines of ip(8) in one process: in a slow guest the start of each costs a tenth of a second."""
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{'; '.join(lines)}: {done.stderr.strip()}")


def _remove(namespace: str) -> None:
    done = subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, text=True, check=False)
    if done.returncode != 0 and os.strerror(errno.ENOENT) not in done.stderr:
        raise LabError(f"cannot remove {namespace}: {done.stderr.strip()}")


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""


def _environment(extra: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if extra is None else {**os.environ, **extra}
