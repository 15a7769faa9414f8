"""What the compiled ruleset does to real packets, in nflog mode and behind the hook.

The network stands in conftest.py. This kernel may lack the `queue` statement:
what an answer or a fail mode does to a packet stands in its place (`answered_by`).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from glacic.config.model import Config
from glacic.config.policies import learning_policies
from glacic.firewall import limits
from glacic.firewall.apply import apply, prepare
from glacic.firewall.compile import compile_config
from glacic.firewall.shapes import Key, Shape, element_text, ensure_script, set_name, shape_of
from glacic.lab.net import Host, Network, Port

from .conftest import PATIENCE_S, ZONES, Place, answered_by, bound, ping, tcp, udp

UDP_ANYWHERE = (socket.AF_INET, socket.SOCK_DGRAM, "")
LAPTOP_MAC = "02:00:00:00:01:02"
LEARNING = "rule_learning { enabled = true }\n"
INLINE = "rule_learning {\n  enabled = true\n  inline_mode = true\n  log_group = 100\n}\n"
WEB = """
policy "lan" "wan" {
  rule "web" {
    proto     = "tcp"
    dest_port = [443, "8000-8010"]
    action    = "accept"
  }
}
"""


def learn(place: Place, config: Config, key: Key, allowed: bool) -> str:
    """Makes a flow known to the kernel; returns its set."""
    policy = next(policy for policy in learning_policies(config) if policy.name == key[0])
    shape = shape_of(key)
    name = set_name(key[0], shape, allowed)
    place.nft.run(ensure_script(policy, shape, allowed))
    place.nft.run(f"add element inet glacic {name} {{ {element_text(key)} }}\n")
    return name


def tunnel(name: str) -> BinaryIO:
    """A tunnel interface, for as long as the file is open: what is written to it comes in there."""
    file = Path("/dev/net/tun").open("r+b", buffering=0)  # noqa: SIM115 - the caller's with block closes it
    fcntl.ioctl(file, 0x4004_54CA, struct.pack("16sH14x", name.encode(), 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    return file


def checksum(header: bytes) -> int:
    """Of an IPv4 header whose checksum is 0 (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    return 0xFFFF - (total + (total >> 16) & 0xFFFF)


def eventually(true: Callable[[], bool]) -> None:
    """Waits until it is so; a kernel has things to do, too."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_a_rule_lets_through_what_it_names_and_nothing_else(place: Place, enforce: Callable, address: str) -> None:
    enforce(LEARNING + ZONES + WEB)
    assert tcp(place.laptop, place.server, address, 443) == "open"
    assert tcp(place.laptop, place.server, address, 8007) == "open"
    assert tcp(place.laptop, place.server, address, 8011) == "lost"
    assert udp(place.laptop, place.server, address, 443) == "lost"


@pytest.mark.parametrize(("laptop", "router"), [("10.1.0.2", "192.0.2.1"), ("fd01::2", "2001:db8::1")])
def test_nothing_comes_in_from_an_external_zone(place: Place, enforce: Callable, laptop: str, router: str) -> None:
    enforce(LEARNING + ZONES + WEB)
    assert tcp(place.server, place.laptop, laptop, 443) == "lost"
    assert tcp(place.server, place.router, router, 22) == "lost"
    assert udp(place.server, place.router, router, 53) == "lost"


def test_an_interface_in_no_zone_reaches_nothing(place: Place, enforce: Callable) -> None:
    enforce(LEARNING + ZONES + 'policy "lan" "wan" { action = "accept" }')
    assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "open"
    assert tcp(place.guest, place.server, "192.0.2.2", 443) == "lost"
    assert tcp(place.guest, place.router, "10.3.0.1", 443) == "lost"
    assert place.logged("end_of_input") == place.logged("end_of_forward") == 0


def test_services_and_management_open_what_they_name(place: Place, enforce: Callable) -> None:
    enforce("""
    zone "lan" {
      interface = "lan0"
      services { dns = true }
      management { ssh = true }
    }
    """)
    assert udp(place.laptop, place.router, "10.1.0.1", 53) == "open"
    assert tcp(place.laptop, place.router, "fd01::1", 53) == "open"
    assert tcp(place.laptop, place.router, "10.1.0.1", 22) == "open"
    assert tcp(place.laptop, place.router, "10.1.0.1", 80) == "lost"


def test_reject_is_told_to_the_sender(place: Place, enforce: Callable) -> None:
    enforce(ZONES + 'policy "lan" "wan" { action = "reject" }')
    assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "ECONNREFUSED"
    assert tcp(place.laptop, place.server, "2001:db8::2", 443) == "ECONNREFUSED"
    assert udp(place.laptop, place.server, "192.0.2.2", 53) == "EHOSTUNREACH"
    assert udp(place.laptop, place.server, "2001:db8::2", 53) == "EACCES"


def test_a_learning_policy_that_rejects_logs_and_tells_the_sender(place: Place, enforce: Callable) -> None:
    enforce(LEARNING + ZONES + 'policy "lan" "wan" { action = "reject" }')
    assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "ECONNREFUSED"
    assert udp(place.laptop, place.server, "192.0.2.2", 53) == "EHOSTUNREACH"
    assert place.rules("policy_lan_wan").count("packets 1 ") == 2


def test_a_zone_of_networks_counts_only_where_no_zone_names_the_interface(place: Place, enforce: Callable) -> None:
    enforce("""
    zone "lan" { interface = "lan0" }
    zone "odd" { networks = ["10.3.0.0/24", "10.1.0.0/24", "fd03::/64"] }
    policy "odd" "firewall" { action = "accept" }
    """)
    assert tcp(place.guest, place.router, "10.3.0.1", 443) == "open"
    assert tcp(place.guest, place.router, "fd03::1", 443) == "open"
    assert tcp(place.laptop, place.router, "10.1.0.1", 443) == "lost"
    assert tcp(place.camera, place.router, "10.2.0.1", 443) == "lost"


def test_interface_and_network_together_come_before_the_interface_alone(place: Place, enforce: Callable) -> None:
    enforce("""
    zone "lan" { interface = "lan*" }
    zone "boss" {
      interface = "lan0"
      networks  = ["10.1.0.2/32"]
    }
    zone "wan" {
      interface = "wan0"
      external  = true
    }
    zone "offices" {
      interface = "wan0"
      networks  = ["192.0.2.0/24"]
    }
    policy "boss" "firewall" { action = "accept" }
    policy "lan" "wan" { action = "accept" }
    """)
    assert tcp(place.laptop, place.router, "10.1.0.1", 443) == "open"
    assert tcp(place.laptop, place.router, "fd01::1", 443) == "lost"  # by IPv6 it is in lan, not boss
    assert tcp(place.laptop, place.server, "2001:db8::2", 443) == "open"  # lan to wan
    place.laptop.ip("address add 10.1.0.3/24 dev eth0")
    try:
        # From lan to offices, of which no policy speaks: not to wan, though it is the same cable.
        place.laptop.ip("route replace 192.0.2.0/24 via 10.1.0.1 src 10.1.0.3")
        assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "lost"
    finally:
        place.laptop.ip("route delete 192.0.2.0/24 via 10.1.0.1", "address delete 10.1.0.3/24 dev eth0")


def test_rules_match_by_set_range_source_and_protocol(place: Place, enforce: Callable) -> None:
    enforce(
        ZONES
        + """
    set "servers" {
      type     = "address"
      elements = ["192.0.2.2", "192.0.2.0/30", "2001:db8::1-2001:db8::5"]
    }
    set "games" {
      type     = "inet_service"
      elements = ["6000-6010", 6005]
    }
    policy "lan" "wan" {
      rule "games" {
        proto     = ["tcp", "udp"]
        dest_port = ["@games", 7000]
        dest_ip   = "@servers"
        src_ip    = ["10.1.0.0/24", "fd01::2"]
        action    = "accept"
      }
      rule "slow" {
        proto     = "udp"
        dest_port = 9000
        dest_ip   = ["192.0.2.2", "2001:db8::2"]
        limit     = "1/hour"
        action    = "accept"
      }
      rule "off" {
        proto    = "tcp"
        action   = "accept"
        disabled = true
      }
    }
    """
    )
    assert tcp(place.laptop, place.server, "192.0.2.2", 6010) == "open"
    assert tcp(place.laptop, place.server, "2001:db8::2", 7000) == "open"
    assert udp(place.laptop, place.server, "192.0.2.2", 6000) == "open"
    assert tcp(place.laptop, place.server, "192.0.2.2", 6011) == "lost"
    answers = [udp(place.laptop, place.server, address, 9000) for address in ["192.0.2.2", "2001:db8::2"] * 4]
    assert answers == ["open"] * 5 + ["lost"] * 3  # one rate for both families, of which five come at once


def test_what_leaves_by_the_wan_is_masqueraded(place: Place, enforce: Callable) -> None:
    enforce(
        ZONES
        + """
    policy "lan" "wan" { action = "accept" }
    nat "internet" {
      type          = "masquerade"
      out_interface = "wan0"
      family        = "both"
    }
    """
    )
    # Only the router's own address has an answer.
    place.server.ip("route delete default via 192.0.2.1", "route delete default via 2001:db8::1")
    try:
        assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "open"
        assert tcp(place.laptop, place.server, "2001:db8::2", 443) == "open"
    finally:
        place.server.ip("route add default via 192.0.2.1", "route add default via 2001:db8::1")


def test_a_port_forward_opens_exactly_what_it_translates(place: Place, enforce: Callable) -> None:
    enforce(
        ZONES
        + """
    nat "web" {
      type         = "port_forward"
      in_interface = "wan0"
      proto        = "tcp"
      dest_port    = 8080
      to_ip        = "10.1.0.2"
      to_port      = 80
    }
    nat "web6" {
      type         = "dnat"
      in_interface = "wan0"
      proto        = ["tcp", "udp"]
      dest_port    = ["8443", "8500-8510"]
      to_ip        = "fd01::2"
    }
    """
    )
    anywhere = ("", 80)
    assert tcp(place.server, place.laptop, "192.0.2.1", 8080, listen=anywhere) == "open"
    assert tcp(place.server, place.laptop, "10.1.0.2", 80) == "lost"
    assert tcp(place.server, place.laptop, "2001:db8::1", 8505) == "open"
    assert udp(place.server, place.laptop, "2001:db8::1", 8443) == "open"
    assert tcp(place.server, place.laptop, "2001:db8::1", 8444) == "lost"


HAIRPIN = """
zone "iot" { interface = "iot0" }
nat "web" {
  type         = "dnat"
  in_interface = "wan0"
  proto        = ["tcp", "udp"]
  dest_port    = 8080
  to_ip        = "10.1.0.2"
  to_port      = 80
  hairpin      = true
}
nat "web6" {
  type         = "dnat"
  in_interface = "wan0"
  dest_ip      = "2001:db8::1"
  proto        = "tcp"
  dest_port    = "8500-8510"
  to_ip        = "fd01::2"
  to_port      = "8600-8610"
  hairpin      = true
}
"""


class TestHairpin:
    """The laptop's service, asked for by the router's outer address. The tablet is on the laptop's own cable."""

    @pytest.fixture
    def tablet(self, place: Place) -> Iterator[Host]:
        """A second host in the laptop's network: the router's lan0 moves into a bridge with one more port."""
        with Network() as net:
            tablet = net.host("tablet")
            router = place.router
            net.cable(Port(tablet, "eth0", "02:00:00:00:05:02", ("10.1.0.9/24", "fd01::9/64")), Port(router, "tab0"))
            tablet.ip("route add default via 10.1.0.1", "route add default via fd01::1")
            router.ip(
                "address flush dev lan0",
                "link set lan0 down",
                "link set lan0 name port0",
                "link add lan0 type bridge",
                "link set port0 master lan0",
                "link set tab0 master lan0",
                "link set port0 up",
                "link set lan0 up",
                "address add 10.1.0.1/24 dev lan0",
                "address add fd01::1/64 dev lan0 nodad",
            )
            for family in ("iptables", "ip6tables"):  # what a bridge carries is not the router's, unless it is told so
                router.run(["sysctl", "-q", f"net.bridge.bridge-nf-call-{family}=0"], check=False)
            for port in ("port0", "tab0"):
                eventually(
                    lambda port=port: "state forwarding" in router.run(["ip", "-d", "link", "show", port]).stdout
                )
            yield tablet
            router.ip(
                "link delete lan0",
                "link set port0 down",
                "link set port0 name lan0",
                "link set lan0 up",
                "address add 10.1.0.1/24 dev lan0",
                "address add fd01::1/64 dev lan0 nodad",
            )

    def test_a_client_on_the_same_cable_reaches_the_service(
        self, place: Place, enforce: Callable, tablet: Host
    ) -> None:
        enforce(ZONES + HAIRPIN)
        assert tcp(tablet, place.laptop, "192.0.2.1", 8080, listen=("", 80)) == "open"
        assert tcp(tablet, place.laptop, "2001:db8::1", 8505, listen=("", 8605)) == "open"
        enforce(ZONES + HAIRPIN.replace("hairpin      = true", ""))
        assert tcp(tablet, place.laptop, "192.0.2.1", 8080, listen=("", 80)) == "lost"

    def test_without_the_routers_own_address_as_source_the_answer_would_go_astray(
        self, place: Place, enforce: Callable, tablet: Host
    ) -> None:
        enforce(ZONES + HAIRPIN)
        chain = place.rules("postrouting")
        assert "masquerade" in chain
        place.nft.run("flush chain inet glacic postrouting\n")
        assert tcp(tablet, place.laptop, "192.0.2.1", 8080, listen=("", 80)) == "lost"

    def test_neighbours_on_a_bridge_find_each_other_where_the_kernel_shows_us_what_it_carries(
        self, place: Place, enforce: Callable, tablet: Host
    ) -> None:
        enforce(ZONES + 'policy "lan" "lan" { action = "accept" }')
        assert place.router.run(["sysctl", "-q", "net.bridge.bridge-nf-call-ip6tables=1"], check=False).returncode == 0
        for host in (tablet, place.laptop):
            host.run(["ip", "-6", "neigh", "flush", "dev", "eth0"])
        assert tcp(tablet, place.laptop, "fd01::2", 8080) == "open"

    def test_the_service_sees_a_client_of_another_network_as_itself(self, place: Place, enforce: Callable) -> None:
        enforce(ZONES + HAIRPIN)
        with place.laptop.call(bound, *UDP_ANYWHERE, 80) as listener:
            listener.settimeout(PATIENCE_S)
            with place.camera.call(bound, *UDP_ANYWHERE, 0) as sock:
                sock.sendto(b"?", ("192.0.2.1", 8080))
                assert listener.recvfrom(16)[1][0] == "10.2.0.2"

    def test_it_opens_nothing_else(self, place: Place, enforce: Callable) -> None:
        enforce(ZONES + HAIRPIN)
        assert tcp(place.camera, place.laptop, "10.1.0.2", 80) == "lost"
        assert tcp(place.camera, place.laptop, "10.2.0.1", 8080, listen=("", 80)) == "lost"  # its own router address
        assert tcp(place.guest, place.laptop, "192.0.2.1", 8080, listen=("", 80)) == "lost"  # in no zone
        assert tcp(place.server, place.laptop, "192.0.2.1", 8080, listen=("", 80)) == "open"
        assert tcp(place.server, place.laptop, "2001:db8::1", 8510, listen=("", 8610)) == "open"


def test_a_policy_from_the_firewall_decides_what_it_may_say(place: Place, enforce: Callable) -> None:
    enforce(
        LEARNING
        + ZONES
        + """
    policy "firewall" "wan" {
      rule "dns" {
        proto     = "udp"
        dest_port = 53
        action    = "accept"
      }
    }
    """
    )
    assert udp(place.router, place.server, "192.0.2.2", 53) == "open"
    assert tcp(place.router, place.server, "2001:db8::2", 443) == "lost"
    assert tcp(place.router, place.laptop, "10.1.0.2", 443) == "open"  # no policy claims it


def test_learned_flows_are_enforced_and_survive_a_new_ruleset_with_their_counters(
    place: Place, enforce: Callable, config: Callable
) -> None:
    text = LEARNING + ZONES + 'policy "lan" "wan" { action = "reject" }'
    loaded = enforce(text)
    allowed = learn(place, loaded, ("lan_wan", mac(LAPTOP_MAC), 6, 8443, b""), True)
    refused = learn(place, loaded, ("DROP_INPUT", mac(LAPTOP_MAC), 17, 53, b""), False)
    for _ in range(3):
        assert tcp(place.laptop, place.server, "192.0.2.2", 8443) == "open"
    assert tcp(place.laptop, place.server, "2001:db8::2", 8443) == "open"  # a MAC has no family
    assert tcp(place.laptop, place.server, "192.0.2.2", 8444) == "ECONNREFUSED"
    assert udp(place.laptop, place.router, "10.1.0.1", 53) == "lost"
    assert place.packets(allowed) == [4]
    assert place.packets(refused) == [1]

    again = compile_config(
        config(text + WEB.replace('"lan" "wan"', '"wan" "lan"')),
        shapes={"lan_wan": {Shape("mac", "port")}, "DROP_INPUT": {Shape("mac", "port")}},
    )
    apply(place.nft, again)
    assert tcp(place.laptop, place.server, "192.0.2.2", 8443) == "open"
    assert udp(place.laptop, place.router, "10.1.0.1", 53) == "lost"
    assert place.packets(allowed) == [5]
    assert place.packets(refused) == [2]

    apply(place.nft, compile_config(config(ZONES)))
    inventory = place.nft.inventory()
    assert inventory is not None
    assert not inventory.sets


@pytest.mark.parametrize(
    ("key", "address", "protocol"),
    [
        (("lan_wan", bytes([10, 1, 0, 2]), 6, 443, b""), "192.0.2.2", "tcp"),
        (("lan_wan", bytes.fromhex("fd01" + "00" * 13 + "02"), 17, 443, b""), "2001:db8::2", "udp"),
        (("lan_wan", bytes([10, 1, 0, 2]), 17, 443, bytes([192, 0, 2, 2])), "192.0.2.2", "udp"),
    ],
)
def test_a_source_can_be_an_address_and_a_flow_have_a_destination(
    place: Place, enforce: Callable, key: Key, address: str, protocol: str
) -> None:
    granularity = 'granularity = "destination"\n' if key[4] else ""
    loaded = enforce(
        LEARNING
        + ZONES.replace('zone "lan" { interface = "lan0" }', 'zone "lan" {\n interface = "lan0"\n identity = "ip"\n}')
        + f'policy "lan" "wan" {{\n action = "drop"\n{granularity}}}'
    )
    attempt = {"tcp": tcp, "udp": udp}[protocol]
    assert attempt(place.laptop, place.server, address, 443) == "lost"
    learn(place, loaded, key, True)
    assert attempt(place.laptop, place.server, address, 443) == "open"
    assert attempt(place.laptop, place.server, address, 444) == "lost"


def test_where_there_is_no_ethernet_a_source_is_its_address(place: Place, enforce: Callable) -> None:
    loaded = enforce(LEARNING + ZONES + 'zone "vpn" { interface = "tun0" }')
    source, destination = bytes([10, 9, 0, 2]), bytes([192, 0, 2, 2])
    ports = struct.pack("!HHHH", 1000, 500, 8 + 1, 0)  # UDP: from, to, length, no checksum
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + 9, 0, 0, 64, 17, 0) + source + destination
    packet = header[:10] + struct.pack("!H", checksum(header)) + header[12:] + ports + b"?"
    with place.router.call(tunnel, "tun0") as tun, place.server.call(bound, *UDP_ANYWHERE, 500) as listener:
        place.router.ip("link set tun0 up", "route add 10.9.0.0/24 dev tun0")
        listener.settimeout(PATIENCE_S)
        tun.write(packet)
        with pytest.raises(TimeoutError):
            listener.recv(16)
        learn(place, loaded, ("DROP_FORWARD", mac(LAPTOP_MAC), 17, 500, b""), True)
        learn(place, loaded, ("DROP_FORWARD", source, 17, 500, b""), True)
        tun.write(packet)
        assert listener.recv(16) == b"?"
    # The same address on a cable is somebody else: there the MAC counts.
    learn(place, loaded, ("DROP_FORWARD", bytes([10, 1, 0, 2]), 17, 501, b""), True)
    assert udp(place.laptop, place.server, "192.0.2.2", 501) == "lost"


def test_icmp_is_learned_by_type(place: Place, enforce: Callable) -> None:
    loaded = enforce(LEARNING + ZONES)
    for protocol, type_, address in ((1, 8, "192.0.2.2"), (58, 128, "2001:db8::2")):
        assert ping(place.laptop, address) == "lost"
        learn(place, loaded, ("DROP_FORWARD", mac(LAPTOP_MAC), protocol, type_, b""), True)
        assert ping(place.laptop, address) == "open"


def test_ignored_networks_reach_no_hook(place: Place, enforce: Callable) -> None:
    enforce('rule_learning {\n enabled = true\n ignore_networks = ["192.0.2.0/24"]\n}' + ZONES + WEB)
    assert udp(place.laptop, place.server, "192.0.2.2", 53) == "lost"
    assert place.logged("policy_lan_wan") == 0
    assert udp(place.laptop, place.server, "2001:db8::2", 53) == "lost"
    assert place.logged("policy_lan_wan") == 1


def test_the_rate_limit_gates_the_log_and_never_the_drop(place: Place, enforce: Callable) -> None:
    enforce('rule_learning {\n enabled = true\n rate_limit = "3/hour"\n}' + ZONES)
    flood = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    with place.server.call(bound, socket.AF_INET, socket.SOCK_DGRAM, "", 2000) as listener:
        place.laptop.python(flood + "for i in range(60): s.sendto(b'?', ('192.0.2.2', 2000 + i % 2))\n")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(16)
    assert place.logged("end_of_forward") == 6  # three of each of two flows


def test_a_full_set_of_keys_leaves_the_limit_per_interface(
    place: Place, enforce: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_FLOWS", 4)
    monkeypatch.setattr(limits, "INTERFACE_FACTOR", 5)
    enforce('rule_learning {\n enabled = true\n rate_limit = "2/hour"\n}' + ZONES)
    flood = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    place.laptop.python(flood + "for i in range(300): s.sendto(b'?', ('192.0.2.2', 3000 + i % 100))\n")
    assert place.logged("end_of_forward") == 10  # without it: 292


class TestBehindTheHook:
    """Inline mode, with what an answer or a fail mode does in the place of the queue."""

    @pytest.fixture
    def inline(self, place: Place, config: Callable[[str], Config]) -> Callable[..., Config]:
        def put(answer: str, settings: str = "") -> Config:
            loaded = config(INLINE.replace("100\n", f"100\n{settings}\n") + ZONES)
            apply(place.nft, answered_by(compile_config(loaded), answer))
            return loaded

        yield put
        apply(place.nft, compile_config(config(ZONES)))

    def fail_open(self, place: Place) -> int:
        listed = place.router.run(["nft", "list", "counter", "inet", "glacic", "fail_open"]).stdout
        return int(listed.split("packets ")[1].split()[0])

    def test_what_nobody_answers_is_counted_and_its_connection_marked(self, place: Place, inline: Callable) -> None:
        inline("accept")
        before = self.fail_open(place)
        assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "open"
        assert self.fail_open(place) == before + 1
        marks = place.router.run(["conntrack", "-L", "--mark", "0x800000/0x800000"]).stdout
        assert "dport=443" in marks

    def test_an_answered_packet_is_not_counted(self, place: Place, inline: Callable) -> None:
        inline("meta mark set meta mark & 0xff00ffff accept")
        before = self.fail_open(place)
        assert tcp(place.laptop, place.server, "192.0.2.2", 444) == "open"
        assert self.fail_open(place) == before

    def test_an_answer_can_be_reject(self, place: Place, inline: Callable) -> None:
        inline("meta mark set meta mark & 0xff00ffff | 0x00400000 accept")
        assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "ECONNREFUSED"
        assert udp(place.laptop, place.server, "2001:db8::2", 53) == "EACCES"
        assert tcp(place.laptop, place.router, "10.1.0.1", 443) == "ECONNREFUSED"

    def test_bits_that_somebody_else_set_are_no_answer(self, place: Place, inline: Callable) -> None:
        inline("meta mark & 0xff000000 == 0x12000000 meta mark set meta mark & 0xff00ffff accept")
        theirs = "add table inet theirs\nadd chain inet theirs pre { type filter hook prerouting priority mangle; }\n"
        place.nft.run(theirs + "add rule inet theirs pre meta mark set 0x12c01234\n")
        try:
            before = self.fail_open(place)
            assert tcp(place.laptop, place.server, "192.0.2.2", 445) == "open"
            assert self.fail_open(place) == before
        finally:
            place.nft.run("delete table inet theirs\n")

    def test_a_packet_window_shows_a_connection_until_the_reader_has_seen_enough(
        self, place: Place, inline: Callable
    ) -> None:
        # An engine that accepts everything: packets of the window come as number 0.
        accept = "meta mark set meta mark & 0xff00ffff accept"
        loaded = inline(accept, "packet_window = 5")
        learn(place, loaded, ("DROP_FORWARD", mac(LAPTOP_MAC), 6, 446, b""), True)
        assert tcp(place.laptop, place.server, "192.0.2.2", 446) == "open"
        inspected = place.router.run(["conntrack", "-L", "--mark", "0x400000/0x400000"]).stdout
        assert "dport=446" in inspected

    def test_a_connection_that_nobody_answers_leaves_its_packet_window_too(
        self, place: Place, inline: Callable
    ) -> None:
        loaded = inline("counter meta mark set meta mark & 0xff00ffff | 0x00010000 accept", "packet_window = 1")
        learn(place, loaded, ("DROP_FORWARD", mac(LAPTOP_MAC), 17, 448, b""), True)
        for _ in range(3):
            assert udp(place.laptop, place.server, "192.0.2.2", 448, source_port=4480) == "open"
        shown = place.router.run(["nft", "list", "chain", "inet", "glacic", "inspect"]).stdout
        assert "counter packets 1 " in shown

    def test_the_end_of_a_packet_window_offloads_the_connection_and_spares_routing_marks(
        self, place: Place, inline: Callable
    ) -> None:
        inline("meta mark set meta mark & 0xff00ffff | 0x00010000 accept", "packet_window = 1")
        place.nft.run("""
        table inet theirs {
            chain pre {
                type filter hook prerouting priority mangle
                ct state new ct mark set 0x77 meta mark set 0x34
            }
            chain post {
                type filter hook postrouting priority mangle
                meta mark 0x34 counter
            }
        }
        """)
        try:
            assert tcp(place.laptop, place.server, "192.0.2.2", 447) == "open"
            seen = place.router.run(["nft", "list", "chain", "inet", "theirs", "post"]).stdout
            assert "counter packets 1 " in seen
        finally:
            place.nft.run("delete table inet theirs\n")
        listed = place.router.run(["conntrack", "-L", "-p", "tcp", "--dport", "447"]).stdout
        assert f"mark={0x0020_0077} " in listed


def test_a_cold_start_fills_the_learned_sets_before_any_chain(place: Place, config: Callable[[str], Config]) -> None:
    loaded = config(LEARNING + ZONES)
    apply(place.nft, compile_config(config(ZONES)))
    place.nft.run("delete table inet glacic\n")
    prepare(place.nft)
    learn(place, loaded, ("DROP_FORWARD", mac(LAPTOP_MAC), 6, 448, b""), True)
    assert tcp(place.guest, place.server, "192.0.2.2", 448) == "open"  # nothing is decided yet
    apply(place.nft, compile_config(loaded, shapes={"DROP_FORWARD": {Shape("mac", "port")}}))
    assert tcp(place.laptop, place.server, "192.0.2.2", 448) == "open"
    assert tcp(place.guest, place.server, "192.0.2.2", 448) == "lost"
