"""Limits, trying them: each engine's way in its smallest form, put together from the kernel's own pieces.

Not the engines themselves: what is tried is whether this kernel does what they are built on, and a probe must not hang
on what it decides about. Each puts a limit of next to nothing on `limited` of a Scratch, and takes it away again.

Refuses to judge: an exit status says nothing here (a kernel without CONFIG_CLS_U32_MARK takes the match and ignores
it), so probe.py sends packets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from glacic.errors import KernelRefused
from glacic.shaping.engine import DOWNLOAD, UPLOAD, Item
from glacic.shaping.scratch import INTERFACE, Scratch

Attempt = Callable[[Scratch], AbstractContextManager[None]]

RATE = 8_000  # bytes per second: of 100 datagrams of 1000 bytes, a few pass

_TABLE = "inet glacic_try"
_MARK = "0x10"
_IFB = "glacic9"
_OPTIONS = {  # of the kernel, by the word of a command that they are for
    "htb": "CONFIG_NET_SCH_HTB",
    "ifb": "CONFIG_IFB",
    "clsact": "CONFIG_NET_SCH_INGRESS",
    "fw": "CONFIG_NET_CLS_FW",
    "matchall": "CONFIG_NET_CLS_MATCHALL",
    "connmark": "CONFIG_NET_ACT_CONNMARK",
    "mirred": "CONFIG_NET_ACT_MIRRED",
    "police": "CONFIG_NET_ACT_POLICE",
}
_NFT_ROOT = Path("/sys/fs/cgroup")  # where nft looks paths up (nft(8), socket expression)


def attempts() -> dict[tuple[str, str], Attempt]:
    """(engine, direction) -> how to try it."""
    return {
        ("nft", UPLOAD): lambda scratch: _nft(scratch, "output"),
        ("nft", DOWNLOAD): lambda scratch: _nft(scratch, "input"),
        ("bpf", UPLOAD): lambda scratch: _bpf(scratch, upload=RATE),
        ("bpf", DOWNLOAD): lambda scratch: _bpf(scratch, download=RATE),
        ("shape", UPLOAD): _shape_upload,
        ("shape", DOWNLOAD): _shape_download,
        ("police", UPLOAD): lambda scratch: _police(scratch, "egress"),
        ("police", DOWNLOAD): lambda scratch: _police(scratch, "ingress"),
    }


@contextmanager
def _nft(scratch: Scratch, hook: str) -> Iterator[None]:
    path, level = _path_for_nft(scratch)
    script = f"""
table {_TABLE} {{
    limit slow {{ rate over {RATE} bytes/second burst {RATE} bytes; }}
    map limits {{ type cgroupsv2 : limit; elements = {{ "{path}" : "slow" }} }}
    chain try {{
        type filter hook {hook} priority 10; policy accept;
        limit name socket cgroupv2 level {level} map @limits drop
    }}
}}"""
    with _loaded(script):
        yield


@contextmanager
def _bpf(scratch: Scratch, upload: int = 0, download: int = 0) -> Iterator[None]:
    from glacic.shaping.bpf.engine import BpfLimits

    engine = BpfLimits(scratch.mount)
    engine.put([Item(name="try", cgroup=scratch.limited, upload=upload, download=download)])
    try:
        yield
    finally:
        engine.put(())


@contextmanager
def _shape_upload(scratch: Scratch) -> Iterator[None]:
    path, level = _path_for_nft(scratch)
    script = f"""
table {_TABLE} {{
    chain try {{
        type filter hook output priority 10; policy accept;
        socket cgroupv2 level {level} "{path}" meta priority set 1:10
    }}
}}"""
    with _loaded(script):
        try:
            _htb(scratch, INTERFACE)
            yield
        finally:
            _take_back(scratch, f"tc qdisc delete dev {INTERFACE} root")


@contextmanager
def _shape_download(scratch: Scratch) -> Iterator[None]:
    path, level = _path_for_nft(scratch)
    redirect = f"action mirred egress redirect dev {_IFB}"
    script = f"""
table {_TABLE} {{
    chain try {{
        type filter hook output priority 10; policy accept;
        socket cgroupv2 level {level} "{path}" ct mark set {_MARK}
    }}
}}"""
    with _loaded(script):
        try:
            _run(scratch, f"ip link add {_IFB} type ifb")
            _run(scratch, f"ip link set {_IFB} up")
            _htb(scratch, _IFB)
            _run(scratch, f"tc filter add dev {_IFB} parent 1: protocol all handle {_MARK} fw flowid 1:10")
            _run(scratch, f"tc qdisc add dev {INTERFACE} handle ffff: ingress")
            _run(
                scratch, f"tc filter add dev {INTERFACE} parent ffff: protocol all matchall action connmark {redirect}"
            )
            yield
        finally:
            _take_back(scratch, f"tc qdisc delete dev {INTERFACE} ingress")
            _take_back(scratch, f"ip link delete {_IFB}")


@contextmanager
def _police(scratch: Scratch, direction: str) -> Iterator[None]:
    police = f"action police rate {RATE}bps burst 8k conform-exceed drop"
    try:
        _run(scratch, f"tc qdisc add dev {INTERFACE} clsact")
        _run(scratch, f"tc filter add dev {INTERFACE} {direction} protocol all matchall {police}")
        yield
    finally:
        _take_back(scratch, f"tc qdisc delete dev {INTERFACE} clsact")


def _htb(scratch: Scratch, interface: str) -> None:
    """A root qdisc with a slow class 1:10; what is not sent into it goes out as ever (default 0)."""
    _run(scratch, f"tc qdisc add dev {interface} root handle 1: htb")
    _run(scratch, f"tc class add dev {interface} parent 1: classid 1:10 htb rate {RATE}bps burst 8k")


def _run(scratch: Scratch, words: str) -> None:
    """A command; where this kernel lacks a piece of it, KernelRefused says which option that is."""
    try:
        scratch.command(*words.split())
    except KernelRefused as refused:
        options = [option for word, option in _OPTIONS.items() if word in words.split()]
        raise KernelRefused(f"{refused}; that takes {', '.join(options)}" if options else str(refused)) from None


def _take_back(scratch: Scratch, words: str) -> None:
    with suppress(KernelRefused):  # it was not put there
        scratch.command(*words.split())


@contextmanager
def _loaded(script: str) -> Iterator[None]:
    from glacic.firewall.nft import Libnftables

    nft = Libnftables()
    nft.run(script)
    try:
        yield
    finally:
        nft.run(f"delete table {_TABLE}")


def _path_for_nft(scratch: Scratch) -> tuple[str, int]:
    """The cgroup as nft looks it up, literally below /sys/fs/cgroup, wherever cgroup2 is mounted; and its level, which
    counts inside cgroup2."""
    return os.path.relpath(scratch.mount / scratch.limited.path, _NFT_ROOT), scratch.limited.level
