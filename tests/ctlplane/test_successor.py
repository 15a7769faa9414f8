"""A worker that has ended gets a successor; tests/ctlplane/test_service.py has it with real packets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from glacic.config.load import load
from glacic.ctlplane.service import Service
from glacic.ctlplane.successor import Successor
from glacic.errors import GlacicError
from glacic.firewall.nft import FakeNft

CONFIG = 'zone "lan" {\n  interface = "lan0"\n}\n'


def test_a_worker_that_never_lasts_is_replaced_more_and_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "glacic.hcl"
    path.write_text(CONFIG)
    service = Service(load(path), tmp_path, tmp_path / "glacic.sock", FakeNft(), True)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 7:
            raise asyncio.CancelledError

    async def replace(_: Successor) -> None:
        service.state = "running"

    monkeypatch.setattr("glacic.ctlplane.successor.asyncio.sleep", sleep)
    monkeypatch.setattr(Successor, "replace", replace)
    service.state = "running"
    service.sound.set()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Successor(service).run())  # its worker has ended already
    assert slept == [0.0, 1.0, 2.0, 5.0, 10.0, 10.0, 10.0]
    assert (service.state, service.reason) == ("degraded", "the worker ended with status 0")


def test_a_successor_that_cannot_be_made_leaves_the_reason_and_what_was_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "glacic.hcl"
    path.write_text(CONFIG)
    service = Service(load(path), tmp_path, tmp_path / "glacic.sock", FakeNft(), True)

    async def start_worker() -> None:
        raise GlacicError("no process")

    monkeypatch.setattr(service, "start_worker", start_worker)
    service.state = "running"
    service.settings = before = service._settings(service.config)
    service.sound.set()
    asyncio.run(Successor(service).replace())
    assert (service.state, service.reason) == ("degraded", "no process")
    assert service.settings is before
