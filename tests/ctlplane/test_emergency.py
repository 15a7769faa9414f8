"""A panic: in force first, remembered where that is possible; test_panics.py shows what becomes of packets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glacic.config.load import examine_source
from glacic.config.source import Source
from glacic.ctlplane.emergency import Emergency
from glacic.ctlplane.revisions import Origin, Revisions
from glacic.ctlplane.wish import Wish
from glacic.errors import GlacicError

MANAGED = 'zone "lan" {\n  interface = "lan0"\n  management { ssh = true }\n}\n'
UNMANAGED = 'zone "lan" { interface = "lan0" }\n'
ME = Wish(origin=Origin(who="user root", what="panic"))


class Changes:
    """What an emergency needs of changes.py."""

    async def check_way_back(self, _config: Any, _wish: Wish) -> None: ...

    async def write_boot(self) -> None: ...


def emergency(tmp_path: Path, text: str = MANAGED, again: GlacicError | None = None) -> Emergency:
    config, _ = examine_source(Source("a.hcl", text))

    async def put() -> None:
        if again is not None:
            raise again

    return Emergency(SimpleNamespace(config=config, again=put), Revisions(tmp_path))  # type: ignore[arg-type]


def switch(found: Emergency, *, on: bool, wish: Wish = ME) -> None:
    asyncio.run(found.switch(Changes(), wish, on=on))  # type: ignore[arg-type]


def test_a_panic_is_remembered_by_whoever_comes_next(tmp_path: Path) -> None:
    switch(emergency(tmp_path), on=True)
    assert emergency(tmp_path).on
    switch(emergency(tmp_path), on=False)
    assert not emergency(tmp_path).on


def test_nobody_is_locked_out_without_saying_so(tmp_path: Path) -> None:
    found = emergency(tmp_path, UNMANAGED)
    with pytest.raises(GlacicError, match="management"):
        switch(found, on=True)
    assert not found.on
    switch(found, on=True, wish=Wish(origin=ME.origin, force=True))
    assert found.on


def test_what_the_kernel_refuses_is_no_panic(tmp_path: Path) -> None:
    found = emergency(tmp_path, again=GlacicError("no"))
    with pytest.raises(GlacicError, match="no"):
        switch(found, on=True)
    assert not found.on
    assert not Revisions(tmp_path).standing().panic


def test_where_it_cannot_be_written_down_it_is_one_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_revisions: Revisions, _on: bool) -> None:
        raise GlacicError("the disk is full")

    monkeypatch.setattr(Revisions, "panic", full)
    found = emergency(tmp_path)
    with pytest.raises(GlacicError, match="it is done"):
        switch(found, on=True)
    assert found.on
