"""`glacic limits watch`: rates of the last second, and the first second of a transfer, worked out of counters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from glacic.ctlplane.cli import limits_watch, main
from glacic.ctlplane.cli.limits_watch import Meters
from glacic.ctlplane.cli.options import Options
from glacic.errors import Unreachable

LIMIT = 2 << 20  # of limit_row, in bytes per second
STEP_S = 0.25


@pytest.fixture
def told(row: Any) -> Callable[..., dict[str, Any]]:
    """What one transfer makes of the figures: bytes (and dropped bytes) counted at each quarter of a second."""

    def feed(counts: list[int], dropped: list[int] | None = None, begin_s: float = 1000.0) -> dict[str, Any]:
        meters = Meters()
        for step, count in enumerate(counts):
            thrown = dropped[step] if dropped else 0
            limit = row(bytes_download=count, dropped_bytes_download=thrown)
            meters.feed({"at_s": begin_s + step * STEP_S, "limits": [limit]})
        (found,) = meters.rows()
        assert (found["name"], found["target"], found["upload"]) == ("backup", "backup.service", None)
        return found["download"]

    return feed


def test_a_rate_is_that_of_the_last_second(told: Callable[..., dict[str, Any]]) -> None:
    steady = [step * LIMIT // 4 for step in range(5)]
    assert told(steady, [step * 1024 for step in range(5)]) == {
        "limit": LIMIT,
        "rate": LIMIT,
        "of_limit": 1.0,
        "dropped": 4096,
        "first_second": LIMIT,
    }
    slower = [*steady, *(steady[-1] + step * 1000 for step in range(1, 5))]
    assert told(slower)["rate"] == 4000
    assert told([5000])["rate"] == 0
    assert told([5000, 6000])["rate"] == 4000  # what there is of a second


def test_the_first_second_of_a_transfer_is_its_own_figure(told: Callable[..., dict[str, Any]]) -> None:
    quiet = [700] * 5
    burst = [700 + count for count in (1000, 1500, 2000, 2500, 3000, 3500)]
    assert told([*quiet, *burst[:2]])["first_second"] == 1500  # as much as there is of it
    assert told([*quiet, *burst[:4]])["first_second"] == 2500
    assert told([*quiet, *burst])["first_second"] == 2500


def test_what_ran_already_when_it_was_looked_at_first_has_no_first_second(told: Callable[..., dict[str, Any]]) -> None:
    assert told([5000 + 1000 * step for step in range(9)])["first_second"] is None


def test_a_limit_that_comes_while_it_is_watched_has_counted_all_since(row: Any) -> None:
    meters = Meters()
    for step, count in enumerate([None, 3000, 4000]):
        limits = [row(bytes_download=count)] if count else []
        meters.feed({"at_s": 5 + step * STEP_S, "limits": limits})
    figures = meters.rows()[0]["download"]
    assert (figures["rate"], figures["first_second"]) == (8000, 4000)


def test_a_short_pause_is_none(told: Callable[..., dict[str, Any]]) -> None:
    first = [0, 1000, 2000, 3000, 4000]
    assert told([*first, 4000, 4000, 4000, 9000])["first_second"] == 4000  # three quarters of a second
    assert told([*first, 4000, 4000, 4000, 4000, 9000])["first_second"] == 5000


def test_counters_that_begin_anew_belong_to_a_new_cgroup(told: Callable[..., dict[str, Any]]) -> None:
    found = told([10_000, 20_000, 30_000, 100, 200])
    assert found["rate"] == 400
    assert found["first_second"] == 200


def test_limits_come_and_go_and_the_busiest_is_first(row: Any) -> None:
    meters = Meters()
    for step in range(3):
        limits = [row("a", bytes_download=step * 10), row("b", bytes_download=step * 100, upload=1, bytes_upload=0)]
        meters.feed({"at_s": float(step), "limits": limits if step else limits[:1]})
    assert [found["name"] for found in meters.rows()] == ["b", "a"]
    assert meters.rows()[0]["upload"] == {"limit": 1, "rate": 0, "of_limit": 0.0, "dropped": 0, "first_second": None}
    meters.feed({"at_s": 3.0, "limits": []})
    assert meters.rows() == []


@pytest.fixture
def flowing(fake: Any, row: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(limits_watch, "SECOND_S", 0.04)  # nothing waits for a clock
    clock = itertools.count()

    def watch(_: Any) -> dict[str, Any]:
        at = next(clock)
        limit = row(bytes_download=at * 1000, dropped_bytes_download=at * 100)
        return {"at_s": at * limits_watch.SECOND_S / limits_watch.STEPS, "limits": [limit, row("web\x1b[2J")]}

    fake.answers["limits.watch"] = watch
    return fake


def test_a_table_once(flowing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits", "watch", "--once", "--socket", str(flowing.path)]) == 0
    out = capsys.readouterr().out
    assert out.count("UTC") == 1
    assert "\x1b" not in out
    assert "97.7 KiB/s" in out
    assert "9.77 KiB/s" in out
    assert "web\\x1b[2J" in out
    assert len(flowing.args("limits.watch")) == 1 + limits_watch.STEPS


def test_a_line_of_json_for_each_second(flowing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits", "watch", "--count", "3", "--json", "--socket", str(flowing.path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert line["at"].endswith("+00:00")
        assert [limit["name"] for limit in line["limits"]] == ["backup", "web\x1b[2J"]
        assert line["limits"][0]["download"]["rate"] == 100_000
        assert sorted(line["limits"][0]) == ["download", "name", "origin", "state", "target", "upload"]


def test_without_a_count_it_goes_on_until_the_service_ends(flowing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    watch, left = flowing.answers["limits.watch"], itertools.count(4 * limits_watch.STEPS, -1)

    def end(args: Any) -> dict[str, Any]:
        if next(left) < 0:
            raise Unreachable("the service ends")
        return dict(watch(args))

    flowing.answers["limits.watch"] = end
    assert main(["limits", "watch", "--json", "--socket", str(flowing.path)]) == 3
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith('{"at":')]) == 4


def test_a_terminal_is_cleared_before_each_table(
    flowing: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["limits", "watch", "--count", "2", "--socket", str(flowing.path)]) == 0
    pieces = capsys.readouterr().out.split("\x1b[H\x1b[2J")
    assert (pieces[0], len(pieces)) == ("", 3)


def test_what_is_nothing_is_left_empty(row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    meters = Meters()
    for at_s in (0.0, 1.0):
        meters.feed({"at_s": at_s, "limits": [row(bytes_download=1000)]})
    limits_watch.show(meters.rows(), Options())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "backup" in line]
    assert line.split() == ["backup", "download", "0", "B/s", "2", "MiB/s", "(16.8", "Mbit/s)", "0%"]


def test_where_nothing_is_limited_now_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    limits_watch.show([], Options())
    assert capsys.readouterr().out.endswith("no limit is in force now: `glacic limits list` says why\n")
    limits_watch.show([], Options(json=True))
    assert json.loads(capsys.readouterr().out)["limits"] == []


@pytest.mark.parametrize("count", ["0", "\u0663", "-1", "x", "1.5", "9" * 12])
def test_counts_that_cannot_be(count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["limits", "watch", "--count", count])
    assert ended.value.code == 2
