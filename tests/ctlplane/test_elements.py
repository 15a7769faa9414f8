"""Sets read by netlink, against the kernel and against hostile bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane import elements
from glacic.ctlplane.elements import KernelSets
from glacic.ctlplane.netlink import attribute, generic, nested
from glacic.lab.net import Host, Network


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("h")


def load(host: Host, script: str) -> None:
    host.run(["nft", "-f", "-"], text=script)


def read(host: Host, name: str, table: str = "glacic") -> list[tuple[bytes, int]]:
    return host.call(lambda: list(KernelSets(table).elements(name)))


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


def element(*parts: bytes) -> bytes:
    return nested(1, *parts)


def body(*listed: bytes) -> bytes:
    return generic(1) + nested(3, *listed)


KEY = nested(1, attribute(1, b"\n\0\0\1"))
COUNTER = attribute(1, b"counter\0") + nested(2, attribute(1, bytes(8)), attribute(2, (9).to_bytes(8, "big")))


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (element(KEY, nested(7, COUNTER)), [(b"\n\0\0\1", 9)]),
        (element(KEY, nested(11, nested(1, COUNTER))), [(b"\n\0\0\1", 9)]),
        (element(KEY, nested(7, attribute(1, b"limit\0"))), [(b"\n\0\0\1", 0)]),
        (element(KEY), [(b"\n\0\0\1", 0)]),
        (element(nested(7, COUNTER)), []),
        (element(), []),
        (b"", []),
    ],
)
def test_an_element_is_a_key_and_perhaps_a_counter(listed: bytes, found: list[tuple[bytes, int]]) -> None:
    assert list(elements.elements_in(body(listed))) == found


@given(st.binary(max_size=200), st.integers(0, 120))
def test_no_bytes_make_it_raise(data: bytes, cut: int) -> None:
    list(elements.elements_in(data))
    list(elements.elements_in(generic(1) + nested(3, data)))
    list(elements.elements_in(body(element(KEY, nested(7, COUNTER)))[:cut]))
    elements.set_name(data, "glacic")
    elements.named_counter(data)


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
