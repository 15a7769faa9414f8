"""Netlink as bytes: what is sent is laid out as the headers say, and nothing that comes in can raise."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane import netlink
from glacic.ctlplane.netlink import Connection, Logged, attribute, generic, nested

MAC = bytes.fromhex("020000000001")
CLIENT, SERVER = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 7])
CLIENT6 = bytes.fromhex("fd" + "00" * 14 + "01")


def test_a_request_is_a_header_and_its_attributes() -> None:
    assert netlink.nflog_bind(7) == bytes.fromhex(
        "1c000000"  # length 28
        "0104"  # NFULNL_MSG_CONFIG of subsystem 4
        "0100"  # NLM_F_REQUEST
        "00000000 00000000"  # sequence, port
        "00 00 0007"  # family, version, group in network byte order
        "0500 0100 01 000000"  # NFULA_CFG_CMD: BIND, padded
    )


def test_a_number_and_flags_are_put_into_a_finished_request() -> None:
    numbered = netlink.numbered(netlink.nflog_bind(7), 0x01020304, netlink.NLM_F_ACK)
    assert numbered[6:12] == bytes.fromhex("0500 04030201")
    assert numbered[12:] == netlink.nflog_bind(7)[12:]


@pytest.mark.parametrize(("fail_open", "flags"), [(True, 5), (False, 4)])
def test_the_flags_of_a_queue_go_with_the_mask_of_what_may_change(fail_open: bool, flags: int) -> None:
    found = netlink.attributes(netlink.nfqueue_flags(100, fail_open=fail_open), 20)
    assert found == {5: struct.pack("!I", flags), 4: struct.pack("!I", 5)}


def test_the_time_of_a_log_group_is_in_hundredths_of_a_second() -> None:
    request = netlink.nflog_configure(7, copy_range=128, batch=64, timeout_ms=20, buffer=4096)
    assert netlink.attributes(request, 20) == {
        2: bytes.fromhex("00000080 02 00"),
        3: struct.pack("!I", 4096),
        4: struct.pack("!I", 2),
        5: struct.pack("!I", 64),
        6: struct.pack("!H", 1),
    }


def test_attributes_are_padded_and_their_flags_are_no_part_of_their_type() -> None:
    data = attribute(1, b"a") + nested(2, attribute(3, b"bcde")) + attribute(4, b"")
    assert len(data) == 8 + 12 + 4
    assert netlink.attributes(data) == {1: b"a", 2: attribute(3, b"bcde"), 4: b""}


def test_a_datagram_holds_messages_up_to_the_first_that_is_not_whole() -> None:
    one, two = netlink.message(20, b"abc"), netlink.message(21, b"")
    data = one + bytes(-len(one) % 4) + two + one[:-1]
    assert [(message.type, message.body) for message in netlink.messages(data)] == [(20, b"abc"), (21, b"")]


def test_an_error_carries_its_number() -> None:
    refusal = netlink.message(netlink.NLMSG_ERROR, struct.pack("=i", -1))
    agreement = netlink.message(netlink.NLMSG_ERROR, struct.pack("=i", 0))
    assert [message.error for message in netlink.messages(refusal + agreement)] == [1, 0]


def packet(*attributes: bytes) -> bytes:
    return generic(2) + b"".join(attributes)


HARDWARE = struct.pack("!H 2x 8s", 6, MAC + b"\xaa\xbb")


def test_a_logged_packet_comes_with_its_prefix_mark_and_number() -> None:
    body = packet(
        attribute(10, b"lan_wan: \0"),
        attribute(9, b"\x45payload"),
        attribute(2, struct.pack("!I", 0x831234)),
        attribute(12, struct.pack("!I", 41)),
        attribute(8, HARDWARE),
        attribute(15, struct.pack("!H", 1)),
    )
    assert netlink.logged(body) == Logged("lan_wan: ", b"\x45payload", 0x831234, MAC, 41)


def test_what_is_missing_keeps_its_default() -> None:
    assert netlink.logged(packet()) == Logged()
    assert netlink.logged(b"") == Logged()


@pytest.mark.parametrize(
    ("hardware", "kind"),
    [
        (struct.pack("!H 2x 8s", 4, b"\n\0\0\1"), 778),  # GRE reports its tunnel's address
        (HARDWARE, 772),  # the loopback
        (HARDWARE, None),
        (struct.pack("!H 2x 8s", 8, MAC + b"\1\2"), 1),
        (HARDWARE[:8], 1),
    ],
)
def test_a_hardware_address_is_a_mac_only_on_ethernet(hardware: bytes, kind: int | None) -> None:
    types = [] if kind is None else [attribute(15, struct.pack("!H", kind))]
    assert netlink.logged(packet(attribute(8, hardware), *types)).mac is None


def test_a_prefix_of_any_bytes_is_text() -> None:
    assert netlink.logged(packet(attribute(10, b"caf\xc3\xa9: \0"))).prefix == "café: "
    assert netlink.logged(packet(attribute(10, b"\xff: \0"))).prefix == "\ufffd: "


def tuple_of(source: bytes, destination: bytes, protocol: int, *ports: bytes) -> bytes:
    kinds = (1, 2) if len(source) == 4 else (3, 4)
    addresses = nested(1, attribute(kinds[0], source), attribute(kinds[1], destination))
    return addresses + nested(2, attribute(1, bytes([protocol])), *ports)


def port(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack("!H", number))


def test_a_connection_is_read_with_what_names_it() -> None:
    original = nested(1, tuple_of(CLIENT, bytes([10, 0, 0, 254]), 6, port(2, 40000), port(3, 8080)))
    reply = nested(2, tuple_of(SERVER, CLIENT, 6, port(2, 80), port(3, 40000)))
    identity, zone = attribute(12, b"\1\2\3\4"), attribute(18, b"\0\5")
    body = generic(2) + original + reply + attribute(8, struct.pack("!I", 0x00C00001)) + identity + zone
    read = netlink.connection(body)
    assert read == Connection(2, 6, CLIENT, SERVER, 80, None, 0x00C00001, original + identity + zone, 40000, False)
    translated = attribute(3, struct.pack("!I", 0x18E | 1 << 5))
    assert netlink.connection(body + translated) == read._replace(forwarded_port=True)
    assert netlink.conntrack_delete(read)[16:] == generic(2) + original + identity + zone


def test_icmp_connections_have_a_type() -> None:
    original = nested(1, tuple_of(CLIENT6, CLIENT6, 58, attribute(8, b"\x80")))
    reply = nested(2, tuple_of(CLIENT6, CLIENT6, 58, attribute(8, b"\x81")))
    read = netlink.connection(generic(10) + original + reply)
    assert read is not None
    assert (read.icmp_type, read.reply_port, read.source) == (128, 0, CLIENT6)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        generic(2),
        generic(2) + nested(1, tuple_of(CLIENT, SERVER, 6)),
        generic(2) + nested(1, tuple_of(CLIENT[:3], SERVER, 6)) + nested(2, tuple_of(SERVER, CLIENT, 6)),
        generic(2) + nested(1, nested(1, attribute(1, CLIENT))) + nested(2, tuple_of(SERVER, CLIENT, 6)),
    ],
)
def test_half_a_connection_is_none(body: bytes) -> None:
    assert netlink.connection(body) is None


def test_a_neighbour_is_a_mac_and_an_address() -> None:
    header = struct.pack("=B 3x i H B B", 2, 3, 4, 0, 1)
    assert netlink.neighbour(header + attribute(1, CLIENT) + attribute(2, MAC)) == (MAC, CLIENT)
    assert netlink.neighbour(header + attribute(1, CLIENT) + attribute(2, MAC[:4])) is None
    assert netlink.neighbour(header + attribute(1, CLIENT)) is None
    assert netlink.neighbour(b"") is None


def read_all(data: bytes) -> None:
    """Everything that reads bytes of others."""
    list(netlink.messages(data))
    netlink.attributes(data)
    list(netlink.listed(data))
    netlink.logged(data)
    netlink.connection(data)
    netlink.neighbour(data)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    read_all(data)


ATTRIBUTES = st.recursive(
    st.binary(max_size=20),
    lambda inner: st.lists(st.tuples(st.integers(0, 30), inner), max_size=5).map(
        lambda pairs: b"".join(attribute(kind, payload) for kind, payload in pairs)
    ),
    max_leaves=12,
)


@given(ATTRIBUTES, st.integers(0, 200), st.sampled_from([4, 12]))
def test_no_attributes_make_it_raise_however_they_are_cut(data: bytes, cut: int, header: int) -> None:
    read_all((bytes(header) + data)[: cut or None])


@given(st.binary(max_size=60), st.sampled_from([netlink.NLMSG_ERROR, netlink.NLMSG_DONE, 1025]), st.integers(0, 99))
def test_no_message_makes_it_raise(body: bytes, kind: int, length: int) -> None:
    raw = netlink.message(kind, body)
    list(netlink.messages(struct.pack("=I", length) + raw[4:]))


BUILDERS: list[Callable[[], bytes]] = [
    lambda: netlink.nflog_bind(65535),
    lambda: netlink.nfqueue_bind(65535),
    lambda: netlink.nfqueue_shut(1),
    netlink.conntrack_dump,
    lambda: netlink.conntrack_dump(mark=0x00800000),
    lambda: netlink.conntrack_dump_from(CLIENT, 6),
    lambda: netlink.conntrack_dump_from(CLIENT6, 6),
    netlink.neighbour_dump,
]


@pytest.mark.parametrize("build", BUILDERS)
def test_every_request_is_one_whole_message(build: Callable[[], bytes]) -> None:
    (message,) = netlink.messages(build())
    assert message.flags & netlink.NLM_F_REQUEST
