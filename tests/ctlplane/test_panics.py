"""A panic with real packets: management by IPv4 and IPv6 from whatever kind of zone, and everything back afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from glacic.lab import traffic
from glacic.lab.home import CAMERA, LAPTOP, ROUTER_LAN, ROUTER_LAN_6, SERVER, Home, home
from glacic.lab.service import Glacic

ZONES = {
    "interface": 'zone "lan" {\n  interface = "lan0"\n  management { ssh = true }\n}\n',
    "network": f'zone "lan" {{\n  networks = ["{LAPTOP}/32", "fd01::10/128"]\n  management {{ ssh = true }}\n}}\n',
    "both": 'zone "lan" {\n  interface = "lan0"\n  networks = ["10.1.0.0/28", "fd01::/120"]\n  identity = "ip"\n'
    "  management { ssh = true }\n}\n",
}
REST = """\
rule_learning {
  enabled       = true
  learning_mode = true
}
zone "wan" {
  interface = "wan0"
  external  = true
}
policy "lan" "wan" {
  action = "drop"
}
"""
QUICK_S = 0.5


@pytest.fixture(scope="module")
def lab() -> Iterator[Home]:
    with home() as hosts, hosts.router.call(traffic.Echo, [22]), hosts.server.call(traffic.Echo, [80]):
        yield hosts


def reaches(lab: Home, address: str = ROUTER_LAN) -> bool:
    return lab.laptop.call(traffic.tcp, address, 22, timeout_s=QUICK_S).ok


def elements(lab: Home) -> str:
    listed = lab.router.run(["nft", "list", "table", "inet", "glacic"]).stdout
    return "\n".join(sorted(set(re.findall(r"(?:10\.1\.0\.\d+|02:00:\S+) \. \w+ \. (?:80|http)\b", listed))))


def forget_neighbours(lab: Home) -> None:
    """Whoever answers now has to ask for the other one's MAC first."""
    for host in (lab.router, lab.laptop):
        host.ip("neighbor flush all")


@pytest.mark.parametrize("kind", ZONES)
def test_management_goes_on_and_everything_else_comes_back(lab: Home, tmp_path: Path, kind: str) -> None:
    with Glacic(lab.router, tmp_path, ZONES[kind] + REST) as glacic:
        assert lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=20.0).ok  # learned
        learned = glacic.wait("learned", lambda: elements(lab))
        with lab.laptop.call(traffic.connect, ROUTER_LAN, 22, timeout_s=5.0) as ssh:
            assert traffic.answers(ssh)
            glacic.cli("panic")
            for _ in range(2):
                forget_neighbours(lab)
                assert reaches(lab)
                assert reaches(lab, ROUTER_LAN_6)
                assert traffic.answers(ssh)  # what manages goes on
                assert not lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok
                glacic.cli("reload", "--force")  # a reload is no end of it
            if kind != "interface":  # the camera is in no zone
                assert not lab.camera.call(traffic.tcp, ROUTER_LAN, 22, timeout_s=QUICK_S).ok, CAMERA
        glacic.kill()
        glacic.start()  # nor is another worker
        assert reaches(lab)
        assert not lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok
        glacic.stop()
        lab.router.run(["nft", "flush", "ruleset"])
        lab.router.run(["nft", "-f", str(glacic.state_dir / "boot.nft")])  # nor a boot
        forget_neighbours(lab)
        assert reaches(lab, ROUTER_LAN_6)
        assert not lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok
        glacic.start()
        glacic.cli("panic", "off")
        assert elements(lab) == learned
        assert lab.laptop.call(traffic.tcp, SERVER, 80, timeout_s=QUICK_S).ok
