"""One client of the control socket: its lines in, its answers out, each within bounds of size and time.

Bytes are taken with the credentials of who sent them (unix(7), SCM_CREDENTIALS): a connection that was handed on, to a
process of another user, has nobody's rights. Refuses to know what a line says.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from glacic.ctlplane.protocol import MAX_REQUEST
from glacic.ctlplane.rights import Peer, passed_on
from glacic.errors import UsageError

IDLE_S = 300.0  # how long a connected client may say nothing
BEGUN_S = 30.0  # how long a request that has begun may take to come in
SEND_S = 30.0  # how long a client may take to accept an answer

_CHUNK = 64 * 1024
_UCRED = struct.Struct("iII")
_ROOM = socket.CMSG_SPACE(
    _UCRED.size
)  # for one set of credentials; descriptors that come along are closed by the kernel


class Connection:
    """A non-blocking socket with SO_PASSCRED set. `busy`: a request of its is being carried out."""

    def __init__(self, connected: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.busy = False
        self._socket = connected
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()  # when it last sent or took something

    async def line(self) -> bytes | None:
        """The next line, without its end; None where the client has no more to say.

        Raises TimeoutError, OSError, UsageError for a line that is too long, NotAllowed for one that somebody else
        sent.
        """
        ends, begun, searched = self._loop.time() + IDLE_S, False, 0
        while (at := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_REQUEST:
                break
            if searched and not begun:
                ends, begun = self._loop.time() + BEGUN_S, True
            async with asyncio.timeout_at(ends):
                if not await self._receive():
                    return None
        if at < 0 or at > MAX_REQUEST:
            raise UsageError(f"a request is at most {MAX_REQUEST} bytes")
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 1]
        return line

    async def send(self, data: bytes) -> None:
        """Raises TimeoutError where the client does not take it in time."""
        async with asyncio.timeout(SEND_S):
            await self._loop.sock_sendall(self._socket, data)
        self.heard = self._loop.time()

    def close(self) -> None:
        """The client reads what was sent, and then the end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    async def _receive(self) -> bool:
        """Some more bytes; False at the end."""
        while True:
            try:
                data, control, _, _ = self._socket.recvmsg(_CHUNK, _ROOM)
            except BlockingIOError:
                await self._readable()
                continue
            break
        for level, kind, raw in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and data:
                _, uid, _ = _UCRED.unpack(raw[: _UCRED.size])
                if uid != self.peer.uid:
                    raise passed_on(self.peer, uid)
        self._buffer += data
        self.heard = self._loop.time()
        return bool(data)

    async def _readable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(self._socket)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
