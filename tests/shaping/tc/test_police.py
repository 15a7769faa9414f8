"""The police engine limits interfaces, and says so. Packets: tests/vm/test_shaping_tc.py."""

from __future__ import annotations

import pytest

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.shaping.engine import Cgroup, Item
from glacic.shaping.tc.kernel import Link, Tc
from glacic.shaping.tc.police import Police, burst
from tests.shaping.tc.conftest import Lab

MIB = 1 << 20
CGROUP = Cgroup("system.slice/backup.service", 7, 2)


def item(interface: str = "eth0", upload: int = MIB, traffic: Traffic = Traffic.ALL, name: str = "backup") -> Item:
    return Item(name=name, cgroup=CGROUP, upload=upload, interface=interface, traffic=traffic)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([item("")], r'backup: .*all of an interface: say which one, with interface = "..."'),
        ([item("lo")], "loopback is never limited"),
        ([item(traffic=Traffic.INTERNET)], 'internet traffic or not: write traffic = "all"'),
        ([item(upload=1000)], "1 KiB/s to 4 GiB/s, not 1000"),
        ([item(upload=1 << 32)], "1 KiB/s to 4 GiB/s"),
        ([item(), item(name="other")], "other and backup: .* eth0 can have one"),
    ],
)
def test_what_it_would_not_do_is_refused(items: list[Item], words: str) -> None:
    with pytest.raises(KernelRefused, match=words):
        Police().put(items)


def test_a_kernel_that_lacks_a_piece_is_left_as_it_was(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Tc.tc

    def lacking(self: Tc, command: str, kind: str, link: Link, **options: object) -> None:
        if kind == "matchall":
            raise KernelRefused(f"cannot {command} {kind} on {link.name}")
        whole(self, command, kind, link, **options)

    monkeypatch.setattr(Tc, "tc", lacking)
    before = lab.everything()
    with pytest.raises(KernelRefused, match="cannot add-filter matchall on v0"):
        lab.near.call(Police().put, [item("v0")])
    with pytest.raises(KernelRefused, match="no interface eth9"):
        lab.near.call(Police().put, [item("eth9")])
    assert lab.everything() == before


def test_the_largest_packet_always_fits_into_the_bucket() -> None:
    assert burst(50 << 10) == 128 << 10
    assert burst(20 * MIB) == 5 * MIB
