"""The vocabulary: every opening can be written as nftables, and what config repeats of firewall is the same there."""

from __future__ import annotations

import re

import pytest

from glacic.config.model import LIMIT_CT_MARK, MAX_LEARNING_POLICIES, RESERVED_CT_MARK, RuleLearning
from glacic.config.services import ICMP_TYPES, MANAGEMENT, PORT_PROTOCOLS, PROTOCOLS, SERVICES, Opening
from glacic.firewall import claims

OPENINGS = [(name, opening) for known in (SERVICES, MANAGEMENT) for name, found in known.items() for opening in found]


@pytest.mark.parametrize(("name", "opening"), OPENINGS)
def test_an_opening_names_known_protocols_and_numbers_that_they_have(name: str, opening: Opening) -> None:
    assert re.fullmatch("[a-z][a-z0-9_]*", name)
    assert opening.protos
    assert set(opening.protos) <= set(PROTOCOLS)
    assert opening.family in (0, 4, 6)
    if set(opening.protos) <= PORT_PROTOCOLS:
        assert opening.ports
        assert all(0 < port < 65536 for port in opening.ports)
    elif set(opening.protos) <= set(ICMP_TYPES):
        assert all(port in ICMP_TYPES[proto].values() for proto in opening.protos for port in opening.ports)
        assert opening.family == (4 if opening.protos == ("icmp",) else 6)
    else:
        assert opening.ports == ()


def test_web_is_http_and_https_and_ping_is_an_echo_request_in_both_families() -> None:
    assert MANAGEMENT["web"] == (Opening(("tcp",), (80, 443)),)
    assert MANAGEMENT["ssh"] == (Opening(("tcp",), (22,)),)
    assert MANAGEMENT["icmp"] == (Opening(("icmp",), (8,), 4), Opening(("icmpv6",), (128,), 6))
    assert SERVICES["dhcp"] == (Opening(("udp",), (67,), 4), Opening(("udp",), (547,), 6))


def test_what_config_repeats_of_the_kernel_side_is_the_same_there() -> None:
    assert RESERVED_CT_MARK == claims.CT_FAIL_OPEN | claims.CT_INSPECT
    assert LIMIT_CT_MARK == claims.CT_LIMIT
    assert MAX_LEARNING_POLICIES == claims.MAX_POLICIES
    assert not RuleLearning().offload_mark & RESERVED_CT_MARK
