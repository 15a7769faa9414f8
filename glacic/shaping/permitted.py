"""Limits, step 2, continued: what this very process may use of the engines that work here.

The probe runs with rights that a hardened service does not have (deploy/glacic.service). What it finds is what the
kernel can do; an engine that the service may not use is "missing" to it all the same, and `auto` must not choose it.
Of the engines bpf alone takes more than the CAP_NET_ADMIN that the service always has: CAP_BPF and the system call.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from glacic.config.model import Traffic
from glacic.errors import KernelRefused
from glacic.shaping.bpf import bucket, program
from glacic.shaping.choose import Available
from glacic.shaping.engine import DOWNLOAD, UPLOAD

_BPF = "bpf"


@functools.cache
def bpf_refusal() -> str:
    """Why this process may hold no limits in eBPF, "" where it may: a map and programs are loaded, and gone again.
    Asked once, since a process is given no rights later."""
    try:
        made = bucket.create()
        try:
            for direction in (UPLOAD, DOWNLOAD):
                os.close(program.load(made, direction, Traffic.ALL))
        finally:
            os.close(made)
    except KernelRefused as refused:
        return f"this service may not use it: {refused}; the drop-in limits-bpf.conf lets it"
    return ""


def permitted(available: Available, refusal: Callable[[], str] = bpf_refusal) -> Available:
    """The same, without what this process is refused. Nothing is tried that the kernel cannot do in any case."""
    return {
        (engine, direction): missing or (refusal() if engine == _BPF else "")
        for (engine, direction), missing in available.items()
    }
