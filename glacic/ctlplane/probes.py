"""What this kernel and machine can do, found by trying: each probe loads or binds the real thing in a scratch
namespace.

Used by `glacic doctor` and by the lab, which goes to a virtual machine where the kernel has no nft `queue` statement.
Refuses to touch the namespace that it is called in.
"""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glacic.ctlplane import netlink
from glacic.ctlplane.nlsocket import NetlinkSocket
from glacic.errors import GlacicError, KernelRefused

CLONE_NEWNET = 0x4000_0000  # linux/sched.h
CAP_NET_ADMIN = 12  # linux/capability.h


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one probe: what it is needed for, and where it failed how to get it."""

    name: str
    ok: bool
    detail: str
    needed_for: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Probe:
    name: str
    needed_for: str
    remedy: str
    attempt: Callable[[], str]  # a detail where it worked; raises where it did not


def examine() -> list[Finding]:
    """Run every probe, the ones that touch the kernel in a child with a network namespace of its own."""
    findings = [_try(probe) for probe in _OUTSIDE]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _inside(writer)
    os.close(writer)
    with os.fdopen(reader) as answers:
        text = answers.read()
    _, status = os.waitpid(child, 0)
    if not text:
        raise GlacicError(f"the probes in the scratch namespace ended with status {status} and no answer")
    return findings + [Finding(**row) for row in json.loads(text)]


def has_nft_queue() -> bool:
    """Whether this kernel has the nft `queue` statement; without it inline mode cannot be loaded."""
    return any(finding.name == "nft queue" and finding.ok for finding in examine())


def lacks(name: str) -> bool:
    """Whether what this probe tries was tried, and is missing; not where nothing can be tried, for want of rights."""
    found = {finding.name: finding.ok for finding in examine()}
    return found["nf_tables"] and not found[name]


def _inside(answers: int) -> None:
    """The child: never returns into the parent's code."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            error = os.strerror(ctypes.get_errno())
            rows = [
                asdict(Finding(p.name, False, f"no scratch namespace: {error}", p.needed_for, _AS_ROOT))
                for p in _INSIDE
            ]
        else:
            rows = [asdict(_try(probe)) for probe in _INSIDE]
        os.write(answers, json.dumps(rows).encode())
    finally:
        os._exit(0)


def _try(probe: _Probe) -> Finding:
    try:
        detail, ok = probe.attempt(), True
    except (KernelRefused, OSError, ImportError, RuntimeError, sqlite3.Error) as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith(":")]
        detail, ok = lines[0] if lines else type(error).__name__, False
    return Finding(probe.name, ok, detail, probe.needed_for, "" if ok else probe.remedy)


def _rights() -> str:
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    if not effective >> CAP_NET_ADMIN & 1:
        raise OSError("CAP_NET_ADMIN is not in the effective set")
    return "CAP_NET_ADMIN"


def _libnftables() -> str:
    from glacic.firewall.nft import Libnftables

    Libnftables()
    return "loaded"


def _netfilterqueue() -> str:
    import netfilterqueue

    return f"NetfilterQueue {'.'.join(map(str, netfilterqueue.VERSION))}"


def _sqlite() -> str:
    if sqlite3.sqlite_version_info < (3, 24):
        raise OSError(f"SQLite {sqlite3.sqlite_version} has no upsert")
    return f"SQLite {sqlite3.sqlite_version}"


def _queue_truth() -> str:
    from glacic.ctlplane.nfqueue import QueueTruth

    truth = QueueTruth()
    truth.close()
    return "readable"


def _loads(*statements: str) -> Callable[[], str]:
    """A probe that loads these statements into a scratch table."""

    def attempt() -> str:
        from glacic.firewall.nft import Libnftables

        chain = "chain probe { type filter hook forward priority 0; }"
        script = "\n".join(["table inet probe {", chain, "}", *statements, "delete table inet probe"])
        Libnftables().run(script)
        return "loads"

    return attempt


def _rule(text: str) -> Callable[[], str]:
    return _loads(f"add rule inet probe probe {text}")


def _bind_queue() -> str:
    from netfilterqueue import NetfilterQueue

    queue = NetfilterQueue()
    queue.bind(0, print)
    queue.unbind()
    return "binds"


def _bind_log() -> str:
    with NetlinkSocket() as nl:
        nl.request(netlink.nflog_bind(0))
    return "binds"


def _conntrack() -> str:
    with NetlinkSocket() as nl:
        list(nl.dump(netlink.conntrack_dump()))
    return "lists"


_AS_ROOT = "run `glacic doctor` as root"
_KERNEL = "a kernel with CONFIG_{}=y or =m (every Debian kernel has it)"
_SET = "add set inet probe s { typeof ether saddr . meta l4proto . th dport; counter; }"

_OUTSIDE = (
    _Probe("rights", "everything that changes the kernel", _AS_ROOT, _rights),
    _Probe("libnftables", "loading rulesets", "Debian package libnftables1", _libnftables),
    _Probe(
        "NetfilterQueue", "inline mode", "pip install NetfilterQueue; it needs libnetfilter-queue1", _netfilterqueue
    ),
    _Probe("SQLite", "remembering flows", "a Python built with SQLite 3.24 or newer", _sqlite),
)
_INSIDE = (
    _Probe("nf_tables", "everything", _KERNEL.format("NF_TABLES_INET"), _rule("counter")),
    _Probe("nft queue", "inline mode", _KERNEL.format("NFT_QUEUE"), _rule("queue num 100 bypass")),
    _Probe("nft log", "nflog mode", _KERNEL.format("NFT_LOG"), _rule('log group 0 prefix "probe: "')),
    _Probe(
        "nft reject",
        "policies that reject",
        _KERNEL.format("NFT_REJECT_INET"),
        _rule("reject with icmpx admin-prohibited"),
    ),
    _Probe(
        "nft ct mark", "fail modes, packet window", _KERNEL.format("NFT_CT"), _rule("ct mark set ct mark | 0x00800000")
    ),
    _Probe("nft limit", "rate limits", _KERNEL.format("NFT_LIMIT"), _rule("limit rate over 10/minute drop")),
    _Probe(
        "nft nat",
        "nat blocks",
        _KERNEL.format("NFT_MASQ"),
        _loads(
            "add chain inet probe n { type nat hook postrouting priority 100; }", "add rule inet probe n masquerade"
        ),
    ),
    _Probe(
        "nft sources",
        "limits per source",
        _KERNEL.format("NFT_CONNLIMIT"),
        _loads(
            "add set inet probe s { typeof ip saddr; size 9; flags dynamic; }",
            "add rule inet probe probe add @s { ip saddr ct count 3 } accept",
        ),
    ),
    _Probe("nft fib", "antispoof, hairpin", _KERNEL.format("NFT_FIB_INET"), _rule("fib daddr type local")),
    _Probe(
        "nft flowtable",
        "flowtable",
        _KERNEL.format("NFT_FLOW_OFFLOAD"),
        _loads(
            "add flowtable inet probe f { hook ingress priority filter; }",
            "add rule inet probe probe flow add @f",
        ),
    ),
    _Probe(
        "learned sets",
        "what the kernel enforces",
        "Linux 5.7 or newer",
        _loads(_SET, "add rule inet probe probe ether saddr . meta l4proto . th dport @s accept"),
    ),
    _Probe("nfnetlink_queue", "inline mode", _KERNEL.format("NETFILTER_NETLINK_QUEUE"), _bind_queue),
    _Probe("queue truth", "queue figures", _KERNEL.format("NETFILTER_NETLINK_QUEUE"), _queue_truth),
    _Probe("nfnetlink_log", "nflog mode", _KERNEL.format("NETFILTER_NETLINK_LOG"), _bind_log),
    _Probe("conntrack", "ending connections of denied flows", _KERNEL.format("NF_CT_NETLINK"), _conntrack),
)


def as_rows(findings: list[Finding]) -> list[dict[str, Any]]:
    """JSON-ready."""
    return [asdict(finding) for finding in findings]
