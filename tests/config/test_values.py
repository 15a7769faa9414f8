"""The grammars of single values: what is read, and what is refused with which advice."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config import values
from glacic.config.model import AddressRange, PortRange, Rate, SetRef
from glacic.config.values import Invalid


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [(80, 80, 80), (0, 0, 0), (65535, 65535, 65535), ("80", 80, 80), ("6000-6010", 6000, 6010), ("1 - 2", 1, 2)],
)
def test_a_port_is_a_number_or_a_range(text: int | str, first: int, last: int) -> None:
    assert values.port(text) == PortRange(first, last)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (70000, "0 to 65535"),
        (-1, "0 to 65535"),
        ("70000", "0 to 65535"),
        ("1-70000", "0 to 65535"),
        ("20-10", 'write "10-20"'),
        ("https", "443"),
        ("x", "a range"),
        ("", "a range"),
        ("1-2-3", "a range"),
        ("٣", "a range"),
    ],
)
def test_what_is_no_port_says_what_to_write(text: int | str, advice: str) -> None:
    with pytest.raises(Invalid) as caught:
        values.port(text)
    assert advice in caught.value.advice


@pytest.mark.parametrize(
    "text", ["10.1.0.0/24", "0.0.0.0/0", "10.1.0.5/32", "fd01::/64", "::/0", "2001:db8::1/128", "10.1.0.5", "fe80::1"]
)
def test_a_network_is_cidr_or_an_address(text: str) -> None:
    assert values.network(text) == ip_network(text)
    assert values.network(f" {text} ") == ip_network(text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("10.1.0.1/24", 'write "10.1.0.0/24" for the network, or "10.1.0.1" for one host'),
        ("fd01::1/64", 'write "fd01::/64" for the network'),
        ("10.1.0.0/33", "0 to 32"),
        ("fd01::/129", "0 to 128"),
        ("10.1.0.0/255.255.255.0", 'write "10.1.0.0/24"'),
        ("10.1.0.0/", "prefix"),
        ("10.1.0.0/x", "prefix"),
        ("10.1.0/24", "four numbers"),
        ("10.1.0.256/32", "0 to 255"),
        ("10.01.0.0/24", "leading zeros"),
        ("fe80::1%eth0", "without it"),
        ("fe80::1%eth0/64", "without it"),
        ("::ffff:10.1.0.5", '"10.1.0.5"'),
        ("example.org", "names are not resolved"),
        ("!10.0.0.0/8", "no negation"),
        ("fd01:::/64", "2001:db8::/64"),
        ("", "192.0.2.0/24"),
    ],
)
def test_what_is_no_network_says_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(Invalid) as caught:
        values.network(text)
    assert advice in caught.value.advice


def test_addresses_may_be_a_range_of_one_family() -> None:
    assert values.addresses("10.0.0.1-10.0.0.9") == AddressRange(ip_address("10.0.0.1"), ip_address("10.0.0.9"))
    assert values.addresses("fd00::1 - fd00::9") == AddressRange(ip_address("fd00::1"), ip_address("fd00::9"))
    for text in ("10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1-", "-", "10.0.0.0/8-10.0.0.9"):
        with pytest.raises(Invalid):
            values.addresses(text)


def test_families_are_read_from_networks_and_ranges() -> None:
    both = (values.addresses("10.0.0.1-10.0.0.2"), values.addresses("fd00::/8"))
    assert values.versions(both) == {4, 6}
    assert values.versions(()) == frozenset()


def test_a_reference_is_an_at_sign_and_a_name() -> None:
    assert values.reference("@bad_hosts") == SetRef("bad_hosts")
    assert values.reference("10.0.0.1") is None
    for text in ("@", "@9x", "@a b", "@é"):
        with pytest.raises(Invalid):
            values.reference(text)


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        ("10/minute", 10, "minute"),
        ("1/second", 1, "second"),
        ("5 / hour", 5, "hour"),
        ("3/DAY", 3, "day"),
        ("7/s", 7, "second"),
    ],
)
def test_a_rate_is_a_count_and_a_unit(text: str, count: int, unit: str) -> None:
    assert values.rate(text) == Rate(count, unit)


@pytest.mark.parametrize(
    "text", ["10", "10/", "/minute", "10/fortnight", "0/minute", "-1/minute", "1.5/second", "9999999/day", ""]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        values.rate(text)
    assert caught.value.advice


def test_a_duration_is_told_in_seconds() -> None:
    assert values.duration("1h30m") == 5400
    with pytest.raises(Invalid) as caught:
        values.duration("soon")
    assert "24h" in caught.value.advice


@pytest.mark.parametrize("name", ["lan0", "wl*", "eth0.5", "br-lan", "enp0s31f6", "a" * 15])
def test_an_interface_is_what_the_kernel_allows(name: str) -> None:
    assert values.interface(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "*", "lo", ".", "..", "a b", "a/b", "eth0:1", "w*n", "**", "a" * 16, "é" * 8, 'a"b', "a\\b", "a\tb", "a\x07"],
)
def test_what_is_no_interface_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        values.interface(name)
    assert caught.value.advice


def test_names_are_printable_and_fit() -> None:
    assert values.name("Küche 2", 120) == "Küche 2"
    for text in ("", " ", " x", "x ", "a\nb", 'a"b', "a\\b", "\u202ex", "é" * 61):
        with pytest.raises(Invalid):
            values.name(text, 120)


@given(st.text(max_size=30))
def test_whatever_the_text_it_is_a_value_or_invalid(text: str) -> None:
    for parse in (
        values.port,
        values.network,
        values.addresses,
        values.rate,
        values.duration,
        values.interface,
        values.reference,
    ):
        try:
            parse(text)
        except Invalid as invalid:
            assert invalid.summary  # noqa: PT017 - either way is fine, anything else is not


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_network_survives_being_written(address: object, prefix: int) -> None:
    network = ip_network(f"{address}/{min(prefix, 32) if '.' in str(address) else prefix}", strict=False)
    if "ffff:" not in str(address):
        assert values.network(str(network)) == network
