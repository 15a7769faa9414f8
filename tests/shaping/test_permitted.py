"""glacic.shaping.permitted: what the kernel can do and this process may not is missing, in the kernel's own words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from glacic.shaping.engine import DOWNLOAD, UPLOAD
from glacic.shaping.permitted import bpf_refusal, permitted

ALL = {(engine, direction): "" for engine in ("nft", "bpf", "shape") for direction in (UPLOAD, DOWNLOAD)}

_NOBODY = """
import os
from glacic.shaping.permitted import bpf_refusal
os.setgroups([])
os.setuid(65534)
print(bpf_refusal())
"""


def test_root_may_use_all_and_leaves_no_descriptor_open() -> None:
    bpf_refusal.cache_clear()
    before = _open_files()
    assert permitted(ALL) == ALL
    assert not _open_files() - before


def test_a_process_without_the_right_is_told_which() -> None:
    said = subprocess.run([sys.executable, "-c", _NOBODY], capture_output=True, text=True, check=True).stdout
    assert "this service may not use it" in said
    assert "CAP_BPF and CAP_NET_ADMIN are needed" in said
    assert "limits-bpf.conf" in said


def test_what_it_may_not_use_is_missing_and_nothing_else_is() -> None:
    found = permitted(ALL, lambda: "no right")
    assert {key for key, missing in found.items() if missing} == {("bpf", UPLOAD), ("bpf", DOWNLOAD)}
    assert found["bpf", UPLOAD] == "no right"


def test_what_the_kernel_cannot_do_is_not_tried() -> None:
    def asked() -> str:
        raise AssertionError

    lacks = {("bpf", UPLOAD): "no CONFIG_CGROUP_BPF", ("nft", UPLOAD): ""}
    assert permitted(lacks, asked) == lacks


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
