"""The times at which rules hold are filled in again when their week is over, or the clock has jumped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from glacic.config.model import Action, Config, Policy, Rule, TimeWindow
from glacic.ctlplane import hours
from glacic.firewall.nft import FakeNft

MONDAY = datetime(2026, 3, 23, tzinfo=UTC)
TIMED = Rule(name="r", action=Action.ACCEPT, time=TimeWindow(zone="UTC", days=(0,)))


def configured(*rules: Rule) -> Config:
    return Config(path=Path("a.hcl"), policies=(Policy(source="a", destination="b", name="p", rules=rules),))


def told(moments: list[datetime], configs: list[Config | None], nft: FakeNft) -> list[str]:
    """The scripts that were run while the clock showed these moments, a look each, with these configurations."""
    looks = iter(zip(moments, configs, strict=True))
    current: list[tuple[datetime, Config | None]] = []

    def look() -> Config | None:
        found = next(looks, None)
        if found is None:
            raise asyncio.CancelledError
        current[:] = [found]
        return found[1]

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await hours.keep(look, nft, asyncio.Lock(), lambda: current[0][0])

    asyncio.run(run())
    return nft.scripts


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "CHECK_S", 0.0)


def test_they_are_filled_once_a_week_and_after_a_jump_of_the_clock() -> None:
    config = configured(TIMED)
    moments = [MONDAY, MONDAY + timedelta(days=6), MONDAY + timedelta(days=7), MONDAY + timedelta(days=7, minutes=1)]
    moments += [MONDAY + timedelta(days=800), MONDAY]
    assert len(told(moments, [config] * len(moments), FakeNft())) == 4


def test_a_new_configuration_is_filled_at_once() -> None:
    scripts = told([MONDAY] * 3, [configured(TIMED), configured(TIMED), None], FakeNft())
    assert len(scripts) == 2
    assert all(script.startswith("flush set inet glacic time_r_of_p\n") for script in scripts)


def test_without_windows_nothing_is_done() -> None:
    assert told([MONDAY] * 2, [configured(Rule(name="r", action=Action.DROP)), None], FakeNft()) == []


def test_what_the_kernel_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nft = FakeNft(refuses=("flush",))
    config = configured(TIMED)
    said: list[str] = []
    monkeypatch.setattr(hours, "_log", type("Log", (), {"error": lambda _, text, **__: said.append(text)})())

    class Recovers(FakeNft):
        def run(self, script: str) -> None:
            if len(tries) < 3:
                tries.append(script)
                nft.run(script)
            super().run(script)

    tries: list[str] = []
    assert len(told([MONDAY] * 5, [config] * 5, Recovers())) == 1
    assert len(tries) == 3
    assert len(said) == 1
