"""Server and client over a real socket: answers, refusals, bounds, and who may replace whom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glacic.ctlplane import protocol
from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.client import Client
from glacic.ctlplane.rights import READ, Request
from glacic.ctlplane.server import Server
from glacic.errors import GlacicError, UnknownFlow, Unreachable, UsageError


async def echo(args: dict[str, Any], who: str) -> dict[str, Any]:
    return {"args": args, "who": who}


async def unknown(_args: dict[str, Any], _who: str) -> None:
    raise UnknownFlow("no such flow: 7")


async def broken(_args: dict[str, Any], _who: str) -> None:
    raise RuntimeError("a fault of ours")


REQUESTS = {
    "echo": Request(READ, echo),
    "unknown": Request(READ, unknown),
    "broken": Request(READ, broken),
}


def server_at(path: Path) -> Server:
    return Server(path, {}, AuditTrail(Path("/dev/null/audit.log")))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A server in a thread of its own, closed at the end."""
    address = tmp_path / "run" / "glacic.sock"
    loop = asyncio.new_event_loop()
    server = Server(address, REQUESTS, AuditTrail(tmp_path / "audit.log"))
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield address
    asyncio.run_coroutine_threadsafe(server.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert not address.exists()


def test_a_request_is_answered_and_the_caller_is_known(path: Path) -> None:
    with Client(path) as client:
        answer = client.call("echo", policy="lan_wan")
    assert answer == {"args": {"policy": "lan_wan"}, "who": f"user {pwd.getpwuid(os.getuid()).pw_name}"}


def test_one_connection_carries_many_requests(path: Path) -> None:
    with Client(path) as client:
        assert [client.call("echo", n=n)["args"]["n"] for n in range(100)] == list(range(100))


def test_a_refusal_is_raised_by_the_client_and_the_connection_goes_on(path: Path) -> None:
    with Client(path) as client:
        with pytest.raises(GlacicError, match="no such flow: 7"):
            client.call("unknown")
        with pytest.raises(UsageError, match="no such request"):
            client.call("nonsense")
        with pytest.raises(GlacicError, match="internal error"):
            client.call("broken")
        assert client.call("echo")["args"] == {}


def test_the_socket_is_not_for_others(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


@pytest.mark.parametrize("garbage", [b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"do": 7}\n', b'{"do": "echo", "args": []}\n'])
def test_garbage_gets_a_refusal_and_harms_nobody(path: Path, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw, raw.makefile("rb") as lines:
        raw.connect(str(path))
        raw.sendall(garbage)
        assert protocol.unpack(lines.readline())["ok"] is False
    with Client(path) as client:
        assert client.call("echo")["args"] == {}


def test_a_request_without_end_is_cut_off(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw, raw.makefile("rb") as lines:
        raw.connect(str(path))
        raw.settimeout(20)
        with contextlib.suppress(BrokenPipeError):
            raw.sendall(b"x" * (2 * protocol.MAX_REQUEST))
        answer = lines.readline()
        assert not answer or protocol.unpack(answer)["ok"] is False


def test_a_client_that_says_nothing_holds_nobody_up(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(path))
        silent.sendall(b'{"do": "ec')
        with Client(path) as client:
            assert client.call("echo")["args"] == {}


def test_a_second_service_is_refused_and_the_first_goes_on(path: Path) -> None:
    with pytest.raises(GlacicError, match="already running"):
        asyncio.run(server_at(path).start())
    with Client(path) as client:
        assert client.call("echo")["args"] == {}


def start_and_close(path: Path) -> None:
    async def both() -> None:
        server = server_at(path)
        await server.start()
        await server.close()

    asyncio.run(both())


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    address = tmp_path / "glacic.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(address))
    start_and_close(address)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    address = tmp_path / "glacic.sock"
    address.write_text("precious")
    with pytest.raises(GlacicError, match="no socket"):
        start_and_close(address)
    assert address.read_text() == "precious"


def no_file(_path: Path) -> None:
    pass


def nobody_listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))


@pytest.mark.parametrize("prepare", [no_file, nobody_listens])
def test_a_client_without_a_service_says_how_to_start_one(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path / "glacic.sock")
    with pytest.raises(Unreachable, match="glacic run"):
        Client(tmp_path / "glacic.sock")


@pytest.mark.parametrize("place", ["/proc/none/a.sock", "/etc/passwd/a.sock", f"/tmp/{'a' * 120}.sock"])
def test_a_place_where_no_socket_can_be_is_said(place: str) -> None:
    with pytest.raises(GlacicError, match=f"cannot make the control socket {place}"):
        asyncio.run(server_at(Path(place)).start())
