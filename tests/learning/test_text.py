from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.errors import UsageError
from glacic.learning.flow import Flow, FlowKey, FlowState
from glacic.learning.text import (
    address_bytes,
    flow_dict,
    key_text,
    parse_key,
    protocol_name,
    protocol_number,
    source_bytes,
    source_text,
    time_text,
)

MAC = bytes.fromhex("02000000000a")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (MAC, "02:00:00:00:00:0a"),
        (bytes([10, 1, 0, 2]), "10.1.0.2"),
        (bytes.fromhex("fd01") + bytes(13) + b"\x02", "fd01::2"),
        (bytes(16), "::"),
    ],
)
def test_a_source_is_written_as_people_write_it_and_read_back(source, text):
    assert source_text(source) == text
    assert source_bytes(text) == source


def test_a_mac_may_be_typed_in_other_ways():
    assert source_bytes("02:00:00:00:00:0A") == source_bytes("02-00-00-00-00-0a") == MAC


def test_only_a_mac_or_an_address_is_a_source():
    with pytest.raises(ValueError, match="5 bytes"):
        source_text(b"12345")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "02:00:00:00:00",
        "02:00:00:00:00:0g",
        "2:0:0:0:0:a",
        "10.1.0",
        "10.1.0.256",
        "fe80::1%eth0",
        "10.1.0.0/24",
        "02: 0: 0: 0: 0: a",
    ],
)
def test_what_is_no_source_is_refused_in_words(text):
    with pytest.raises(UsageError, match="is no MAC"):
        source_bytes(text)


def test_a_mac_is_no_destination():
    with pytest.raises(UsageError, match="is no IP address"):
        address_bytes("02:00:00:00:00:0a")


def test_protocols_have_names_and_numbers():
    assert [protocol_name(number) for number in (6, 17, 1, 58, 132, 136, 200)] == [
        "tcp",
        "udp",
        "icmp",
        "icmpv6",
        "sctp",
        "udplite",
        "200",
    ]
    assert protocol_number("tcp") == protocol_number("TCP") == protocol_number("6") == 6
    assert all(protocol_number(protocol_name(number)) == number for number in range(256))


@pytest.mark.parametrize("name", ["", "tpc", "256", "-1", "6.0", "٦", "9" * 5000])
def test_what_is_no_protocol_is_refused_in_words(name):
    with pytest.raises(UsageError, match="is no protocol"):
        protocol_number(name)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1767323045123456789, "2026-01-02T03:04:05.123456Z"),
        (-5, "1970-01-01T00:00:00.000000Z"),
        (1 << 62, "2116-02-20T23:53:38.427387Z"),
        (1 << 80, "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(time_ns, text):
    assert time_text(time_ns) == text


KEYS = [
    ("lan_wan/02:00:00:00:00:0a/tcp/443", FlowKey("lan_wan", MAC, 6, 443)),
    ("lan_wan/fd01::2/udp/53", FlowKey("lan_wan", bytes.fromhex("fd01") + bytes(13) + b"\x02", 17, 53)),
    ("a/b c/10.1.0.2/icmp/8/192.0.2.1", FlowKey("a/b c", bytes([10, 1, 0, 2]), 1, 8, bytes([192, 0, 2, 1]))),
    ("p/02:00:00:00:00:0a/200/0/::1", FlowKey("p", MAC, 200, 0, bytes(15) + b"\x01")),
]


@pytest.mark.parametrize(("text", "key"), KEYS)
def test_a_key_is_written_and_read_back(text, key):
    assert key_text(key) == text
    assert parse_key(text) == key


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is no flow"),
        ("7/8", "is no flow"),
        ("lan_wan", "is no flow"),
        ("02:00:00:00:00:0a/tcp/443", "is no flow"),
        ("/02:00:00:00:00:0a/tcp/443", "is no flow"),
        ("p/tcp/443", "is no flow"),
        ("p/02:00:00:00:00:0a/tcp/65536", "is no port"),
        ("p/02:00:00:00:00:0a/tcp/x/192.0.2.1", "is no port"),
        ("p/02:00:00:00:00:0a/tpc/443", "is no protocol"),
        ("p/nobody/tcp/443", "is no MAC"),
        ("p/02:00:00:00:00:0a/tcp/443/nowhere", "is no IP address"),
        ("lan_wan/02:00:00:00:00:0a/tcp/443/tcp/443", "is no MAC"),
    ],
)
def test_a_wrong_key_is_refused_in_words(text, what):
    with pytest.raises(UsageError, match=what):
        parse_key(text)


ADDRESSES = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@given(
    st.text(min_size=1, max_size=20),
    st.one_of(ADDRESSES, st.binary(min_size=6, max_size=6)),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.one_of(st.just(b""), ADDRESSES),
)
def test_every_key_survives_being_written(policy, source, protocol, port, destination):
    key = FlowKey(policy, source, protocol, port, destination)
    assert parse_key(key_text(key)) == key


@given(st.text(max_size=60))
def test_no_text_makes_it_raise_anything_but_a_usage_error(text):
    for parse in (parse_key, source_bytes, protocol_number, address_bytes):
        try:
            parse(text)
        except UsageError as error:
            assert str(error)  # noqa: PT017 - both outcomes are fine


def test_a_flow_as_json_has_everything_that_the_list_shows():
    flow = Flow(
        key=FlowKey("lan_wan", MAC, 6, 443),
        state=FlowState.ALLOWED,
        first_seen_ns=0,
        last_seen_ns=1_500_000_000,
        packets=3,
        origin="tofu",
        id=7,
    )
    assert flow_dict(flow) == {
        "id": 7,
        "policy": "lan_wan",
        "source": "02:00:00:00:00:0a",
        "protocol": "tcp",
        "port": 443,
        "destination": None,
        "state": "allowed",
        "first_seen": "1970-01-01T00:00:00.000000Z",
        "last_seen": "1970-01-01T00:00:01.500000Z",
        "packets": 3,
        "origin": "tofu",
        "key": "lan_wan/02:00:00:00:00:0a/tcp/443",
    }
