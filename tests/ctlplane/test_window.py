"""The packet window counts connections, both directions together, and forgets the oldest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glacic.ctlplane.window import PacketWindow, connection_key
from glacic.learning.packet import Packet

A, B = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 7])


def tcp(source: bytes = A, destination: bytes = B, source_port: int = 4000, port: int = 443) -> Packet:
    return Packet(4, source, destination, 6, source_port, port)


def test_the_last_packet_of_the_window_closes_it_and_it_is_forgotten() -> None:
    window = PacketWindow()
    assert [window.closes(tcp(), 3) for _ in range(6)] == [False, False, True, False, False, True]


def test_replies_count_with_what_they_answer() -> None:
    window = PacketWindow()
    assert [window.closes(packet, 2) for packet in (tcp(), tcp(B, A, 443, 4000))] == [False, True]


def test_other_connections_count_for_themselves() -> None:
    window = PacketWindow()
    others = [tcp(), tcp(source_port=4001), tcp(port=80), Packet(4, A, B, 17, 4000, 443), tcp(destination=A)]
    assert not any(window.closes(packet, 2) for packet in others)


def test_an_echo_and_its_reply_are_one_connection() -> None:
    request, reply = Packet(4, A, B, 1, 77, 8), Packet(4, B, A, 1, 77, 0)
    assert connection_key(request) == connection_key(reply)
    assert connection_key(request) != connection_key(Packet(4, A, B, 1, 78, 8))


def test_a_window_of_nothing_is_over_at_once() -> None:
    assert PacketWindow().closes(tcp(), 0)


def test_it_keeps_the_connections_used_last() -> None:
    window = PacketWindow(2)
    one, two, three = (tcp(source_port=port) for port in (1, 2, 3))
    for packet in (one, two, one, three):  # two falls out
        window.closes(packet, 9)
    assert window.closes(one, 3)
    assert not window.closes(two, 2)


PORTS = st.integers(0, 65535)


@given(st.sampled_from([A, B]), st.sampled_from([A, B]), PORTS, PORTS, st.sampled_from([6, 17, 132, 47]))
def test_both_directions_have_one_key(source: bytes, to: bytes, source_port: int, port: int, protocol: int) -> None:
    forth = connection_key(Packet(4, source, to, protocol, source_port, port))
    assert forth == connection_key(Packet(4, to, source, protocol, port, source_port))
