"""Items become HTB classes: one leaf each, and one above where limits lie inside each other."""

from __future__ import annotations

import pytest

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Cgroup, Item
from glacic.shaping.tc import tree

KIB, MIB = 1 << 10, 1 << 20


def item(path: str, upload: int = 0, download: int = 0, traffic: Traffic = Traffic.ALL) -> Item:
    cgroup = Cgroup(path, hash(path), path.count("/") + 1)
    return Item(name=path, cgroup=cgroup, upload=upload, download=download, traffic=traffic)


def numbered(*items: Item) -> dict[str, int]:
    return {each.name: number for number, each in enumerate(items, 1)}


def test_a_limit_alone_is_one_leaf_below_the_root() -> None:
    one = item("a", upload=MIB)
    (bucket,) = tree.buckets([one], numbered(one), UPLOAD).values()
    assert (bucket.minor, bucket.parent, bucket.rate, bucket.ceil) == (tree.leaf(1), 0, MIB, MIB)
    assert not tree.buckets([one], numbered(one), DOWNLOAD)


def test_a_limit_inside_another_lends_all_but_nothing_from_it() -> None:
    outer, middle, inner = item("s", upload=4 * MIB), item("s/no"), item("s/no/u", upload=MIB)
    items = [inner, middle, outer]
    found = tree.buckets(items, numbered(*items), UPLOAD)
    above = next(bucket for bucket in found.values() if not bucket.parent)
    leaves = [bucket for bucket in found.values() if bucket.parent]
    assert (above.rate, above.ceil, above.queue) == (4 * MIB, 4 * MIB, 0)
    assert {bucket.parent for bucket in leaves} == {above.minor}
    assert sorted(bucket.ceil for bucket in leaves) == [MIB, 4 * MIB]
    assert sum(bucket.rate for bucket in leaves) < KIB
    assert next(iter(found)) == above.minor  # a class is made after the one that it is in
    assert tree.counting(frozenset(found), numbered(*items)["s"]) == above.minor
    assert tree.counting(frozenset(found), numbered(*items)["s/no/u"]) == tree.leaf(1)
    assert tree.counting(frozenset(found), 99) == 0
    assert all(map(tree.is_limit, found))
    assert not tree.is_limit(tree.DEFAULT)


def test_a_name_that_begins_like_another_is_not_inside_it() -> None:
    assert not tree.inside(item("ab"), item("a"))
    assert tree.inside(item("a/b"), item("a"))
    assert not tree.inside(item("a"), item("a"))


def test_limits_for_other_traffic_do_not_lie_inside_each_other() -> None:
    outer, inner = item("s", upload=MIB, traffic=Traffic.LOCAL), item("s/u", upload=MIB, traffic=Traffic.INTERNET)
    found = tree.buckets([outer, inner], numbered(outer, inner), UPLOAD)
    assert {bucket.parent for bucket in found.values()} == {0}


def test_a_limit_on_all_traffic_inside_one_on_a_part_of_it_is_refused_by_both_names() -> None:
    outer, inner = item("s", upload=MIB, traffic=Traffic.LOCAL), item("s/u", upload=MIB)
    with pytest.raises(KernelRefused, match=r"s/u is inside of s, .* local traffic only"):
        tree.buckets([outer, inner], numbered(outer, inner), UPLOAD)


@pytest.mark.parametrize("rate", [tree.MIN_RATE, 50 * KIB, MIB, 20 * MIB, 17 << 30])
def test_the_largest_packets_and_a_late_timer_cost_no_rate(rate: int) -> None:
    one = item("a", upload=rate)
    (bucket,) = tree.buckets([one], numbered(one), UPLOAD).values()
    assert bucket.burst >= rate // 20
    assert 65_536 + 14 < bucket.queue < 1 << 31  # a frame of segments put together; what bfifo can be told
    assert bucket.burst / rate < 60  # seconds: the kernel's 32 bits of 64 ns hold 274
    assert 1514 <= bucket.quantum <= 200_000


def test_nobody_waits_for_long_behind_a_slow_limit() -> None:
    one = item("a", download=50 * KIB)
    (bucket,) = tree.buckets([one], numbered(one), DOWNLOAD).values()
    assert bucket.queue / bucket.rate < 1.5  # seconds; with 2.6 downloads by bbr got 55 to 92 % (decision 0013)


def test_what_the_engine_cannot_hold_is_refused() -> None:
    with pytest.raises(KernelRefused, match="255 limits, not 256"):
        tree.check([item(f"u{number}", upload=MIB) for number in range(256)])
    with pytest.raises(KernelRefused, match="no download below 1 KiB/s"):
        tree.check([item("a", download=tree.MIN_RATE - 1)])
    with pytest.raises(KernelRefused, match="limit the same cgroup, a"):
        tree.check([item("a", upload=MIB), Item(name="other", cgroup=item("a").cgroup, upload=MIB)])
