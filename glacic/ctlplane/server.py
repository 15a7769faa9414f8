"""The service's end of the control socket: lets clients in, has their rights looked at, calls handlers, answers.

Every client is bounded (connection.py), and so is every user: a share of the places, of the requests per second and of
the work at one time. Whoever comes when there is no place gets that of the connection that was silent for longest, of
the same user or of the one who has most; so nobody who stalls, floods or sends garbage keeps anybody else out. Root
always finds a place. Each change, done or refused, is on the audit trail before it is answered. Knows no handler's
meaning."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from glacic.ctlplane import audit, logs, place, protocol
from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.connection import Connection
from glacic.ctlplane.origin import found_of
from glacic.ctlplane.pace import Bucket
from glacic.ctlplane.rights import CHANGE, Doorkeeper, Handler, Peer, Request, Right, name_of, peer_of, refusal_for
from glacic.errors import GlacicError, NotAllowed, UsageError

__all__ = ["Handler", "Request", "Server", "make_way"]

make_way = place.make_way
_log = logs.logger("server")

MAX_CLIENTS = 64
MAX_PER_USER = 16
BACKLOG = 256  # that wait to be let in; each has its turn soon
KEPT_FOR_ROOT = 16  # places that only uid 0 takes
HEAVY = 2  # requests that are much work, at one time
REQUESTS = (500.0, 1000.0)  # and connections, per user: each second, and at once; more have to wait
PIECE = 4096  # bytes of a request that count as one more
REFUSALS = (
    0.1,
    20.0,
)  # per user: as many are logged and audited, more are counted, so that nobody writes the trail full
ACCEPT_PAUSE_S = 0.2  # after the kernel gave no descriptor
MAX_USERS = 1024  # users whose pace is remembered


class User:
    """What one uid may take of the service at a time."""

    def __init__(self) -> None:
        self.pace = Bucket(*REQUESTS)
        self.refusals = Bucket(*REFUSALS)
        self.left_out = 0  # refusals since the last one that was told
        self.working = asyncio.Semaphore(1)


class Server:
    """Listens on a Unix socket and answers with `requests`: a request's name -> right and handler(args, who)."""

    def __init__(
        self, path: Path, requests: dict[str, Request], trail: AuditTrail, doorkeeper: Doorkeeper | None = None
    ) -> None:
        self._path = path
        self._requests = requests
        self._trail = trail
        self._door = doorkeeper or Doorkeeper()
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._clients: dict[Connection, asyncio.Task[None]] = {}
        self._users: defaultdict[int, User] = defaultdict(User)
        self._heavy = asyncio.Semaphore(HEAVY)
        self._asking = ThreadPoolExecutor(1, "groups")  # the group database may be behind a network that hangs

    async def start(self) -> None:
        """Bind and listen. A socket that nobody listens on is replaced; one that answers raises GlacicError."""
        group = self._door.socket_group()
        make_way(self._path, group)
        self._socket = place.listening(self._path, group, backlog=BACKLOG)
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def close(self) -> None:
        """Stop listening, drop the clients, remove the socket."""
        if self._socket is None or self._accepting is None:
            return
        self._accepting.cancel()
        tasks = [self._accepting, *self._clients.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        self._socket = None
        self._path.unlink(missing_ok=True)
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop, complaints = asyncio.get_running_loop(), Bucket(1 / 60, 1)
        while True:
            try:
                connected, _ = await loop.sock_accept(listening)
            except OSError as error:  # EMFILE, ENFILE, ENOBUFS, ENOMEM, or a client that left already
                if complaints.take():
                    _log.error("nobody can be let in on the control socket", error=error.strerror)
                has = Counter(connection.peer.uid for connection in self._clients)
                for uid, _ in has.most_common(1):
                    self._put_out(uid)  # what it had is somebody else's soon
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            connection = Connection(connected, peer_of(connected))
            if self._make_room(connection.peer):
                task = self._clients[connection] = asyncio.create_task(self._serve(connection))
                task.add_done_callback(functools.partial(self._gone, connection))
            else:
                _turn_away(connected)
            await asyncio.sleep(0)  # whoever connects without end leaves the others their turn

    def _make_room(self, peer: Peer) -> bool:
        """Whether there is a place, after the longest silent connection of whoever has too many was put out."""
        has = Counter(connection.peer.uid for connection in self._clients)
        others = sum(count for uid, count in has.items() if uid != 0)
        if has[peer.uid] >= MAX_PER_USER:
            return self._put_out(peer.uid)
        if peer.uid == 0 or others < MAX_CLIENTS - KEPT_FOR_ROOT:
            return True
        uid, most = max(((uid, count) for uid, count in has.items() if uid != 0), key=lambda item: item[1])
        return most > has[peer.uid] and self._put_out(uid)

    def _put_out(self, uid: int) -> bool:
        idle = [one for one in self._clients if one.peer.uid == uid and not one.busy]
        if not idle:
            return False
        longest = min(idle, key=lambda connection: connection.heard)
        self._clients.pop(longest).cancel()
        return True

    async def _serve(self, connection: Connection) -> None:
        user = self._user(connection.peer.uid)
        try:
            await asyncio.sleep(user.pace.owe())
            while (line := await connection.line()) is not None:
                await asyncio.sleep(user.pace.owe(1 + len(line) / PIECE))  # also where it is 0: others have their turn
                connection.busy = True
                answer = protocol.pack(await self._answer(line, connection.peer, user))
                connection.busy = False
                await connection.send(answer)
        except NotAllowed as error:  # the connection was handed on
            await self._refused(error, connection.peer, user)
            await _say_last(connection, error)
        except UsageError as error:  # a line without end
            await _say_last(connection, error)
        except (TimeoutError, OSError, asyncio.CancelledError):
            pass  # the client stalled or left, or another one needs its place: its connection ends, nothing else does

    def _gone(self, connection: Connection, _: asyncio.Task[None]) -> None:
        """Also of a client that was put out before it had its first turn."""
        self._clients.pop(connection, None)
        connection.close()

    def _user(self, uid: int) -> User:
        if uid not in self._users and len(self._users) >= MAX_USERS:
            self._users.clear()
        return self._users[uid]

    async def _answer(self, line: bytes, peer: Peer, user: User) -> dict[str, Any]:
        try:
            request, asked = self._find(line, peer, await self._right_of(peer))
            return protocol.answer(await self._carry_out(request, asked, peer, user))
        except NotAllowed as error:
            await self._refused(error, peer, user)
            return protocol.refusal(error)
        except GlacicError as error:
            return protocol.refusal(error)
        except Exception as error:  # the top loop: a fault in one handler must not end the others' service
            _log.exception("request failed")
            return protocol.refusal(GlacicError(f"internal error: {error!r}; the service's log has more"))

    def _find(self, line: bytes, peer: Peer, may: Right) -> tuple[Request, protocol.Asked]:
        """What is asked for, if this peer may ask it; who may do nothing is not even read."""
        if may == Right.NOTHING:
            raise refusal_for(peer, may, Right.READ, "connect")
        asked = protocol.unpack_request(line)
        request = self._requests.get(asked.do)
        if request is None:
            raise UsageError(f"no such request: {asked.do[:60]!r}")
        if may < request.right:
            raise refusal_for(peer, may, request.right, asked.do)
        return request, asked

    async def _right_of(self, peer: Peer) -> Right:
        if peer.is_over():
            return CHANGE
        return await asyncio.get_running_loop().run_in_executor(self._asking, self._door.right_of, peer)

    async def _carry_out(self, request: Request, asked: protocol.Asked, peer: Peer, user: User) -> Any:
        who = await self._who(peer)
        async with AsyncExitStack() as turns:
            if request.heavy:
                await turns.enter_async_context(user.working)
                await turns.enter_async_context(self._heavy)
            if request.right != CHANGE:
                return await request.handler(asked.args, who)
            source = found_of(peer.pid, asked.told)  # while it waits for us: later another may have its number
            notes = audit.take_notes()
            outcome = "interrupted"
            try:
                result = await request.handler(asked.args, who)
                outcome = "ok"
            except GlacicError as error:
                outcome = str(error)
                raise
            except Exception as error:
                outcome = f"internal error: {error!r}"
                raise
            finally:
                await self._record(who, peer, asked.do, {**asked.args, **notes}, outcome, source)
            return result

    async def _who(self, peer: Peer) -> str:
        if peer.uid == 0:
            return "user root"
        name = await asyncio.get_running_loop().run_in_executor(self._asking, name_of, peer.uid)
        return f"user {name}"

    async def _refused(self, error: NotAllowed, peer: Peer, user: User) -> None:
        if not user.refusals.take():
            user.left_out += 1
            return
        left_out, user.left_out = user.left_out, 0
        who, do = await self._who(peer), error.details.get("request", "connect")
        _log.warning("request refused", request=do, who=who, pid=peer.pid, error=str(error), left_out=left_out)
        args = {"refused_before_untold": left_out} if left_out else {}
        await self._record(who, peer, do, args, str(error), found_of(peer.pid, ""))

    async def _record(self, who: str, peer: Peer, action: str, args: dict[str, Any], outcome: str, source: str) -> None:
        """Shielded: a client that is put out, or a service that stops, takes no entry along."""

        def write() -> None:
            self._trail.record(
                who=who, action=action, args=args, outcome=outcome, source=source, uid=peer.uid, pid=peer.pid
            )

        await asyncio.shield(asyncio.to_thread(write))


def _turn_away(connected: socket.socket) -> None:
    with connected:
        try:
            connected.send(
                protocol.pack(protocol.refusal(GlacicError("too many clients of yours are busy; try again")))
            )
        except OSError:
            return  # it left, or takes nothing


async def _say_last(connection: Connection, error: GlacicError) -> None:
    try:
        await connection.send(protocol.pack(protocol.refusal(error)))
    except (TimeoutError, OSError, asyncio.CancelledError):
        return
