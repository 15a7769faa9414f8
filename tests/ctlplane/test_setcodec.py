"""nf_tables' messages: hostile bytes, and the fast way beside the slow one. With the kernel: test_elements.py."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane import netlink, setcodec
from glacic.ctlplane.netlink import attribute, generic, nested


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
    assert list(setcodec.elements_in(body(listed))) == found


@given(st.binary(max_size=200), st.integers(0, 120))
def test_no_bytes_make_it_raise(data: bytes, cut: int) -> None:
    list(setcodec.elements_in(data))
    list(setcodec.elements_in(generic(1) + nested(3, data)))
    list(setcodec.elements_in(body(element(KEY, nested(7, COUNTER)))[:cut]))
    setcodec.set_in(data, "glacic")
    setcodec.named_counter(data)
    setcodec.has_hook(data, "glacic")
    setcodec.error_in(data)
    setcodec.copy_in(data, data[:cut])


PACKETS = st.integers(0, (1 << 64) - 1)
LENGTHS = st.sampled_from([4, 8, 12, 16, 40])


def counted(key: bytes, packets: int, size: int, nest: int = 0) -> bytes:
    """An element of a learned set; nest: the flag that a kernel may set or not."""
    numbers = attribute(1, size.to_bytes(8, "big")) + attribute(2, packets.to_bytes(8, "big"))
    counter = attribute(1, b"counter\0") + attribute(2 | nest, numbers)
    return attribute(1 | nest, attribute(1 | nest, attribute(1, key)) + attribute(7 | nest, counter))


def slowly(body: bytes) -> list[tuple[bytes, int]]:
    """What elements_in does, element by element."""
    listed = netlink.attributes(body, 4).get(3, b"")
    return list(setcodec._elements_in(listed))


@given(st.data(), LENGTHS, st.booleans())
def test_many_counted_elements_are_read_as_each_alone_would_be(data: st.DataObject, length: int, flags: bool) -> None:
    rows = st.tuples(st.binary(min_size=length, max_size=length), PACKETS, PACKETS)
    drawn = data.draw(st.lists(rows, min_size=1, max_size=20))
    listed = [counted(*row, nest=netlink.NLA_F_NESTED * flags) for row in drawn]
    if data.draw(st.booleans()):  # another kind of element of the same length, or of another
        other = data.draw(st.sampled_from([element(KEY), attribute(1, bytes(len(listed[0]) - 4)), element()]))
        listed.insert(data.draw(st.integers(0, len(listed))), other)
    whole = body(*listed)
    assert setcodec.elements_in(whole) == slowly(whole)
    if len(listed) == len(drawn):
        assert setcodec.elements_in(whole) == [(key, packets) for key, packets, _ in drawn]


@given(st.data(), LENGTHS, st.binary(max_size=8))
def test_bytes_that_are_nearly_counted_elements_are_read_as_each_alone_would_be(
    data: st.DataObject, length: int, noise: bytes
) -> None:
    rows = [counted(bytes([number]) * length, number, number) for number in range(4)]
    whole = bytearray(body(*rows))
    at = data.draw(st.integers(8, len(whole)))
    whole[at : at + len(noise)] = noise
    assert setcodec.elements_in(bytes(whole)) == slowly(bytes(whole))


def answer(*listed: bytes) -> bytes:
    """A whole message, as it comes for elements_get."""
    return netlink.message(10 << 8 | 12, body(*listed))


@given(LENGTHS, PACKETS, PACKETS, st.booleans())
def test_an_element_is_copied_with_its_counter(length: int, packets: int, size: int, flags: bool) -> None:
    key = bytes(range(length))
    whole = counted(key, packets, size, netlink.NLA_F_NESTED * flags)
    assert setcodec.copy_in(answer(whole), key) == (whole if packets else setcodec.plain(key))
    assert setcodec.copy_in(answer(element(KEY)), key) == setcodec.plain(key)
    assert setcodec.copy_in(b"", key) == setcodec.plain(key)


def test_a_plain_element_is_a_key_without_a_counter() -> None:
    assert setcodec.elements_in(body(setcodec.plain(b"12345678"))) == [(b"12345678", 0)]


def test_a_set_has_a_name_and_a_size_if_the_kernel_says_so() -> None:
    table, name, count = attribute(1, b"glacic\0"), attribute(2, b"s\0"), attribute(20, struct.pack("!I", 7))
    assert setcodec.set_in(generic(1) + table + name + count, "glacic") == ("s", 7)
    assert setcodec.set_in(generic(1) + table + name, "glacic") == ("s", None)
    assert setcodec.set_in(generic(1) + table + name + count, "other") == ("", None)


@given(st.lists(st.integers(0, 70_000), max_size=4), LENGTHS)
def test_no_list_is_longer_than_its_length_can_say(counts: list[int], length: int) -> None:
    sets = {f"set{number}": [bytes(length)] * count for number, count in enumerate(counts)}
    batch = bytes(setcodec.change("glacic", {}, sets))
    found: dict[str, int] = {}
    for message in netlink.messages(batch):
        attributes = netlink.attributes(message.body, 4)
        if 2 in attributes:
            name = attributes[2].rstrip(b"\0").decode()
            found[name] = found.get(name, 0) + len(list(netlink.listed(attributes[3])))
    assert found == {name: len(keys) for name, keys in sets.items() if keys}


def test_an_answer_is_an_error_an_acknowledgement_or_neither() -> None:
    def error(number: int) -> bytes:
        return netlink.message(netlink.NLMSG_ERROR, struct.pack("=i", -number) + bytes(16))

    assert [setcodec.error_in(error(2)), setcodec.error_in(error(0))] == [2, 0]
    assert setcodec.error_in(answer()) is None
    assert setcodec.error_in(error(2)[:17]) is not None  # cut off
