"""The table as netlink tells of it: what is compared, and what is left out of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glacic.ctlplane.structure import Parts, Structure, is_learned, merged, read_structure, remove
from glacic.ctlplane.tablecodec import Key
from glacic.firewall.shapes import Shape, set_name
from glacic.lab.net import Host, Network

TABLE = """\
table inet glacic {
	counter seen { }
	counter named { packets 3 bytes 3 }
	set allowed_lan_mac_port { typeof ether saddr . meta l4proto . th dport; counter; }
	set limited { type ipv4_addr; size 100; flags dynamic,timeout; timeout 60s; }
	set named { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.1 } }
	chain learned { ether saddr . meta l4proto . th dport @allowed_lan_mac_port accept; }
	chain input {
		type filter hook input priority filter; policy drop;
		tcp dport { 22, 80 } counter accept
		update @limited { ip saddr limit rate 10/minute } accept
		ip saddr @named quota 5 mbytes counter name "seen" accept
		jump learned
	}
}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        host = network.host("host")
        host.run(["nft", "-f", "-"], text=TABLE)
        yield host


def read(host: Host) -> Structure:
    return host.call(read_structure)


def nft(host: Host, *lines: str) -> None:
    host.run(["nft", "-f", "-"], text="\n".join(lines))


def test_everything_is_there_that_somebody_could_change(host: Host) -> None:
    parts = read(host).parts
    assert set(parts) == {
        Key("table", ""),
        *(Key("chain", name) for name in ("input", "learned")),
        *(Key("rule", name) for name in ("input", "learned")),
        *(Key("set", name) for name in ("allowed_lan_mac_port", "limited", "named")),
        Key("element", "named"),
        *(Key("object", name) for name in ("named", "seen")),
    }
    assert read(host).in_force()


def test_what_changes_by_itself_is_left_out(host: Host) -> None:
    """Learned elements, elements that packets make, counters; and a rule that is written anew, with another handle and
    another anonymous set."""
    before = read(host)
    nft(
        host,
        "add element inet glacic allowed_lan_mac_port { 02:00:00:00:00:01 . tcp . 80 counter packets 5 bytes 5 }",
        "add element inet glacic limited { 192.0.2.7 }",
        "flush chain inet glacic input",
        "add rule inet glacic input tcp dport { 22, 80 } counter packets 7 bytes 9 accept",
        "add rule inet glacic input update @limited { ip saddr limit rate 10/minute } accept",
        'add rule inet glacic input ip saddr @named quota 5 mbytes used 1 mbytes counter name "seen" accept',
        "add rule inet glacic input jump learned",
    )
    after = read(host)
    assert after.parts == before.parts
    assert (before.learned, after.learned) in {(0, 1), (None, None)}


@pytest.mark.parametrize(
    ("line", "touched"),
    [
        ("add rule inet glacic learned accept", Key("rule", "learned")),
        ("add element inet glacic named { 203.0.113.1 }", Key("element", "named")),
        ("delete element inet glacic named { 198.51.100.1 }", Key("element", "named")),
        ("add chain inet glacic input { policy accept; }", Key("chain", "input")),
        ("add table inet glacic { flags dormant; }", Key("table", "")),
        ("add counter inet glacic more", Key("object", "more")),
        ("delete counter inet glacic named", Key("object", "named")),
    ],
)
def test_what_somebody_changes_is_in_it(host: Host, line: str, touched: Key) -> None:
    before = read(host).parts
    nft(host, line)
    after = read(host).parts
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == {touched}
    assert merged(before, after, [touched]) == after


def test_another_number_in_an_anonymous_set_is_another_rule(host: Host) -> None:
    before = read(host).parts[Key("rule", "input")]
    nft(host, *("flush chain inet glacic input", "add rule inet glacic input tcp dport { 22, 81 } counter accept"))
    after = read(host).parts[Key("rule", "input")]
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    assert before[0] != after[0]


def test_a_table_that_is_not_there_is_empty_and_not_in_force(host: Host) -> None:
    nft(host, "add table inet glacic { flags dormant; }")
    assert not read(host).in_force()
    nft(host, "delete table inet glacic")
    assert read(host) == Structure({})
    assert not read(host).in_force()


def test_what_others_have_put_there_is_removed_and_what_is_in_use_is_not(host: Host) -> None:
    nft(host, "add map inet glacic theirs { type mark : mark; }", "add quota inet glacic enough { 5 mbytes }")
    host.call(remove, [Key("set", "theirs"), Key("object", "enough"), Key("object", "seen"), Key("object", "missing")])
    parts: Parts = read(host).parts
    assert Key("set", "theirs") not in parts
    assert Key("object", "enough") not in parts
    assert Key("object", "seen") in parts


def test_learned_sets_are_known_by_their_names() -> None:
    assert all(is_learned(set_name("lan_wan", Shape("mac", "port"), allowed)) for allowed in (True, False))
    assert not any(is_learned(name) for name in ("addresses_offices", "ports_offered", "ignored_ip", "limit_lan_wan"))
