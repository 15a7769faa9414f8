"""What the parent asks of a worker: a reload that is refused leaves everything as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glacic.config.model import Config, RuleLearning
from glacic.config.policies import LearningPolicy
from glacic.ctlplane.settings import Settings, settings_of
from glacic.ctlplane.workshop import Workshop
from glacic.learning.store import Store

LAN = LearningPolicy(name="lan_wan", number=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    learning = RuleLearning(enabled=False, learning_mode=True)  # nothing to be read, and nothing for the kernel
    return settings_of(Config(path=tmp_path / "glacic.hcl", rule_learning=learning), (LAN,), tmp_path)


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.close()


def numbers(workshop: Workshop, settings: Settings) -> dict[str, int]:
    workshop.sync()
    with Store.open(Path(settings.database), read_only=True) as store:
        return store.numbers()


@pytest.mark.parametrize("ours", [True, False])
def test_an_abort_takes_the_numbers_back(workshop: Workshop, settings: Settings, ours: bool) -> None:
    workshop.prepare(settings, ours)
    workshop.commit()
    before = numbers(workshop, settings)
    assert before == ({"lan_wan/mac": 3} if ours else {})
    workshop.prepare(replace(settings, policies=(LearningPolicy(name="iot_wan", number=4),)), ours)
    workshop.abort()
    assert numbers(workshop, settings) == before
