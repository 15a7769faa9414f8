"""Road 1, below the seam: the handle of a chain's first rule, by a netlink dump of that chain alone.

nft can list one chain as well, but fetches the elements of every set of the table for it. Attributes and messages:
linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, linux/netlink.h. Refuses to read what a rule does.
"""

from __future__ import annotations

import os
import socket
import struct

from glacic.firewall.claims import TABLE

_NETLINK_NETFILTER = 12
_GETRULE, _NEWRULE = 10 << 8 | 7, 10 << 8 | 6  # NFNL_SUBSYS_NFTABLES, NFT_MSG_*
_TABLE, _CHAIN, _HANDLE = 1, 2, 3  # NFTA_RULE_*
_NFPROTO_INET = 1
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3
_MESSAGE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")  # struct nlmsghdr, struct nlattr
_GENERIC = struct.pack("=BBH", _NFPROTO_INET, 0, 0)  # struct nfgenmsg
_BUFFER = 1 << 20
_ANSWER_S = 30.0


def rule_socket() -> int:
    """The descriptor of a netlink socket of this thread's network namespace, for the caller to close."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    opened.bind((0, 0))
    return opened.detach()


def first_rule(descriptor: int, chain: str) -> int:
    """The handle of the first rule of a chain of our table. Raises OSError, also where the chain has no rule."""
    body = _GENERIC + _attribute(_TABLE, TABLE) + _attribute(_CHAIN, chain)
    with socket.socket(fileno=os.dup(descriptor)) as opened:
        opened.settimeout(_ANSWER_S)
        opened.send(_MESSAGE.pack(_MESSAGE.size + len(body), _GETRULE, _REQUEST_DUMP, 1, 0) + body)
        return _first_handle(opened, chain)


def _first_handle(opened: socket.socket, chain: str) -> int:
    first = 0
    while True:
        data = opened.recv(_BUFFER)
        while data:
            length, kind, _, _, _ = _MESSAGE.unpack_from(data)
            content, data = data[_MESSAGE.size : length], data[_aligned(length) :]
            if kind == _NEWRULE:
                first = first or _handle(content[len(_GENERIC) :])
            elif kind == _DONE or (kind == _ERROR and struct.unpack_from("=i", content)[0] == 0):
                if not first:
                    raise FileNotFoundError(2, "no rule", chain)
                return first
            elif kind == _ERROR:
                number = -struct.unpack_from("=i", content)[0]
                raise OSError(number, os.strerror(number), chain)


def _attribute(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value).ljust(_aligned(length), b"\0")


def _handle(attributes: bytes) -> int:
    """NFTA_RULE_HANDLE, a 64-bit number in network byte order."""
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind & 0x3FFF == _HANDLE:  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
            return int.from_bytes(attributes[_ATTRIBUTE.size : length], "big")
        attributes = attributes[_aligned(length) :]
    return 0


def _aligned(length: int) -> int:
    return (length + 3) & ~3
