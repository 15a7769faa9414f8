"""The bed of queue readers: every contestant answers what comes to its lane, and all who count agree at the end."""

from __future__ import annotations

import pytest

from bench.effort import Effort
from bench.processes import program
from bench.queue_bed import WAITING, Given, queue_bed
from bench.rows.queue import ACCEPT, FLOOR, FLOOR_BATCHED, GLACIC, PURE, SCAPY, command, commands, worked_off
from glacic.errors import LabError

ALL = (FLOOR, FLOOR_BATCHED, ACCEPT, SCAPY, GLACIC, PURE)


def test_everybody_answers_a_flood_on_a_lane_of_its_own() -> None:
    with queue_bed() as bed:  # whose end compares what they, their queues and the chain behind have counted
        lanes = {name: bed.start(commands(name)) for name in ALL}
        given = {name: bed.flood(lane, 0.1, rate=2000) for name, lane in lanes.items()}
    assert all(one.per_s > 0 and one.cpu_us > 0 for one in given.values())
    assert given[SCAPY].cpu_us > given[FLOOR].cpu_us


def test_what_waits_is_worked_off_by_one_or_by_two() -> None:
    with queue_bed() as bed:
        one = bed.start(commands(GLACIC, WAITING))
        two = bed.start(
            lambda queues: [command(FLOOR, number, waiting=WAITING) for number in queues],
            queues=2,
            sources=64,
            anywhere=True,
        )
        did = worked_off(bed, {"one": one, "two": two}, Effort(rounds=1, seconds=0.0))
    assert [len(did["one"]), len(did["two"])] == [1, 1]
    assert all(isinstance(given, Given) and given.per_s > 1000 for given in (*did["one"], *did["two"]))


def test_who_does_not_count_right_is_found_out() -> None:
    with pytest.raises(LabError, match="verdicts are counted there"):
        _send_past_the_queues()


def _send_past_the_queues() -> None:
    with queue_bed() as bed:
        lane = bed.start(commands(FLOOR))
        bed.flood(lane, 0.05, rate=2000)
        other = program("traffic", "eth0", "02:00:00:00:00:02", *lane.options, "--ports", 1, "--count", 50)
        bed.client.run([str(word) for word in other])
