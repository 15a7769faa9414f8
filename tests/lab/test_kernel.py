"""glacic.lab.kernel: fetched once, checked each time, with stand-ins for Debian's commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import kernel

VERSION = "6.1.0-99-amd64"


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins on PATH: an archive that holds a tiny kernel, and a log of what was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    modules = " ".join(f"kernel/{name}.ko:" for name in kernel.NEEDED_MODULES)
    scripts = {
        "apt-cache": f"printf 'linux-image-amd64\\n  Depends: linux-image-{VERSION}\\n'",
        "apt-get": f"echo apt-get $@ >> {tmp_path}/log; case $2 in download) echo > $3.deb;; esac",
        "dpkg-deb": f"mkdir -p $3/boot $3/lib/modules/{VERSION} && echo image > $3/boot/vmlinuz-{VERSION}",
        "depmod": f"echo {modules} > $2/lib/modules/$3/modules.dep",
    }
    for name, script in scripts.items():
        _program(programs / name, script)
    return programs


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _asked(debian: Path) -> list[str]:
    log = debian.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


def _silent(_line: str) -> None:
    """Says nothing."""


def test_the_kernel_is_fetched_once_and_found_from_then_on(debian: Path) -> None:
    said: list[str] = []
    first = kernel.fetch(said.append)
    assert first.version == VERSION
    assert first.image.read_text() == "image\n"
    assert first.modules.joinpath("modules.dep").exists()
    assert first.image.is_relative_to(debian.parent / "cache" / "glacic" / "vm")
    assert len(said) == 1
    assert VERSION in said[0]
    assert kernel.fetch(said.append) == first
    assert len(said) == 1
    assert _asked(debian) == [f"apt-get -qq download linux-image-{VERSION}"]


@pytest.mark.parametrize("damage", ["image", "modules", "stamp", "nonsense"])
def test_a_damaged_kernel_is_fetched_anew(debian: Path, damage: str) -> None:
    fetched = kernel.fetch(_silent)
    stamp = fetched.image.parents[1] / kernel.STAMP
    if damage == "image":
        fetched.image.write_text("cut")
    elif damage == "modules":
        fetched.modules.joinpath("modules.dep").unlink()
    elif damage == "stamp":
        stamp.unlink()
    else:
        stamp.write_text(json.dumps(["nonsense"]))
    said: list[str] = []
    assert kernel.fetch(said.append) == fetched
    assert "damaged" in said[0]
    assert len(_asked(debian)) == 2


def test_what_a_killed_process_left_half_done_is_removed(debian: Path) -> None:
    left = kernel.cache_folder() / "incoming-killed"
    left.mkdir(parents=True)
    kernel.fetch(_silent)
    assert sorted(path.name for path in kernel.cache_folder().iterdir()) == ["kernel", "lock"]


def test_two_processes_at_once_fetch_it_once(debian: Path) -> None:
    fetch = [sys.executable, "-c", "from glacic.lab import kernel; kernel.fetch(print)"]
    processes = [subprocess.Popen(fetch, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(_asked(debian)) == 1


def test_old_package_lists_are_renewed_once_by_root(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = debian.parent / "log"
    _program(debian / "apt-get", f"echo apt-get $@ >> {log}; [ $2 = update ] || {{ echo 404 >&2; exit 100; }}")
    with pytest.raises(LabError, match=r"apt-get -qq download linux-image-.*: 404"):
        kernel.fetch(_silent)
    assert [line.split()[2] for line in _asked(debian)] == ["download", "update", "download"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="404"):
        kernel.fetch(_silent)
    assert len(_asked(debian)) == 4


def test_an_apt_that_knows_no_kernel_is_told_with_the_way_out(debian: Path) -> None:
    _program(debian / "apt-cache", "exit 100")
    with pytest.raises(LabError, match=r"apt knows no package linux-image-amd64 .*: run apt-get update"):
        kernel.fetch(_silent)


def test_a_kernel_without_the_queue_statement_is_refused_and_not_kept(debian: Path) -> None:
    _program(debian / "depmod", "echo kernel/9p.ko: > $2/lib/modules/$3/modules.dep")
    with pytest.raises(LabError, match=f"{VERSION}: this kernel lacks .*nft_queue"):
        kernel.fetch(_silent)
    assert not (kernel.cache_folder() / "kernel").exists()


def test_another_kind_of_machine_is_told(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(LabError, match="this machine is riscv64"):
        kernel.fetch(_silent)


def test_missing_commands_are_told_by_their_packages(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(debian.parent))
    with pytest.raises(LabError, match=r"needs apt, dpkg, kmod: apt-get install apt dpkg kmod"):
        kernel.fetch(_silent)


@pytest.mark.parametrize("hidden", ["/run/user/0", "/var/cache/x", "/var/tmp", "/dev/shm"])
def test_a_cache_that_the_guest_cannot_see_is_refused(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", hidden)
    with pytest.raises(LabError, match="set XDG_CACHE_HOME to another place"):
        kernel.cache_folder()


def test_a_cache_folder_that_is_not_absolute_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernel.cache_folder() == tmp_path / ".cache" / "glacic" / "vm"


def test_a_cache_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(LabError, match=r"cannot be made \(Not a directory\); set XDG_CACHE_HOME"):
        kernel.fetch(_silent)
