"""Road 1, its end in the service: puts rulesets in force, and remembers the last one, so that the next need not replace
what is the same.

    elements  only elements of named sets have changed, and the table is as it was left: they are replaced, no rule is
    ruleset   anything else, and whenever somebody has been at the table: a reload puts everything right

Whether somebody has been there is seen by the footprint: every rule has a handle that no other rule of the table ever
had or will have, and every base chain its policy. Learned lookups are left out of it, which come and go by themselves.
Refuses to say what somebody has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from glacic.ctlplane import netlink
from glacic.ctlplane.netlink import attributes
from glacic.ctlplane.nlsocket import NetlinkSocket
from glacic.firewall.apply import apply, refill
from glacic.firewall.claims import TABLE
from glacic.firewall.nft import Nft
from glacic.firewall.ruleset import Ruleset
from glacic.firewall.shapes import LEARNED

# linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NFPROTO_INET = 1
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_GETCHAIN, _NFT_MSG_GETRULE = _NFNL_SUBSYS_NFTABLES << 8 | 4, _NFNL_SUBSYS_NFTABLES << 8 | 7
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_POLICY = 1, 3, 5
_NFTA_RULE_TABLE, _NFTA_RULE_CHAIN, _NFTA_RULE_HANDLE = 1, 2, 3
_NFGEN_LENGTH = 4

Footprint = Hashable


def footprint(table: str = TABLE) -> Footprint:
    """What tells the chains and rules of a table from any others; None where it cannot be taken."""
    try:
        with NetlinkSocket() as sock:
            chains = _found(sock, table, _NFT_MSG_GETCHAIN, _NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_POLICY)
            rules = _found(sock, table, _NFT_MSG_GETRULE, _NFTA_RULE_TABLE, _NFTA_RULE_CHAIN, _NFTA_RULE_HANDLE)
            return None if sock.interrupted else (frozenset(chains), tuple(rules))
    except OSError:
        return None


def _found(sock: NetlinkSocket, table: str, kind: int, of: int, name: int, what: int) -> list[tuple[bytes, bytes]]:
    """(chain, policy or handle) of everything of one kind in the table, in the kernel's order."""
    ours = table.encode() + b"\0"
    request = netlink.message(kind, netlink.generic(_NFPROTO_INET) + netlink.attribute(of, ours), netlink.NLM_F_DUMP)
    all_ = [attributes(message.body, _NFGEN_LENGTH) for message in sock.dump(request)]
    found = [(one.get(name, b""), one.get(what, b"")) for one in all_ if one.get(of) == ours]
    return [one for one in found if not one[0].startswith(LEARNED.encode())]


class InForce:
    """What this process has put in force. One thread at a time."""

    def __init__(self, nft: Nft, take: Callable[[], Footprint] = footprint) -> None:
        self.replaced = "nothing"  # by the last `put`: "ruleset" or "elements"
        self._nft = nft
        self._take = take
        self._ruleset: Ruleset | None = None
        self._left: Footprint = None

    def put(self, ruleset: Ruleset, *, whole: bool = False) -> None:
        """Put a ruleset in force, `whole` also where elements would be enough. Raises KernelRefused; then what is in
        force is what it was."""
        before = None if whole else self._ruleset
        intact = before is not None and self._left is not None and self._take() == self._left
        if before is not None and intact and refill(self._nft, before, ruleset):
            self._ruleset, self.replaced = ruleset, "elements"
            return
        apply(self._nft, ruleset)
        self._ruleset, self._left, self.replaced = ruleset, self._take(), "ruleset"
