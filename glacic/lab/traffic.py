"""The lab, traffic: small clients and servers that say in numbers what a connection went through.

Each is a function, to be called on a host of the lab (`laptop.call(traffic.tcp, address, port)`), and a command that
prints one line of JSON (`python -m glacic.lab.traffic tcp ADDRESS PORT`). Nothing waits without an end. Whether a
packet was lost is told by the kernel's own count of retransmissions and not by the clock, which means nothing in an
emulated machine.

    serve --tcp P ... --udp P ...    answers with what was sent, on IPv4 and IPv6, until it is ended
    tcp ADDRESS PORT [--count N]     connects, sends, waits for the echo, closes; N times, one after the other
    udp ADDRESS PORT [--count N]     one datagram, one answer; N times
    ping ADDRESS [--count N]         one ICMP or ICMPv6 echo request, one answer; N times (needs root)
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

TIMEOUT_S = 5.0
PAYLOAD = b"glacic"

# struct tcp_info, <linux/tcp.h>: eight bytes of flags, then 32-bit counters of which tcpi_total_retrans is the 24th.
_TOTAL_RETRANSMITS = struct.Struct(f"={8 + 23 * 4}xI")
_ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}  # RFC 792, RFC 4443
_ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


@dataclass(frozen=True, slots=True)
class Result:
    """What a client saw.

    `ok`: every one of `count` exchanges was answered. `error`: the first that was not, in words ("" if all were):
    "timed out", "refused", "reset", "unreachable", ... `connect_ms` is the time to the first established connection
    (tcp) or answer; `retransmits` is the sum over all connections (tcp only), a lost SYN included.
    """

    ok: bool
    error: str
    count: int
    answered: int
    connect_ms: float
    retransmits: int


_ERRORS = {
    ConnectionRefusedError: "refused",
    ConnectionResetError: "reset",
    BrokenPipeError: "reset",
    TimeoutError: "timed out",
    EOFError: "closed",
}
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)  # EACCES: "administratively prohibited" in IPv6


def tcp(address: str, port: int, *, count: int = 1, timeout_s: float = TIMEOUT_S) -> Result:
    """`count` connections to an echo server, one after the other; `timeout_s` bounds each step of each."""
    answered, retransmits, first_ms, error = 0, 0, 0.0, ""
    for _ in range(count):
        started = time.monotonic()
        with _socket(address, socket.SOCK_STREAM, timeout_s) as client:
            try:
                client.connect((address, port))
                first_ms = first_ms or _ms_since(started)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                exchange(client, PAYLOAD)
                answered += 1
            except (OSError, EOFError) as failure:
                error = error or _words(failure)
            retransmits += total_retransmits(client)
    return Result(answered == count, error, count, answered, first_ms or _ms_since(started), retransmits)


def connect(address: str, port: int, *, timeout_s: float = TIMEOUT_S) -> socket.socket:
    """An open connection, for the caller to use (`exchange`) and to close. Raises OSError."""
    client = _socket(address, socket.SOCK_STREAM, timeout_s)
    try:
        client.connect((address, port))
    except OSError:
        client.close()
        raise
    return client


def exchange(client: socket.socket, payload: bytes) -> None:
    """Sends bytes and waits for the same bytes. Raises TimeoutError (the socket's own timeout), OSError or EOFError."""
    client.sendall(payload)
    back = b""
    while len(back) < len(payload):
        data = client.recv(len(payload) - len(back))
        if not data:
            raise EOFError
        back += data
    if back != payload:
        raise OSError("the answer is not what was sent")


def answers(client: socket.socket, payload: bytes = PAYLOAD) -> bool:
    """Whether an open connection still carries bytes there and back, within the socket's timeout."""
    try:
        exchange(client, payload)
    except (OSError, EOFError):
        return False
    return True


def udp(address: str, port: int, *, count: int = 1, timeout_s: float = TIMEOUT_S) -> Result:
    """`count` datagrams from one socket, each sent once and answered before the next; `timeout_s` for each answer."""
    with _socket(address, socket.SOCK_DGRAM, timeout_s) as client:

        def one(number: int) -> None:
            payload = PAYLOAD + struct.pack("!I", number)
            client.connect((address, port))  # so that a refusal by ICMP is reported
            client.send(payload)
            _await(client, lambda data: data == payload, timeout_s)

        return _repeat(one, count)


def ping(address: str, *, count: int = 1, timeout_s: float = TIMEOUT_S) -> Result:
    """`count` echo requests, each sent once; `timeout_s` for each answer. Needs the right to open a raw socket."""
    family = _family(address)
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    identifier = os.getpid() & 0xFFFF
    with socket.socket(family, socket.SOCK_RAW, protocol) as client:

        def one(number: int) -> None:
            rest = struct.pack("!HH", identifier, number & 0xFFFF) + PAYLOAD
            client.connect((address, 0))
            client.send(_icmp(_ECHO_REQUEST[family], rest))
            reply = _ECHO_REPLY[family]

            def is_answer(data: bytes) -> bool:
                message = (
                    data[(data[0] & 15) * 4 :] if family == socket.AF_INET else data
                )  # IPv4 shows its header as well
                return message[:1] == bytes([reply]) and message[4:] == rest

            _await(client, is_answer, timeout_s)

        return _repeat(one, count)


def total_retransmits(client: socket.socket) -> int:
    """How many segments this connection sent again, its SYN included (tcpi_total_retrans)."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANSMITS.size)
    return int(_TOTAL_RETRANSMITS.unpack(info.ljust(_TOTAL_RETRANSMITS.size, b"\0"))[0])


class Echo:
    """The server: what comes in goes back, on every address of both families.

    The sockets are open once it is made; `with host.call(Echo, [80], [53]):` serves them from a thread for the time
    of the block. Connections that are open at the end are closed.
    """

    def __init__(self, tcp_ports: Sequence[int] = (), udp_ports: Sequence[int] = ()) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self.serve, name="echo", daemon=True)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        try:
            for port in tcp_ports:
                self._selector.register(_listener(socket.SOCK_STREAM, port), selectors.EVENT_READ, self._accept)
            for port in udp_ports:
                self._selector.register(_listener(socket.SOCK_DGRAM, port), selectors.EVENT_READ, self._answer)
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b".")
        self._thread.join()
        self.close()

    def serve(self) -> None:
        """Serves until the block ends, or for ever."""
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def close(self) -> None:
        """Closes every socket."""
        for key in list((self._selector.get_map() or {}).values()):
            assert isinstance(key.fileobj, socket.socket)  # noqa: S101 -- nothing else is registered
            key.fileobj.close()
        self._wake.close()
        self._selector.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client is gone again
            client, _ = listener.accept()
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ, self._echo)

    def _echo(self, client: socket.socket) -> None:
        """The lab never sends more than a socket buffer holds: what cannot be sent at once ends the connection."""
        with contextlib.suppress(OSError):  # a reset, or a full buffer: this connection is over
            data = client.recv(65536)
            if data and client.send(data) == len(data):
                return
        self._selector.unregister(client)
        client.close()

    def _answer(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # such as ECONNREFUSED for an earlier answer
            data, client = server.recvfrom(65536)
            server.sendto(data, client)


def _listener(kind: socket.SocketKind, port: int) -> socket.socket:
    """A bound socket for both families."""
    server = socket.socket(socket.AF_INET6, kind)
    try:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setblocking(False)
        if kind == socket.SOCK_STREAM:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(1024)
    except OSError:
        server.close()
        raise
    return server


def _socket(address: str, kind: socket.SocketKind, timeout_s: float) -> socket.socket:
    client = socket.socket(_family(address), kind)
    client.settimeout(timeout_s)
    return client


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _repeat(exchange_one: Callable[[int], None], count: int) -> Result:
    answered, first_ms, error = 0, 0.0, ""
    started = time.monotonic()
    for number in range(count):
        try:
            exchange_one(number)
            first_ms = first_ms or _ms_since(started)
            answered += 1
        except OSError as failure:
            error = error or _words(failure)
    return Result(answered == count, error, count, answered, first_ms or _ms_since(started), 0)


def _await(client: socket.socket, is_answer: Callable[[bytes], bool], timeout_s: float) -> None:
    """Receives until the answer is there; late answers to earlier questions, and other people's, are passed over."""
    deadline = time.monotonic() + timeout_s
    while True:
        client.settimeout(max(deadline - time.monotonic(), 0.001))
        if is_answer(client.recv(65536)):
            return


def _icmp(kind: int, rest: bytes) -> bytes:
    """An ICMP message of code 0 with the Internet checksum (RFC 1071); for ICMPv6 the kernel puts in its own."""
    message = struct.pack("!BBH", kind, 0, 0) + rest
    padded = message + b"\0" * (len(message) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + rest


def _words(failure: OSError | EOFError) -> str:
    for kind, words in _ERRORS.items():
        if isinstance(failure, kind):
            return words
    number = failure.errno if isinstance(failure, OSError) else None
    return "unreachable" if number in _UNREACHABLE else str(failure)


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0 if everything was answered, else 1."""
    options = _parser().parse_args(arguments)
    if options.command == "serve":
        with contextlib.closing(Echo(options.tcp, options.udp)) as echo:
            _print({"listening": {"tcp": options.tcp, "udp": options.udp}})
            echo.serve()
        return 0
    named = {"count": options.count, "timeout_s": options.timeout}
    if options.command == "ping":
        result = ping(options.address, **named)
    else:
        result = {"tcp": tcp, "udp": udp}[options.command](options.address, options.port, **named)
    _print(asdict(result))
    return 0 if result.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m glacic.lab.traffic", description="Small traffic, told as JSON.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="answer with what was sent")
    for protocol in ("tcp", "udp"):
        serve.add_argument(f"--{protocol}", type=int, action="append", default=[], metavar="PORT")
    for name in ("tcp", "udp", "ping"):
        client = commands.add_parser(name)
        client.add_argument("address")
        if name != "ping":
            client.add_argument("port", type=int)
        client.add_argument("--count", type=int, default=1)
        client.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    return parser


def _print(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
