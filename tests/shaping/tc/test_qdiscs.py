"""Interfaces are taken only as the kernel made them, and what is ours is told from what is not."""

from __future__ import annotations

import pytest

from glacic.errors import KernelRefused
from glacic.shaping.tc import qdiscs
from glacic.shaping.tc.kernel import Link, Tc
from tests.shaping.tc.conftest import Lab


def look(lab: Lab, *, root: bool = True, ingress: bool = True) -> str:
    def check(tc: Tc) -> str:
        return qdiscs.check(tc, tc.links()["v0"], root=root, ingress=ingress)

    return lab.with_tc(check)


def test_the_kernel_s_own_qdisc_may_be_taken(lab: Lab) -> None:
    assert look(lab) == ""


@pytest.mark.parametrize("kind", ["pfifo", "htb", "noqueue"])
def test_a_qdisc_of_somebody_s_choice_is_refused_by_name_whatever_its_kind(lab: Lab, kind: str) -> None:
    lab.tc(f"qdisc add dev v0 root handle 5: {kind}")
    before = lab.everything()
    try:
        with pytest.raises(KernelRefused, match=rf"v0 has a qdisc of somebody's choice, {kind} 5:, .*tc qdisc del"):
            look(lab)
        look(lab, root=False)  # which matters to uploads only
        lab.with_tc(lambda tc: qdiscs.give_back_root(tc, tc.links()["v0"]))
        assert lab.everything() == before
    finally:
        lab.tc("qdisc del dev v0 root")


@pytest.mark.parametrize("kind", ["ingress", "clsact"])
def test_somebody_s_ingress_is_refused_by_name_and_matters_to_downloads_only(lab: Lab, kind: str) -> None:
    lab.tc(f"qdisc add dev v0 {kind}")
    try:
        with pytest.raises(KernelRefused, match=f"v0 has a qdisc {kind} that Glacic did not make"):
            look(lab)
        assert look(lab, ingress=False) == ""
        assert not lab.with_tc(lambda tc: qdiscs.is_policed(tc, tc.links()["v0"]))
    finally:
        lab.tc(f"qdisc del dev v0 {kind}")


def test_an_interface_is_not_taken_where_the_kernel_would_give_another_qdisc_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.near.ip("link add many numtxqueues 2 type ifb", "link set many up")

    def check(tc: Tc) -> str:
        return qdiscs.check(tc, tc.links()["many"], root=True, ingress=True)

    try:
        queue = lab.with_tc(check)
        assert queue  # mq, and below it what queues
        monkeypatch.setattr(qdiscs, "default_qdisc", lambda: "another")
        with pytest.raises(KernelRefused, match=f"many has the qdisc {queue}, .*net.core.default_qdisc is another"):
            lab.with_tc(check)
    finally:
        lab.near.ip("link del many")


def test_an_ifb_is_ours_by_kind_name_and_alias() -> None:
    ours = Link(9, "glacic-3", "ifb", "glacic: downloads of eth0", up=True)
    assert qdiscs.is_ours(ours)
    assert qdiscs.is_ours(Link(9, "glacic-3", "ifb"))  # half made
    assert not qdiscs.is_ours(Link(9, "glacic-3", "ifb", "", up=True))
    assert not qdiscs.is_ours(Link(9, "glacic-3", "ifb", "mine"))
    assert not qdiscs.is_ours(Link(9, "glacic-3", "dummy", "glacic: downloads of eth0"))
    assert not qdiscs.is_ours(Link(9, "ifb0", "ifb", "glacic: downloads of eth0"))
    assert qdiscs.ifb_of([ours], Link(3, "eth0")) == ours
    assert qdiscs.ifb_of([ours], Link(4, "eth1")) is None
    assert len(qdiscs.ifb_name(Link(0x7FFF_FFFF, "eth0"))) <= 15
