"""The text of the table, and of the way from one table to another."""

from __future__ import annotations

import pytest

from glacic.config.model import Traffic
from glacic.config.rates import RATE_MAX
from glacic.shaping.nftscript import EMPTY, Bucket, Element, Table, burst_of, difference, whole

T = "inet glacic_limits"


def place(id_: int) -> str:
    return f"at/{id_}"


def table(*buckets: tuple[str, str, int, int, int], traffic: Traffic = Traffic.ALL) -> Table:
    """Of (direction, name, rate, level, cgroup id)."""
    made = [(Bucket(direction, name, rate, traffic), level, id_) for direction, name, rate, level, id_ in buckets]
    return Table(
        {bucket.chain: bucket for bucket, _, _ in made},
        {(bucket.direction, id_): Element(bucket.direction, level, id_, bucket.chain) for bucket, level, id_ in made},
    )


def test_a_table_with_one_limit_reads_as_the_drawing_says() -> None:
    lines = list(whole(table(("download", "backup", 1 << 20, 2, 7)), place))
    assert lines[:2] == [f"add table {T}", f"delete table {T}"]  # whatever was there, in one transaction
    assert lines[5:] == [
        f"add counter {T} passed_download_backup",
        f"add counter {T} dropped_download_backup",
        f'add chain {T} download_backup {{ comment "backup"; }}',
        f"flush chain {T} download_backup",
        f"add rule {T} download_backup limit rate over 1048576 bytes/second burst 262144 bytes"
        " counter name dropped_download_backup drop",
        f"add rule {T} download_backup counter name passed_download_backup",
        f"add map {T} download_2 {{ type cgroupsv2 : verdict; }}",
        f"add chain {T} input {{ type filter hook input priority 20; policy accept; }}",
        f"flush chain {T} input",
        f"add rule {T} input iif lo accept",
        f"add rule {T} input socket cgroupv2 level 2 vmap @download_2",
        f'add element {T} download_2 {{ "at/7" : jump download_backup }}',
    ]


def test_a_changed_rate_changes_one_chain_and_no_counter() -> None:
    before = table(("upload", "a", 1000, 2, 7), ("upload", "b", 1000, 2, 8))
    after = table(("upload", "a", 2000, 2, 7), ("upload", "b", 1000, 2, 8))
    assert list(difference(before, after, place)) == [
        f"flush chain {T} upload_a",
        f"add rule {T} upload_a limit rate over 2000 bytes/second burst 129072 bytes"
        " counter name dropped_upload_a drop",
        f"add rule {T} upload_a counter name passed_upload_a",
    ]


def test_a_unit_with_another_cgroup_changes_elements_alone() -> None:
    before, after = table(("upload", "a", 1000, 2, 7)), table(("upload", "a", 1000, 2, 8))
    assert list(difference(before, after, place)) == [
        f'delete element {T} upload_2 {{ "at/7" }}',
        f'add element {T} upload_2 {{ "at/8" : jump upload_a }}',
    ]


def test_nothing_different_is_nothing_to_do() -> None:
    same = table(("upload", "a", 1000, 2, 7))
    assert list(difference(same, same, place)) == []


def test_the_deepest_level_is_asked_first_and_a_level_that_nobody_uses_not_at_all() -> None:
    both = table(("upload", "slice", 1000, 1, 7), ("upload", "unit", 1000, 2, 8))
    rules = [line for line in whole(both, place) if "socket" in line]
    assert rules == [
        f"add rule {T} output socket cgroupv2 level 2 vmap @upload_2",
        f"add rule {T} output socket cgroupv2 level 1 vmap @upload_1",
    ]
    one = table(("upload", "slice", 1000, 1, 7))
    assert list(difference(both, one, place)) == [
        f'delete element {T} upload_2 {{ "at/8" }}',
        f"add chain {T} output {{ type filter hook output priority 20; policy accept; }}",
        f"flush chain {T} output",
        f"add rule {T} output oif lo accept",
        f"add rule {T} output socket cgroupv2 level 1 vmap @upload_1",
        f"delete map {T} upload_2",
        f"delete chain {T} upload_unit",
        f"delete counter {T} passed_upload_unit",
        f"delete counter {T} dropped_upload_unit",
    ]
    assert f"delete chain {T} output" in list(difference(one, EMPTY, place))


@pytest.mark.parametrize(
    ("direction", "traffic", "rules"),
    [
        ("upload", Traffic.INTERNET, ["ip daddr @local_4 return", "ip6 daddr @local_6 return"]),
        ("upload", Traffic.LOCAL, ["ip daddr != @local_4 return", "ip6 daddr != @local_6 return"]),
        ("download", Traffic.INTERNET, ["ip saddr @local_4 return", "ip6 saddr @local_6 return"]),
        ("download", Traffic.LOCAL, ["ip saddr != @local_4 return", "ip6 saddr != @local_6 return"]),
        ("download", Traffic.ALL, []),
    ],
)
def test_the_scope_looks_at_the_other_end(direction: str, traffic: Traffic, rules: list[str]) -> None:
    lines = list(whole(table((direction, "a", 1000, 2, 7), traffic=traffic), place))
    prefix = f"add rule {T} {direction}_a "
    assert [line.removeprefix(prefix) for line in lines if line.startswith(prefix) and "return" in line] == rules


@pytest.mark.parametrize("name", ['x" ; }\nflush ruleset\n', "a b", "ä", "x" * 200, "default:dev-\\x2d.service"])
def test_a_hostile_name_stays_inside_its_quotes(name: str) -> None:
    script = "\n".join(whole(table(("upload", name, 1000, 2, 7)), place))
    assert "flush ruleset\n" not in script
    made = next(line for line in script.splitlines() if line.startswith(f"add chain {T} upload_"))
    assert made.count('"') == 2


def test_the_burst_takes_the_largest_packet_and_fits_the_kernels_arithmetic() -> None:
    assert 1 + burst_of(1) == 50_000 + burst_of(50_000) == 128 << 10  # a packet of GSO is 64 KiB
    assert burst_of(1 << 20) == 256 << 10
    for rate in (1 << 30, 16 << 30, RATE_MAX):
        assert burst_of(rate) >= 128 << 10
        assert (rate + burst_of(rate)) * 10**9 < 1 << 64  # net/netfilter/nft_limit.c
