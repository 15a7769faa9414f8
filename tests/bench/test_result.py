"""What a measurement is: the middle and its ends, ratios by round, rounds that alternate, and a file that keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.result import Figure, Plot, Results, Row, load, paired, save, spread
from bench.rounds import alternate
from bench.words import middle, number, short


def test_the_spread_is_the_median_and_both_ends() -> None:
    assert spread([3.0, 1.0, 10.0]) == (3.0, 1.0, 10.0)
    assert spread([2.0]) == (2.0, 2.0, 2.0)


def test_ratios_are_made_round_by_round() -> None:
    assert paired((2.0, 9.0), (1.0, 3.0)) == (2.0, 3.0)


def test_rounds_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired((1.0, 2.0), (1.0,))


def test_each_round_has_everybody_and_begins_one_further() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    assert alternate("abc", 4, measure) == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}
    assert "".join(order) == "abcbcacababc"


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    figure = Figure(contestant="a", unit="us", values=(1.0, 2.0))
    row = Row(name="r", what="w", figures=(figure,), target="<= 1", ratio=(0.5, 0.6), ratio_of="a / b", met=False)
    plot = Plot(name="p", title="t", x_label="x", y_label="y", series={"a": [(1.0, 2.0, 1.5, 2.5)]})
    save(Results([row], [plot]), tmp_path / "deep" / "r.json")
    assert load(tmp_path / "deep" / "r.json") == Results([row], [plot])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567.0, "1,234,567"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.012"), (0.0, "0")],
)
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_the_ends_are_said_where_there_are_several_rounds() -> None:
    assert middle((2.0, 1.0, 4.0), "us") == "2.00 us (1.00-4.00)"
    assert middle((2.0,), "us") == "2.00 us"


def test_an_axis_has_short_numbers() -> None:
    assert [short(value) for value in (0.0, 250.0, 1500.0, 20_000.0, 1_000_000.0)] == [
        "0",
        "250",
        "1.5 k",
        "20 k",
        "1 M",
    ]
