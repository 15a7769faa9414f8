"""Sets read and changed by netlink, against the kernel."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from glacic.ctlplane import elements, setcodec
from glacic.ctlplane.elements import KernelSets
from glacic.errors import KernelRefused
from glacic.lab.net import Host, Network


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("h")


def load(host: Host, script: str) -> None:
    host.run(["nft", "-f", "-"], text=script)


def read(host: Host, name: str, table: str = "glacic") -> list[tuple[bytes, int]]:
    """What a set holds, once the kernel has moved its elements into a table of the right size: until then it tells of
    some twice, and of others not at all."""

    def read() -> list[tuple[bytes, int]]:
        sets = KernelSets(table)
        ends = time.monotonic() + 10
        while True:
            found = list(sets.elements(name))
            if len(dict(found)) == (sets.sizes().get(name) or len(found)) or time.monotonic() > ends:
                return found
            time.sleep(0.02)

    return host.call(read)


def test_the_sets_of_our_table_alone_are_named(host: Host) -> None:
    load(
        host,
        "table inet glacic {\nset a { type ipv4_addr; }\nset b { type mark; }\n}\n"
        "table inet glacic2 {\nset c { type mark; }\n}\ntable ip glacic {\nset d { type mark; }\n}\n",
    )
    assert sorted(host.call(KernelSets().names)) == ["a", "b"]


def test_without_a_table_there_is_nothing(host: Host) -> None:
    assert host.call(KernelSets().names) == []
    assert read(host, "a") == []


def test_elements_come_with_their_keys_and_counters(host: Host) -> None:
    load(
        host,
        "table inet glacic {\nset s {\ntypeof ether saddr . meta l4proto . th dport\ncounter\n"
        "elements = { 02:00:00:00:00:01 . 6 . 443 counter packets 7 bytes 420,"
        " 02:00:00:00:00:02 . 17 . 53 counter packets 0 bytes 0 }\n}\n}\n",
    )
    assert sorted(read(host, "s")) == [
        (bytes.fromhex("020000000001 0000 06000000 01bb0000"), 7),
        (bytes.fromhex("020000000002 0000 11000000 00350000"), 0),
    ]


def test_elements_without_a_counter_have_counted_nothing(host: Host) -> None:
    load(host, "table inet glacic {\nset s {\ntype ipv4_addr\nelements = { 10.0.0.1 }\n}\n}\n")
    assert read(host, "s") == [(bytes([10, 0, 0, 1]), 0)]


def test_a_counter_among_other_expressions_is_found(host: Host) -> None:
    load(
        host,
        "table inet glacic {\nset s {\ntype ipv4_addr\nsize 10\ncounter limit rate 9/minute\n"
        "elements = { 10.0.0.1 counter packets 3 bytes 90 limit rate 9/minute }\n}\n}\n",
    )
    assert read(host, "s") == [(bytes([10, 0, 0, 1]), 3)]


def test_a_large_set_comes_whole(host: Host) -> None:
    texts = ", ".join(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(20_000))
    load(host, f"table inet glacic {{\nset s {{\ntype ipv4_addr\ncounter\nelements = {{ {texts} }}\n}}\n}}\n")
    found = read(host, "s")
    assert len(found) == len(dict(found)) == 20_000


def test_a_named_counter_is_read_by_its_name(host: Host) -> None:
    text = "counter fail_open { packets 12 bytes 720 }\ncounter other { packets 5 bytes 1 }"
    load(host, f"table inet glacic {{\n{text}\n}}\n")
    assert host.call(KernelSets().counter, "fail_open") == 12
    assert host.call(KernelSets().counter, "missing") == 0
    assert host.call(KernelSets("nowhere").counter, "fail_open") == 0


@pytest.mark.parametrize(
    ("script", "hooked"),
    [
        ("", False),
        ("table inet glacic {\nchain learned_x {\n}\n}\n", False),  # as a start prepares it
        ("table inet glacic {\nchain c {\ntype filter hook input priority 0;\n}\n}\n", True),
        ("table ip glacic {\nchain c {\ntype filter hook input priority 0;\n}\n}\n", False),
        ("table inet other {\nchain c {\ntype filter hook input priority 0;\n}\n}\n", False),
    ],
)
def test_packets_meet_a_table_that_has_a_base_chain(host: Host, script: str, hooked: bool) -> None:
    load(host, script)
    assert host.call(KernelSets().hooked) is hooked


# ---- in and out


SET = "table inet glacic {\nset s {\ntypeof ether saddr . meta l4proto . th dport\ncounter\n%s}\n}\n"
COUNTED = "elements = { 02:00:00:00:00:01 . 6 . 443 counter packets 7 bytes 420 }\n"
WEB = bytes.fromhex("020000000001 0000 06000000 01bb0000")


def keys(count: int, first: int = 0) -> list[bytes]:
    """Other keys than WEB, all different."""
    return [WEB[:4] + number.to_bytes(4, "big") + WEB[8:] for number in range(1 << 20, (1 << 20) + first + count)][
        first:
    ]


def change(host: Host, leaving: dict[str, list[bytes]], coming: dict[str, list[bytes]]) -> None:
    host.call(KernelSets().change, leaving, coming)


def test_elements_come_and_go_in_one_transaction_and_those_that_stay_keep_their_counters(host: Host) -> None:
    load(host, SET % COUNTED)
    first, second, third = keys(3)
    change(host, {}, {"s": [WEB, first, second]})
    change(host, {"s": [first, third]}, {})  # the third was never there
    assert sorted(read(host, "s")) == sorted([(WEB, 7), (second, 0)])


def test_more_elements_than_one_message_holds_are_one_transaction(host: Host) -> None:
    load(host, SET % COUNTED)
    many = keys(20_000)
    change(host, {}, {"s": many})
    assert dict(read(host, "s")) == {WEB: 7, **dict.fromkeys(many, 0)}
    change(host, {"s": many[1:]}, {})
    assert dict(read(host, "s")) == {WEB: 7, many[0]: 0}


def test_what_the_kernel_refuses_changes_nothing(host: Host) -> None:
    load(host, SET % COUNTED)
    with pytest.raises(KernelRefused, match="cannot change sets of table inet glacic: No such file or directory"):
        change(host, {}, {"s": keys(5_000), "missing": keys(3)})
    with pytest.raises(KernelRefused):
        change(host, {"s": [WEB]}, {"s": [b"short key..."]})
    assert read(host, "s") == [(WEB, 7)]


def test_nothing_to_change_asks_the_kernel_nothing(host: Host) -> None:
    change(host, {}, {})  # there is no table
    change(host, {"s": []}, {"s": []})


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 3000])
def test_a_set_that_is_filled_anew_holds_these_keys_and_keeps_their_counters(host: Host, count: int) -> None:
    load(host, SET % COUNTED)
    stay, go, come = keys(50), keys(2000, first=50), keys(count, first=5000)
    change(host, {}, {"s": [*stay, *go]})
    wanted = [*come[: count // 2], *stay, WEB, *come[count // 2 :]]
    host.call(KernelSets().refill, "s", iter(wanted))
    assert dict(read(host, "s")) == {**dict.fromkeys(wanted, 0), WEB: 7}
    listing = host.run(["nft", "list", "set", "inet", "glacic", "s"]).stdout
    assert "443 counter packets 7 bytes 420" in listing


def test_a_set_can_be_emptied(host: Host) -> None:
    load(host, SET % COUNTED)
    host.call(KernelSets().refill, "s", [])
    assert read(host, "s") == []
    with pytest.raises(KernelRefused, match="cannot change set missing of table inet glacic: No such file"):
        host.call(KernelSets().refill, "missing", [WEB])


def test_a_transaction_may_be_larger_than_any_send_buffer(host: Host) -> None:
    load(host, SET % COUNTED)
    many = keys(60_000)
    host.call(KernelSets().refill, "s", many)
    assert len(read(host, "s")) == 60_000


def test_answers_come_for_some_keys_and_not_for_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setcodec, "GET_MAX", 7)
    load(host, SET % COUNTED)
    there = keys(40)
    change(host, {}, {"s": there})
    asked = [key for pair in zip(there, keys(40, first=100), strict=True) for key in pair]
    found = host.call(lambda: list(asked_for(asked)))
    assert [key for key, answer in found if answer is not None] == there
    assert [key for key, _ in found] == asked


def asked_for(asked: list[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    with elements.NetlinkSocket() as sock:
        yield from KernelSets()._asked(sock, "s", asked)


def test_sets_say_how_many_elements_they_have_where_the_kernel_does(host: Host) -> None:
    load(host, SET % COUNTED)
    change(host, {}, {"s": keys(10)})
    assert host.call(KernelSets().sizes) in ({"s": 11}, {"s": None})
    assert host.call(KernelSets("nowhere").sizes) == {}
