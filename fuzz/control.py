"""Fuzz target: a client of the control socket that sends anything. Server and handlers are the service's own, over a
store with a few flows; only the worker is none, and what it is asked is answered with nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from fuzz.targets import Check
from glacic.ctlplane import protocol
from glacic.ctlplane.handlers import Handlers
from glacic.ctlplane.server import Server
from glacic.ctlplane.service import Service
from glacic.errors import GlacicError
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.store import Store

# What can be answered without a kernel. `reload` and `stats` pass nothing on that a client says.
REQUESTS = ("flows.list", "flows.show", "flows.set", "learn.status", "learn.on", "learn.off")
_OTHER = b'{"do":"learn.status"}\n'
ANSWER_S = 20.0


class _Worker:
    learning = True
    trouble = ""

    async def call(self, _do: str, **args: Any) -> dict[str, Any]:
        json.dumps(args)  # it goes on as JSON
        return {}


class _Service:
    """As much of a service as these requests see."""

    def __init__(self, store: Store) -> None:
        self.store, self.worker = store, _Worker()

    async def change(self, do: str, **args: Any) -> dict[str, Any]:
        return await self.worker.call(do, **args)


@contextmanager
def control() -> Iterator[Check]:
    """An input is what a client sends before it stops sending."""
    with tempfile.TemporaryDirectory(prefix="glacic-fuzz-") as folder, Store.open(Path(folder, "flows.db")) as store:
        source = bytes.fromhex("020000000010")
        keys = [FlowKey("lan_wan", source, 6, port) for port in (22, 443)]
        store.write(Batch(added=[Written(key, FlowState.ALLOWED, 1, 1, 0, "tofu") for key in keys]))
        table = Handlers(cast(Service, _Service(store))).table()
        server = Server(Path(folder, "unused.sock"), {name: table[name] for name in REQUESTS})
        with asyncio.Runner() as runner:
            yield lambda data: _check(runner.run(asyncio.wait_for(_talk(server, data), ANSWER_S)))


def _check(answers: list[bytes]) -> None:
    """Each is a result or an error in words, and no fault of a handler."""
    for answer in answers:
        message = protocol.unpack(answer)
        assert answer.isascii()
        assert "internal error" not in str(message.get("error", "")), message
        try:
            protocol.result_of(message)
        except GlacicError as error:
            assert str(error)


async def _talk(server: Server, data: bytes) -> list[bytes]:
    """The answers to `data`; meanwhile another client has to be answered, too."""
    answers, others = await asyncio.gather(_client(server, data), _client(server, _OTHER))
    assert others == [b'{"ok":true,"result":{}}\n'], others
    lines = data.split(b"\n")
    asked = len(lines) - (lines[-1] == b"")
    assert len(answers) == asked or any(len(line) >= protocol.MAX_REQUEST for line in lines), (asked, answers)
    return answers


async def _client(server: Server, data: bytes) -> list[bytes]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    served = asyncio.ensure_future(server._serve(*await _streams(theirs)))
    writer.write(data)
    writer.write_eof()
    received = await reader.read()
    await served
    writer.close()
    return received.splitlines(keepends=True)


async def _streams(sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(sock=sock, limit=protocol.MAX_REQUEST)
