"""Transfers: a socket has the cgroup that it was made in, and arriving bytes are counted."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from socket import socketpair

import pytest

from glacic.lab import transfer


def test_the_process_is_back_in_its_own_cgroup_after_the_block() -> None:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mount = Path(next(words[1] for words in lines if words[2] == "cgroup2"))
    before = Path("/proc/self/cgroup").read_text()
    name = f"glacic-test-transfer-{os.getpid()}"
    with transfer.cgroups(mount, name, f"{name}/inner") as (_, inner):
        with transfer.inside(mount, inner):
            assert f"0::/{name}/inner\n" in Path("/proc/self/cgroup").read_text()
        assert Path("/proc/self/cgroup").read_text() == before
    assert not (mount / name).exists()


def test_the_rate_is_what_the_receiver_takes() -> None:
    sender, receiver = socketpair()
    taken = 0

    class Slow:
        """A receiver that takes 100 bytes every 10 ms."""

        settimeout = receiver.settimeout

        def recv(self, _: int) -> bytes:
            nonlocal taken
            time.sleep(0.01)
            taken += 100
            return receiver.recv(100)

    with sender, receiver:
        rate = transfer.rate(sender, Slow(), seconds=0.5, skip=0.1)  # type: ignore[arg-type]
    assert rate <= 10_000
    assert rate == pytest.approx(taken / 0.6, rel=0.3)
    assert threading.active_count() < 10
