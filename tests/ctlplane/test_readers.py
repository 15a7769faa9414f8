"""Which queues are open, through reloads that make one ruleset's sink the other one's queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from glacic.config.model import Config, RuleLearning
from glacic.ctlplane.nfqueue import QueueTruth
from glacic.ctlplane.readers import Readers
from glacic.ctlplane.reading import Holder, NoNews
from glacic.ctlplane.settings import Settings, settings_of
from glacic.lab.net import Host, Network


@pytest.fixture
def host() -> Iterator[Host]:
    with Network() as network:
        yield network.host("fw")


@pytest.fixture
def readers() -> Iterator[Readers]:
    readers = Readers(cast(Holder, SimpleNamespace(compiled=None, news=NoNews())))  # no packet comes
    yield readers
    readers.close()


@pytest.fixture
def one(tmp_path: Path) -> Settings:
    """One queue, 100, and its sink."""
    nothing = settings_of(Config(path=tmp_path, rule_learning=RuleLearning()), (), tmp_path)
    return replace(nothing, queues=(100,), sink=101)


def test_a_sink_becomes_a_queue_and_a_queue_a_sink(host: Host, readers: Readers, one: Settings) -> None:
    two = replace(one, queues=(100, 101), sink=102)
    bound = {one: [100, 101], two: [100, 101, 102]}
    truth = host.call(QueueTruth)
    for before, after in ((one, two), (two, one)):
        for step in (readers.open, readers.keep):
            host.call(step, before)
        host.call(readers.open, after)  # the new ruleset is refused, or
        for step in (readers.open, readers.keep):
            host.call(step, before)
        assert sorted(truth.read()) == bound[before]
        host.call(readers.open, after)  # in force
        host.call(readers.keep, after)
        assert sorted(truth.read()) == bound[after]
        assert [queue["num"] for queue in host.call(readers.stats)["queues"]] == list(after.queues)
    truth.close()
