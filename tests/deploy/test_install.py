"""`make install` and `make uninstall`, into a folder: what is there, that it runs, and that nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)  # the first run builds the pinned requirements


# Debian's own Python, so that what is compiled is shared with the package (tests/systemd).
def install(destination: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "tools" / "install"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": "/usr/bin/python3", "DESTDIR": str(destination), **environment},
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation in /opt/glacic below a folder, beside what was there before."""
    destination = tmp_path_factory.mktemp("destination")
    (destination / "opt" / "glacic" / "bin").mkdir(parents=True)
    (destination / "opt" / "glacic" / "bin" / "other").write_text("somebody else's")
    done = install(destination, PREFIX="/opt/glacic")
    assert done.returncode == 0, done.stderr
    return destination


def test_everything_is_below_the_prefix_but_the_configuration(installed: Path) -> None:
    there = files(installed)
    for name in (
        "etc/glacic/glacic.hcl",
        "opt/glacic/bin/glacic",
        "opt/glacic/lib/systemd/system/glacic.service",
        "opt/glacic/lib/systemd/system/glacic-boot.service",
        "opt/glacic/lib/systemd/system/glacic-engines.service",
        "opt/glacic/lib/sysusers.d/glacic.conf",
        "opt/glacic/lib/tmpfiles.d/glacic.conf",
        "opt/glacic/share/man/man8/glacic.8",
        "opt/glacic/share/doc/glacic/configs/home.hcl",
        "opt/glacic/share/doc/glacic/limits-bpf.conf",
    ):
        assert name in there
    assert {name.split("/")[0] for name in there} == {"etc", "opt"}


def test_the_unit_starts_what_was_installed(installed: Path) -> None:
    unit = (installed / "opt/glacic/lib/systemd/system/glacic.service").read_text()
    assert "ExecStart=/opt/glacic/bin/glacic run\n" in unit
    assert "/usr/bin/glacic" not in unit


def test_no_folder_of_the_staging_is_left_in_it(installed: Path) -> None:
    for path in installed.rglob("*"):
        if path.is_file():
            assert str(installed).encode() not in path.read_bytes(), path


def test_it_runs_with_what_came_along_and_nothing_else(installed: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"  # where it is not at home, the HCL parser writes its tables anew
    shutil.copytree(installed, moved, symlinks=True)
    launcher = tmp_path / "glacic"
    text = (moved / "opt/glacic/bin/glacic").read_text()
    launcher.write_text(text.replace('"/opt/glacic', f'"{moved}/opt/glacic'))
    launcher.chmod(0o755)
    hostile = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "glacic_shadow").mkdir()
    (tmp_path / "hcl2.py").write_text("raise SystemExit('somebody else was imported')\n")
    config = moved / "etc" / "glacic" / "glacic.hcl"
    command = [str(launcher), "--json", "check", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=hostile, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["errors"] == []


def test_the_first_configuration_accepts_everything(installed: Path) -> None:
    config = installed / "etc" / "glacic" / "glacic.hcl"
    done = subprocess.run(
        [sys.executable, "-m", "glacic", "show", "-c", str(config)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "queue" not in done.stdout
    assert "log group" not in done.stdout
    assert done.stdout.count("counter accept") == 2


def test_removing_takes_exactly_what_installing_put_there(installed: Path, tmp_path: Path) -> None:
    destination = tmp_path / "destination"
    (destination / "usr/local/lib/systemd/system").mkdir(parents=True)
    (destination / "usr/local/lib/systemd/system/other.service").touch()
    before = files(destination)
    for _ in range(2):  # the second time over the first
        done = install(destination)
        assert done.returncode == 0, done.stderr
    (destination / "etc/glacic/glacic.hcl").write_text("# edited\n")
    (destination / "var/lib/glacic").mkdir(parents=True)
    assert install(destination).returncode == 0
    assert (destination / "etc/glacic/glacic.hcl").read_text() == "# edited\n"
    done = install(destination, "--remove")
    assert done.returncode == 0, done.stderr
    kept = {"etc", "etc/glacic", "etc/glacic/glacic.hcl", "var", "var/lib", "var/lib/glacic"}
    assert files(destination) == before | kept
    assert install(destination, "--remove").returncode == 1


@pytest.mark.parametrize("name", ["DESTDIR", "PREFIX", "SYSCONFDIR"])
def test_a_relative_folder_is_refused(tmp_path: Path, name: str) -> None:
    done = install(tmp_path, **{name: "here"})
    assert done.returncode == 2
    assert "absolute" in done.stderr
