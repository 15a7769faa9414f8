"""Where the hierarchy is, and which cgroup a unit's name means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glacic.errors import GlacicError
from glacic.shaping import cgroups
from glacic.shaping.engine import Cgroup

PURE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
HYBRID = (
    "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
)
OLD = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
ELSEWHERE = "none /mnt/my\\040cgroups cgroup2 rw 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "where"),
    [
        (PURE, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (ELSEWHERE, "/mnt/my cgroups"),
        (ELSEWHERE + PURE, "/sys/fs/cgroup"),
    ],
)
def test_the_hierarchy_is_where_the_mount_table_says(tmp_path: Path, mounts: str, where: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    assert cgroups.find(tmp_path / "mounts").mount == Path(where)


@pytest.mark.parametrize("name", ["\udcff", "\u2028", "a\u00a0cgroup2", "\x1c", "\\134"])
def test_what_somebody_has_mounted_somewhere_is_no_hierarchy(tmp_path: Path, name: str) -> None:
    fuse = f"fuse /home/x/{name} fuse rw 0 0\n"
    (tmp_path / "mounts").write_bytes(os.fsencode(fuse + ELSEWHERE))
    assert cgroups.find(tmp_path / "mounts").mount == Path("/mnt/my cgroups")


@pytest.mark.parametrize(("mounts", "says"), [(OLD, "only cgroups of version 1"), ("proc /proc proc rw 0 0\n", "no ")])
def test_a_machine_without_version_2_is_told_what_to_do(tmp_path: Path, mounts: str, says: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    with pytest.raises(GlacicError, match=f"{says}.*boot with systemd.unified_cgroup_hierarchy=1"):
        cgroups.find(tmp_path / "mounts")


@pytest.mark.parametrize(
    ("path", "level"), [("", 0), ("init.scope", 1), ("system.slice/a.service", 2), ("a.slice/b.slice/c.service", 3)]
)
def test_the_level_is_the_depth_of_the_path(path: str, level: int) -> None:
    assert cgroups.level_of(path) == level


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("", ""),
        ("init.scope", "init.scope"),
        ("system.slice", "system.slice"),
        ("system.slice/backup.service", "backup.service"),
        ("web.slice/web-shop.slice/nginx.service", "nginx.service"),
        ("system.slice/_memory.service", "memory.service"),  # the kernel would take it for a setting of its own
        ("system.slice/__x.service", "_x.service"),
        ("system.slice/a b.service", ""),
        ('system.slice/a"b.service', ""),
        ("system.slice/\udcff.service", ""),  # bytes that are no text
        # delegated: whoever runs there names it
        ("user.slice/user-7.slice/user@7.service/app.slice/backup.service", ""),
        ("machine.slice/c1.scope/system.slice/nginx.service", ""),
        ("docker/0123/backup.service", ""),
    ],
)
def test_a_unit_of_the_system_lies_below_slices_alone(path: str, unit: str) -> None:
    assert cgroups.unit_of(path) == unit


def test_units_are_found_by_name_whatever_slice_they_are_in() -> None:
    paths = ("system.slice/backup.service", "web.slice", "user.slice/u.service/backup.service")
    tree = {path: Cgroup(path, number, cgroups.level_of(path)) for number, path in enumerate(paths)}
    assert cgroups.units(tree) == {"backup.service": tree[paths[0]], "web.slice": tree[paths[1]]}


def test_units_may_lie_in_the_root_and_in_slices() -> None:
    assert cgroups.holds_units("")
    assert cgroups.holds_units("a.slice/a-b.slice")
    assert not cgroups.holds_units("a.slice/b.service")
    assert not cgroups.holds_units("docker")


def test_services_and_scopes_run_processes() -> None:
    units = ("a.service", "b.scope", "c.slice", "d.mount", "e.socket")
    assert [unit for unit in units if cgroups.runs_processes(unit)] == ["a.service", "b.scope"]


def test_a_cgroup_that_is_not_there_is_none() -> None:
    hierarchy = cgroups.Hierarchy(Path("/proc"))
    assert hierarchy.cgroup("no/such/cgroup") is None
    assert hierarchy.cgroup("a\0b") is None
    found = hierarchy.cgroup("sys/net")
    assert found is not None
    assert (found.path, found.level) == ("sys/net", 2)
