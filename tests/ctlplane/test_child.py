"""The handle on the worker: one that hangs is ended, also while somebody waits for its answer."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from glacic.ctlplane import child
from glacic.errors import GlacicError


def test_a_worker_that_hangs_in_a_request_is_ended_and_the_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOOK_S", 0.05)
    monkeypatch.setattr(child, "HUNG_S", 1.0)

    async def hang() -> child.Worker:
        worker = child.Worker()
        await worker.start()
        with pytest.raises(GlacicError, match="still starting"):
            await worker.call("stats")  # it listens
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(GlacicError, match="went away"):
            await worker.call("stats")
        assert await worker.wait() == -signal.SIGKILL
        await worker.close()
        return worker

    assert asyncio.run(asyncio.wait_for(hang(), 60)).hung


def test_the_signals_of_a_process_group_are_the_parents_business() -> None:
    async def hit() -> int | None:
        worker = child.Worker()
        await worker.start()
        with pytest.raises(GlacicError, match="still starting"):
            await worker.call("stats")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.pid, number)
        with pytest.raises(GlacicError, match="still starting"):
            await worker.call("stats")
        await worker.stop()
        await worker.close()
        assert not worker.hung
        return await worker.wait()

    assert asyncio.run(asyncio.wait_for(hit(), 60)) == 0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_worker_that_cannot_be_started_is_an_error_of_ours_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def start() -> None:
        before = descriptors()
        with pytest.raises(GlacicError, match="cannot be started: Too many open files"):
            await child.Worker().start()
        assert descriptors() == before

    monkeypatch.setattr(subprocess, "Popen", full)
    asyncio.run(start())
