"""Bandwidth limits under a real systemd: what must have been seen in the story of conftest.py.

The unit floods from its first instruction on. Emulation makes everything ten to twenty times slower, the flood as well
as the service that follows the unit's cgroups, so bytes say more than seconds do.
"""

from __future__ import annotations

import sys

import pytest

from .conftest import RATE, RESTARTS, Story

pytestmark = pytest.mark.timeout(1500)  # whichever test comes first plays the story

BURST = 128 << 10


def _after_the_restarts(story: Story, direction: str) -> tuple[int, int, int]:
    """Bytes of the unit's sockets: within the limit, dropped by it, and passed without it."""
    limit = story.document("the limit after the restarts")
    counters = story.document("the bytes after the restarts")["nftables"]
    passed = next(
        each["counter"]["bytes"] for each in counters if "counter" in each and each["counter"]["name"] == direction
    )
    within = limit[f"bytes_{direction}"]
    return within, limit[f"dropped_bytes_{direction}"], passed - within


def _spans(lines: list[str]) -> list[float]:
    """Bytes per second between each two lines of time and bytes."""
    times = [(float(line.split()[0]), int(line.split()[1])) for line in lines]
    pairs = zip(times[::2], times[1::2], strict=True)
    return [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs]


def _rates(story: Story, name: str) -> tuple[list[float], str]:
    """Bytes per second before the kill, without the service and after it; and the service's state in the middle."""
    lines = story.output(name).splitlines()
    state = lines.pop(4)
    return _spans(lines), state


def test_the_unit_beside_the_service_has_found_what_the_kernel_can_do(story: Story) -> None:
    assert story["the reload with a limit"].status == 0
    rows = story.document("the engines")["engines"]
    assert [row["missing"] for row in rows] == [""] * 8, rows


def test_what_the_service_may_not_use_it_does_not_call_available(story: Story) -> None:
    row = story.document("eBPF without the right")
    assert (row["state"], row["engine_upload"]) == ("waiting", None)
    assert "this service may not use it" in row["why"]
    assert "limits-bpf.conf" in row["why"]


def test_the_drop_in_gives_the_right_and_a_limit_that_is_gone_leaves_nothing(story: Story) -> None:
    assert story["the right"].status == 0
    pinned = story.output("what is pinned").splitlines()
    assert pinned == [f"/sys/fs/bpf/glacic/flood/{name}" for name in ("map", "upload")]
    assert story["the reload without a limit"].status == 0
    assert story.output("left of the limits") == ""


def test_the_service_has_the_right_to_shape_and_gives_the_interface_back(story: Story) -> None:
    row = story.document("the limit that shapes")
    assert (row["state"], row["engine_upload"], row["engine_download"]) == ("active", "shape", "shape"), row["why"]
    (rate,) = _spans(story.output("the flood shaped").splitlines())
    assert 0 < rate < 1.5 * RATE
    assert "htb" in story.output("the qdiscs meanwhile")
    assert story.output("the qdiscs after") == story.output("the qdiscs before")


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_unit_restarted_100_times_under_load_gets_little_through_without_its_limit(
    story: Story, direction: str
) -> None:
    within, dropped, without = _after_the_restarts(story, direction)
    sys.stdout.write(f"{RESTARTS} restarts, {direction}: {dropped} bytes dropped, {within} within, {without} without\n")
    # TCP tries no more than it gets: what the datagrams tried says what the cable could have carried both ways.
    carried = sum(_after_the_restarts(story, "upload"))
    assert 0 <= without < carried / 4, "a busy machine runs the service late"


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_restart_is_no_second_bucket(story: Story, direction: str) -> None:
    begun, ended = map(float, story.output("the restarts").splitlines())
    within, _, _ = _after_the_restarts(story, direction)
    assert 0 < within <= 1.05 * (BURST + RATE * (ended - begun + 1))


@pytest.mark.parametrize("engine", ["an nft limit", "a limit in eBPF"])
def test_a_limit_stays_in_force_without_the_service_and_the_next_one_goes_on_with_it(story: Story, engine: str) -> None:
    rates, state = _rates(story, f"killed under {engine}")
    assert state != "active"
    assert all(0 < rate < 1.5 * RATE for rate in rates), rates
    row = story.document(f"the {engine.split(' ', 1)[1]} after the kill")
    assert (row["state"], row["engine_upload"]) == ("active", "nft" if "nft" in engine else "bpf")
    assert row["dropped_bytes_upload"] > row["bytes_upload"]
