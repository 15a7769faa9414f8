"""A machine with a cable, `near` -- v0 === v1 -- `far`, and two cgroups: for what any kernel with HTB and ifb can do.

What needs a stock kernel's classifiers and actions is in tests/vm/test_shaping_tc.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from glacic.lab import transfer
from glacic.lab.net import Host, Network, Port
from glacic.shaping.engine import Cgroup, Item
from glacic.shaping.tc.kernel import Tc

T = TypeVar("T")
FAR, FAR_6 = "10.9.0.2", "fd09::2"


@dataclass(frozen=True)
class Lab:
    near: Host
    far: Host
    mount: Path
    top: str  # the cgroups' own, relative to the mount

    def item(self, name: str, path: str, **limits: int) -> Item:
        """An item for the cgroup `path` below the top one, on v0."""
        path = f"{self.top}/{path}"
        cgroup = Cgroup(path, (self.mount / path).stat().st_ino, path.count("/") + 1)
        return Item(name=name, cgroup=cgroup, interface="v0", **limits)  # type: ignore[arg-type]

    def tc(self, *lines: str) -> None:
        for line in lines:
            self.near.run(["tc", *line.split()])

    def everything(self) -> tuple[object, ...]:
        """Links, qdiscs and tables."""
        listed = [json.loads(self.near.run(c.split()).stdout) for c in ("tc -j qdisc show", "ip -j -d link")]
        return (*listed, self.near.run(["nft", "list", "ruleset"]).stdout)

    def with_tc(self, function: Callable[[Tc], T]) -> T:
        """What a function of an open Tc returns in `near`."""

        def opened() -> T:
            with Tc() as tc:
                return function(tc)

        return self.near.call(opened)

    def up(self, path: str, address: str = FAR) -> float:
        """Bytes per second that a process of this cgroup gets through to `far`."""
        with transfer.connection(self.mount, self.mount / self.top / path, self.near, self.far, address) as ends:
            return transfer.rate(*ends, seconds=3)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mount = Path(next(words[1] for words in lines if words[2] == "cgroup2"))
    top = f"glacic-test-{os.getpid()}"
    with Network() as net, transfer.cgroups(mount, top, f"{top}/a", f"{top}/b", f"{top}/a/in"):
        near, far = net.host("near"), net.host("far")
        addresses = [(f"10.9.0.{n}/24", f"fd09::{n}/64") for n in (1, 2)]
        net.cable(Port(near, "v0", "", addresses[0]), Port(far, "v1", "", addresses[1]))
        yield Lab(near, far, mount, top)
