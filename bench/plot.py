"""Charts as SVG, written by hand: bars for contestants, lines over an axis, ratios beside their targets.

    bars      a bar for each contestant, a whisker from its lowest to its highest round
    lines     a line for each series, a whisker at each point
    ratios    a point for each row on a logarithmic axis around 1, where the floor is

Readable on light and on dark pages, since the file brings its own background and asks which one is wanted. Refuses to
lay out more than it was made for: names are cut where they would leave the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from bench.result import Figure, Plot, Row, spread
from bench.words import number, short

WIDTH = 760
_MARGIN = 16
_LABELS = 250  # room for names left of bars
_LINE = 26  # a bar and the space around it
_TOP = 52
_CHART = 340  # height of a chart with lines
_AXIS = 64  # room left of such a chart
_NAME = 38  # letters of a name that fit

# What a class paints with, on light pages and on dark ones.
_TEXT, _SOFT, _GRID = ("#1f2328", "#e6edf3"), ("#59636e", "#9198a1"), ("#d8dee4", "#30363d")
_SERIES = (
    ("#0b63ce", "#58a6ff"),
    ("#c2410c", "#fb923c"),
    ("#15803d", "#4ade80"),
    ("#7e22ce", "#c084fc"),
    ("#a16207", "#facc15"),
    ("#0e7490", "#22d3ee"),
    ("#be185d", "#f472b6"),
    ("#4b5563", "#9ca3af"),
)
_PAINT = {
    "text": ("fill", _TEXT),
    ".soft": ("fill", _SOFT),
    ".page": ("fill", ("#ffffff", "#0d1117")),
    ".grid": ("stroke", _GRID),
    ".axis": ("stroke", _SOFT),
    ".whisker": ("stroke", _TEXT),
    ".ours": ("fill", _SERIES[0]),
    ".other": ("fill", ("#9aa4af", "#6e7681")),
    ".target": ("stroke", _SERIES[1]),
    **{f".s{number}": ("stroke", pair) for number, pair in enumerate(_SERIES)},
    **{f".f{number}": ("fill", pair) for number, pair in enumerate(_SERIES)},
}
_SHAPE = """\
text { font: 13px system-ui, sans-serif; }
.title { font-size: 15px; font-weight: 600; }
.soft { font-size: 12px; }
.end { text-anchor: end; }
.mid { text-anchor: middle; }
.whisker { stroke-width: 1.5; }
.target { stroke-width: 2; }
polyline { fill: none; stroke-width: 2; }
"""


def _style() -> str:
    light, dark = (
        "\n".join(f"{name} {{ {what}: {pair[shade]}; }}" for name, (what, pair) in _PAINT.items()) for shade in (0, 1)
    )
    return f"\n{_SHAPE}{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def bars(title: str, figures: Sequence[Figure], ours: str) -> str:
    """A bar for each figure, all of one unit; those whose contestant begins with `ours` stand out."""
    unit = figures[0].unit
    most = max(spread(figure.values).high for figure in figures) or 1.0
    left, room = _MARGIN + _LABELS, WIDTH - 2 * _MARGIN - _LABELS - 90
    parts = []
    for row, figure in enumerate(figures):
        median, low, high = spread(figure.values)
        y = _TOP + row * _LINE
        kind = "ours" if figure.contestant.lower().startswith(ours.lower()) else "other"
        parts += [
            _text(left - 8, y + 14, _cut(figure.contestant), "end"),
            f'<rect class="{kind}" x="{left}" y="{y + 3}" width="{median / most * room:.1f}" height="{_LINE - 10}"/>',
            _whisker(left + low / most * room, left + high / most * room, y + 11),
            _text(left + high / most * room + 8, y + 15, number(median), "soft"),
        ]
    height = _TOP + len(figures) * _LINE + _MARGIN
    return _picture(height, title, unit, parts)


def ratios(title: str, rows: Iterable[tuple[Row, float | None]]) -> str:
    """A point and whisker for each row that has a ratio, and a stroke where its target is, if that is a ratio too."""
    chosen = [(row, target) for row, target in rows if row.ratio]
    values = [value for row, target in chosen for value in (*spread(row.ratio), target or 1.0, 0.8, 1.25) if value > 0]
    low, high = (math.log(bound) for bound in (min(values), max(values)))
    left, room = _MARGIN + _LABELS, WIDTH - 2 * _MARGIN - _LABELS - 60

    def x(value: float) -> float:
        return left + (math.log(max(value, 1e-9)) - low) / (high - low) * room

    bottom = _TOP + len(chosen) * _LINE
    parts = [f'<line class="axis" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{_TOP}" y2="{bottom}"/>']
    parts.append(_text(x(1), bottom + 16, "1", "soft mid"))
    for line, (row, target) in enumerate(chosen):
        y = _TOP + line * _LINE + 11
        median, least, most = spread(row.ratio)
        parts += [_text(left - 8, y + 4, _cut(row.name), "end"), _whisker(x(least), x(most), y)]
        parts.append(f'<circle class="ours" cx="{x(median):.1f}" cy="{y}" r="5"/>')
        if target is not None:
            parts.append(f'<line class="target" x1="{x(target):.1f}" x2="{x(target):.1f}" y1="{y - 9}" y2="{y + 9}"/>')
        parts.append(_text(x(most) + 10, y + 4, number(median), "soft"))
    return _picture(bottom + 30, title, "stroke: the target", parts)


def lines(plot: Plot) -> str:
    """A line for each series, with whiskers."""
    points = [point for line in plot.series.values() for point in line]
    if not points:
        return _picture(_TOP + _MARGIN, plot.title, "nothing was measured", [])
    log_x = plot.log_x and all(point[0] > 0 for point in points)
    xs = sorted({point[0] for point in points})
    top = _nice(max(point[3] for point in points))
    left, right = _MARGIN + _AXIS, WIDTH - _MARGIN - 24
    bottom = _TOP + 14 + _CHART

    def x(value: float) -> float:
        begin, end, at = (math.log(v) if log_x else v for v in (xs[0], xs[-1], value))
        return (left + right) / 2 if begin == end else left + 12 + (at - begin) / (end - begin) * (right - left - 24)

    def y(value: float) -> float:
        return bottom - value / top * _CHART

    parts = []
    for step in range(5):
        level = top * step / 4
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
        parts.append(_text(left - 8, y(level) + 4, short(level), "soft end"))
    for value in xs if len(xs) <= 12 else xs[:: len(xs) // 8]:
        parts.append(_text(x(value), bottom + 18, short(value), "soft mid"))
    parts.append(_text((left + right) / 2, bottom + 38, plot.x_label, "soft mid"))
    for index, (name, line) in enumerate(plot.series.items()):
        colour = index % len(_SERIES)
        route = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py, _, _ in sorted(line))
        parts.append(f'<polyline class="s{colour}"{_dashes(index)} points="{route}"/>')
        for px, py, least, most in line:
            parts.append(
                f'<line class="s{colour}" x1="{x(px):.1f}" x2="{x(px):.1f}" y1="{y(least):.1f}" y2="{y(most):.1f}"/>'
            )
            parts.append(f'<circle class="f{colour}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="4"/>')
        at = bottom + 62 + index * 20
        parts.append(
            f'<line class="s{colour}"{_dashes(index)} stroke-width="2" x1="{left}" x2="{left + 30}" '
            f'y1="{at - 4}" y2="{at - 4}"/>'
        )
        parts.append(_text(left + 40, at, name, ""))
    return _picture(bottom + 62 + len(plot.series) * 20, plot.title, plot.y_label, parts)


def _dashes(index: int) -> str:
    """Beside the colour, for those who do not tell colours apart."""
    pattern = ("", "6 4", "2 3", "10 4 2 4")[index % 4]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def _nice(value: float) -> float:
    """1, 2, 4 or 8 times a power of ten, at least as large: four equal steps have short names."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 8, 10) if value <= power * step * 1.0001)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _whisker(begin: float, end: float, y: float) -> str:
    strokes = [f'<line class="whisker" x1="{begin:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>']
    strokes += [f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + 4}"/>' for x in (begin, end)]
    return "".join(strokes)


def _picture(height: float, title: str, unit: str, parts: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">',
            f"<style>{_style()}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height:.0f}"/>',
            _text(_MARGIN, 24, title, "title"),
            _text(_MARGIN, 42, unit, "soft"),
            *parts,
            "</svg>",
            "",
        ]
    )
