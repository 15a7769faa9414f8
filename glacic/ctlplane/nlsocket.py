"""Road 2, the socket under netlink.py: send a request and wait for its answer, or read a dump message by message.

Belongs to the network namespace of the thread that opens it, for good. Raises OSError with the kernel's errno, for the
caller to say what was refused. Refuses to understand what it carries.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from glacic.ctlplane import netlink
from glacic.ctlplane.netlink import Message

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12  # linux/netlink.h
SOL_NETLINK, NETLINK_NO_ENOBUFS = 270, 5  # linux/socket.h, linux/netlink.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h: beyond net.core.rmem_max, with CAP_NET_ADMIN

ANSWER_S = 5.0  # a kernel answers at once, or never
_BUFFER = 1 << 16  # bytes; a dump comes in pieces of at most 32 KiB (net/netlink/af_netlink.c)
_TIMEVAL = struct.Struct("@l l")


def set_receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Let a blocking recv() end with EAGAIN after a while, also in C code that reads this descriptor."""
    whole = int(seconds)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000)))


def set_receive_buffer(sock: socket.socket, size: int) -> None:
    """Make room for `size` bytes of messages; as much of it as the rights of this process allow."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


class NetlinkSocket:
    """One netlink socket of this protocol. One thread at a time; a dump is read to its end before the next request."""

    def __init__(self, protocol: int = NETLINK_NETFILTER) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self.socket.bind((0, 0))
            set_receive_timeout(self.socket, ANSWER_S)
        except OSError:
            self.socket.close()
            raise
        self._sequences = itertools.count(1)
        self.interrupted = False  # whether what was dumped last changed meanwhile

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Also gives up what the socket owns: log groups, queues."""
        self.socket.close()

    def request(self, request: bytes) -> list[bytes]:
        """Send a request and wait until the kernel has done it.

        Returns the datagrams that came in before the answer, for a socket that packets are sent to. Raises OSError.
        """
        return acknowledge(self.socket, request, next(self._sequences))

    def ask(self, request: bytes) -> Message:
        """Send a request that one message answers, without an acknowledgement behind it. Raises OSError."""
        sequence = next(self._sequences)
        self.socket.send(netlink.numbered(request, sequence))
        while True:
            for message in netlink.messages(self.socket.recv(_BUFFER)):
                if message.sequence == sequence:
                    if message.error:
                        raise OSError(message.error, os.strerror(message.error))
                    return message

    def dump(self, request: bytes) -> Iterator[Message]:
        """Everything that a dump request names. Raises OSError."""
        sequence = next(self._sequences)
        self.interrupted = False
        self.socket.send(netlink.numbered(request, sequence, netlink.NLM_F_DUMP))
        while True:
            for message in netlink.messages(self.socket.recv(_BUFFER)):
                if message.sequence != sequence:
                    continue  # the rest of a dump that nobody read to its end
                self.interrupted |= bool(message.flags & netlink.NLM_F_DUMP_INTR)
                if message.error:
                    raise OSError(message.error, os.strerror(message.error))
                if message.type in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                    return
                yield message


def acknowledge(sock: socket.socket, request: bytes, sequence: int) -> list[bytes]:
    """Send a request on any netlink socket and wait for its acknowledgement. Raises OSError.

    Returns the datagrams that came in meanwhile: a queue that is bound sends packets at any time, and one that nobody
    answers would hold its place in the queue for ever.
    """
    sock.send(netlink.numbered(request, sequence, netlink.NLM_F_ACK))
    others: list[bytes] = []
    while True:
        datagram = sock.recv(_BUFFER)
        for message in netlink.messages(datagram):
            if message.type == netlink.NLMSG_ERROR and message.sequence == sequence:
                if message.error:
                    raise OSError(message.error, os.strerror(message.error))
                return others
        others.append(datagram)


def refused(error: OSError) -> str:
    """What the kernel meant, in words for a person."""
    if error.errno == errno.EPERM:
        return "not permitted: CAP_NET_ADMIN is missing, or somebody else owns it"
    return error.strerror or str(error)
