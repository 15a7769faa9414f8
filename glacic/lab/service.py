"""The lab, the service: Glacic running on a host of the lab, as an administrator would run it, in a folder of its own.

    with Glacic(router, folder, CONFIG) as glacic:
        glacic.call("stats")                        the control socket, which is a file and so reaches into every
        namespace glacic.cli("flows", "list")                 the command line, as a process on the host

Refuses to know what the service does: this starts it, waits until it says that it is in force, and ends it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import glacic
from glacic.ctlplane.client import Client
from glacic.errors import GlacicError, LabError, Unreachable
from glacic.lab.net import Host

T = TypeVar("T")

PATIENCE_S = 240.0  # for a start in an emulated machine; nothing waits for it where things go well
_PAUSE_S = 0.05


class Glacic:
    """One service on one host. `configure` and `reload` change its file; `kill` and `start` are a crash and a
    restart."""

    def __init__(self, host: Host, folder: Path, config: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.config = folder / "glacic.hcl"
        self.state_dir = folder / "state"
        self.socket = folder / "run" / "glacic.sock"
        self.log = folder / "service.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(config)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def configure(self, config: str) -> None:
        """Write the configuration file; the running service does not know of it before `reload`."""
        self.config.write_text(config)

    def options(self) -> list[str]:
        """The common options that name this service's files."""
        files = {"--config": self.config, "--state-dir": self.state_dir, "--socket": self.socket}
        return [word for option, path in files.items() for word in (option, str(path))]

    def command(self, *arguments: str) -> list[str]:
        """The words of one command: of this very glacic, and not of one in the folder where we are."""
        this = f"PYTHONPATH={Path(glacic.__file__).parents[1]}"
        return ["env", this, sys.executable, "-P", "-m", "glacic", *self.options(), *arguments]

    def start(self, *arguments: str) -> None:
        """Start `glacic run` and wait until it is in force. Raises LabError with its log where it ends instead."""
        with self.log.open("ab") as log:
            self.process = self.host.popen(self.command("run", *arguments), stdout=log, stderr=log)
        self.wait("in force", lambda: self.state() == "running")

    def state(self) -> str:
        """What `status` says; "" where nobody answers. Raises LabError where the process has ended."""
        if self.process is None or self.process.poll() is not None:
            raise LabError(f"the service is not running:\n{self.log.read_text()[-4000:]}")
        try:
            return str(self.call("status")["state"])
        except Unreachable:
            return ""

    def call(self, do: str, **args: Any) -> Any:
        """One request on the control socket."""
        with Client(self.socket) as client:
            return client.call(do, **args)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command on the host."""
        return self.host.run(self.command(*arguments), check=check)

    def json(self, *arguments: str) -> Any:
        """One command's answer in JSON."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def flows(self, **filters: Any) -> list[dict[str, Any]]:
        """The flows that the service lists."""
        flows: list[dict[str, Any]] = self.call("flows.list", filters=filters)["flows"]
        return flows

    def queued(self) -> int:
        """How many packets the queues have brought so far."""
        return sum(queue["processed"] for queue in self.call("stats")["queues"])

    def wait(self, what: str, is_so: Callable[[], T]) -> T:
        """Wait until `is_so()` is true, and return it. Raises LabError when it does not come true in a long time."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            if answer := is_so():
                return answer
            time.sleep(_PAUSE_S)
        raise LabError(f"the service is not {what} after {PATIENCE_S:g} s:\n{self.log.read_text()[-4000:]}")

    def worker(self) -> int:
        """The worker's process id."""
        return int(self.call("status")["worker_pid"])

    def kill(self) -> None:
        """kill -9, and wait until worker and service are gone: then nobody listens."""
        worker = Path("/proc", str(self.worker()))
        self._end(signal.SIGKILL)
        self.wait("gone", lambda: _is_gone(worker))

    def stop(self) -> None:
        """SIGTERM, a clean stop; the ruleset stays. Raises LabError, with the log, where it was not clean."""
        if self.process is not None and self._end(signal.SIGTERM) != 0:
            raise LabError(f"the service did not stop cleanly:\n{self.log.read_text()[-4000:]}")

    def reload(self, config: str) -> None:
        """Another configuration, in force when this returns. Raises GlacicError where it is refused."""
        self.configure(config)
        self.call("reload")

    def _end(self, number: int) -> int:
        if self.process is None:
            raise GlacicError("the service was not started")
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.host.end(self.process)
            self.process = None


def _is_gone(process: Path) -> bool:
    """By its folder in /proc: whether a process has ended with all its threads, any of which keeps its queues open."""
    try:
        status = (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # ESRCH where it ends between opening and reading
        return True
    return "State:\tZ" in status and any(f"Threads:\t{left}\n" in status for left in (0, 1))
