"""glacic.lab.vm, without booting: what is asked of virtme-ng, what comes back, how it ends. tests/vm boots for real."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import kernel, vm
from glacic.lab.kernel import Kernel

# A stand-in for virtme-ng. It never runs the guest's script, which mounts things: it does what its text says itself.
FAKE = """#!{python}
import pathlib, subprocess, sys, time
shared = pathlib.Path(sys.argv[sys.argv.index("--rwdir") + 1])
print(*sys.argv[1:], file=(shared.parent / "asked").open("w"))
{body}
"""
BOOTS = '(shared / "booted").write_text("6.1")\n'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has everything; the fake virtme-ng's body is written by `_vng_does`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel, "fetch", lambda _say: Kernel("6.1", tmp_path / "boot" / "vmlinuz-6.1", tmp_path))
    monkeypatch.setattr(kernel, "require", lambda _needs, _purpose: None)
    monkeypatch.setattr(vm, "_vng", lambda: tmp_path / "vng")
    return tmp_path


def _vng_does(machine: Path, body: str) -> None:
    path = machine / "vng"
    path.write_text(FAKE.format(python=sys.executable, body=body))
    path.chmod(0o755)


def _run(*command: str, timeout_s: float = 60, **named: object) -> tuple[int, bytes, bytes]:
    out, err = io.BytesIO(), io.BytesIO()
    status = vm.run(command, timeout_s=timeout_s, stdout=out, stderr=err, **named)  # type: ignore[arg-type]
    return status, out.getvalue(), err.getvalue()


def test_the_commands_status_and_both_streams_come_back(machine: Path) -> None:
    _vng_does(machine, BOOTS + 'print("out"); print("err", file=sys.stderr); (shared / "status").write_text("7")')
    assert _run("anything") == (7, b"out\n", b"err\n")
    assert list((machine / "cache" / "glacic" / "vm" / "runs").glob("*-*")) == []


def test_virtme_ng_is_asked_for_the_kernel_and_for_the_writable_folders(machine: Path) -> None:
    _vng_does(machine, BOOTS + '(shared / "status").write_text("0")')
    _run("true", writable=[machine])
    asked = (machine / "cache" / "glacic" / "vm" / "runs" / "asked").read_text()
    assert f"--rwdir {machine} " in asked
    assert f"-r {machine}/boot/vmlinuz-6.1 -- sh " in asked
    assert "--disable-kvm" in asked
    assert " --rw " not in asked, "the machine's own files are not the guest's to write"


def test_the_command_reaches_the_guest_as_it_is_whatever_is_in_it(machine: Path) -> None:
    keeps = '(shared.parent / "script").write_text((shared / "guest.sh").read_text())'
    _vng_does(machine, BOOTS + keeps + '; (shared / "status").write_text("0")')
    hostile = ["printf", "%s|", "a b", "$HOME", "`id`", "'", '"', "\n", "*"]
    _run(*hostile, environment={"NAME": "two words; $(exit 1)"})
    script = (machine / "cache" / "glacic" / "vm" / "runs" / "script").read_text()
    line = script[script.index("env -i") : script.index("\necho $?")]
    shown = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert shown == "".join(f"{word}|" for word in hostile[2:])
    inside = line.replace("printf ", "printenv NAME #", 1).partition("\n")[0]
    assert (
        subprocess.run(["sh", "-c", inside], capture_output=True, text=True, check=True).stdout
        == "two words; $(exit 1)\n"
    )


def test_a_guest_that_does_not_boot_and_one_that_dies_are_told_apart(machine: Path) -> None:
    _vng_does(machine, "")
    with pytest.raises(LabError, match=r"\(Linux 6.1\) did not boot"):
        _run("true")
    _vng_does(machine, BOOTS)
    with pytest.raises(LabError, match=r"\(Linux 6.1\) died before its command ended"):
        _run("true")


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(machine: Path) -> None:
    _vng_does(machine, BOOTS + 'print(subprocess.Popen(["sleep", "1000"]).pid, flush=True); time.sleep(1000)')
    out = io.BytesIO()
    with pytest.raises(LabError, match="did not finish within 1 s"):
        vm.run(["true"], timeout_s=1, stdout=out, stderr=io.BytesIO())
    child = Path("/proc", out.getvalue().decode().strip())
    assert not child.exists() or child.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_boot_that_takes_too_long_is_ended(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "BOOT_S", 0.2)
    _vng_does(machine, "time.sleep(1000)")
    with pytest.raises(LabError, match="did not boot within"):
        _run("true")


def test_a_folder_that_the_guest_cannot_write_to_is_refused_before_the_boot(machine: Path) -> None:
    with pytest.raises(LabError, match="/var/tmp: the virtual machine cannot write"):
        _run("true", writable=[Path("/var/tmp")])


def test_missing_programs_are_told_by_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        LabError, match=r"the virtual machine needs qemu-system-x86, udev, .*: apt-get install qemu-system-x86"
    ):
        vm.prepare(lambda _line: None)


def test_a_missing_virtme_ng_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(LabError, match="pip install virtme-ng"):
        vm._vng()


def test_the_cached_folders_never_cover_a_writable_one_nor_the_root(tmp_path: Path) -> None:
    plan = vm._Plan(Kernel("6.1", tmp_path, tmp_path), tmp_path / "shared", (tmp_path / "results",), 1.0)
    assert tmp_path not in vm._cached_folders(tmp_path, plan)
    assert Path("/") not in vm._cached_folders(Path("/"), plan)
    below = [
        (one, other)
        for one in vm._cached_folders(tmp_path / "x", plan)
        for other in vm._cached_folders(tmp_path / "x", plan)
    ]
    assert not any(one != other and one.is_relative_to(other) for one, other in below)


def test_whether_this_kernel_needs_the_machine_is_found_by_trying() -> None:
    assert vm.needed() in (True, False)
    assert subprocess.run(["nft", "list", "table", "inet", "t"], capture_output=True, check=False).returncode != 0
