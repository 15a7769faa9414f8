"""Fuzz target: what the kernel's netlink sockets may bring, through every reader of such messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.targets import Check
from glacic.ctlplane import netlink, setcodec
from glacic.firewall.claims import TABLE

_KEYS = 8  # keys of a made-up change, at most


@contextmanager
def messages() -> Iterator[Check]:
    """An input is a datagram."""

    def check(data: bytes) -> None:
        for message in netlink.messages(data):
            body = message.body
            logged = netlink.logged(body)
            assert logged.mac is None or len(logged.mac) == netlink.MAC_LENGTH
            connection = netlink.connection(body)
            if connection is not None:
                assert len(connection.source) in (4, 16)
                assert 0 <= connection.reply_port <= 65535
                netlink.conntrack_delete(connection)
            neighbour = netlink.neighbour(body)
            assert neighbour is None or (len(neighbour[0]), len(neighbour[1])) in ((6, 4), (6, 16))
            setcodec.has_hook(body, TABLE)
            setcodec.named_counter(body)
            setcodec.set_in(body, TABLE)
            elements = netlink.attributes(body, 4).get(3, b"")
            short, long = setcodec._counted_in(elements), list(setcodec._elements_in(elements))
            assert not short or short == long
            assert setcodec.elements_in(body) == (short or long)
            for key, _ in long[:_KEYS]:
                setcodec.copy_in(data, key)
        setcodec.error_in(data)
        _there_and_back(data)

    yield check


def _there_and_back(data: bytes) -> None:
    """A change of sets that is made of the input says what it was made of."""
    size = 4 * (1 + data[0] % 16) if data else 4
    keys = [data[at : at + size] for at in range(1, 1 + _KEYS * size, size) if at + size <= len(data)]
    if not keys:
        return
    batch = bytes(setcodec.change(TABLE, {"a": keys}, {"b": keys}))
    found = [setcodec.elements_in(message.body) for message in netlink.messages(batch)]
    assert [key for elements in found for key, _ in elements] == keys * 3  # added to be deleted, deleted, added
    nested = netlink.nested(7, *(netlink.attribute(at, key) for at, key in enumerate(keys)))
    inner = netlink.attributes(netlink.attributes(nested)[7])
    assert inner == dict(enumerate(keys))
