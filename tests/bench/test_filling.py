"""Databases of a size, and the packets of the flows in them."""

from __future__ import annotations

from pathlib import Path

from bench.filling import Filled, keys, packets_of
from bench.sending import FIRST_PORT, send
from bench.service import CLIENT, POLICY, BenchGlacic, config, memory_kib, road
from glacic.lab.net import Network
from glacic.learning.flow import FlowState
from glacic.learning.store import Store
from glacic.learning.text import source_text


def test_a_database_holds_so_many_learned_flows(tmp_path: Path) -> None:
    filled = Filled(tmp_path)
    filled.put(600, tmp_path / "state" / "flows.db")
    with Store.open(tmp_path / "state" / "flows.db") as store:
        assert store.counts()[FlowState.ALLOWED] == store.count_learned() == 600
        first = store.list(limit=1)[0]
        assert (first.key.policy, first.key.port) == (POLICY, FIRST_PORT)
        assert [source_text(address) for address in store.addresses(first.key)] == [CLIENT]
        assert len(store.transitions(first.key)) == 1
    assert len(set(keys(600))) == 600


def test_a_service_over_it_has_them_in_the_kernel_and_their_packets_pass_it_by(tmp_path: Path) -> None:
    with Network() as network:
        bed = road(network)
        glacic = BenchGlacic(bed.router, tmp_path, config())
        Filled(tmp_path).put(600, glacic.database)
        with glacic:
            assert glacic.elements() == 600
            sent = send(bed, packets_of(600))
            assert (sent.sent, sent.lost) == (600, 0)
            assert glacic.queue()["processed"] == 0
            assert all(memory_kib(pid)["rss"] > 10_000 for pid in glacic.pids())
