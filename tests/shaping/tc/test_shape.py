"""The shape engine where any kernel can show it: uploads, and that an interface is given back as it was.

Downloads need a stock kernel's classifiers: tests/vm/test_shaping_tc.py."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.errors import KernelRefused
from glacic.firewall.nft import Libnftables
from glacic.lab import transfer
from glacic.shaping.engine import UPLOAD, Cgroup, Item
from glacic.shaping.tc import qdiscs
from glacic.shaping.tc.kernel import Link, Tc
from glacic.shaping.tc.shape import Shape
from tests.shaping.tc.conftest import FAR, FAR_6, Lab

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def engine(lab: Lab) -> Iterator[Shape]:
    made = new(lab)
    yield made
    lab.near.call(made.remove)


def new(lab: Lab, offload_mark: int = 0) -> Shape:
    return Shape(lab.near.call(Libnftables), mount=lambda: lab.mount, offload_mark=lambda: offload_mark)


def put(lab: Lab, engine: Shape, *items: Item) -> None:
    lab.near.call(engine.put, items)


@pytest.mark.parametrize("address", [FAR, FAR_6])
def test_an_upload_is_shaped_for_its_cgroup_only(lab: Lab, engine: Shape, address: str) -> None:
    put(lab, engine, lab.item("a", "a", upload=MIB))
    assert 0.80 * MIB < lab.up("a", address) < 1.06 * MIB
    counted = lab.near.call(engine.counters)["a", UPLOAD]
    assert 3 * MIB < counted.bytes < 6 * MIB
    assert counted.packets > 0
    assert lab.up("b", address) > 10 * MIB
    after = lab.near.call(engine.counters)["a", UPLOAD]
    assert after.bytes < counted.bytes + MIB  # what was still in the queue


def test_a_high_rate_gets_through_a_bucket_of_its_size(lab: Lab, engine: Shape) -> None:
    put(lab, engine, lab.item("a", "a", upload=20 * MIB))
    assert 16 * MIB < lab.up("a") < 21.5 * MIB


def test_a_changed_rate_holds_at_once_for_a_running_connection_and_so_does_its_end(lab: Lab, engine: Shape) -> None:
    put(lab, engine, lab.item("a", "a", upload=512 * KIB))
    with transfer.connection(lab.mount, lab.mount / lab.top / "a", lab.near, lab.far, FAR) as ends:
        assert 400 * KIB < transfer.rate(*ends, seconds=2) < 560 * KIB
        put(lab, engine, lab.item("a", "a", upload=4 * MIB))
        assert 3 * MIB < transfer.rate(*ends, seconds=2) < 4.3 * MIB
        put(lab, engine, lab.item("b", "b", upload=MIB))
        assert transfer.rate(*ends, seconds=1) > 10 * MIB


def test_a_limit_inside_another_holds_and_so_does_the_outer_one(lab: Lab, engine: Shape) -> None:
    put(lab, engine, lab.item("a", "a", upload=MIB), lab.item("in", "a/in", upload=4 * MIB))
    assert 0.8 * MIB < lab.up("a/in") < 1.1 * MIB
    put(lab, engine, lab.item("a", "a", upload=4 * MIB), lab.item("in", "a/in", upload=MIB))
    assert 0.8 * MIB < lab.up("a/in") < 1.1 * MIB
    put(lab, engine, lab.item("in", "a/in", upload=MIB))  # a class with another place is made anew
    assert 0.8 * MIB < lab.up("a/in") < 1.1 * MIB


def test_after_a_removal_everything_is_as_it_was(lab: Lab, engine: Shape) -> None:
    before = lab.everything()
    for _ in range(2):
        put(lab, engine, lab.item("a", "a", upload=MIB), lab.item("b", "b", upload=MIB))
        assert lab.everything() != before
        put(lab, engine)
        assert lab.everything() == before
    assert lab.near.call(engine.counters) == {}


def test_an_interface_with_several_queues_gets_them_back_and_keeps_its_kind_of_queue_meanwhile(
    lab: Lab, engine: Shape
) -> None:
    lab.near.ip("link add many numtxqueues 2 type ifb", "link set many up")
    try:
        before = lab.everything()
        assert '"mq"' in json.dumps(before)
        queue = lab.with_tc(lambda tc: qdiscs.check(tc, tc.links()["many"], root=True, ingress=False))
        put(lab, engine, dataclasses.replace(lab.item("a", "a", upload=MIB), interface="many"))
        listed = lab.with_tc(lambda tc: tc.qdiscs(tc.links()["many"]))
        assert (queue, qdiscs.HTB | 1) in {(each.kind, each.parent) for each in listed}
        put(lab, engine)
        assert lab.everything() == before
    finally:
        lab.near.ip("link del many")


def test_the_next_run_cleans_what_a_killed_one_left_and_nothing_else(lab: Lab, engine: Shape) -> None:
    lab.near.ip("link add theirs type ifb", "link set theirs up", "link add glacic-9999 type ifb")
    lab.near.ip("link set glacic-9999 alias mine", "link set glacic-9999 up")
    try:
        before = lab.everything()
        put(lab, engine, lab.item("a", "a", upload=MIB))
        lab.with_tc(lambda tc: qdiscs.make_ifb(tc, tc.links()["v0"]))  # as a kill between two steps leaves it
        lab.near.call(new(lab).adopt)
        assert lab.everything() == before
    finally:
        lab.near.ip("link del theirs", "link del glacic-9999")


def test_a_kernel_that_lacks_a_piece_is_left_as_it_was(
    lab: Lab, engine: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Tc.tc

    def lacking(self: Tc, command: str, kind: str, link: Link, **options: object) -> None:
        if kind == "fw":
            raise KernelRefused(f"cannot {command} {kind} on {link.name}")
        if kind != "matchall":
            whole(self, command, kind, link, **options)

    monkeypatch.setattr(Tc, "tc", lacking)
    before = lab.everything()
    with pytest.raises(KernelRefused, match="cannot add-filter fw on"):
        put(lab, engine, lab.item("a", "a", upload=MIB, download=MIB))
    assert lab.everything() == before


def test_a_cgroup_that_is_gone_limits_nothing_and_is_no_error(lab: Lab, engine: Shape) -> None:
    gone = Item(name="gone", cgroup=Cgroup(f"{lab.top}/gone", 1, 2), upload=MIB, interface="v0")
    another = Item(name="b", cgroup=Cgroup(f"{lab.top}/b", 1, 2), upload=MIB, interface="v0")  # made anew meanwhile
    for item in (gone, another):
        put(lab, engine, item)
        assert "glacic_shape" not in lab.near.run(["nft", "list", "ruleset"]).stdout


def test_numbers_go_round_before_one_is_given_again(lab: Lab, engine: Shape) -> None:
    for count in range(3):
        put(lab, engine, lab.item(f"limit {count}", "a", upload=MIB))
        assert engine._numbers == {f"limit {count}": count + 1}
    engine._last = 255
    put(lab, engine, lab.item("limit 2", "a", upload=MIB), lab.item("next", "b", upload=MIB))
    assert engine._numbers == {"limit 2": 3, "next": 1}


def test_without_an_interface_it_is_that_of_the_default_route(lab: Lab, engine: Shape) -> None:
    item = Item(name="a", cgroup=lab.item("a", "a").cgroup, upload=MIB)
    with pytest.raises(KernelRefused, match=r"a: there is no default route"):
        put(lab, engine, item)
    lab.near.ip("route add default via 10.9.0.2")
    try:
        put(lab, engine, item)
        assert lab.with_tc(lambda tc: qdiscs.has_root(tc, tc.links()["v0"]))
    finally:
        lab.near.ip("route del default")


@pytest.mark.parametrize(
    ("interface", "words"), [("lo", "loopback is never limited"), ("eth9", "there is no interface eth9")]
)
def test_an_interface_that_cannot_be_is_refused(lab: Lab, engine: Shape, interface: str, words: str) -> None:
    item = Item(name="a", cgroup=lab.item("a", "a").cgroup, upload=MIB, interface=interface)
    before = lab.everything()
    with pytest.raises(KernelRefused, match=words):
        put(lab, engine, item)
    assert lab.everything() == before


def test_the_user_s_own_bits_of_the_connection_mark_are_not_taken(lab: Lab) -> None:
    engine = new(lab, offload_mark=0x0100_0000)
    with pytest.raises(KernelRefused, match="offload_mark 0x01000000 has bits of 0xff000000"):
        put(lab, engine, lab.item("a", "a", download=MIB))


def test_a_path_that_does_not_open_is_a_refusal(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    engine = Shape(lab.near.call(Libnftables), mount=lambda: tmp_path / "loop")
    before = lab.everything()
    with pytest.raises(KernelRefused, match="cannot open the cgroup"):
        put(lab, engine, lab.item("a", "a", upload=MIB))
    assert lab.everything() == before
