"""Rates: bits and bytes, of 1000 and of 1024, told apart, and shown back both ways."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.rates import (
    BURST_MIN,
    RATE_MAX,
    bytes_text,
    exact_text,
    parse_rate,
    rate_text,
    why_rough,
)
from glacic.config.values import Invalid


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5 mbit", 625_000),
        ("5 Mbit/s", 625_000),
        ("5mbits/sec", 625_000),
        ("  5 MBIT / second ", 625_000),
        ("8 Mibit", 1 << 20),
        ("8 kibits", 1024),
        ("1.5 gbit", 187_500_000),
        ("2 MiB/s", 2 << 20),
        ("2MiB", 2 << 20),
        ("2 miB", 2 << 20),
        ("2 MB/s", 2_000_000),
        ("50 kbytes/second", 50_000),
        ("50 KB", 50_000),
        ("50 kibytes", 51_200),
        ("0.5 KiB/s", 512),
        ("100 B/s", 100),
        ("15 bit", 1),  # what is less than a byte is cut off
        ("17 GiB/s", RATE_MAX),
    ],
)
def test_a_rate_is_bytes_in_a_second(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "summary", "advice"),
    [
        ("5", '"5" has no unit', 'write "5 mbit" for bits, or "5 MB/s" for bytes'),
        ("5/s", '"5/s" has no unit', 'write "5 mbit" for bits, or "5 MB/s" for bytes'),
        ("5 Mb/s", '"Mb" is bits to some and bytes to others', 'write "5 mbit" for bits, or "5 MB/s" for bytes'),
        ("5 mib", '"mib" is bits to some', 'write "5 Mibit" for bits, or "5 MiB/s" for bytes'),
        ("5 mbps", '"mbps" is bits to some and bytes to others, tc among them', 'write "5 mbit" for bits'),
        ("5 b", '"b" is bits to some', 'write "5 bit" for bits, or "5 B/s" for bytes'),
        ("5 mbti", '"mbti" is not a unit of a rate', 'did you mean "mbit"?'),
        ("5 kybtes/s", '"kybtes" is not a unit', 'did you mean "kbytes"?'),
        ("5 kilobyte/s", '"kilobyte" is not a unit', 'did you mean "kbyte"?'),
        ("5 Mebibits", '"Mebibits" is not a unit', 'did you mean "mibits"?'),
        ("5 furlongs", '"furlongs" is not a unit', 'write "5 mbit", or "2 MiB/s"'),
        ("5 xB", '"xB" is not a unit of a rate', "did you mean"),
        ("5 xb", '"xb" is not a unit of a rate', ""),
        ("5 xbps", '"xbps" is not a unit of a rate', ""),
        ("5 xyz", '"xyz" is not a unit of a rate', 'write "5 mbit"'),
        ("5 mbit/minute", "is not by the second", 'a rate is of one second: write "5 mbit/s"'),
        ("0 mbit", "lets nothing through", "leave it out for no limit"),
        ("0.0 B/s", "lets nothing through", "leave it out"),
        ("-5 mbit", "lets nothing through", "above zero"),
        ("0", "lets nothing through", "above zero"),
        ("-5", "lets nothing through", "above zero"),
        ("7 bit", "less than a byte per second", "write"),
        ("18 GiB/s", "more than 17 GiB/s", "write less"),
        ("147 gbit", "more than 17 GiB/s", "write less"),
        ("99999999999999999999 gibytes", "more than 17 GiB/s", "write less"),
        ("unlimited", '"unlimited" is not a rate', "leave it out for no limit"),
        ("1,5 mbit", "is not a rate", 'write the decimal point as a point, "1.5 mbit"'),
        ("mbit", "is not a rate", 'write a number before it, "5 mbit"'),
        ("", "is not a rate", 'write "5 mbit", or "2 MiB/s"'),
        ("１２ mbit", "is not a rate", "write"),  # noqa: RUF001 - digits that are none of ASCII
        ("5 mbit\n6 mbit", "is not a rate", "write"),
        ("1e9 bit", "is not a rate", 'write "5 mbit"'),
        ("5\u00a0mbit", "is not a rate", 'write "5 mbit", or'),
        ("0x10 kbit", "is not a rate", "write"),
    ],
)
def test_what_is_no_rate_is_told_with_what_to_write(text: str, summary: str, advice: str) -> None:
    with pytest.raises(Invalid) as found:
        parse_rate(text)
    assert summary in found.value.summary
    assert advice in found.value.advice


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (2 << 20, "2 MiB/s (16.8 Mbit/s)"),
        (625_000, "610 KiB/s (5 Mbit/s)"),
        (1, "1 B/s (8 bit/s)"),
        (1023, "1023 B/s (8.18 kbit/s)"),
        (1 << 20, "1 MiB/s (8.39 Mbit/s)"),
        ((1 << 20) - 1, "1 MiB/s (8.39 Mbit/s)"),
        (RATE_MAX, "17 GiB/s (146 Gbit/s)"),
    ],
)
def test_a_rate_is_shown_both_ways(rate: int, shown: str) -> None:
    assert rate_text(rate) == shown


@pytest.mark.parametrize(
    "text", ["5 mbit", "2 MiB/s", "17 GiB/s", "3 gbit", "40 kbit", "3 KiB/s", "12345 B/s", "1 B/s", "1 kbit", "1 mbit"]
)
def test_a_rate_is_written_as_people_would(text: str) -> None:
    assert exact_text(parse_rate(text)) == text


@given(st.integers(1, RATE_MAX))
def test_what_is_written_is_read_as_the_same(rate: int) -> None:
    assert parse_rate(exact_text(rate)) == rate


@given(st.integers(1, RATE_MAX))
def test_what_is_shown_is_within_a_half_percent_and_can_be_read(rate: int) -> None:
    bytes_part, bits_part = rate_text(rate).rstrip(")").split(" (")
    for part in (bytes_part, bits_part):
        assert abs(parse_rate(part) - rate) <= max(1, 0.006 * rate)


@given(st.text(max_size=40))
def test_any_text_is_a_rate_or_refused(text: str) -> None:
    with suppress(Invalid):
        assert 1 <= parse_rate(text) <= RATE_MAX


def test_amounts_are_shown_with_three_digits() -> None:
    assert [bytes_text(count) for count in (0, 1.4, 999, 1024, 131_072, 1 << 42, 1 << 52)] == [
        "0 B",
        "1 B",
        "999 B",
        "1 KiB",
        "128 KiB",
        "4 TiB",
        "4096 TiB",
    ]


def test_why_a_small_rate_is_rough_is_said_in_seconds() -> None:
    assert "lets 128 KiB through at once, here 13 seconds' worth" in why_rough(BURST_MIN * 10 // 128)
