"""One client's lines: each with its end, in any number of pieces, within bounds of size and time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from glacic.ctlplane import connection as module
from glacic.ctlplane.connection import Connection
from glacic.ctlplane.protocol import MAX_REQUEST
from glacic.ctlplane.rights import peer_of
from glacic.errors import UsageError


def converse(scene: Callable[[Connection, socket.socket], Awaitable[Any]]) -> Any:
    async def both() -> Any:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for one in (ours, theirs):
                one.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            return await scene(Connection(ours, peer_of(ours)), theirs)

    return asyncio.run(both())


def test_lines_come_in_any_pieces() -> None:
    async def scene(connection: Connection, client: socket.socket) -> list[bytes | None]:
        loop = asyncio.get_running_loop()
        found = []
        for piece in (b"a", b"b\nc", b"d\n\ne\n"):
            await loop.sock_sendall(client, piece)
        client.shutdown(socket.SHUT_WR)
        while (line := await connection.line()) is not None:
            found.append(line)
        return found

    assert converse(scene) == [b"ab", b"cd", b"", b"e"]


@pytest.mark.parametrize(("idle_s", "begun_s", "sent"), [(0.05, 60, b""), (60, 0.05, b"{")])
def test_silence_ends_before_a_request_and_within_one(
    monkeypatch: pytest.MonkeyPatch, idle_s: float, begun_s: float, sent: bytes
) -> None:
    monkeypatch.setattr(module, "IDLE_S", idle_s)
    monkeypatch.setattr(module, "BEGUN_S", begun_s)

    async def scene(connection: Connection, client: socket.socket) -> None:
        client.send(sent)
        await connection.line()

    with pytest.raises(TimeoutError):
        converse(scene)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_is_so_long_and_no_longer(end: bytes) -> None:
    async def scene(connection: Connection, client: socket.socket) -> None:
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, b"x" * (2 * MAX_REQUEST) + end))
        try:
            await connection.line()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    with pytest.raises(UsageError, match=str(MAX_REQUEST)):
        converse(scene)


def test_an_answer_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_S", 0.05)

    async def scene(connection: Connection, _client: socket.socket) -> None:
        await connection.send(b"x" * (16 << 20))

    with pytest.raises(TimeoutError):
        converse(scene)
