"""glacic.lab.machine, without booting: how it is asked for things, and how it ends. tests/systemd boots for real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import image, machine
from glacic.lab.image import Image
from glacic.lab.machine import Done, Machine

# A stand-in for qemu, and for the agent in the guest: it takes what is put into the shared folder.
AGENT = """#!{python}
import pathlib, subprocess, sys, time
words = sys.argv[1:]
shared = pathlib.Path(next(word for word in words if word.startswith("local,")).split("path=")[1].split(",")[0])
(shared / "console").write_text("a line of the console")
def boot(number):
    (shared / "booted.new").write_text("running")
    (shared / "booted.new").rename(shared / f"booted-{{number}}")
boots = 1
{before}
boot(boots)
while True:
    for todo in sorted(shared.glob("todo-*")):
        number = todo.name.removeprefix("todo-")
        script = todo.read_text()
        todo.unlink()
        if "reboot" in script:
            boots += 1
            boot(boots)
        elif script == "die":
            sys.exit(3)
        else:
            done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            (shared / f"output-{{number}}").write_text(done.stdout)
            (shared / f"status-{{number}}").write_text(str(done.returncode))
    time.sleep(0.01)
"""


@contextmanager
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str = "") -> Iterator[Machine]:
    fake = tmp_path / "qemu"
    fake.write_text(AGENT.format(python=sys.executable, before=before))
    fake.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(image, "fetch", lambda _say: Image(tmp_path / "disk", tmp_path / "kernel", tmp_path / "initrd"))
    real = machine._command
    monkeypatch.setattr(machine, "_command", lambda made, shared: [str(fake), *real(made, shared)[5:]])
    with machine.started(lambda _line: None) as started:
        yield started


def test_what_a_list_of_commands_prints_and_how_it_ends_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with guest(monkeypatch, tmp_path) as booted:
        assert booted.boots == 1
        assert booted.run("echo out; echo err >&2; exit 7") == Done(7, "out\nerr\n")
        assert booted.run("true") == Done(0, "")


@pytest.mark.parametrize("cut", [True, False])
def test_a_reboot_waits_for_the_next_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: bool) -> None:
    with guest(monkeypatch, tmp_path) as booted:
        booted.reboot(cut=cut)
        assert booted.boots == 2
        assert booted.run("echo again").output == "again\n"


def test_a_list_that_does_not_end_is_told_with_the_console(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        guest(monkeypatch, tmp_path) as booted,
        pytest.raises(LabError, match=r"(?s)did not end:\nsleep 60.*a line of the console"),
    ):
        booted.run("sleep 60", timeout_s=0.3)


def test_a_guest_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with guest(monkeypatch, tmp_path) as booted, pytest.raises(LabError, match="ended with status 3"):
        booted.run("die")


def test_a_guest_that_does_not_boot_is_told_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "BOOT_S", 0.5)
    noted = tmp_path / "pid"
    hangs = f"pathlib.Path({str(noted)!r}).write_text(str(__import__('os').getpid())); time.sleep(1000)"
    with pytest.raises(LabError, match="did not boot"), guest(monkeypatch, tmp_path, hangs):
        pass
    assert not Path("/proc", noted.read_text()).exists()


def test_the_disk_is_never_written_and_no_network_is_there(tmp_path: Path) -> None:
    words = machine._command(Image(tmp_path / "disk", tmp_path / "kernel", tmp_path / "initrd"), tmp_path)
    assert any(f"file={tmp_path}/disk" in word and "snapshot=on" in word for word in words)
    assert "-nodefaults" in words
    assert not {"-netdev", "-nic", "-net"} & set(words)


def test_it_dies_with_whoever_started_it(tmp_path: Path) -> None:
    prefix = machine._command(Image(tmp_path, tmp_path, tmp_path), tmp_path)[:4]
    code = (
        "import subprocess, sys, time\np = subprocess.Popen(sys.argv[1:])\nprint(p.pid, flush=True)\ntime.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *prefix, "sleep", "1000"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        while b"sleep" not in Path("/proc", str(pid), "comm").read_bytes():
            time.sleep(0.01)
        parent.kill()
    while _runs(pid):
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
