"""`glacic apply --confirm` over a connection that the new configuration cuts: it comes back by itself.

A person sits at the laptop and works on the router over one connection (a line in, a command's answer out; what is cut
is the same for ssh). The new configuration does not let the laptop in any more, so nobody can say `glacic confirm`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.service import ENVIRONMENT, BenchGlacic
from faults.bed import PATIENCE_S, SLOWER, kernel
from faults.result import Case
from glacic.lab.home import ROUTER_LAN, Home, home

NAME = "confirm"
TITLE = "A change that cuts off whoever makes it"
PLACES = ("here", "vm")
PROMISE = """\
`glacic apply --confirm 5` refuses a change that would cut the connection it came over; with `--force` the change is put
in force, and unless `glacic confirm` comes within five seconds, the last confirmed configuration comes back by itself:
with the connection cut, and also with the service killed meanwhile."""
ADVICE = "Use `--confirm` for every change from afar."

TRIAL_S = 5
SSH = 22
LATE_S = 8.0  # how much later than promised, for a killed service's stand-in, on a busy machine
_OPEN = """\
zone "lan" {
  interface = "lan0"
  management {
    ssh = true
  }
}
zone "wan" {
  interface = "wan0"
  external  = true
}
"""
_SHUT = _OPEN.replace("ssh = true", "ssh = false")

# The far end of the person's connection: runs each line with SSH_CONNECTION set, as sshd does, and sends what it says.
_SHELL = """
import os, shlex, socket, subprocess, threading
server = socket.create_server(("0.0.0.0", 22))
print("ready", flush=True)
def serve(link, peer):
    own = link.getsockname()
    told = {**os.environ, "SSH_CONNECTION": f"{peer[0]} {peer[1]} {own[0]} {own[1]}"}
    for line in link.makefile():
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, env=told)
        try:
            link.sendall((f"{done.returncode} " + (done.stdout + done.stderr).replace(chr(10), " ") + chr(10)).encode())
        except OSError:
            return
while True:
    threading.Thread(target=serve, args=server.accept(), daemon=True).start()
"""


def measure() -> Iterator[Case]:
    """The service lives on, then is killed."""
    for killed in (False, True):
        yield cut(killed=killed)


def cut(*, killed: bool) -> Case:
    """One trial, whose maker is cut off."""
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="glacic-faults-") as name, home() as hosts:  # noqa: SIM117 -- the inner ones need it
        with running(hosts, Path(name)) as glacic, shell(hosts):
            person = Person(hosts)
            glacic.configure(_SHUT)
            words = glacic.command("apply", "--confirm", str(TRIAL_S))
            refused = person.says(words)
            if not refused.startswith("1 "):
                broken.append(f"it was not refused without --force: {refused[:200]}")
            began = time.monotonic()
            person.sends([*words, "--force"])
            shut_s = _until(lambda: not Person.gets_in(hosts)) - began
            if killed:
                os.kill(glacic.pid, signal.SIGKILL)
            back_s = _until(lambda: Person.gets_in(hosts)) - began - shut_s
            late_s = back_s - TRIAL_S
            if late_s > LATE_S * SLOWER:
                broken.append(f"it came back {late_s:.1f} s late")
            other = Person(hosts)
            told = json.loads(other.says(glacic.command("history", "--json")).partition(" ")[2])
            other.close()
            states = [revision["state"] for revision in told["revisions"]]
            if sorted(states) != ["confirmed", "reverted"]:
                broken.append(f"the history says {states}")
            person.close()
    return Case(
        setting=f"--confirm {TRIAL_S}{', service killed' if killed else ''}",
        kernel=kernel(),
        recovered_s=round(back_s, 2),
        numbers={
            "without --force": refused[2:160],
            "cut off after": f"{shut_s:.1f} s",
            "in again after another": f"{back_s:.1f} s",
            "`glacic history`": ", ".join(states),
        },
        broken=tuple(broken),
    )


@contextlib.contextmanager
def running(hosts: Home, folder: Path) -> Iterator[BenchGlacic]:
    """The service, which may be killed meanwhile."""
    glacic = BenchGlacic(hosts.router, folder, _OPEN)
    glacic.start()
    try:
        yield glacic
    finally:
        if glacic.process is not None:
            hosts.router.end(glacic.process)


@contextlib.contextmanager
def shell(hosts: Home) -> Iterator[None]:
    """The far end of the person's connections, on the router."""
    process = hosts.router.popen([sys.executable, "-c", _SHELL], stdout=-1, environment=ENVIRONMENT)
    assert process.stdout is not None  # noqa: S101 -- a pipe, asked for
    process.stdout.readline()
    try:
        yield
    finally:
        hosts.router.end(process)


class Person:
    """One connection from the laptop to the router."""

    def __init__(self, hosts: Home, timeout_s: float = PATIENCE_S) -> None:
        self._link: socket.socket = hosts.laptop.call(socket.create_connection, (ROUTER_LAN, SSH), timeout_s)
        self._lines = self._link.makefile()

    @classmethod
    def gets_in(cls, hosts: Home) -> bool:
        """Whether a new connection is answered."""
        try:
            cls(hosts, 0.4 * SLOWER).close()
        except OSError:
            return False
        return True

    def says(self, words: list[str]) -> str:
        """What a command answers: its exit status and its words."""
        self.sends(words)
        return self._lines.readline()

    def sends(self, words: list[str]) -> None:
        """A command, whose answer may not come."""
        self._link.sendall((" ".join(words) + "\n").encode())

    def close(self) -> None:
        """Go."""
        self._lines.close()
        self._link.close()


def _until(is_so: Callable[[], Any]) -> float:
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends and not is_so():
        time.sleep(0.05)
    return time.monotonic()
