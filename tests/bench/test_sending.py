"""New flows along the road, and the moments that are taken from outside."""

from __future__ import annotations

from bench.rows.log_to_element import opened
from bench.sending import FLOWS_EACH, Flows
from bench.service import config, service


def test_every_flow_is_new_and_learned() -> None:
    with service(config()) as (bed, glacic):
        flows = Flows()
        for count in (FLOWS_EACH + 1, 10):
            sent = flows.send(bed, count, 2_000)
            assert (sent.sent, sent.received) == (count, count)
            assert 0 < sent.p50_us <= sent.p99_us <= sent.max_us
        learned = glacic.call("flows.list", filters={"policy": "lan_wan"}, limit=1_000)["flows"]
        assert len(learned) == FLOWS_EACH + 11
        assert glacic.elements() == FLOWS_EACH + 11


def test_a_logged_flow_is_timed_from_its_packet_to_its_element() -> None:
    with service(config(inline=False)) as (bed, glacic):
        late = opened(bed, glacic, Flows(), 500, 0.4)
        assert 0 < late.p50_ms <= late.p99_ms < 10_000
