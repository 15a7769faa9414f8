"""Fuzz target: a client of the control socket that sends anything. Server, handlers and audit trail are the service's
own, over a store with a few flows; only the worker is none, and what it is asked is answered with nothing."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

from fuzz.targets import Check
from glacic.ctlplane import limiting, logs, protocol
from glacic.ctlplane import server as module
from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.handlers import Handlers
from glacic.ctlplane.limiting import Limiting
from glacic.ctlplane.server import Server
from glacic.ctlplane.service import Service
from glacic.errors import GlacicError
from glacic.learning.cache import Batch, Written
from glacic.learning.flow import FlowKey, FlowState
from glacic.learning.store import Store
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.choose import NFT_ALONE

# What can be answered without a kernel and a revision.
REQUESTS = (
    *("flows.list", "flows.show", "flows.set", "learn.status", "learn.on", "learn.off", "audit"),
    *("limits.list", "limits.show", "limits.set", "limits.clear", "limits.engines", "limits.watch"),
)
UNPACED = (1e9, 1e9)  # requests per second, and at once: here more of them are wanted
_OTHER = b'{"do":"learn.status"}\n'
ANSWER_S = 20.0


class _Worker:
    learning = True
    trouble = ""

    async def call(self, _do: str, **args: Any) -> dict[str, Any]:
        json.dumps(args)  # it goes on as JSON
        return {}


class _Silent:
    """Takes what would be logged: a line for each change, a thousand times a second."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Service:
    """As much of a service as these requests see."""

    def __init__(self, store: Store, trail: AuditTrail, state_dir: Path) -> None:
        self.store, self.trail, self.worker, self.state_dir = store, trail, _Worker(), state_dir
        self.limits = Limiting({}, NFT_ALONE, lambda: Hierarchy(state_dir))  # a hierarchy without a unit

    async def change(self, do: str, **args: Any) -> dict[str, Any]:
        return await self.worker.call(do, **args)


@contextmanager
def control() -> Iterator[Check]:
    """An input is what a client sends before it stops sending."""
    with tempfile.TemporaryDirectory(prefix="glacic-fuzz-") as folder, Store.open(Path(folder, "flows.db")) as store:
        source = bytes.fromhex("020000000010")
        keys = [FlowKey("lan_wan", source, 6, port) for port in (22, 443)]
        store.write(Batch(added=[Written(key, FlowState.ALLOWED, 1, 1, 0, "tofu") for key in keys]))
        trail, path = AuditTrail(Path(folder, "audit.log")), Path(folder, "socket")
        table = Handlers(cast(Service, service := _Service(store, trail, Path(folder)))).table()
        requests = {name: table[name] for name in REQUESTS}
        unpaced, silent = mock.patch.object(module, "REQUESTS", UNPACED), mock.patch.object(logs, "logger", _Silent)
        as_it_is = mock.patch.object(limiting, "NICE", os.getpriority(os.PRIO_PROCESS, 0))
        with unpaced, silent, as_it_is, asyncio.Runner() as runner:
            server = Server(path, requests, trail)
            runner.run(server.start())
            yield lambda data: _check(runner.run(asyncio.wait_for(_talk(path, data), ANSWER_S)))
            runner.run(_ended(server, service))


async def _ended(server: Server, service: _Service) -> None:
    await server.close()
    service.limits.close()


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


async def _talk(path: Path, data: bytes) -> list[bytes]:
    """The answers to `data`, one for each line; meanwhile another client has to be answered, too."""
    answers, others = await asyncio.gather(_client(path, data), _client(path, _OTHER))
    assert others == [b'{"ok":true,"result":{}}\n'], others
    assert len(answers) == data.count(b"\n"), answers
    return answers


async def _client(path: Path, data: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    writer.write_eof()
    received = await reader.read()
    writer.close()
    return received.splitlines(keepends=True)
