"""A change of the ruleset and the connections that run: what a reload ends, keeps and refuses to cut.

The lab is a home behind a router; the service runs in nflog mode. A fail mode's mark is set by hand there, since
nflog has no fail mode; tests/vm/test_fail_modes.py has the real one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from glacic.config.load import load
from glacic.ctlplane import aftermath
from glacic.ctlplane.service import Service
from glacic.errors import GlacicError
from glacic.lab import traffic
from glacic.lab.home import LAPTOP, ROUTER_WAN, SERVER, Home, home
from glacic.lab.service import Glacic

SHORT_S = 0.7
WEB, OTHER = 8000, 8001
CONFIG = """\
rule_learning {
  enabled = true
}
zone "lan" {
  interface = "lan0"
}
zone "wan" {
  interface = "wan0"
  external  = true
  management { ssh = true }
}
policy "lan" "wan" {
  name = "lan_wan"
  rule "some" {
    proto     = "tcp"
    dest_port = [8000, 8001]
    action    = "accept"
  }
}
"""
LESS = CONFIG.replace("[8000, 8001]", "[8001]")
LOCKED = CONFIG.replace("  management { ssh = true }\n", "")
VIA = f"{SERVER} 50000 {ROUTER_WAN} 22"


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.server.call(traffic.Echo, [WEB, OTHER]):
        yield hosts


@pytest.fixture(scope="module")
def service(lab: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glacic]:
    with Glacic(lab.router, tmp_path_factory.mktemp("reloads"), CONFIG) as running:
        yield running


@pytest.fixture
def glacic(lab: Home, service: Glacic) -> Iterator[Glacic]:
    lab.router.run(["conntrack", "-F"])
    service.reload(CONFIG)
    service.call("learn.off")
    yield service
    service.reload(CONFIG)


@pytest.fixture
def two(lab: Home, glacic: Glacic) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connections that the rules accept, each with an exchange behind it."""
    opened = [lab.laptop.call(traffic.connect, SERVER, port, timeout_s=5.0) for port in (WEB, OTHER)]
    for connection in opened:  # closed by a reset: a FIN that nobody answers would come again in a later test
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with opened[0], opened[1]:
        assert all(map(traffic.answers, opened))
        yield opened[0], opened[1]


def mark(lab: Home, connection: socket.socket, port: int) -> None:
    """As if a fail mode had let it in: a rule of somebody else's marks its next packets, and goes."""
    rule = f"tcp dport {port} ct mark set ct mark | 0x00800000;"
    lab.router.run(["nft", f"table ip marker {{ chain c {{ type filter hook forward priority 20; {rule} }}; }}"])
    try:
        assert traffic.answers(connection)
    finally:
        lab.router.run(["nft", "delete table ip marker"])


def goes_on(connection: socket.socket) -> bool:
    connection.settimeout(SHORT_S)
    return traffic.answers(connection)


def test_a_reload_ends_what_it_refuses_and_nothing_else(glacic: Glacic, two: tuple) -> None:
    glacic.configure(LESS)
    assert glacic.json("reload")["connections_ended"] == 1
    assert (goes_on(two[0]), goes_on(two[1])) == (False, True)
    assert glacic.json("reload")["connections_ended"] == 0


def test_each_connection_that_ends_is_logged_with_the_reason(glacic: Glacic, two: tuple) -> None:
    before = len(glacic.log.read_text())
    glacic.reload(LESS)
    lines = [json.loads(line) for line in glacic.log.read_text()[before:].splitlines()]
    (said,) = [line for line in lines if line["event"] == "a reload ended connections that it refuses"]
    assert said["ended"] == 1
    (ended,) = [line for line in lines if line["event"] == "connection ended"]
    assert (ended["source"], ended["port"], ended["why"]) == (LAPTOP, WEB, "policy lan_wan: no rule decides")


@pytest.mark.parametrize("command", ["reload", "apply"])
def test_keep_connections_keeps_them(glacic: Glacic, two: tuple, command: str) -> None:
    glacic.configure(LESS)
    glacic.cli(command, "--keep-connections")
    assert (goes_on(two[0]), goes_on(two[1])) == (True, True)


def test_with_learning_on_it_would_be_learned_and_goes_on(glacic: Glacic, two: tuple) -> None:
    glacic.call("learn.on")
    glacic.configure(LESS)
    assert glacic.call("reload")["connections_ended"] == 0
    assert goes_on(two[0])


@pytest.mark.parametrize("command", ["reload", "apply"])
def test_a_change_that_would_cut_the_way_it_came_is_refused_without_force(
    lab: Home, glacic: Glacic, command: str
) -> None:
    glacic.configure(LOCKED)
    came = {"SSH_CONNECTION": VIA}
    refused = lab.router.run(glacic.command(command), check=False, environment=came)
    assert refused.returncode == 1
    assert (
        f"this change would cut the connection it came over (ssh from {SERVER} on wan0 to port 22: zone wan: no rule "
        "accepts it): use --force if that is intended"
    ) in refused.stderr
    ruleset = lab.router.run(["nft", "list", "chain", "inet", "glacic", "input_wan"]).stdout
    assert "dport 22" in ruleset
    lab.router.run(glacic.command(command, "--force"), environment=came)
    assert "dport 22" not in lab.router.run(["nft", "list", "chain", "inet", "glacic", "input_wan"]).stdout


def test_text_that_is_no_connection_is_refused_by_name(glacic: Glacic) -> None:
    for via in ("x" * 150, "\x1b[2J", 7):
        with pytest.raises(GlacicError):
            glacic.call("reload", via=via)
    assert glacic.state() == "running"


def test_what_a_fail_mode_let_in_is_listed(lab: Home, glacic: Glacic, two: tuple) -> None:
    mark(lab, two[0], WEB)
    listed = glacic.json("connections")
    assert listed["total"] == 1
    (row,) = listed["connections"]
    assert (row["source"], row["destination"], row["protocol"], row["port"]) == (LAPTOP, SERVER, "tcp", WEB)
    assert (row["now"], row["policy"], row["why"]) == ("accepted", None, "policy lan_wan rule some")
    assert LAPTOP in glacic.cli("connections").stdout
    assert glacic.call("status")["fail_open_connections"] == 0  # nflog has no fail mode, and does not count


def settle(lab: Home, folder: Path, more: str, **states: Any) -> list[tuple[str, dict]]:
    """What the service does when a worker is back; returns what it logs."""
    path = folder / "x.hcl"
    path.write_text(
        CONFIG.replace("enabled = true", f"enabled = true\n  inline_mode = true\n  log_group = 100\n{more}")
    )
    answers = {"sync": None, "learn": {"policies": [{"policy": "lan_wan", "on": states.get("on", False)}]}}

    async def call(do: str) -> Any:
        if states.get("silent"):
            raise GlacicError("the worker has ended")
        return answers[do]

    service = SimpleNamespace(
        applies=states.get("applies", True),
        config=load(path),
        worker=SimpleNamespace(call=call),
        store=None,
        let_in=aftermath.Count(),
    )
    said: list[tuple[str, dict]] = []
    log = SimpleNamespace(
        **{level: lambda event, **words: said.append((event, words)) for level in ("info", "warning", "error")}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aftermath, "_log", log)
        lab.router.call(lambda: asyncio.run(aftermath.settle(cast(Service, service))))
    return said


@pytest.mark.parametrize(
    ("more", "states", "counts"),
    [
        ("", {}, {"let_in": 1, "ended": 1, "allowed_by_now": 0, "kept": 0, "listed": 1}),
        ("", {"on": True}, {"let_in": 1, "ended": 0, "allowed_by_now": 0, "kept": 1, "listed": 0}),
        ("  fail_open_keep = true", {}, {"let_in": 1, "ended": 0, "allowed_by_now": 0, "kept": 1, "listed": 0}),
    ],
)
def test_what_was_let_in_is_settled_and_said_in_one_line(
    lab: Home, glacic: Glacic, tmp_path: Path, more: str, states: dict, counts: dict
) -> None:
    glacic.reload(CONFIG.replace("[8000, 8001]", "[8000, 8001, 8002]"))
    with lab.server.call(traffic.Echo, [8002]), lab.laptop.call(traffic.connect, SERVER, 8002, timeout_s=5.0) as opened:
        mark(lab, opened, 8002)
        said = settle(lab, tmp_path, more, **states)
    assert said[0] == ("connections that a fail mode let in", counts)
    assert [event for event, _ in said[1:]] == ["connection ended"] * counts["ended"]


def test_a_worker_that_does_not_say_what_it_knows_ends_nothing(lab: Home, glacic: Glacic, tmp_path: Path) -> None:
    ((event, words),) = settle(lab, tmp_path, "", silent=True)
    assert event == "connections that a fail mode let in not looked through: they go on"
    assert words == {"error": "the worker has ended"}
    assert settle(lab, tmp_path, "", silent=True, applies=False) == []


def test_a_count_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([3, 5, 7])
    monkeypatch.setattr(aftermath.conntrack, "count_let_in", lambda: next(numbers))
    clock = iter([100.0, 100.0, 101.0, 106.0, 106.0, 107.0, 107.0])
    monkeypatch.setattr(aftermath, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    count = aftermath.Count()

    async def three() -> list[int | None]:
        return [await count.now() for _ in range(3)]

    assert asyncio.run(three()) == [3, 3, 5]
    count.forget()
    assert asyncio.run(count.now()) == 7
