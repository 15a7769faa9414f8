"""The bed of most faults: the lab's home network, the service on its router, and traffic of every kind.

The service is the bench's (bench/service.py): where the kernel lacks nftables' `queue` statement, an iptables rule
hands the packets to the same queue (bench/standin.py). In the virtual machine it is the real statement.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench import standin
from bench.service import BenchGlacic
from faults.probes import FIRST_PORT, LAST_PORT, Road, Stream
from glacic.ctlplane.client import Client
from glacic.errors import GlacicError, LabError
from glacic.lab import traffic, vm
from glacic.lab.home import LAPTOP, ROUTER_WAN, SERVER, Home, home

EMULATED = vm.IN_GUEST in os.environ
PER_S = 10.0 if EMULATED else 100.0  # packets of each kind
SLOWER = 5.0 if EMULATED else 1.0  # how much longer everything is given
SETTLE_S = 1.5 * SLOWER  # how long an answer may be under way
PATIENCE_S = 120.0 * SLOWER  # for what must come; nothing waits for it where it comes

ECHO, LEARNED, ESTABLISHED, DENIED, OUTSIDE = 7, 8100, 8101, 8102, 8103
ALL_PORTS = tuple(range(FIRST_PORT, LAST_PORT + 1))
QUIET_PORTS = tuple(range(FIRST_PORT, FIRST_PORT + 5_000))

_REDIRECT = f"""
table ip echo {{
    chain in {{
        type nat hook prerouting priority -100
        udp dport {FIRST_PORT}-{LAST_PORT} redirect to :{ECHO}
        tcp dport {FIRST_PORT}-{LAST_PORT} redirect to :{ECHO}
    }}
}}
"""
Around = Callable[[Path], AbstractContextManager[None]]
_RESTLESS = ("flow allowed", "flow pending", "flow denied", "flow ignored", "flow forgotten")


def config(*lines: str, action: str = "drop", learning: bool = True, inline: bool = True, limits: bool = False) -> str:
    """The configuration of most faults: `lines` go into rule_learning; limits are out of the way, unless asked for."""
    wide = () if limits else ("learn_max_per_source = 100000", *(() if inline else ('rate_limit = "1000/second"',)))
    settings = "\n".join(f"  {line}" for line in (*wide, *lines))
    return f"""\
rule_learning {{
  enabled       = true
  learning_mode = {"true" if learning else "false"}
  inline_mode   = {"true" if inline else "false"}
  log_group     = 100
{settings}
}}
zone "lan" {{
  interface = "lan0"
}}
zone "wan" {{
  interface = "wan0"
  external  = true
}}
policy "lan" "wan" {{
  name   = "lan_wan"
  action = "{action}"
}}
"""


def kernel() -> str:
    """What this runs on, in words."""
    queued = "iptables hands packets to the queue" if standin.needed() else "nftables' queue statement"
    return f"Linux {platform.release()}{', emulated' if EMULATED else ''}; {queued}"


@dataclass(frozen=True, slots=True)
class Bed:
    """A running service with one flow learned (LEARNED, ESTABLISHED) and one denied (DENIED)."""

    home: Home
    glacic: BenchGlacic
    folder: Path

    def streams(self, per_s: float = PER_S, *, times: int = 1) -> Streams:
        """Traffic of every kind, while the block lasts; `times` packets of each new flow."""
        return Streams(self.home, per_s, times)


@contextlib.contextmanager
def bed(configuration: str, around: Around = lambda _: contextlib.nullcontext()) -> Iterator[Bed]:
    """The network and the service; both are gone afterwards, whatever state the service is in.

    around: what else there is for so long, made of the service's folder before it starts.
    """
    with tempfile.TemporaryDirectory(prefix="glacic-faults-") as name, around(Path(name)), network() as hosts:
        folder = Path(name)
        glacic = BenchGlacic(hosts.router, folder, configuration)
        glacic.start()
        try:
            for port in (LEARNED, ESTABLISHED, DENIED):
                if not hosts.laptop.call(traffic.udp, SERVER, port, timeout_s=PATIENCE_S).ok:
                    raise LabError(f"the first packet to port {port} was not answered")
            glacic.call("flows.set", verb="deny", filters={"port": DENIED})
            yield Bed(hosts, glacic, folder)
        finally:
            if glacic.process is not None:
                hosts.router.end(glacic.process)


@contextlib.contextmanager
def network() -> Iterator[Home]:
    """The home network, whose server answers on every port and whose inside answers to the outside."""
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(home())
        hosts.server.run(["nft", "-f", "-"], text=_REDIRECT)
        ports = (ECHO, LEARNED, ESTABLISHED, DENIED)
        stack.enter_context(hosts.server.call(traffic.Echo, [ECHO, LEARNED], ports))
        for host in (hosts.laptop, hosts.router):
            stack.enter_context(host.call(traffic.Echo, [OUTSIDE], [OUTSIDE]))
        yield hosts


class Streams:
    """All kinds at once."""

    def __init__(self, hosts: Home, per_s: float, times: int) -> None:
        self._stack = contextlib.ExitStack()
        inside = {
            "unknown": Road(SERVER, ALL_PORTS[10_000:], times=times),
            "learned": Road(SERVER, (LEARNED,), opens=True),
            "established": Road(SERVER, (ESTABLISHED,)),
            "denied": Road(SERVER, (DENIED,), opens=True),
        }
        outside = {"outside": Road(LAPTOP, (OUTSIDE,), opens=True), "to the router": Road(ROUTER_WAN, (OUTSIDE,), True)}
        self._streams = (
            Stream(hosts.laptop, inside, per_s),
            Stream(hosts.server, outside, per_s / 2),
            Stream(hosts.camera, {"quiet": Road(SERVER, QUIET_PORTS, times=times)}, max(1.0, per_s / 10)),
        )
        self.kinds = {kind: stream for stream in self._streams for kind in stream.kinds}

    def __enter__(self) -> Self:
        for stream in self._streams:
            self._stack.enter_context(stream)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rest(self) -> None:
        """Send nothing more, and wait for what is under way."""
        for stream in self._streams:
            stream.rest(0)
        time.sleep(SETTLE_S)

    def wait_answered(self, kind: str, since: float, count: int = 3) -> float:
        """Wait until that many packets of a kind in a row, sent since then, are answered; when the first was sent."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            row = 0
            packets = self.kinds[kind].between(kind, since, time.monotonic())
            for number, packet in enumerate(packets):
                row = row + 1 if packet.answered is not None else 0
                if row == count:
                    return packets[number - count + 1].sent
            time.sleep(0.02)
        raise LabError(f"{kind} packets are not answered again after {PATIENCE_S:g} s")


class StatusWatch:
    """Asks for `status` again and again, in a thread: every (state, reason) that was said, and when it began."""

    def __init__(self, glacic: BenchGlacic) -> None:
        self.said: list[tuple[float, str]] = []
        self._glacic = glacic
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def since(self, begin: float) -> tuple[str, ...]:
        """What was said since then, in order, each once."""
        return tuple(dict.fromkeys(text for at, text in self.said if at >= begin))

    def _run(self) -> None:
        last = ""
        while not self._enough.wait(0.02 * SLOWER):
            text = self._ask()
            if text != last:
                self.said.append((time.monotonic(), text))
                last = text

    def _ask(self) -> str:
        try:
            with Client(self._glacic.socket, timeout_s=2 * SLOWER) as client:
                status: dict[str, Any] = client.call("status")
        except GlacicError:
            return "nobody answers"
        return f"{status['state']}{': ' if status['reason'] else ''}{status['reason']}"


class Log:
    """The service's log, from now on."""

    def __init__(self, glacic: BenchGlacic) -> None:
        self._path = glacic.log
        self._begin = self._path.stat().st_size

    def lines(self) -> list[dict[str, Any]]:
        """Every line that came; what is no JSON is an event of level "raw"."""
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return [_line(line) for line in file.read().decode(errors="replace").splitlines()]

    def troubles(self) -> dict[str, int]:
        """What was said at warning or above, and how often. Numbers and texts behind the event do not count."""
        return dict(Counter(line["event"] for line in self.lines() if line["level"] not in {"info", "debug"}))

    def restless(self) -> int:
        """How many lines there are for flows: one each is right, one for each packet is not."""
        return sum(line["event"] in _RESTLESS for line in self.lines())


def _line(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
        return line if isinstance(line, dict) and {"event", "level"} <= line.keys() else {"event": text, "level": "raw"}
    except ValueError:
        return {"event": text, "level": "raw"}
