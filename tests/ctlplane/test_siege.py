"""The control socket under siege: clients that stall, flood, send garbage or read nothing, and the others who notice
nothing; who may do what, with real users; and what the audit trail says of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from glacic.ctlplane import audit, connection, protocol, server
from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.client import Client
from glacic.ctlplane.client import _connect as connect
from glacic.ctlplane.rights import CHANGE, READ, Doorkeeper, Request
from glacic.ctlplane.server import Server
from glacic.errors import GlacicError, UsageError

SOON_S = 10.0  # bounded time, on a machine that has other things to do
READERS, CHANGERS = 64_101, 64_102  # groups that no machine has
ALICE, BOB = 64_201, 64_202


async def status(_args: dict[str, Any], who: str) -> dict[str, Any]:
    return {"who": who}


async def change(args: dict[str, Any], _who: str) -> dict[str, Any]:
    audit.note(flows=["lan/02:00:00:00:00:10/tcp/443"])
    if args.get("no"):
        raise UsageError("no such thing")
    return {}


async def much(_args: dict[str, Any], _who: str) -> list[str]:
    return ["x" * 1000] * 2000


REQUESTS = {
    "status": Request(READ, status),
    "change": Request(CHANGE, change),
    "much": Request(READ, much, heavy=True),
}


class Siege:
    """A running server in a folder that other users can reach."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run" / "glacic.sock"
        self.trail = AuditTrail(folder / "audit.log")
        groups = {"glacic": READERS, "glacic-admin": CHANGERS}
        self.server = Server(self.path, REQUESTS, self.trail, Doorkeeper(groups.get))

    def entries(self) -> list[dict[str, Any]]:
        return self.trail.entries()[0]

    def answers_soon(self) -> None:
        began = time.monotonic()
        with Client(self.path, timeout_s=SOON_S) as client:
            assert client.call("status")["who"] == "user root"
        assert time.monotonic() - began < SOON_S

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        ends = time.monotonic() + 6 * SOON_S
        while not is_so():
            assert time.monotonic() < ends
            time.sleep(0.05)

    @contextmanager
    def raw(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SOON_S)
            connect(client, self.path)
            yield client


@pytest.fixture
def siege() -> Iterator[Siege]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="socket-") as name:
        Path(name).chmod(0o755)
        one = Siege(Path(name))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(one.server.start())
        one.path.parent.chmod(0o755)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield one
        finally:
            asyncio.run_coroutine_threadsafe(one.server.close(), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


def as_user(uid: int, gid: int, groups: list[int], do: Callable[[], Any]) -> Any:
    """What `do` returns, or the words of what it raises, in a process of this user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            try:
                said = do()
            except (GlacicError, OSError) as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = json.loads(pipe.read() or b"null")
    os.waitpid(child, 0)
    return said


def asking(siege: Siege, do: str) -> Callable[[], Any]:
    def ask() -> Any:
        with Client(siege.path, timeout_s=SOON_S) as client:
            return client.call(do)

    return ask


# --- who may what ---


def test_readers_read_and_changers_change(siege: Siege) -> None:
    assert as_user(ALICE, ALICE, [READERS], asking(siege, "status")) == {"who": f"user {ALICE}"}
    assert as_user(ALICE, READERS, [], asking(siege, "status")) == {"who": f"user {ALICE}"}  # a first group counts, too
    assert as_user(BOB, BOB, [READERS, CHANGERS], asking(siege, "change")) == {}
    (entry,) = siege.entries()
    assert (entry["who"], entry["uid"], entry["action"], entry["outcome"]) == (f"user {BOB}", BOB, "change", "ok")


def test_who_may_not_is_told_which_group_it_takes_and_that_is_on_record(siege: Siege) -> None:
    said = as_user(ALICE, ALICE, [READERS], asking(siege, "change"))
    assert f"you are user {ALICE} (uid {ALICE}) and may read here" in said
    assert "group glacic-admin" in said
    (entry,) = siege.entries()
    assert (entry["who"], entry["action"]) == (f"user {ALICE}", "change")
    assert "may read here" in entry["outcome"]


def test_a_stranger_does_not_even_connect(siege: Siege) -> None:
    assert "no permission" in as_user(ALICE, ALICE, [], asking(siege, "status"))
    assert "no permission" in as_user(ALICE, ALICE, [CHANGERS], asking(siege, "status"))  # an administrator is in both


def test_a_stranger_who_could_connect_gets_nothing(siege: Siege) -> None:
    siege.path.chmod(0o666)
    said = as_user(ALICE, ALICE, [], asking(siege, "status"))
    assert "may do nothing here" in said
    assert siege.entries()[0]["action"] == "connect"
    assert as_user(ALICE, ALICE, [], asking(siege, "nonsense")) == said.replace("status", "nonsense")


def test_a_user_who_is_refused_all_the_time_does_not_write_the_trail_full(siege: Siege) -> None:
    def often() -> int:
        with Client(siege.path, timeout_s=SOON_S) as client:
            for _ in range(100):
                with suppress(GlacicError):
                    client.call("change")
        return 1

    assert as_user(ALICE, ALICE, [READERS], often) == 1
    assert len(siege.entries()) <= server.REFUSALS[1] + 5


def test_a_connection_that_was_handed_on_has_nobodys_rights(siege: Siege) -> None:
    with siege.raw() as opened_by_root:

        def use() -> str:
            opened_by_root.sendall(protocol.pack(protocol.request("change", {})))
            return opened_by_root.makefile("rb").readline().decode()

        said = json.loads(as_user(ALICE, ALICE, [READERS, CHANGERS], use))
    assert said["ok"] is False
    assert f"opened by uid 0 and is used by uid {ALICE}" in said["error"]
    assert [entry["outcome"] for entry in siege.entries()] == [said["error"]]


def test_descriptors_that_come_along_are_not_kept(siege: Siege) -> None:
    siege.answers_soon()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with siege.raw() as client:
        line = protocol.pack(protocol.request("status", {}))
        with Path("/dev/null").open() as null:
            socket.send_fds(client, [line], [null.fileno()] * 50)
        assert protocol.unpack(client.makefile("rb").readline())["ok"] is True
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # both ends of this connection


# --- changes are on record ---


def test_a_change_is_on_record_before_it_is_answered_with_what_it_came_to(siege: Siege) -> None:
    with Client(siege.path) as client:
        client.call("change", verb="deny")
        assert [entry["outcome"] for entry in siege.entries()] == ["ok"]
        with pytest.raises(UsageError):
            client.call("change", no=True)
        client.call("status")
    first, second = siege.entries()
    assert first["args"] == {"verb": "deny", "flows": ["lan/02:00:00:00:00:10/tcp/443"]}
    assert (first["who"], first["uid"], first["pid"]) == ("user root", 0, os.getpid())
    assert second["outcome"] == "no such thing"


def test_where_a_client_says_it_sits_is_kept_as_hearsay(siege: Siege) -> None:
    with siege.raw() as client:
        message = {"do": "change", "args": {}, "from": "ssh 192.0.2.1\x1b[2J\n\u202e"}
        client.sendall(protocol.pack(message))
        client.makefile("rb").readline()
    (entry,) = siege.entries()
    assert entry["source"].startswith("ssh 192.0.2.1\\x1b[2J\\n\\u202e (told)")


def test_a_trail_that_cannot_be_written_stops_no_change(siege: Siege, capfd: pytest.CaptureFixture[str]) -> None:
    siege.path.parent.parent.joinpath("audit.log").mkdir()
    with Client(siege.path) as client:
        assert client.call("change", verb="deny") == {}
    said = "".join(capfd.readouterr())
    assert "AUDIT ENTRY NOT WRITTEN" in said
    assert "deny" in said


# --- nobody harms anybody else ---


def test_more_stalling_clients_than_there_are_places(siege: Siege) -> None:
    with ExitStack() as stack:
        for number in range(2 * server.MAX_CLIENTS):
            client = stack.enter_context(siege.raw())
            with suppress(OSError):
                client.sendall(b"" if number % 2 else b'{"do": "sta')
        siege.answers_soon()


def test_one_user_takes_no_place_from_another(siege: Siege) -> None:
    def take_everything() -> bool:
        taken = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for one in taken:
            one.settimeout(SOON_S)
            with suppress(OSError):
                connect(one, siege.path)
                one.sendall(b"{")
        os.write(ready_in, b"x")
        os.read(go_out, 1)
        return True

    ready_out, ready_in = os.pipe()
    go_out, go_in = os.pipe()
    children = [threading.Thread(target=as_user, args=(ALICE + n, ALICE, [READERS], take_everything)) for n in range(4)]
    for child in children:
        child.start()
    try:
        for _ in children:
            os.read(ready_out, 1)
        siege.answers_soon()
        assert as_user(BOB + 100, BOB, [READERS], asking(siege, "status")) == {"who": f"user {BOB + 100}"}
    finally:
        os.write(go_in, b"x" * len(children))
        for child in children:
            child.join()
        for descriptor in (ready_out, ready_in, go_out, go_in):
            os.close(descriptor)


def test_a_request_that_comes_byte_by_byte_is_cut_off(siege: Siege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BEGUN_S", 0.5)
    cut_off = False
    with siege.raw() as slow:
        for _ in range(1000):
            try:
                slow.sendall(b" ")
            except OSError:
                cut_off = True
                break
            time.sleep(0.01)
    assert cut_off
    siege.answers_soon()


def test_a_hundred_megabytes_in_one_line_are_refused_after_the_first_few(siege: Siege) -> None:
    sent = 0
    with siege.raw() as client, client.makefile("rb") as lines:
        piece = b"x" * (1 << 20)
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                client.sendall(piece)
                sent += len(piece)
        with suppress(ConnectionResetError):
            assert "at most" in protocol.unpack(lines.readline())["error"]
    assert sent < 5 << 20
    siege.answers_soon()


def test_garbage_and_floods_of_it_keep_nobody_waiting(siege: Siege) -> None:
    stop = threading.Event()

    def flood(garbage: bytes) -> None:
        while not stop.is_set():
            with suppress(OSError), siege.raw() as client:
                client.sendall(garbage * 1000)
                client.recv(10_000)

    lines = [b"\n", b"\xff\xfe\n", b"[[[[[[[[[[[[[[[[[[[[\n", protocol.pack(protocol.request("status", {}))]
    threads = [threading.Thread(target=flood, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            siege.answers_soon()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_user_with_much_work_leaves_others_theirs(siege: Siege) -> None:
    ready_out, ready_in = os.pipe()
    go_out, go_in = os.pipe()
    many = protocol.pack(protocol.request("much", {})) * 200

    def flood() -> int:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(server.MAX_PER_USER)]
        for client in clients:
            connect(client, siege.path)
            client.sendall(many)
        threads = [threading.Thread(target=drain, args=(client,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        os.write(ready_in, b"x")
        os.read(go_out, 1)
        return 1

    flooding = threading.Thread(target=as_user, args=(ALICE, ALICE, [READERS], flood))
    flooding.start()
    try:
        os.read(ready_out, 1)
        siege.answers_soon()
        began = time.monotonic()
        assert len(as_user(BOB, BOB, [READERS], lambda: asking(siege, "much")()[:5])) == 5
        assert time.monotonic() - began < SOON_S
    finally:
        os.write(go_in, b"x")
        flooding.join()
        for descriptor in (ready_out, ready_in, go_out, go_in):
            os.close(descriptor)


def drain(client: socket.socket) -> None:
    with suppress(OSError):
        while client.recv(1 << 20):
            pass


def test_a_thousand_short_connections_in_a_row_keep_nobody_waiting(siege: Siege) -> None:
    for _ in range(1000):
        with siege.raw():
            pass
    siege.answers_soon()


def test_who_reads_no_answer_keeps_nobody_waiting_and_is_let_go(siege: Siege, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SEND_S", 0.5)
    with ExitStack() as stack:
        clients = [stack.enter_context(siege.raw()) for _ in range(8)]
        for client in clients:
            client.sendall(protocol.pack(protocol.request("much", {})) * 10)
        siege.answers_soon()
        siege.wait_until(lambda: not siege.server._clients)


def test_a_client_that_closes_its_half_still_gets_its_answer(siege: Siege) -> None:
    with siege.raw() as client:
        client.sendall(protocol.pack(protocol.request("status", {})))
        client.shutdown(socket.SHUT_WR)
        lines = client.makefile("rb").readlines()
    assert [protocol.unpack(line)["ok"] for line in lines] == [True]


def test_half_a_request_at_the_end_is_nothing(siege: Siege) -> None:
    with siege.raw() as client:
        client.sendall(protocol.pack(protocol.request("change", {}))[:-1])
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b""
    assert siege.entries() == []


FEW_DESCRIPTORS = """
import asyncio, resource, sys
from pathlib import Path
from glacic.ctlplane import logs
from glacic.ctlplane.audit import AuditTrail
from glacic.ctlplane.rights import READ, Request
from glacic.ctlplane.server import Server

async def status(args, who):
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime

async def main():
    server = Server(Path(sys.argv[1]), {"status": Request(READ, status)}, AuditTrail(Path(sys.argv[1] + ".log")))
    await server.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))
    print("ready", flush=True)
    await asyncio.sleep(600)

logs.configure()
asyncio.run(main())
"""


def test_without_a_descriptor_to_spare_it_waits_does_not_spin_and_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        ExitStack() as stack,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for _ in range(server.MAX_PER_USER):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.settimeout(SOON_S)
                connect(client, path)
            with Client(path, timeout_s=6 * SOON_S) as late:
                before = late.call("status")
                time.sleep(1)
                assert late.call("status") - before < 0.5  # of a second of computing
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read().count("nobody can be let in")
    assert said == 1
