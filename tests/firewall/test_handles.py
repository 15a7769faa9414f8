"""The handle of a chain's first rule."""

from __future__ import annotations

import os

import pytest

from glacic.firewall.handles import first_rule, rule_socket
from glacic.firewall.nft import Libnftables
from glacic.lab.net import Host

TABLE = """\
table inet glacic {
    chain one {
        tcp dport { 80, 443 } accept
        drop
    }
    chain two {
        accept
    }
    chain none { }
}
"""


def test_the_first_rule_of_a_chain_can_be_taken_away_by_its_handle(scratch: Host, nft: Libnftables) -> None:
    nft.run(TABLE)
    nft.run("insert rule inet glacic one counter\n")
    heads = nft.heads(["one", "two"])
    listed = scratch.run(["nft", "-a", "list", "chain", "inet", "glacic", "one"]).stdout
    assert f"counter packets 0 bytes 0 # handle {heads['one']}" in listed
    nft.run("".join(f"delete rule inet glacic {chain} handle {handle}\n" for chain, handle in heads.items()))
    assert "counter" not in scratch.run(["nft", "list", "table", "inet", "glacic"]).stdout


@pytest.mark.parametrize("chain", ["none", "nowhere"])
def test_where_there_is_no_rule_there_is_no_handle(scratch: Host, nft: Libnftables, chain: str) -> None:
    nft.run(TABLE)
    descriptor = scratch.call(rule_socket)
    try:
        with pytest.raises(OSError, match=chain):
            first_rule(descriptor, chain)
    finally:
        os.close(descriptor)
