"""What the rules of a policy do to real packets besides matching: limits per source, rejecting, logging, counting."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from glacic.config.model import Config
from glacic.ctlplane import netlink
from glacic.ctlplane.nlsocket import NetlinkSocket
from glacic.firewall import sources
from glacic.firewall.apply import apply
from glacic.firewall.compile import compile_config

from .conftest import PATIENCE_S, ZONES, Place, bound, ping, tcp, udp

OTHER_64 = "fd01:0:0:1::2"


def only(rule: str, policy: str = "") -> str:
    """A policy from lan to wan with one rule for TCP and UDP 443."""
    return f"""{ZONES}
    policy "lan" "wan" {{
      {policy}
      rule "web" {{
        proto     = ["tcp", "udp"]
        dest_port = 443
        {rule}
      }}
    }}
    """


@pytest.fixture(autouse=True)
def nothing_counted(place: Place, config: Callable[[str], Config]) -> None:
    """What sources have used up, and what was counted, outlives a ruleset that counts it too."""
    apply(place.nft, compile_config(config(ZONES)))


@pytest.fixture
def sources_of_laptop(place: Place) -> Iterator[None]:
    """The laptop has further addresses: one beside each of its own, and one in another /64."""
    added = ["10.1.0.3/24", "fd01::3/64", f"{OTHER_64}/64"]
    place.laptop.ip(*(f"address add {address} dev eth0" for address in added))
    place.router.ip("route add fd01:0:0:1::/64 via fd01::2")
    yield
    place.router.ip("route delete fd01:0:0:1::/64 via fd01::2")
    place.laptop.ip(*(f"address delete {address} dev eth0" for address in added))


class Connections:
    """TCP connections from the laptop to the server's port 443 that stay open."""

    def __init__(self, place: Place, stack: ExitStack) -> None:
        self._place, self._stack = place, stack
        self._listeners = {
            family: place.server.call(bound, family, socket.SOCK_STREAM, "", 443) for family in (socket.AF_INET6,)
        }
        for listener in self._listeners.values():
            stack.enter_context(listener)
            listener.listen(64)

    def open(self, source: str, address: str) -> socket.socket | None:
        """One more from this address; None where it does not come up."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self._stack.enter_context(self._place.laptop.call(bound, family, socket.SOCK_STREAM, source, 0))
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect((address, 443))
        except TimeoutError:
            sock.close()
            return None
        return sock


@pytest.fixture
def connections(place: Place) -> Iterator[Connections]:
    with ExitStack() as stack:
        yield Connections(place, stack)


@pytest.mark.usefixtures("sources_of_laptop")
class TestConnectionsPerSource:
    def test_a_source_has_so_many_connections_at_a_time_and_another_has_its_own(
        self, place: Place, enforce: Callable, connections: Connections
    ) -> None:
        enforce(only('connections_per_source = 3\naction = "accept"'))
        opened = [connections.open("10.1.0.2", "192.0.2.2") for _ in range(5)]
        assert [one is not None for one in opened] == [True] * 3 + [False] * 2
        assert connections.open("10.1.0.3", "192.0.2.2") is not None

    def test_a_connection_that_has_ended_makes_room(
        self, place: Place, enforce: Callable, connections: Connections
    ) -> None:
        enforce(only('connections_per_source = 1\naction = "accept"'))
        first = connections.open("10.1.0.2", "192.0.2.2")
        assert first is not None
        assert connections.open("10.1.0.2", "192.0.2.2") is None
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()  # with a reset: it is over at once
        assert connections.open("10.1.0.2", "192.0.2.2") is not None

    def test_an_ipv6_source_is_a_64(self, place: Place, enforce: Callable, connections: Connections) -> None:
        enforce(only('connections_per_source = 2\naction = "accept"'))
        assert connections.open("fd01::2", "2001:db8::2") is not None
        assert connections.open("fd01::3", "2001:db8::2") is not None
        assert connections.open("fd01::3", "2001:db8::2") is None
        assert connections.open(OTHER_64, "2001:db8::2") is not None

    def test_a_new_ruleset_forgives_nothing(self, place: Place, enforce: Callable, connections: Connections) -> None:
        text = only('connections_per_source = 2\naction = "accept"')
        enforce(text)
        assert connections.open("10.1.0.2", "192.0.2.2") is not None
        assert connections.open("10.1.0.2", "192.0.2.2") is not None
        enforce(text + 'zone "iot" { interface = "iot0" }')
        assert connections.open("10.1.0.2", "192.0.2.2") is None
        enforce(text.replace("= 2", "= 3"))
        inventory = place.nft.inventory()
        assert inventory is not None
        assert inventory.sets == {"open_3_web_of_lan_wan_ip", "open_3_web_of_lan_wan_ip6"}

    def test_a_set_that_is_full_lets_no_newcomer_in(
        self, place: Place, enforce: Callable, connections: Connections, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "_SOURCES", 1)
        enforce(only('connections_per_source = 9\naction = "accept"'))
        assert connections.open("10.1.0.2", "192.0.2.2") is not None
        assert connections.open("10.1.0.3", "192.0.2.2") is None
        assert connections.open("10.1.0.2", "192.0.2.2") is not None


@pytest.mark.usefixtures("sources_of_laptop")
class TestLimitPerSource:
    def sent(self, place: Place, source: str, address: str, count: int) -> int:
        """How many of `count` datagrams, each of a connection of its own, arrive."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        arrived = 0
        with place.server.call(bound, family, socket.SOCK_DGRAM, "", 443) as listener:
            for _ in range(count):
                with place.laptop.call(bound, family, socket.SOCK_DGRAM, source, 0) as sock:
                    sock.sendto(b"?", (address, 443))
            listener.settimeout(PATIENCE_S)
            while True:
                try:
                    listener.recv(16)
                except TimeoutError:
                    return arrived
                arrived += 1

    def test_each_source_has_the_rate_for_itself(self, place: Place, enforce: Callable) -> None:
        enforce(only('limit_per_source = "4/hour"\naction = "accept"'))
        assert self.sent(place, "10.1.0.2", "192.0.2.2", 9) == 4
        assert self.sent(place, "10.1.0.3", "192.0.2.2", 9) == 4
        assert self.sent(place, "fd01::2", "2001:db8::2", 3) == 3
        assert self.sent(place, "fd01::3", "2001:db8::2", 9) == 1
        assert self.sent(place, OTHER_64, "2001:db8::2", 9) == 4

    def test_what_one_source_sends_too_much_takes_nothing_from_the_others_limit(
        self, place: Place, enforce: Callable
    ) -> None:
        enforce(only('limit_per_source = "2/hour"\nlimit = "1/hour"\naction = "accept"'))  # five at once
        assert self.sent(place, "10.1.0.2", "192.0.2.2", 20) == 2
        assert self.sent(place, "10.1.0.3", "192.0.2.2", 20) == 2
        assert self.sent(place, "fd01::3", "2001:db8::2", 20) == 1  # the fifth of all

    def test_what_is_above_it_goes_on_to_the_next_rule(self, place: Place, enforce: Callable) -> None:
        text = only('limit_per_source = "2/hour"\naction = "accept"')
        refuse = 'rule "too much" {\n proto = "udp"\n action = "reject"\n reject_with = "port-unreachable"\n}\n}'
        enforce(text.rstrip().removesuffix("}") + refuse)
        answers = [udp(place.laptop, place.server, "192.0.2.2", 443) for _ in range(4)]
        assert answers == ["open", "open", "ECONNREFUSED", "ECONNREFUSED"]


@pytest.mark.parametrize(
    ("told", "by_ip", "by_ip6"),
    [
        ("no-route", (3, 0), (1, 0)),  # RFC 792: net unreachable; RFC 4443: no route to destination
        ("host-unreachable", (3, 1), (1, 3)),  # host unreachable; address unreachable
        ("port-unreachable", (3, 3), (1, 4)),
        ("admin-prohibited", (3, 13), (1, 1)),  # RFC 1812: communication administratively prohibited
    ],
)
def test_a_rule_rejects_as_it_says_tcp_too(
    place: Place, enforce: Callable, told: str, by_ip: tuple[int, int], by_ip6: tuple[int, int]
) -> None:
    enforce(only(f'action = "reject"\nreject_with = "{told}"', 'action = "accept"'))
    for attempt in (udp, tcp):
        assert answer(place, attempt, "192.0.2.2") == by_ip
        assert answer(place, attempt, "2001:db8::2") == by_ip6


def answer(place: Place, attempt: Callable[..., str], address: str) -> tuple[int, int]:
    """Type and code of the ICMP error that the laptop gets."""
    family, protocol = (socket.AF_INET6, 58) if ":" in address else (socket.AF_INET, 1)
    with place.laptop.call(socket.socket, family, socket.SOCK_RAW, protocol) as icmp:
        icmp.settimeout(PATIENCE_S)
        assert attempt(place.laptop, place.server, address, 443) != "open"
        while True:
            message = icmp.recv(256)[0 if family == socket.AF_INET6 else 20 :]
            if message[0] in (1, 3):  # not what neighbours say to each other
                return message[0], message[1]


def test_a_rule_that_does_not_say_resets_tcp_and_prohibits_the_rest(place: Place, enforce: Callable) -> None:
    enforce(only('action = "reject"', 'action = "accept"'))
    assert tcp(place.laptop, place.server, "192.0.2.2", 443) == "ECONNREFUSED"
    assert udp(place.laptop, place.server, "192.0.2.2", 443) == "EHOSTUNREACH"
    assert udp(place.laptop, place.server, "2001:db8::2", 443) == "EACCES"


def test_a_rule_can_reset_what_it_refuses(place: Place, enforce: Callable) -> None:
    text = only('action = "reject"\nreject_with = "tcp-reset"', 'action = "accept"')
    enforce(text.replace('["tcp", "udp"]', '"tcp"'))
    assert tcp(place.laptop, place.server, "2001:db8::2", 443) == "ECONNREFUSED"
    assert udp(place.laptop, place.server, "2001:db8::2", 443) == "open"


def test_a_log_group_gets_what_the_rule_decides_with_its_prefix_and_no_other_group_does(
    place: Place, enforce: Callable
) -> None:
    enforce(
        "rule_learning {\n enabled = true\n log_group = 7\n}\n"
        + only('action = "accept"\nlog = "web? "\nlog_group = 8')
    )
    with place.router.call(NetlinkSocket) as learning, place.router.call(NetlinkSocket) as logged:
        for sock, group in ((learning, 7), (logged, 8)):
            sock.request(netlink.nflog_bind(group))
            sock.request(netlink.nflog_configure(group, copy_range=64, batch=1, timeout_ms=10, buffer=4096))
        assert udp(place.laptop, place.server, "192.0.2.2", 443) == "open"
        assert udp(place.laptop, place.server, "192.0.2.2", 444) == "lost"
        assert b"web? \0" in logged.socket.recv(4096)
        assert b"lan_wan: \0" in learning.socket.recv(4096)
        for sock in (learning, logged):
            sock.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.socket.recv(4096)


class TestCounters:
    def counted(self, place: Place, rule: str) -> int:
        return place.nft.dump.counters()[f"rule_{rule}_of_lan_wan"].packets

    def test_a_rule_counts_what_it_decides_in_both_families_together(self, place: Place, enforce: Callable) -> None:
        enforce(only('counter = true\naction = "accept"\nlimit = "1/hour"'))
        for address in ("192.0.2.2", "2001:db8::2") * 3:
            udp(place.laptop, place.server, address, 443)
        assert ping(place.laptop, "192.0.2.2") == "lost"
        assert self.counted(place, "web") == 5  # above the limit it decides nothing

    def test_it_goes_on_counting_under_a_new_ruleset_and_goes_with_its_rule(
        self, place: Place, enforce: Callable, config: Callable[[str], Config]
    ) -> None:
        enforce(ZONES)
        text = only('counter = true\naction = "accept"')
        enforce(text)
        assert udp(place.laptop, place.server, "192.0.2.2", 443) == "open"
        enforce(text.replace("443", '["443", 444]'))
        assert udp(place.laptop, place.server, "192.0.2.2", 444) == "open"
        assert self.counted(place, "web") == 2
        apply(place.nft, compile_config(config(ZONES)))
        assert place.nft.dump.counters() == {}


def test_a_rule_can_be_for_what_somebody_elses_port_forward_has_sent_here(place: Place, enforce: Callable) -> None:
    enforce(
        ZONES
        + """
    policy "wan" "lan" {
      rule "published" {
        proto      = "tcp"
        translated = true
        action     = "accept"
      }
    }
    """
    )
    place.nft.run(
        "table ip theirs {\n chain pre {\n  type nat hook prerouting priority dstnat;\n"
        "  ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.1.0.2:80\n }\n}\n"
    )
    try:
        assert tcp(place.server, place.laptop, "192.0.2.1", 8080, listen=("", 80)) == "open"
        assert tcp(place.server, place.laptop, "10.1.0.2", 80) == "lost"
    finally:
        place.nft.run("delete table ip theirs\n")
