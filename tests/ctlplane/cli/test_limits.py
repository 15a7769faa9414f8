"""`glacic limits`: what it asks of the service, and what it tells."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glacic.ctlplane.cli import main
from glacic.errors import GlacicError, KernelRefused
from glacic.shaping.makers import MAKERS


def limits(fake: Any, *words: str) -> int:
    return main(["limits", *words, "--socket", str(fake.path)])


def test_a_list_is_a_line_for_each(fake: Any, row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    other = row("default:x.service", upload=625_000, engine_upload="bpf", origin="default", state="waiting")
    fake.answers["limits.list"] = {"limits": [row(), other], "mount": "/sys/fs/cgroup", "default": None}
    assert limits(fake, "list") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if ".service" in line]
    assert lines[0] == ["backup", "backup.service", "2", "MiB/s", "(16.8", "Mbit/s)", "nft", "all", "config", "active"]
    assert " ".join(lines[1]).endswith("610 KiB/s (5 Mbit/s) 2 MiB/s (16.8 Mbit/s) bpf / nft all default waiting")


def test_a_list_in_json_is_the_services_answer(fake: Any, row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"limits": [row()], "mount": "/sys/fs/cgroup", "default": None, "trouble": ""}
    fake.answers["limits.list"] = answer
    assert limits(fake, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_an_empty_list_says_what_to_do(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["limits.list"] = {"limits": [], "mount": None, "default": None, "trouble": "no cgroups"}
    assert limits(fake, "list") == 0
    said = capsys.readouterr()
    assert "glacic limits set NAME --unit" in said.out
    assert said.err == "glacic: no cgroups\n"


def test_a_default_limit_is_told_whether_or_not_a_unit_has_it_now(
    fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    default = {"per": "unit", "upload": None, "download": 6_250_000, "engine": "auto", "traffic": "all"}
    fake.answers["limits.list"] = {"limits": [], "mount": None, "default": default, "trouble": ""}
    assert limits(fake, "list") == 0
    said = "every unit without a limit of its own, each by itself: download 5.96 MiB/s (50 Mbit/s)\n"
    assert capsys.readouterr().out.endswith(said)


def test_one_limit_is_shown_with_what_it_cannot_do(fake: Any, row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["limits.show"] = lambda args: {**row(args["name"]), "cannot": ["sockets from before pass"]}
    assert limits(fake, "show", "backup") == 0
    out = capsys.readouterr().out
    assert "2 MiB/s (16.8 Mbit/s)" in out
    assert "auto: nft works here" in out
    assert "note: sockets from before pass" in out
    assert limits(fake, "show", "backup", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cannot"] == ["sockets from before pass"]


def test_what_the_service_refuses_is_told(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: Any) -> None:
        raise GlacicError("no such limit: x")

    fake.answers["limits.show"] = refuse
    assert limits(fake, "show", "x") == 1
    assert capsys.readouterr().err == "glacic: no such limit: x\n"


def test_without_a_service_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["show", "x"], ["set", "x.service", "--upload", "1 mbit"], ["clear", "x"], ["watch"]):
        assert main(["limits", *words, "--socket", "/nonexistent"]) == 3
    assert main(["limits", "run", "--upload", "1 mbit", "--socket", "/nonexistent", "--", "true"]) == 3
    assert capsys.readouterr().err.count("no service at /nonexistent") == 6


ENGINES = [
    {"engine": "nft", "direction": d, "available": True, "missing": "", "per_cgroup": True, "accuracy": a}
    for d, a in (("upload", 0.982), ("download", None))
] + [
    {
        "engine": "shape",
        "direction": "upload",
        "available": False,
        "missing": "sch_htb",
        "per_cgroup": None,
        "accuracy": None,
    }
]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    import glacic.shaping

    rows = [dict(row) for row in ENGINES]
    kept: dict[Path, list[dict[str, Any]]] = {}
    probe = SimpleNamespace(
        table=lambda: [dict(row) for row in rows],
        FILE="limit-engines.json",
        keep=kept.__setitem__,
        kept=lambda path: kept.get(path, []),
        recent=lambda path: path in kept,
        measured=lambda path, results: kept[path].append(results[0] | {"accuracy": results[0]["ratio"]}),
    )
    monkeypatch.setitem(sys.modules, "glacic.shaping.probe", probe)
    monkeypatch.setattr(glacic.shaping, "probe", probe, raising=False)
    return rows


def test_engines_are_a_table(engines: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits", "engines"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "nft upload yes yes 98.2%" in lines
    assert "nft download yes yes" in lines
    assert "shape upload no sch_htb" in lines
    assert main(["limits", "engines", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"engines": engines}


def test_what_is_kept_is_where_the_service_reads_it(engines: Any, selftest: Any, tmp_path: Path, capsys: Any) -> None:
    probe = sys.modules["glacic.shaping.probe"]
    assert main(["limits", "engines", "--state-dir", str(tmp_path)]) == 0
    assert probe.kept(tmp_path / probe.FILE) == []
    assert main(["limits", "engines", "--keep", "--state-dir", str(tmp_path)]) == 0
    assert probe.kept(tmp_path / probe.FILE)[:1] == engines[:1]
    selftest.rows[0] |= {"direction": "download", "ratio": 0.971}
    assert main(["limits", "self-test", "--state-dir", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["limits", "engines", "--state-dir", str(tmp_path)]) == 0
    assert "97.1%" in capsys.readouterr().out


def test_what_is_not_needed_is_not_tried(engines: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "glacic.hcl"
    command = ["limits", "engines", "--keep", "--if-needed", "--json", "--state-dir", str(tmp_path), "-c", str(config)]
    config.write_text('zone "lan" {\n  interface = "lan0"\n}\n')
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {"engines": None}
    for block in ('limit "a" {\n  unit = "a.service"\n', 'default_limit {\n  per = "unit"\n'):
        config.write_text(block + '  upload = "1 MiB/s"\n}\n')
        assert main([*command, "--state-dir", str(tmp_path / block[:5])]) == 0
        assert json.loads(capsys.readouterr().out) == {"engines": engines}
        assert main([*command, "--state-dir", str(tmp_path / block[:5])]) == 0
        assert json.loads(capsys.readouterr().out) == {"engines": None}
    assert main(["limits", "engines", "--if-needed"]) == 2


def test_a_direction_that_nothing_limits_by_cgroup_is_a_no(engines: list[dict[str, Any]]) -> None:
    engines[1]["per_cgroup"] = False
    assert main(["limits", "engines"]) == 1
    engines[1].update(per_cgroup=True, available=False)
    assert main(["limits", "engines"]) == 1


def test_who_may_not_try_is_told_what_the_service_knows(
    fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    rows = [
        {"engine": "nft", "direction": direction, "available": True, "missing": None, "per_cgroup": True}
        for direction in ("upload", "download")
    ]
    fake.answers["limits.engines"] = {"engines": rows}
    assert limits(fake, "engines", "--json") == 0
    told = json.loads(capsys.readouterr().out)["engines"]
    assert told == [{**row, "missing": "", "accuracy": None} for row in rows]
    assert limits(fake, "engines", "--keep") == 4
    assert "needs root" in capsys.readouterr().err


RESULTS = [
    {
        "engine": "nft",
        "direction": "upload",
        "target": 1 << 20,
        "achieved": 1030000,
        "ratio": 0.982,
        "available": True,
        "missing": "",
    },
    {
        "engine": "shape",
        "direction": "upload",
        "target": 1 << 20,
        "achieved": None,
        "ratio": None,
        "available": False,
        "missing": "no ifb",
    },
]


@pytest.fixture
def selftest(monkeypatch: pytest.MonkeyPatch) -> Any:
    import glacic.shaping

    made = SimpleNamespace(rows=[dict(row) for row in RESULTS], asked=[])

    def run(makers: dict[str, Any], seconds: float, rate: int) -> list[dict[str, Any]]:
        made.asked.append((list(makers), seconds, rate))
        return made.rows

    module = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "glacic.shaping.selftest", module)
    monkeypatch.setattr(glacic.shaping, "selftest", module, raising=False)
    return made


def test_a_self_test_shows_target_against_achieved(selftest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits", "self-test"]) == 0
    assert (
        main(["limits", "self-test", "--engine", "nft", "--engine", "nft", "--seconds", "2", "--rate", "5 mbit"]) == 0
    )
    assert selftest.asked == [(list(MAKERS), 4.0, 1 << 20), (["nft"], 2.0, 625_000)]
    out = capsys.readouterr().out
    assert "98.2%" in out
    assert "no ifb" in out
    assert main(["limits", "self-test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"results": selftest.rows}


@pytest.mark.parametrize("ratio", [0.89, 1.2, None])
def test_an_engine_that_misses_its_target_is_a_no(selftest: Any, ratio: float | None, capsys: Any) -> None:
    selftest.rows[0]["ratio"] = ratio
    assert main(["limits", "self-test"]) == 1
    assert "not every engine was within 90% to 110% of the target" in capsys.readouterr().out
    selftest.rows[0]["available"] = False
    assert main(["limits", "self-test"]) == 1
    assert "no engine works" in capsys.readouterr().out


def test_engines_that_nobody_knows_and_times_that_cannot_be(selftest: Any, capsys: Any) -> None:
    assert main(["limits", "self-test", "--engine", "nfft"]) == 2
    assert "no engine nfft to test: there are nft, bpf" in capsys.readouterr().err
    for words in (["--seconds", "0"], ["--seconds", "nan"], ["--seconds", "x"], ["--rate", "5 Mb"]):
        with pytest.raises(SystemExit):
            main(["limits", "self-test", *words])
    assert '"Mb" is bits to some and bytes to others' in capsys.readouterr().err
    assert selftest.asked == []


def test_a_kernel_without_the_means_is_exit_4(monkeypatch: pytest.MonkeyPatch, engines: Any) -> None:
    def refuse() -> None:
        raise KernelRefused("no scratch network: be root")

    monkeypatch.setattr(sys.modules["glacic.shaping.probe"], "table", refuse)
    assert main(["limits", "engines"]) == 4
