"""rtnetlink as it answers: interfaces, qdiscs and classes, and errors that say what to do."""

from __future__ import annotations

import pytest

from glacic.errors import KernelRefused
from glacic.shaping.tc.kernel import ROOT, Class, Link, Qdisc, Seen
from tests.shaping.tc.conftest import Lab


def test_interfaces_have_their_kinds_and_aliases(lab: Lab) -> None:
    made = lab.with_tc(lambda tc: tc.add_ifb("ifb7", "an alias"))
    try:
        links = lab.with_tc(lambda tc: tc.links())
        assert links["ifb7"] == made == Link(made.index, "ifb7", "ifb", "an alias", up=True)
        assert links["v0"].kind == "veth"
        assert links["lo"].kind == ""
    finally:
        lab.with_tc(lambda tc: tc.delete_link(made))
    lab.with_tc(lambda tc: tc.delete_link(made))  # gone already
    assert "ifb7" not in lab.with_tc(lambda tc: tc.links())


def test_the_interfaces_of_default_routes_are_found_in_both_families(lab: Lab) -> None:
    assert not lab.with_tc(lambda tc: tc.default_interfaces())
    index = lab.with_tc(lambda tc: tc.links()["v0"].index)
    for gateway in ("10.9.0.2", "fd09::2"):
        lab.near.ip(f"route add default via {gateway}")
        assert lab.with_tc(lambda tc: tc.default_interfaces()) == {index}
        lab.near.ip(f"route del default via {gateway}")
    lab.near.ip("route add unreachable default")
    assert not lab.with_tc(lambda tc: tc.default_interfaces())
    lab.near.ip("route del unreachable default")


def test_qdiscs_and_classes_are_listed_by_interface(lab: Lab) -> None:
    link = lab.with_tc(lambda tc: tc.links()["v0"])
    assert lab.with_tc(lambda tc: tc.qdiscs(link)) == (Qdisc("noqueue", 0, ROOT),)
    lab.tc("qdisc add dev v0 root handle 7: htb", "class add dev v0 parent 7: classid 7:1 htb rate 1mbit")
    lab.tc("class add dev v0 parent 7:1 classid 7:2 htb rate 1mbit")
    assert lab.with_tc(lambda tc: tc.qdiscs(link)) == (Qdisc("htb", 0x70000, ROOT),)
    classes = lab.with_tc(lambda tc: tc.classes(link))
    assert classes == {0x70001: Class(0x70001, 0), 0x70002: Class(0x70002, 0x70001)}
    lab.with_tc(lambda tc: tc.delete("del", link, handle=0x70000, parent=ROOT))
    assert lab.with_tc(lambda tc: tc.qdiscs(link)) == (Qdisc("noqueue", 0, ROOT),)
    assert lab.with_tc(lambda tc: tc.filters(link, 0)) == frozenset()
    assert lab.with_tc(lambda tc: tc.acted(link, 0, [1])) == Seen(0, 0)


def test_a_refusal_says_what_where_and_what_to_do(lab: Lab) -> None:
    link = lab.with_tc(lambda tc: tc.links()["v0"])
    with pytest.raises(KernelRefused, match=r"cannot add-class htb on v0: .*lacks a module.*another engine"):
        lab.with_tc(lambda tc: tc.tc("add-class", "htb", link, handle=0x70001, parent=0x70000, rate=1000, burst=1600))
    with pytest.raises(KernelRefused, match=r"make the ifb device v0: File exists; somebody else"):
        lab.with_tc(lambda tc: tc.add_ifb("v0", ""))
