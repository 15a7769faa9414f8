"""glacic.lab.home: the network of the demo, as its picture says."""

from __future__ import annotations

from glacic.lab import home as picture
from glacic.lab import traffic
from glacic.lab.home import home


def test_everybody_reaches_everybody_through_the_router_on_both_families() -> None:
    with home() as lab, lab.server.call(traffic.Echo, [80], [53]), lab.router.call(traffic.Echo, [22]):
        for client in (lab.laptop, lab.camera):
            for server in (picture.SERVER, picture.SERVER_6):
                assert client.call(traffic.tcp, server, 80).ok
                assert client.call(traffic.udp, server, 53).ok
                assert client.call(traffic.ping, server).ok
            assert client.call(traffic.tcp, picture.ROUTER_LAN_6, 22).ok
        assert lab.laptop.call(traffic.ping, picture.CAMERA).ok
        assert lab.server.call(traffic.ping, picture.LAPTOP_6).ok


def test_every_mac_is_the_one_in_the_picture_and_the_router_sees_the_clients_own() -> None:
    with home() as lab:
        assert lab.router.mac("lan0") == picture.ROUTER_LAN_MAC
        assert lab.router.mac("wan0") == picture.ROUTER_WAN_MAC
        assert lab.server.mac("eth0") == picture.SERVER_MAC
        for client, mac, address in (
            (lab.laptop, picture.LAPTOP_MAC, picture.LAPTOP),
            (lab.camera, picture.CAMERA_MAC, picture.CAMERA),
        ):
            assert client.mac("eth0") == mac
            assert client.call(traffic.ping, picture.ROUTER_LAN).ok
            assert mac in lab.router.run(["ip", "neighbour", "show", address, "dev", "lan0"]).stdout


def test_two_homes_side_by_side_do_not_meet() -> None:
    with home() as one, home() as other, one.server.call(traffic.Echo, [80]):
        assert one.laptop.call(traffic.tcp, picture.SERVER, 80).ok
        assert other.laptop.call(traffic.tcp, picture.SERVER, 80).error == "refused"
