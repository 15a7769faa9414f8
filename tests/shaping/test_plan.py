"""Limits by name and cgroups by path become limits on cgroups."""

from __future__ import annotations

from glacic.config.model import DefaultLimit, Limit, LimitKind, Traffic
from glacic.shaping.cgroups import level_of
from glacic.shaping.engine import Cgroup, Item
from glacic.shaping.plan import handed_over, plan

PATHS = (
    "init.scope",
    "system.slice",
    "system.slice/backup.service",
    "system.slice/data.mount",
    "system.slice/web.service",
    "user.slice",
    "user.slice/user-7.slice",
    "user.slice/user-7.slice/session-1.scope",
    "user.slice/user-7.slice/user@7.service",
)
TREE = {path: Cgroup(path, 100 + number, level_of(path)) for number, path in enumerate(PATHS)}


def limit(name: str, kind: LimitKind, target: str, **rates: int) -> Limit:
    return Limit(name=name, kind=kind, target=target, **(rates or {"upload": 1}))  # type: ignore[arg-type]


def test_a_unit_a_slice_and_a_cgroup_each_find_theirs() -> None:
    limits = (
        limit("a", LimitKind.UNIT, "backup.service", upload=5, download=7),
        limit("b", LimitKind.SLICE, "user-7.slice"),
        limit("c", LimitKind.CGROUP, "system.slice/web.service"),
    )
    assert plan(limits, None, TREE) == (
        Item(name="a", cgroup=TREE["system.slice/backup.service"], upload=5, download=7),
        Item(name="b", cgroup=TREE["user.slice/user-7.slice"], upload=1),
        Item(name="c", cgroup=TREE["system.slice/web.service"], upload=1),
    )


def test_what_does_not_run_is_no_item_and_no_error() -> None:
    limits = (limit("a", LimitKind.UNIT, "later.service"), limit("b", LimitKind.CGROUP, "no/such"))
    assert plan(limits, None, TREE) == ()


def test_of_two_limits_for_one_cgroup_the_first_has_it() -> None:
    unit = limit("by unit", LimitKind.UNIT, "web.service")
    path = limit("by path", LimitKind.CGROUP, "system.slice/web.service")
    assert [item.name for item in plan((unit, path), None, TREE)] == ["by unit"]
    assert [item.name for item in plan((path, unit), None, TREE)] == ["by path"]


def test_a_default_limit_gives_each_unit_with_processes_a_bucket_of_its_own() -> None:
    default = DefaultLimit(download=9, traffic=Traffic.INTERNET)
    own = limit("web", LimitKind.UNIT, "web.service")
    items = plan((own,), default, TREE)
    assert [item.name for item in items] == [
        "web",
        "default:backup.service",
        "default:init.scope",
        "default:session-1.scope",
        "default:user@7.service",
    ]
    assert {(item.upload, item.download, item.traffic) for item in items[1:]} == {(0, 9, Traffic.INTERNET)}


def test_a_unit_with_a_limit_by_path_gets_no_default() -> None:
    own = limit("web", LimitKind.CGROUP, "system.slice/web.service")
    assert "default:web.service" not in {item.name for item in plan((own,), DefaultLimit(upload=1), TREE)}


def test_a_limit_that_moves_is_held_by_both_engines_for_a_moment() -> None:
    web, backup = TREE["system.slice/web.service"], TREE["system.slice/backup.service"]

    def item(name: str, cgroup: Cgroup, upload: int = 0, download: int = 0) -> Item:
        return Item(name=name, cgroup=cgroup, upload=upload, download=download)

    before = {"nft": (item("a", web, 1, 2), item("b", backup, 3)), "bpf": ()}
    assert handed_over(before, before) == before
    assert handed_over({}, before) == before
    half = {"nft": (item("a", web, 0, 5), item("b", backup, 3)), "bpf": (item("a", web, 4),)}
    assert handed_over(before, half) == {"nft": (item("a", web, 1, 5), item("b", backup, 3)), "bpf": half["bpf"]}
    moved = {"nft": (item("b", backup, 3),), "bpf": (item("a", web, 4, 5),)}
    assert handed_over(before, moved) == {"nft": (item("b", backup, 3), item("a", web, 1, 2)), "bpf": moved["bpf"]}
    assert handed_over(before, moved, by=()) == moved
    assert handed_over(before, moved, by=("bpf",)) == handed_over(before, moved)
    gone = {"nft": (item("b", backup, 3),), "bpf": (item("a", backup, 4),)}  # another cgroup, and no more download
    assert handed_over(before, gone) == gone
