"""Limits, the engines by name: how each is made, in the network namespace of who makes it, and which a service has.

The service holds limits with all of them, the self-test tries each in a scratch network, and what a service has left is
removed when Glacic is unloaded. Nothing is imported before the engine that needs it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from glacic.shaping.cgroups import find
from glacic.shaping.engine import Engine
from glacic.shaping.ondemand import OnDemand, note_of

if TYPE_CHECKING:
    from glacic.firewall.nft import Nft

Mount = Callable[[], Path]


def on_interfaces(
    nft: Nft, folder: Path, *, mount: Mount = lambda: find().mount, offload_mark: Callable[[], int] = lambda: 0
) -> dict[str, Engine]:
    """Those of tc, which take interfaces and have to give them back. folder: where they note that; see shape.py."""

    def shape() -> Engine:
        from glacic.shaping.tc.shape import Shape

        return Shape(nft, mount=mount, offload_mark=offload_mark)

    makers: dict[str, Callable[[], Engine]] = {"shape": shape, "police": lambda: _police(mount)}
    return {name: OnDemand(name, make, note_of(folder, name)) for name, make in makers.items()}


def _nft(mount: Mount) -> Engine:
    from glacic.firewall.nft import Libnftables
    from glacic.shaping.nftlimits import NftLimits

    return NftLimits(Libnftables(), mount=mount)


def _bpf(mount: Mount) -> Engine:
    from glacic.shaping.bpf.engine import BpfLimits

    return BpfLimits(mount())


def _shape(mount: Mount) -> Engine:
    from glacic.firewall.nft import Libnftables
    from glacic.shaping.tc.shape import Shape

    return Shape(Libnftables(), mount=mount)


def _police(_: Mount) -> Engine:
    from glacic.shaping.tc.police import Police

    return Police()


MAKERS: Mapping[str, Callable[[Mount], Engine]] = MappingProxyType(
    {"nft": _nft, "bpf": _bpf, "shape": _shape, "police": _police}
)
