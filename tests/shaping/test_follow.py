"""Cgroups come and go, and the tree is true: with real cgroups."""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from glacic.errors import GlacicError
from glacic.lab.cgroups import Slice
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.follow import Follower


@pytest.fixture
def folder(hierarchy: Hierarchy) -> Iterator[Slice]:
    """In a hierarchy where nothing else comes and goes: a part of the machine's."""
    with Slice(hierarchy) as outer, Slice(Hierarchy(outer.place(""))) as made:
        yield made


@pytest.fixture
def follower(folder: Slice) -> Iterator[Follower]:
    with closing(Follower(folder.hierarchy)) as made:
        yield made


def mine(follower: Follower, folder: Slice) -> dict[str, int]:
    """What the follower knows below the folder: name -> id."""
    prefix = folder.name + "/"
    return {path.removeprefix(prefix): one.id for path, one in follower.tree.items() if path.startswith(prefix)}


def test_what_was_there_is_known(folder: Slice) -> None:
    made = folder.make("a.service")
    with closing(Follower(folder.hierarchy)) as follower:
        assert follower.tree[folder.path("a.service")] == made
        assert not follower.read()


def test_what_comes_and_goes_is_followed(follower: Follower, folder: Slice) -> None:
    made = folder.make("a.service")
    assert select.select([follower.fileno()], [], [], 5)[0], "no event came"
    assert follower.read()
    assert mine(follower, folder) == {"a.service": made.id}
    folder.remove("a.service")
    assert follower.read()
    assert mine(follower, folder) == {}


def test_a_cgroup_made_anew_has_another_id(follower: Follower, folder: Slice) -> None:
    before = folder.make("a.service")
    follower.read()
    after = folder.remake("a.service")
    assert before.id != after.id
    assert follower.read()
    assert mine(follower, folder) == {"a.service": after.id}


def test_what_came_and_went_between_two_looks_changes_nothing(follower: Follower, folder: Slice) -> None:
    follower.read()
    folder.make("a.service")
    folder.remove("a.service")
    assert not follower.read()


def test_slices_are_looked_into_also_what_was_in_them_before_they_were_watched(
    follower: Follower, folder: Slice
) -> None:
    folder.make("b.slice")
    folder.make("b.slice/c.slice")
    folder.make("b.slice/c.slice/d.service")
    follower.read()
    assert set(mine(follower, folder)) == {"b.slice", "b.slice/c.slice", "b.slice/c.slice/d.service"}
    folder.make("b.slice/c.slice/e.service")
    assert follower.read()
    folder.remove("b.slice/c.slice/e.service")
    folder.remove("b.slice/c.slice/d.service")
    folder.remove("b.slice/c.slice")
    assert follower.read()
    assert set(mine(follower, folder)) == {"b.slice"}


def test_what_users_make_below_a_service_is_not_watched(follower: Follower, folder: Slice) -> None:
    folder.make("user@7.service")
    follower.read()
    folder.make("user@7.service/app.slice")
    assert not follower.read()
    assert set(mine(follower, folder)) == {"user@7.service"}


def test_the_way_to_a_cgroup_that_is_named_by_its_path_is_watched(folder: Slice) -> None:
    with closing(Follower(folder.hierarchy, [folder.path("docker/x/y")])) as follower:
        folder.make("docker")
        folder.make("docker/x")
        folder.make("docker/x/y")
        folder.make("docker/x/y/z")
        assert follower.read()
        assert set(mine(follower, folder)) == {"docker", "docker/x", "docker/x/y"}


def test_after_lost_events_the_tree_is_read_anew(follower: Follower, folder: Slice) -> None:
    folder.make("a.service")
    os.read(follower.fileno(), 1 << 16)  # lost
    overflow = struct.pack("=iIII", -1, 0x4000, 0, 0)  # IN_Q_OVERFLOW
    follower._take(overflow)
    assert set(mine(follower, folder)) == {"a.service"}


def test_a_name_that_is_no_text_is_followed_too(follower: Follower, folder: Slice) -> None:
    name = os.fsdecode(b'a"b\\x2d\xff.service')
    made = folder.make(name)
    follower.read()
    assert mine(follower, folder) == {name: made.id}


def test_a_place_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    with closing(Follower(Hierarchy(tmp_path / "nowhere"))) as follower:
        assert follower.tree == {}


def test_a_kernel_without_room_for_watches_says_what_to_raise(monkeypatch: pytest.MonkeyPatch, folder: Slice) -> None:
    class Full:
        def inotify_init1(self, _flags: int) -> int:
            return os.open("/dev/null", os.O_RDONLY)

        def inotify_add_watch(self, *_: object) -> int:
            import ctypes

            ctypes.set_errno(errno.ENOSPC)
            return -1

    monkeypatch.setattr("glacic.shaping.follow._libc", Full)
    with pytest.raises(GlacicError, match=r"cannot follow the cgroups: .*; raise fs\.inotify\.max_user_watches"):
        Follower(folder.hierarchy)


def test_a_directory_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, folder: Slice) -> None:
    def closed(_: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(GlacicError, match=r"cannot follow the cgroups: /.*: Permission denied"):
        Follower(folder.hierarchy)
