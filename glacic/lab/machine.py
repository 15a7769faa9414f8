"""The lab, a machine of its own: a Debian with systemd as process 1, that is told what to do, and boots again.

Where vm.py shows this machine's file system to another kernel for one command, this boots the image of image.py, whose
disk is written to a throw-away layer that outlives a reboot. It has no network, and one folder that both sides see. The
guest's agent runs what is put there, one list of commands after the other, when the boot has come to its end.

Emulated, 10 to 20 times slower: nothing here measures time.
"""
# ruff: noqa: S603 -- the commands are our own; nothing comes from outside

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glacic.errors import LabError
from glacic.lab import image
from glacic.lab.ending import end_group, ends_cleanly
from glacic.lab.kernel import require
from glacic.lab.vm import shared_folder

CPUS = 2
MEMORY = "1G"
BOOT_S = 240.0  # a boot takes about 15 s, and several times that beside other work
LOOK_S = 0.1
_CONSOLE_TAIL = 4000  # characters of the console that an error shows

# command -> Debian package
NEEDS = {"qemu-system-x86_64": "qemu-system-x86", "setpriv": "util-linux"}


@dataclass(frozen=True, slots=True)
class Done:
    """How one list of commands ended, and everything that it printed."""

    status: int
    output: str


class Machine:
    """One guest. Started by `started()`; `boots` counts how often it has come up."""

    def __init__(self, shared: Path, process: subprocess.Popen[bytes]) -> None:
        self.shared = shared
        self.boots = 0
        self._process = process
        self._number = 0
        self._known: set[Path] = set()

    def run(self, script: str, *, timeout_s: float = 120.0) -> Done:
        """Runs a shell script as root, without input. Raises LabError where it does not come to its end in time."""
        number = self._put(script)
        status = self.shared / f"status-{number}"
        self._wait(status.exists, timeout_s, f"a list of commands did not end:\n{script}")
        output = (self.shared / f"output-{number}").read_text(errors="replace")
        return Done(int(status.read_text()), output)

    def reboot(self, *, cut: bool = True) -> None:
        """Boots it again, as after a power cut (what was written is on disk) or cleanly. Raises LabError."""
        self._put("sync; reboot -ff" if cut else "systemctl reboot")
        self.wait_for_boot()

    def wait_for_boot(self) -> None:
        """Until systemd says that a new boot has come to its end, well or not."""
        self._wait(lambda: bool(self._news()), BOOT_S, "the guest did not boot")
        self._known |= self._news()
        self.boots += 1

    def console(self) -> str:
        """The end of what the kernel and systemd wrote."""
        return (self.shared / "console").read_text(errors="replace")[-_CONSOLE_TAIL:]

    def _put(self, script: str) -> int:
        self._number += 1
        written = self.shared / "todo.new"
        written.write_text(script)
        written.rename(self.shared / f"todo-{self._number}")
        return self._number

    def _news(self) -> set[Path]:
        return set(self.shared.glob("booted-*")) - self._known

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            if self._process.poll() is not None:
                raise LabError(f"the guest's qemu ended with status {self._process.returncode}\n{self.console()}")
            if time.monotonic() > end:
                raise LabError(f"{what} (within {timeout_s:.0f} s)\n{self.console()}")
            time.sleep(LOOK_S)


@contextlib.contextmanager
def started(say: Callable[[str], None]) -> Iterator[Machine]:
    """A booted guest, ended with the block. Raises LabError."""
    require(NEEDS, "a virtual machine")
    made = image.fetch(say)
    with ends_cleanly(), shared_folder() as shared, (shared / "qemu").open("wb") as said:
        (shared / "console").touch()
        process = subprocess.Popen(
            _command(made, shared),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(shared)},
            start_new_session=True,
        )
        try:
            machine = Machine(shared, process)
            machine.wait_for_boot()
            yield machine
        finally:
            end_group(process, patience_s=5.0)


def _command(made: image.Image, shared: Path) -> list[str]:
    """qemu, which dies with this process. TCG by name: a machine with KVM must not behave otherwise.

    no5lvl: qemu 7.2 hangs in boot with the five-level page tables that `-cpu max` offers.
    """
    words = "root=/dev/vda rw console=ttyS0 no5lvl quiet systemd.show_status=1 panic=-1"
    return [
        *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(CPUS), "-m", MEMORY),
        *("-nodefaults", "-display", "none", "-monitor", "none"),
        *("-chardev", f"file,id=console,path={shared / 'console'}", "-serial", "chardev:console"),
        *("-kernel", str(made.kernel), "-initrd", str(made.initrd), "-append", words),
        *("-drive", f"file={made.disk},format=raw,if=none,id=disk,snapshot=on", "-device", "virtio-blk-pci,drive=disk"),
        *("-fsdev", f"local,id=shared,path={shared},security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=shared,mount_tag=shared", "-device", "virtio-rng-pci"),
    ]
