"""glacic.shaping.pieces: every engine's way is put together and taken apart again, and says what it lacks."""

from __future__ import annotations

import re
import socket
import subprocess
from typing import Any

from glacic.errors import KernelRefused
from glacic.lab import ebpf
from glacic.shaping import scratch
from glacic.shaping.engine import DOWNLOAD, UPLOAD
from glacic.shaping.pieces import attempts
from glacic.shaping.scratch import Scratch


def _everything(made: Scratch) -> list[object]:
    listings = ("nft list ruleset", "tc qdisc show")
    said = [subprocess.run(words.split(), capture_output=True, text=True, check=True).stdout for words in listings]
    interfaces = [name for _, name in socket.if_nameindex()]  # their states follow in their own time
    return [*said, interfaces, [link.id for link in ebpf.links() if link.cgroup in (made.limited.id, made.free.id)]]


def test_there_is_a_way_for_every_engine_in_both_directions() -> None:
    assert attempts().keys() == {
        (name, way) for name in ("nft", "bpf", "shape", "police") for way in (UPLOAD, DOWNLOAD)
    }


def test_each_leaves_the_scratch_network_as_it_was_also_where_the_kernel_lacks_a_piece() -> None:
    def work(made: Scratch) -> Any:
        before, changed = _everything(made), {}
        for name, way in attempts().items():
            try:
                with way(made):
                    pass
            except KernelRefused:
                pass
            after = _everything(made)
            if after != before:
                changed[" ".join(name)] = [before, after]
        return changed

    assert scratch.inside(work) == {}


def test_where_the_kernel_lacks_a_piece_the_error_names_its_option() -> None:
    def work(made: Scratch) -> Any:
        refusals = []
        for way in attempts().values():
            try:
                with way(made):
                    pass
            except KernelRefused as refused:
                refusals.append(str(refused))
        return refusals

    for refusal in scratch.inside(work):
        assert re.search(r"that takes CONFIG_[A-Z_]+", refusal), refusal
