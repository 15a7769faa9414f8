"""Limits, the engines by name: how each is made for one cgroup2 mount, in the network namespace of who makes it.

For the self-test, which makes each in a scratch network. Nothing is imported before the engine that needs it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from glacic.shaping.engine import Engine


def _nft(_: Path) -> Engine:
    from glacic.firewall.nft import Libnftables
    from glacic.shaping.nftlimits import NftLimits

    return NftLimits(Libnftables())


def _bpf(mount: Path) -> Engine:
    from glacic.shaping.bpf.engine import BpfLimits

    return BpfLimits(mount)


MAKERS: Mapping[str, Callable[[Path], Engine]] = MappingProxyType({"nft": _nft, "bpf": _bpf})
