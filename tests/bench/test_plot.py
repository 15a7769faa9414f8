"""Charts: well-formed SVG in which every figure is where it belongs, on light pages and on dark ones."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bench import plot
from bench.result import Figure, Plot, Row

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def said(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def test_a_bar_is_as_long_as_its_median_and_ours_stands_out() -> None:
    figures = [
        Figure(contestant="C floor", unit="us", values=(4.0, 4.0, 5.0)),
        Figure(contestant="Glacic", unit="us", values=(2.0,)),
    ]
    picture = parsed(plot.bars("CPU", figures, "glacic"))
    bars = {element.get("class"): float(element.get("width", "0")) for element in picture.iter(f"{SVG}rect")}
    assert bars["other"] == 2 * bars["ours"]
    assert said(picture) == ["CPU", "us", "C floor", "4.00", "Glacic", "2.00"]


def test_names_cannot_break_out_of_the_picture() -> None:
    figures = [Figure(contestant="<script>&" + "x" * 60, unit="us", values=(1.0,))]
    name = said(parsed(plot.bars("a < b & c", figures, "glacic")))[2]
    assert name.startswith("<script>&x")
    assert len(name) == 38


def test_a_ratio_stands_beside_its_target() -> None:
    met = Row(name="met", what="w", figures=(), ratio=(1.0, 1.1, 1.2), ratio_of="a / b")
    absolute = Row(name="absolute", what="w", figures=())
    picture = parsed(plot.ratios("Ratios", [(met, 1.2), (absolute, None)]))
    point = next(picture.iter(f"{SVG}circle"))
    target = next(line for line in picture.iter(f"{SVG}line") if line.get("class") == "target")
    assert float(point.get("cx", "0")) < float(target.get("x1", "0"))
    assert "absolute" not in said(picture)


def test_a_line_goes_through_its_points_with_whiskers() -> None:
    series = {"a": [(1_000.0, 10.0, 5.0, 20.0), (1_000_000.0, 20.0, 20.0, 20.0), (31_622.8, 15.0, 15.0, 15.0)]}
    drawn = Plot(name="p", title="t", x_label="flows", y_label="us", series=series)
    picture = parsed(plot.lines(drawn))
    route = next(picture.iter(f"{SVG}polyline")).get("points", "")
    xs = [float(point.split(",")[0]) for point in route.split()]
    assert xs == sorted(xs)
    assert abs(xs[1] - (xs[0] + xs[2]) / 2) < 1  # the axis is logarithmic
    assert {"1 k", "1 M", "flows", "us", "a"} <= set(said(picture))
    whisker = next(line for line in picture.iter(f"{SVG}line") if line.get("class") == "s0")
    assert float(whisker.get("y1", "0")) > float(whisker.get("y2", "0"))


def test_a_plot_of_one_point_or_of_none_is_drawn() -> None:
    for points in ([], [(1.0, 0.0, 0.0, 0.0)]):
        drawn = Plot(name="p", title="t", x_label="x", y_label="y", series={"a": points}, log_x=False)
        assert "t" in said(parsed(plot.lines(drawn)))


def test_every_class_has_a_paint_for_dark_pages_too() -> None:
    figures = [Figure(contestant="a", unit="us", values=(1.0, 2.0))]
    text = plot.bars("t", figures, "glacic")
    light, _, dark = text.partition("prefers-color-scheme: dark")
    for name in ("text", ".page", ".other", ".whisker", ".soft"):
        paints = [
            re.search(rf"^{re.escape(name)} {{ (fill|stroke): (#\w+)", part, re.MULTILINE) for part in (light, dark)
        ]
        assert all(paints)
        assert len({found[2] for found in paints if found}) == 2, name
