"""glacic.shaping.bpf.pins: what is kept in a BPF file system is found again, and nothing but that is touched.

The file system is mounted in a mount namespace of its own, in the process that scratch.inside makes.
"""

from __future__ import annotations

import ctypes
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.errors import KernelRefused
from glacic.shaping import scratch
from glacic.shaping.bpf import bucket, pins, syscall
from glacic.shaping.bpf.pins import Pins, folder_of
from glacic.shaping.engine import UPLOAD

CLONE_NEWNS, MS_REC_PRIVATE = 0x20000, 0x44000
PLAIN = set(string.ascii_letters + string.digits + "-_%")


def _with_bpffs(place: Path, work: Callable[[Path], Any]) -> Any:
    def inside(_: object) -> Any:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
        assert libc.mount(b"bpf", str(place).encode(), b"bpf", 0, None) == 0
        (place / "glacic").mkdir()
        return work(place / "glacic")

    return scratch.inside(inside)


def _files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


@given(st.text(min_size=1, max_size=300))
def test_every_name_becomes_one_that_a_bpf_file_system_takes(name: str) -> None:
    folder = folder_of(name)
    assert set(folder) <= PLAIN
    assert 0 < len(folder) <= 255


@given(st.sets(st.text(min_size=1, max_size=300), min_size=2, max_size=5))
def test_different_names_become_different_folders(names: set[str]) -> None:
    assert len({folder_of(name) for name in names}) == len(names)


def test_a_plain_name_stays_readable() -> None:
    assert folder_of("backup") == "backup"
    assert folder_of("default:ssh.service") == "default%3Assh%2Eservice"


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    def work(place: Path) -> Any:
        kept = Pins(place)
        descriptor = bucket.create()
        bucket.set_rate(descriptor, UPLOAD, 4711)
        kept.keep_map("backup", descriptor)
        before, files = syscall.map_info(descriptor).id, _files(place)
        os.close(descriptor)
        found = [(each.folder, syscall.map_info(each.map).id == before, each.links) for each in kept.kept()]
        kept.drop("backup")
        return [files, found, [path.name for path in place.iterdir()]]

    assert _with_bpffs(tmp_path, work) == [["backup/map"], [["backup", True, {}]], []]


def test_somebody_elses_map_in_our_folder_is_neither_opened_nor_removed(tmp_path: Path) -> None:
    def work(place: Path) -> Any:
        kept = Pins(place)
        for folder, name in (("theirs", "map"), ("backup", "other")):
            (place / folder).mkdir()
            descriptor = syscall.create_map(syscall.MAP_TYPE_ARRAY, 4, 8, 1, "somebody")
            syscall.pin(descriptor, str(place / folder / name))
        found = [each.folder for each in kept.kept()]
        kept.drop("backup")
        return [found, _files(place)]

    assert _with_bpffs(tmp_path, work) == [[], ["backup/other", "theirs/map"]]


def test_without_the_folder_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(KernelRefused, match=r"No such file or directory; .*mount -t bpf bpf"):
        Pins(tmp_path / "not" / "there").keep_map("backup", 0)


def test_the_folder_of_another_user_is_another_services(tmp_path: Path) -> None:
    assert pins.own(tmp_path / "not there") is None
    assert pins.own(tmp_path) == tmp_path
    os.chown(tmp_path, 65534, 65534)
    assert pins.own(tmp_path) is None


def test_nothing_kept_is_nothing_found(tmp_path: Path) -> None:
    assert list(Pins(tmp_path / "nothing").kept()) == []
