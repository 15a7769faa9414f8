"""Where packets would leave, asked of a kernel with two interfaces."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from glacic.ctlplane import routes
from glacic.ctlplane.netlink import attribute
from glacic.ctlplane.routes import Route, Routes, route, route_request
from glacic.lab.net import Host, Network, Port


@pytest.fixture
def router() -> Iterator[Host]:
    with Network() as network:
        router = network.host("router")
        for number in (1, 2):
            near = Port(router, f"eth{number}", "", (f"10.{number}.0.1/24", f"fd0{number}::1/64"))
            network.cable(near, Port(network.host(f"h{number}"), "eth0", "", ()))
        router.ip("route add 192.0.2.0/24 via 10.2.0.9", "route add unreachable 198.51.100.0/24")
        yield router


def ask(router: Host, *addresses: str) -> list[Route | None]:
    def asked() -> list[Route | None]:
        with Routes() as found:
            kinds = [socket.AF_INET6 if ":" in text else socket.AF_INET for text in addresses]
            return [found.to(socket.inet_pton(kind, text)) for kind, text in zip(kinds, addresses, strict=True)]

    return router.call(asked)


def test_an_address_is_local_or_leaves_by_an_interface(router: Host) -> None:
    assert ask(router, "10.1.0.7", "192.0.2.1", "fd02::7") == [
        Route(False, "eth1"),
        Route(False, "eth2"),
        Route(False, "eth2"),
    ]
    assert [found is not None and found.local for found in ask(router, "10.1.0.1", "fd02::1", "127.0.0.1")] == [
        True
    ] * 3


def test_what_everybody_gets_is_for_this_machine_too(router: Host) -> None:
    assert ask(router, "10.1.0.255") == [Route(True, "eth1")]


def test_no_way_is_none_and_the_next_question_is_answered(router: Host) -> None:
    assert ask(router, "198.51.100.1", "203.0.113.1", "2001:db8::1", "10.1.0.7") == [
        None,
        None,
        None,
        Route(False, "eth1"),
    ]


def test_memory_is_bounded(router: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "KEPT", 10)

    def asked() -> int:
        with Routes() as found:
            for number in range(25):
                found.to(bytes([10, 1, 0, number + 2]))
            return len(found._known)

    assert router.call(asked) == 5


def test_answers_that_name_no_interface_are_none() -> None:
    assert route(b"") is None
    assert route(bytes(12)) is None
    assert route(bytes(12) + attribute(4, b"\1")) is None
    assert route(bytes(7) + b"\2" + bytes(4) + attribute(4, (3).to_bytes(4, "little"))) == (True, 3)
    assert route_request(bytes(4), bytes(4))[16:20] == bytes([2, 32, 32, 0])
