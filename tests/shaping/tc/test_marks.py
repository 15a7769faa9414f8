"""The table that tells packets by cgroup: as text, and as the kernel takes it."""

from __future__ import annotations

from glacic.config.model import RESERVED_CT_MARK, Traffic
from glacic.firewall import claims
from glacic.firewall.nft import Libnftables
from glacic.shaping.engine import Cgroup, Item
from glacic.shaping.tc import marks
from tests.shaping.tc.conftest import Lab

MIB = 1 << 20


def item(path: str, upload: int = 0, download: int = 0, traffic: Traffic = Traffic.ALL) -> Item:
    cgroup = Cgroup(path, hash(path), path.count("/") + 1)
    return Item(name=path, cgroup=cgroup, upload=upload, download=download, traffic=traffic)


def script(*items: Item) -> list[str]:
    numbers = {each.name: number for number, each in enumerate(items, 1)}
    return marks.script(items, numbers, ["v0"], lambda cgroup: cgroup.path).splitlines()


def test_the_mark_s_field_is_nobody_else_s() -> None:
    taken = claims.CT_FAIL_OPEN | claims.CT_INSPECT | RESERVED_CT_MARK | 0x0020_0000 | 0xFFFF
    assert claims.CT_LIMIT & taken == 0
    assert {marks.mark(number) & ~claims.CT_LIMIT for number in range(256)} == {0}
    assert len({marks.mark(number) for number in range(256)}) == 256


def test_without_limits_there_is_no_table() -> None:
    assert script() == ["add table inet glacic_shape", "delete table inet glacic_shape"]


def test_the_mark_is_set_only_where_it_differs_and_with_its_own_bits() -> None:
    lines = script(item("a", download=MIB))
    assert "ct mark & 0xff000000 != 0x01000000 ct mark set ct mark & 0x00ffffff | 0x01000000" in lines
    assert "ct mark & 0xff000000 != 0x00000000 ct mark set ct mark & 0x00ffffff" in lines  # of no limit any more


def test_where_only_uploads_are_limited_no_connection_is_touched() -> None:
    assert not [line for line in script(item("a", upload=MIB)) if "ct mark" in line]


def test_the_innermost_limit_of_each_direction_counts() -> None:
    lines = script(item("s", upload=MIB, download=MIB), item("s/u", upload=MIB))
    chain = lines[lines.index("chain all_2 {") :][:3]
    assert "meta priority set 61ac:12" in chain[1]  # its own
    assert chain[2].endswith("| 0x01000000")  # and the download of the one around it
    lookups = [line for line in lines if line.startswith("socket")]
    assert lookups == ["socket cgroupv2 level 2 vmap @all_2", "socket cgroupv2 level 1 vmap @all_1"]


def test_the_kernel_takes_it_with_every_kind_of_traffic(lab: Lab) -> None:
    def put() -> None:
        items = [lab.item("a", "a", upload=MIB, download=MIB), lab.item("in", "a/in", download=MIB)]
        items.append(Item(name="b", cgroup=lab.item("b", "b").cgroup, upload=MIB, traffic=Traffic.INTERNET))
        nft, numbers = Libnftables(), {"a": 1, "in": 2, "b": 255}
        relative = lab.mount.relative_to("/sys/fs/cgroup")
        nft.run(marks.script(items, numbers, ["v0"], lambda cgroup: str(relative / cgroup.path)))
        assert "table inet glacic_shape" in lab.everything()[-1]  # type: ignore[operator]
        nft.run(marks.script((), {}, (), lambda cgroup: ""))

    before = lab.everything()
    lab.near.call(put)
    assert lab.everything() == before
