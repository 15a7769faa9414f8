"""The service's end of the control socket: takes lines, calls handlers, answers. Knows no handler's meaning.

Every client is bounded: the length of a line, the number of clients, the time it may take to send a request it has
begun or to take its answer. A client that breaks a bound loses its connection and nobody else's."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from glacic.ctlplane import logs, protocol
from glacic.errors import GlacicError, UsageError

_log = logs.logger("server")

MAX_CLIENTS = 64
IDLE_S = 300.0  # how long a connected client may say nothing
SEND_S = 30.0  # how long a client may take to accept an answer

Handler = Callable[[dict[str, Any], str], Awaitable[Any]]


class Server:
    """Listens on a Unix socket and answers with `handlers`: request name -> handler(args, who)."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind and listen. A socket that nobody listens on is replaced; one that answers raises GlacicError."""
        make_way(self._path)
        mask = os.umask(0o117)  # the socket is born 0660: never open to others, not even for a moment
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, str(self._path), limit=protocol.MAX_REQUEST, backlog=MAX_CLIENTS
            )
        except OSError as error:
            raise _no_socket(self._path, error) from None
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop listening, drop the clients, remove the socket."""
        if self._server is not None:
            self._server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in one
        self._clients.add(task)
        try:
            if len(self._clients) > MAX_CLIENTS:
                await _send(writer, protocol.refusal(GlacicError("too many clients; try again")))
                return
            who = _peer(writer)
            while line := await asyncio.wait_for(reader.readline(), IDLE_S):
                await _send(writer, await self._answer(line, who))
        except ValueError:  # what StreamReader raises for a line over its limit
            await _send(writer, protocol.refusal(UsageError(f"a request is at most {protocol.MAX_REQUEST} bytes")))
        except (TimeoutError, ConnectionError, asyncio.CancelledError):
            pass  # the client stalled or left, or the service is stopping: its connection ends, nothing else does
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, line: bytes, who: str) -> dict[str, Any]:
        message: dict[str, Any] = {}
        try:
            message = protocol.unpack(line)
            handler, args = self._find(message)
            return protocol.answer(await handler(args, who))
        except GlacicError as error:
            return protocol.refusal(error)
        except Exception as error:  # the top loop: a fault in one handler must not end the others' service
            _log.exception("request failed", request=str(message.get("do"))[:60])
            return protocol.refusal(GlacicError(f"internal error: {error!r}; the service's log has more"))

    def _find(self, message: dict[str, Any]) -> tuple[Handler, dict[str, Any]]:
        do, args = message.get("do"), message.get("args", {})
        handler = self._handlers.get(do) if isinstance(do, str) else None
        if handler is None or not isinstance(args, dict):
            raise UsageError(f"no such request: {str(do)[:60]!r}")
        return handler, args


async def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(protocol.pack(message))
    await asyncio.wait_for(writer.drain(), SEND_S)


def make_way(path: Path) -> None:
    """Make the socket's folder and remove a socket that nobody listens on. Raises GlacicError where somebody does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
    except OSError as error:
        raise _no_socket(path, error) from None
    if not there:
        return
    if not path.is_socket():
        raise GlacicError(f"{path} is there and is no socket: remove it, or name another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise GlacicError(f"cannot tell whether a service listens at {path}: {error}") from None
    raise GlacicError(f"a service is already running at {path}: stop it first, or name another --socket")


def _no_socket(path: Path, error: OSError) -> GlacicError:
    return GlacicError(f"cannot make the control socket {path}: {error.strerror or error}; name another --socket")


def _peer(writer: asyncio.StreamWriter) -> str:
    """Who is at the other end: "user NAME", by SO_PEERCRED (unix(7)): struct ucred {pid, uid, gid}."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("iII", raw)
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
