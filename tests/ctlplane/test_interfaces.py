"""Which interfaces have MACs, by number, in a namespace of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from glacic.ctlplane import interfaces
from glacic.ctlplane.interfaces import Interfaces
from glacic.lab.net import Host, Network


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("h")


@pytest.fixture
def asked(host: Host) -> Iterator[Interfaces]:
    asked = host.call(Interfaces)
    yield asked
    asked.close()


def number(host: Host, name: str) -> int:
    return host.call(socket.if_nametoindex, name)


def test_ethernet_and_its_like_have_macs(host: Host, asked: Interfaces) -> None:
    host.ip("link add v0 type veth peer v1", "tuntap add tap0 mode tap", "link add br0 type bridge")
    assert all(asked.is_ethernet(number(host, name)) for name in ("v0", "tap0", "br0"))


def test_loopback_and_tunnels_have_none(host: Host, asked: Interfaces) -> None:
    host.ip("tuntap add t0 mode tun")
    assert not any(asked.is_ethernet(number(host, name)) for name in ("lo", "t0"))
    assert not asked.is_ethernet(4711)
    assert not asked.is_ethernet(0)


def test_one_that_has_just_gone_is_what_it_was(host: Host, asked: Interfaces, monkeypatch: pytest.MonkeyPatch) -> None:
    host.ip("link add d0 type bridge")
    was = number(host, "d0")
    assert asked.is_ethernet(was)
    monkeypatch.setattr(interfaces, "KEPT_S", 0)
    host.ip("link del d0")
    assert asked.is_ethernet(was)


def test_a_number_that_comes_back_is_asked_for_again(
    host: Host, asked: Interfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.ip("link add d0 index 900 type bridge")
    assert asked.is_ethernet(900)
    host.ip("link del d0", "tuntap add t0 mode tun", "link add d1 type bridge")
    monkeypatch.setattr(interfaces, "KEPT_S", 0)
    assert asked.is_ethernet(number(host, "d1"))
    assert not asked.is_ethernet(number(host, "t0"))


def test_the_namespace_is_that_of_its_maker(host: Host, asked: Interfaces) -> None:
    host.ip("link add d0 index 901 type bridge")
    assert asked.is_ethernet(901)
    other = Interfaces()
    assert not other.is_ethernet(901)
    other.close()


def test_it_keeps_no_more_than_it_may(host: Host, asked: Interfaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "MAX_KEPT", 2)
    host.ip("link add d0 type bridge", "link add d1 type bridge", "link add d2 type bridge")
    for name in ("d0", "d1", "d2", "lo", "d0"):
        assert asked.is_ethernet(number(host, name)) is (name != "lo")
        assert len(asked._known) <= 2
