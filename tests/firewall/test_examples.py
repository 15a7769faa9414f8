"""The worked examples with real packets: what they are there for passes, and what they are there against does not.

This kernel may lack the `queue` statement: where one stands, a packet is dropped here, as if nobody had allowed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from glacic.config.load import load
from glacic.firewall import offload
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config
from glacic.firewall.nft import Libnftables
from glacic.lab.net import Host, Network, Port

from .conftest import answered_by, ping, tcp

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ENGINE = """
table ip nat {
    chain DOCKER {
        iifname "docker0" return
        tcp dport 8080 dnat to 172.17.0.2:80
    }
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "docker0" ip saddr 172.17.0.0/16 masquerade
    }
}
table ip filter {
    chain DOCKER {
        iifname != "docker0" oifname "docker0" ip daddr 172.17.0.2 tcp dport 80 accept
    }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        oifname "docker0" jump DOCKER
        oifname "docker0" ct state established,related accept
        iifname "docker0" accept
    }
}
"""


def put(example: str, host: Host) -> None:
    """Puts an example in force on a host."""
    ruleset = answered_by(compile_config(load(CONFIGS / example)), "counter drop")
    apply(host.call(Libnftables), offload.without(ruleset))


def cable(net: Network, router: Host, interface: str, host: Host, network: str, address: str) -> None:
    """A cable between the router's .1 or ::1 and a host's address; the host's way out is the router."""
    prefix, length = network.split("/")
    separator = "." if "." in prefix else ":"
    gateway = f"{prefix.rsplit('.', 1)[0]}.1" if separator == "." else f"{prefix}1"
    net.cable(Port(host, "eth0", "", (f"{address}/{length}",)), Port(router, interface, "", (f"{gateway}/{length}",)))
    host.ip(f"route add default via {gateway}")


@pytest.fixture
def net() -> Iterator[Network]:
    with Network() as network:
        yield network


def test_the_container_host_publishes_ports_and_leaves_the_engines_tables_alone(net: Network) -> None:
    host, container, outside = net.host("engine", forwards=True), net.host("container"), net.host("outside")
    cable(net, host, "docker0", container, "172.17.0.0/16", "172.17.0.2")
    cable(net, host, "eth0", outside, "192.0.2.0/24", "192.0.2.9")
    host.run(["nft", "-f", "-"], text=ENGINE)
    host.run(["nft", "add rule ip filter DOCKER oifname docker0 accept"])  # an engine that lets everybody in
    theirs = [host.run(["nft", "list", "table", "ip", name]).stdout for name in ("nat", "filter")]

    put("container-host.hcl", host)
    assert tcp(outside, container, "192.0.2.1", 8080, listen=("", 80)) == "open"
    assert tcp(outside, container, "172.17.0.2", 80) == "lost"  # a neighbour who knows the way
    assert tcp(outside, container, "172.17.0.2", 443) == "lost"
    assert tcp(container, outside, "192.0.2.9", 25) == "ECONNREFUSED"
    assert tcp(container, outside, "192.0.2.9", 443) == "lost"  # nobody has allowed it yet
    assert tcp(outside, host, "192.0.2.1", 9100) == "lost"
    put("container-host.hcl", host)
    assert [host.run(["nft", "list", "table", "ip", name]).stdout for name in ("nat", "filter")] == theirs


@pytest.fixture
def office(net: Network) -> dict[str, Host]:
    router = net.host("router", forwards=True)
    hosts = {name: net.host(name) for name in ("staff", "servers", "guests", "internet")}
    cable(net, router, "lan0", hosts["staff"], "10.20.1.0/24", "10.20.1.10")
    cable(net, router, "srv0", hosts["servers"], "10.20.2.0/24", "10.20.2.80")
    cable(net, router, "guest0", hosts["guests"], "10.20.3.0/24", "10.20.3.7")
    cable(net, router, "wan0", hosts["internet"], "192.0.2.0/24", "192.0.2.99")
    router.ip("address add 192.0.2.20/24 dev wan0")
    hosts["servers"].ip("address add 10.20.2.25/24 dev eth0")
    return {"router": router, **hosts}


def test_the_office_keeps_its_zones_apart(office: dict[str, Host]) -> None:
    put("office.hcl", office["router"])
    staff, servers, guests, internet = (office[name] for name in ("staff", "servers", "guests", "internet"))
    assert tcp(staff, servers, "10.20.2.80", 443) == "open"
    assert tcp(staff, servers, "10.20.2.80", 22) == "open"  # an administrator
    assert tcp(staff, servers, "10.20.2.80", 3389) == "ECONNREFUSED"
    assert tcp(staff, internet, "192.0.2.99", 25) == "ECONNREFUSED"
    assert tcp(guests, servers, "10.20.2.80", 443) == "ECONNREFUSED"
    assert tcp(servers, staff, "10.20.1.10", 445) == "lost"
    assert tcp(internet, servers, "192.0.2.20", 443, listen=("", 443)) == "open"
    assert tcp(internet, servers, "10.20.2.80", 443) == "lost"
    assert tcp(staff, servers, "192.0.2.20", 443, listen=("", 443)) == "open"  # by the outer address
    assert ping(internet, "192.0.2.20") == "open"


def test_the_offices_guests_have_hours(office: dict[str, Host], tmp_path: Path) -> None:
    guests, internet = office["guests"], office["internet"]
    now = datetime.now(ZoneInfo("Europe/Zurich"))
    for opened, result in ((now - timedelta(hours=5), "open"), (now + timedelta(hours=5), "ECONNREFUSED")):
        # The kernel has the real time, so it is the hours that are moved.
        text = (CONFIGS / "office.hcl").read_text().replace('"07:00"', f'"{opened:%H:%M}"')
        path = tmp_path / "office.hcl"
        path.write_text(text.replace('"22:00"', f'"{opened + timedelta(hours=15):%H:%M}"'))
        put(str(path), office["router"])
        assert tcp(guests, internet, "192.0.2.99", 443) == result
