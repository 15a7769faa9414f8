"""Names that stand for numbers: what a zone may ask of the firewall, protocols, ICMP types.

A vocabulary beside road 1: decode.py knows from here which names exist, compile.py what they mean. Port numbers are
IANA's (Service Name and Transport Protocol Port Number Registry), protocol numbers IANA's (Assigned Internet Protocol
Numbers), ICMP types those of RFC 792 and RFC 4443 under the names that nft(8) has for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Opening(NamedTuple):
    """What is accepted: `ports` of `protos`, in family 4, 6 or 0 for both.

    Where protos are icmp or icmpv6 the ports are types; () stands for all of a protocol that has neither.
    """

    protos: tuple[str, ...]
    ports: tuple[int, ...]
    family: int = 0


def _tcp(*ports: int) -> Opening:
    return Opening(("tcp",), ports)


def _udp(*ports: int) -> Opening:
    return Opening(("udp",), ports)


def _both(*ports: int) -> Opening:
    return Opening(("tcp", "udp"), ports)


_PING = (Opening(("icmp",), (8,), 4), Opening(("icmpv6",), (128,), 6))

SERVICES: Mapping[str, tuple[Opening, ...]] = MappingProxyType(
    {
        "bfd": (_udp(3784, 4784),),
        "bgp": (_tcp(179),),
        "dhcp": (Opening(("udp",), (67,), 4), Opening(("udp",), (547,), 6)),
        "dhcp_client": (Opening(("udp",), (68,), 4), Opening(("udp",), (546,), 6)),
        "dns": (_both(53),),
        "dns_over_tls": (_both(853),),
        "ftp": (_tcp(21),),
        "git": (_tcp(9418),),
        "http": (_tcp(80),),
        "https": (_both(443),),  # UDP: HTTP/3
        "icmp": _PING,
        "igmp": (Opening(("igmp",), ()),),
        "imap": (_tcp(143),),
        "imaps": (_tcp(993),),
        "iperf3": (_both(5201),),
        "ipp": (_tcp(631),),
        "ipsec": (_udp(500, 4500), Opening(("esp",), ())),
        "kerberos": (_both(88),),
        "ldap": (_both(389),),
        "ldaps": (_tcp(636),),
        "llmnr": (_both(5355),),
        "mdns": (_udp(5353),),
        "mqtt": (_tcp(1883),),
        "mqtts": (_tcp(8883),),
        "mysql": (_tcp(3306),),
        "netbios": (_udp(137, 138), _tcp(139)),
        "nfs": (_both(2049),),
        "ntp": (_udp(123),),
        "nut": (_tcp(3493),),
        "openvpn": (_both(1194),),
        "ospf": (Opening(("ospf",), ()),),
        "ping": _PING,
        "pop3": (_tcp(110),),
        "pop3s": (_tcp(995),),
        "postgresql": (_tcp(5432),),
        "ptp": (_udp(319, 320),),
        "radius": (_udp(1812, 1813),),
        "rdp": (_both(3389),),
        "rsync": (_tcp(873),),
        "sip": (_both(5060), _tcp(5061)),
        "smb": (_tcp(445),),
        "smtp": (_tcp(25),),
        "snmp_trap": (_udp(162),),
        "socks": (_tcp(1080),),
        "squid": (_tcp(3128),),
        "ssdp": (_udp(1900),),
        "stun": (_both(3478), _tcp(5349)),
        "submission": (_tcp(587),),
        "syslog": (_both(514),),
        "syslog_tls": (_tcp(6514),),
        "tftp": (_udp(69),),
        "upnp": (_udp(1900), _tcp(5000)),
        "vrrp": (Opening(("vrrp",), ()),),
        "wireguard": (_udp(51820),),
        "ws_discovery": (_udp(3702), _tcp(5357)),
        "xmpp": (_tcp(5222, 5269),),
    }
)

MANAGEMENT: Mapping[str, tuple[Opening, ...]] = MappingProxyType(
    {
        "cockpit": (_tcp(9090),),
        "http": (_tcp(80),),
        "https": (_tcp(443),),
        "icmp": _PING,
        "netconf": (_tcp(830),),
        "ping": _PING,
        "prometheus": (_tcp(9100),),
        "snmp": (_udp(161),),
        "ssh": (_tcp(22),),
        "telnet": (_tcp(23),),
        "web": (_tcp(80, 443),),
        "webmin": (_tcp(10000),),
        "zabbix_agent": (_tcp(10050),),
    }
)

PROTOCOLS: Mapping[str, int] = MappingProxyType(
    {
        "icmp": 1,
        "igmp": 2,
        "ipip": 4,
        "tcp": 6,
        "egp": 8,
        "igp": 9,
        "udp": 17,
        "ipv6": 41,
        "rsvp": 46,
        "gre": 47,
        "esp": 50,
        "ah": 51,
        "icmpv6": 58,
        "eigrp": 88,
        "ospf": 89,
        "etherip": 97,
        "pim": 103,
        "ipcomp": 108,
        "vrrp": 112,
        "l2tp": 115,
        "sctp": 132,
        "udplite": 136,
    }
)

PORT_PROTOCOLS = frozenset({"tcp", "udp", "udplite", "sctp"})  # those whose header begins with two ports

# What people write instead, for advice only.
PROTOCOL_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "icmp6": "icmpv6",
        "ipv6-icmp": "icmpv6",
        "icmpv4": "icmp",
        "ping": "icmp",
        "udp-lite": "udplite",
        "ip": "any",
        "all": "any",
        "ipsec": "esp",
    }
)

PROTOCOL_FAMILY: Mapping[str, int] = MappingProxyType({"icmp": 4, "igmp": 4, "icmpv6": 6})  # all others: both

ICMP_TYPES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "icmp": MappingProxyType(
            {
                "echo-reply": 0,
                "destination-unreachable": 3,
                "source-quench": 4,
                "redirect": 5,
                "echo-request": 8,
                "router-advertisement": 9,
                "router-solicitation": 10,
                "time-exceeded": 11,
                "parameter-problem": 12,
                "timestamp-request": 13,
                "timestamp-reply": 14,
                "info-request": 15,
                "info-reply": 16,
                "address-mask-request": 17,
                "address-mask-reply": 18,
            }
        ),
        "icmpv6": MappingProxyType(
            {
                "destination-unreachable": 1,
                "packet-too-big": 2,
                "time-exceeded": 3,
                "parameter-problem": 4,
                "echo-request": 128,
                "echo-reply": 129,
                "mld-listener-query": 130,
                "mld-listener-report": 131,
                "mld-listener-done": 132,
                "mld-listener-reduction": 132,
                "nd-router-solicit": 133,
                "nd-router-advert": 134,
                "nd-neighbor-solicit": 135,
                "nd-neighbor-advert": 136,
                "nd-redirect": 137,
                "router-renumbering": 138,
                "ind-neighbor-solicit": 141,
                "ind-neighbor-advert": 142,
                "mld2-listener-report": 143,
            }
        ),
    }
)

# The ports behind the names that people write for a port, for advice only.
PORT_NAMES: Mapping[str, int] = MappingProxyType(
    {
        "dns": 53,
        "domain": 53,
        "ftp": 21,
        "http": 80,
        "https": 443,
        "imap": 143,
        "imaps": 993,
        "mqtt": 1883,
        "ntp": 123,
        "pop3": 110,
        "rdp": 3389,
        "smtp": 25,
        "ssh": 22,
        "syslog": 514,
        "telnet": 23,
    }
)
