"""Where the roads meet, live: the table's sets by name and size, their elements, and what these have counted; and
elements in and out, in transactions.

Netlink of our own (setcodec.py): libnftables would need 1.5 KB for each element of a listing and, with a million of
them, ten seconds, and goes by way of text. Implements `glacic.firewall.learned.Kernel`. Refuses to make sets, and to
explain what the kernel refuses: libnftables, asked for the same, says it with line and column.
"""

from __future__ import annotations

import errno
import os
import socket
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from glacic.ctlplane import netlink, setcodec
from glacic.ctlplane.nlsocket import NETLINK_NETFILTER, SOL_NETLINK, NetlinkSocket, refused, set_receive_buffer
from glacic.errors import KernelRefused
from glacic.firewall.claims import TABLE

_SO_SNDBUFFORCE = 32  # asm-generic/socket.h: beyond net.core.wmem_max, with CAP_NET_ADMIN
_NETLINK_CAP_ACK = 10  # linux/netlink.h: an error comes without the message that it is about
PORT = (
    0x676C_6163  # "glac": the netlink port that changes elements; the kernel itself gives out none but process numbers
)
#                    and what is above 0x8000_0000 (net/netlink/af_netlink.c, netlink_autobind)
_MESSAGE_MAX = 65_536  # bytes; larger than any answer
_SENT_AT_ONCE = 65_536  # bytes that fit the send buffer of any socket


class KernelSets:
    """The sets of one table of family inet. One thread may change them, and any read, each call with its own socket."""

    def __init__(self, table: str = TABLE) -> None:
        self._table = table
        self._changes: socket.socket | None = None  # of the one thread that may change sets; stays open

    def names(self) -> list[str]:
        """The names of all sets; none where there is no such table. Raises KernelRefused."""
        return list(self.sizes())

    def sizes(self) -> dict[str, int | None]:
        """Set name -> how many elements it has, None where the kernel does not say (before 6.16). Raises
        KernelRefused."""
        try:
            with NetlinkSocket() as sock:
                answers = sock.dump(setcodec.sets_dump(self._table))
                found = dict(setcodec.set_in(message.body, self._table) for message in answers)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise KernelRefused(f"cannot read the sets of table inet {self._table}: {refused(error)}") from None
        found.pop("", None)
        return found

    def hooked(self) -> bool:
        """Whether the table is there and packets meet it: whether it has a base chain. Raises KernelRefused."""
        try:
            with NetlinkSocket() as sock:
                chains = [setcodec.has_hook(message.body, self._table) for message in sock.dump(setcodec.chains_dump())]
        except OSError as error:
            raise KernelRefused(f"cannot read the chains of table inet {self._table}: {refused(error)}") from None
        return any(chains)

    def counter(self, name: str) -> int:
        """The packets that a named counter of the table has counted; 0 where there is none. Raises KernelRefused."""
        try:
            with NetlinkSocket() as sock:
                answers = sock.dump(setcodec.counters_dump(self._table))
                found = dict(setcodec.named_counter(message.body) for message in answers)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise KernelRefused(f"cannot read the counters of table inet {self._table}: {refused(error)}") from None
        return found.get(name, 0)

    def elements(self, name: str) -> Iterator[tuple[bytes, int]]:
        """(key as the kernel stores it, packets counted) of every element; none where there is no such set.

        What is added or removed while it is read may be left out or come twice; so may anything, while the kernel moves
        a set that has just grown into a larger table. The kernel begins anew for each piece
        of its answer and steps over what it has told before, so a large set takes the square of its size: 0.5 s for
        100,000 elements, 45 s for 1,000,000 (measured). Raises KernelRefused.
        """
        try:
            with NetlinkSocket() as sock:
                for message in sock.dump(setcodec.elements_dump(self._table, name)):
                    yield from setcodec.elements_in(message.body)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise self._cannot("read", name, error) from None

    def change(self, leaving: Mapping[str, Sequence[bytes]], coming: Mapping[str, Sequence[bytes]]) -> None:
        """One transaction: by set name, keys whose elements go, where they are there, and keys whose elements come, and
        keep their counters where they are there. Raises KernelRefused, and then nothing has changed."""
        batch = setcodec.change(self._table, leaving, coming)
        if batch:
            self._commit(batch, f"change sets of table inet {self._table}")

    def refill(self, name: str, keys: Iterable[bytes]) -> None:
        """One transaction: a set holds exactly these keys, with their counters where they were there before.

        Its message has 28 to 76 bytes for each. What is counted while this reads the counters is lost. Raises
        KernelRefused, and then nothing has changed.
        """
        try:
            with NetlinkSocket() as sock:
                set_receive_buffer(sock.socket, setcodec.ANSWERS)
                batch = setcodec.refill(self._table, name, self._copies(sock, name, keys))
        except OSError as error:
            raise self._cannot("read", name, error) from None
        self._commit(batch, f"change set {name} of table inet {self._table}")

    def _copies(self, sock: NetlinkSocket, name: str, keys: Iterable[bytes]) -> Iterator[bytes]:
        """An element for each key, with what it has counted so far."""
        for key, answer in self._asked(sock, name, keys):
            yield setcodec.plain(key) if answer is None else setcodec.copy_in(answer, key)

    def _asked(self, sock: NetlinkSocket, name: str, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
        """For each key the message that holds its element, None where there is none. Raises OSError."""
        rest, receive = iter(keys), sock.socket.recv
        asked = list(islice(rest, setcodec.GET_MAX))
        while asked:
            sock.socket.send(netlink.numbered(setcodec.elements_get(self._table, name, asked), 0, netlink.NLM_F_ACK))
            at, error = 0, None
            for key in asked:
                answer = receive(_MESSAGE_MAX)
                error = setcodec.error_in(answer)
                if error is not None:
                    break
                yield key, answer
                at += 1
            else:
                error = setcodec.error_in(receive(_MESSAGE_MAX))
            if error and (error != errno.ENOENT or at == len(asked)):
                raise OSError(error, os.strerror(error))
            missing = asked[at : at + 1] if error else asked[at:]  # the first that is not there ends the answers
            yield from ((key, None) for key in missing)
            at += len(missing)
            asked = [*asked[at:], *islice(rest, at)]

    def _commit(self, batch: bytearray, what: str) -> None:
        """Send a transaction. The kernel has done it when send() returns, and its answer is there."""
        try:
            sock = self._changes or self._open()
            if len(batch) > _SENT_AT_ONCE:
                sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(batch) + _SENT_AT_ONCE)
            sock.send(batch)
            _acknowledged(sock)
        except OSError as error:
            if self._changes is not None:
                self._changes.close()  # there may be more answers than the one that was read
                self._changes = None
            raise KernelRefused(f"cannot {what}: {refused(error)}") from None

    def _open(self) -> socket.socket:
        """The socket for changes. The mapper comes here hundreds of times a second, and with each system call it gives
        the interpreter to the packet threads and has to get it back: so this one stays. By its port tablewatch.py knows
        its transactions; where somebody has that port, it is told what to think of each by the thread that did it."""
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        weakref.finalize(self, self._changes.close)
        with suppress(OSError):
            self._changes.bind((PORT, 0))
        self._changes.setsockopt(SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        return self._changes

    def _cannot(self, what: str, name: str, error: OSError) -> KernelRefused:
        return KernelRefused(f"cannot {what} set {name} of table inet {self._table}: {refused(error)}")


def _acknowledged(sock: socket.socket) -> None:
    """Read the answer to a transaction. Raises OSError with the first thing that was refused."""
    while True:
        for message in netlink.messages(sock.recv(_MESSAGE_MAX, socket.MSG_DONTWAIT)):
            if message.error:
                raise OSError(message.error, os.strerror(message.error))
            if message.type == netlink.NLMSG_ERROR:
                return
