"""glacic.lab.image: made once for each recipe, kept, with stand-ins for mmdebstrap and mke2fs."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from glacic.errors import LabError
from glacic.lab import image


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian whose mmdebstrap unpacks next to nothing, and a log of what was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "sources.list").write_text("deb somewhere bookworm main\n")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    monkeypatch.setattr(image, "_sources", lambda: [str(tmp_path / "sources.list")])
    scripts = {
        "mmdebstrap": f'echo "$@" >> {tmp_path}/log; for root; do case $root in */root) break;; esac; done; '
        "mkdir -p $root/boot; echo kernel > $root/boot/vmlinuz-6.1; echo initrd > $root/boot/initrd.img-6.1",
        "mke2fs": 'while [ "$1" != -d ]; do shift; done; echo disk > "$3"',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return tmp_path


def _silent(_line: str) -> None:
    """Says nothing."""


def test_it_is_made_once_and_found_from_then_on(debian: Path) -> None:
    said: list[str] = []
    made = image.fetch(said.append)
    assert [path.read_text() for path in (made.disk, made.kernel, made.initrd)] == ["disk\n", "kernel\n", "initrd\n"]
    assert made.disk.is_relative_to(debian / "cache" / "glacic" / "vm")
    assert image.fetch(said.append) == made
    assert len(said) == len((debian / "log").read_text().split("--customize-hook")) - 1 == 1


def test_everything_that_the_package_depends_on_is_in_it(debian: Path) -> None:
    image.fetch(_silent)
    asked = (debian / "log").read_text()
    control = Path(__file__).resolve().parents[2].joinpath("deploy", "debian", "control").read_text()
    for package in ("python3", "nftables", "libnftables1", "libnetfilter-queue1", "kmod"):
        assert package in image.PACKAGES
        assert package in asked
    for package in ("nftables", "libnftables1", "kmod"):
        assert package in control


def test_another_recipe_makes_another_and_takes_the_old_one_away(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = image.fetch(_silent)
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "strace"))
    new = image.fetch(_silent)
    assert new != old
    assert new.disk.exists()
    assert not old.disk.exists()


def test_one_that_fails_leaves_nothing(debian: Path) -> None:
    (debian / "bin" / "mke2fs").write_text("#!/bin/sh\necho 'the disk is full' >&2\nexit 1\n")
    with pytest.raises(LabError, match="the disk is full"):
        image.fetch(_silent)
    assert [path.name for path in (debian / "cache" / "glacic" / "vm" / "systems").iterdir()] == ["lock"]


def test_missing_commands_are_told_by_their_packages(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(debian))
    with pytest.raises(LabError, match="apt-get install mmdebstrap e2fsprogs"):
        image.fetch(_silent)


def test_elsewhere_than_on_debian_it_says_so(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "other"})
    with pytest.raises(LabError, match="made from the machine's own Debian"):
        image.fetch(_silent)
