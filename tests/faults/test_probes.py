"""Streams: each packet has a number, and what was answered is known."""

from __future__ import annotations

import time

from faults.probes import Road, Stream
from glacic.lab import traffic
from glacic.lab.net import Network, Port


def test_what_is_answered_and_what_is_not_is_told_apart() -> None:
    with Network() as net:
        one, other = net.host("one"), net.host("other")
        net.cable(Port(one, "eth0", "", ("10.0.0.1/24",)), Port(other, "eth0", "", ("10.0.0.2/24",)))
        roads = {
            "open": Road("10.0.0.2", (8001,), opens=True),
            "shut": Road("10.0.0.2", (8002,)),
            "many": Road("10.0.0.2", (8003, 8001), times=2),
        }
        with other.call(traffic.Echo, [], [8001]), Stream(one, roads, 100) as stream:
            time.sleep(0.5)
            stream.rest(0.5)
            packets = {kind: stream.between(kind, 0.0, time.monotonic()) for kind in roads}
    assert all(len(sent) > 4 for sent in packets.values())
    assert all(packet.answered for packet in packets["open"])
    assert not any(packet.answered for packet in packets["shut"])
    assert [packet.port for packet in packets["many"][:5]] == [8003, 8003, 8001, 8001, 8003]
    assert {bool(packet.answered) for packet in packets["many"] if packet.port == 8003} == {False}
    assert packets["open"] == sorted(packets["open"], key=lambda packet: packet.sent)
