"""The netlink socket against the kernel, in a namespace."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from glacic.ctlplane import netlink
from glacic.ctlplane.nlsocket import NETLINK_ROUTE, NetlinkSocket, refused, set_receive_buffer, set_receive_timeout
from glacic.lab.net import Host, Network


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("h")


@pytest.fixture
def netfilter(host: Host) -> Iterator[NetlinkSocket]:
    with host.call(NetlinkSocket) as sock:
        yield sock


def test_a_request_that_the_kernel_grants_returns(netfilter: NetlinkSocket) -> None:
    assert netfilter.request(netlink.nflog_bind(3)) == []


def test_a_request_that_it_refuses_raises_what_it_says(host: Host, netfilter: NetlinkSocket) -> None:
    netfilter.request(netlink.nflog_bind(3))
    with host.call(NetlinkSocket) as other:
        with pytest.raises(PermissionError):
            other.request(netlink.nflog_bind(3))
        other.request(netlink.nflog_bind(4))  # and it goes on


def test_a_socket_that_is_closed_gives_up_what_it_owned(host: Host) -> None:
    for _ in range(3):
        with host.call(NetlinkSocket) as sock:
            sock.request(netlink.nfqueue_bind(5))


def test_a_dump_is_read_to_its_end(host: Host) -> None:
    host.ip("link add d0 type bridge", "link set d0 up", "address add 10.9.0.1/16 dev d0")
    lines = [
        f"neighbour add 10.9.{number >> 8}.{number & 255} lladdr 02:00:00:00:09:09 dev d0" for number in range(2, 902)
    ]
    host.ip(*lines)
    with host.call(NetlinkSocket, NETLINK_ROUTE) as sock:
        for _ in range(2):
            found = [netlink.neighbour(message.body) for message in sock.dump(netlink.neighbour_dump())]
            assert sum(1 for pair in found if pair and pair[0] == bytes.fromhex("020000000909")) == 900
        assert not sock.interrupted


def test_a_dump_of_nothing_is_empty(netfilter: NetlinkSocket) -> None:
    assert list(netfilter.dump(netlink.conntrack_dump())) == []


def test_a_dump_that_the_kernel_refuses_raises(netfilter: NetlinkSocket) -> None:
    no_such = netlink.message(11 << 8 | 77, netlink.generic(2), netlink.NLM_F_DUMP)
    with pytest.raises(OSError, match="Invalid argument"):
        list(netfilter.dump(no_such))


def test_a_kernel_that_does_not_answer_is_not_waited_for_without_end(netfilter: NetlinkSocket) -> None:
    set_receive_timeout(netfilter.socket, 0.05)
    with pytest.raises(BlockingIOError):
        netfilter.socket.recv(10)


def test_room_for_messages_is_not_bounded_by_the_machines_default(netfilter: NetlinkSocket) -> None:
    set_receive_buffer(netfilter.socket, 5_000_000)
    assert netfilter.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 10_000_000


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EPERM, "CAP_NET_ADMIN"), (errno.EBUSY, "Device or resource busy")]
)
def test_a_refusal_is_put_into_words(number: int, words: str) -> None:
    assert words in refused(OSError(number, os.strerror(number)))
