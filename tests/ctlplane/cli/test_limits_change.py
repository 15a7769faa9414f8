"""`glacic limits set` and `clear`: the request that they make, what they warn of, and what they save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import glacic
from glacic.config.load import load
from glacic.ctlplane.cli import limits_change, main
from glacic.errors import GlacicError

CONFIG = '# mine\nlimit "backup" {\n  unit     = "backup.service" # b\n  download = "2 MiB/s"\n}\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "glacic.hcl"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def service(fake: Any, row: Any, config: Path) -> Any:
    fake.answers |= {
        "status": {"config": str(config)},
        "limits.list": {"limits": [row()], "mount": "/sys/fs/cgroup", "default": None, "trouble": ""},
        "limits.set": lambda args: {**row(**{**args, "origin": "runtime"}), "cannot": []},
        "limits.clear": lambda args: {"cleared": args["name"]},
    }
    fake.config = config
    return fake


def limits(service: Any, *words: str) -> int:
    return main(["limits", *words, "--socket", str(service.path), "-c", str(service.config)])


def asked(service: Any) -> dict[str, Any]:
    (args,) = service.args("limits.set")
    return args


NEW = {"upload": None, "engine": "auto", "traffic": "all", "interface": ""}


@pytest.mark.parametrize(
    ("words", "kind", "target"),
    [
        (["web", "--unit", "nginx.service"], "unit", "nginx.service"),
        (["web", "--slice", "web.slice"], "slice", "web.slice"),
        (["web", "--cgroup", "lxc/web"], "cgroup", "lxc/web"),
        (["nginx.service"], "unit", "nginx.service"),
        (["web.slice"], "slice", "web.slice"),
        (["lxc/web"], "cgroup", "lxc/web"),
    ],
)
def test_a_new_limit(service: Any, words: list[str], kind: str, target: str) -> None:
    assert limits(service, "set", *words, "--download", "5 mbit") == 0
    assert asked(service) == {**NEW, "name": words[0], "kind": kind, "target": target, "download": 625_000}


def test_what_is_not_said_of_a_limit_stays(service: Any, row: Any, capsys: Any) -> None:
    service.answers["limits.list"]["limits"] = [row(upload=125_000, traffic="local", engine="shape", interface="eth0")]
    assert limits(service, "set", "backup", "--download", "1 MiB/s") == 0
    assert asked(service) == {
        "name": "backup",
        "kind": "unit",
        "target": "backup.service",
        "upload": 125_000,
        "download": 1 << 20,
        "engine": "shape",
        "traffic": "local",
        "interface": "eth0",
    }
    said = "backup.service: upload 122 KiB/s (1 Mbit/s), download 1 MiB/s (8.39 Mbit/s), until the service"
    assert capsys.readouterr().out.startswith(said)


def test_a_limit_is_meant_by_what_it_limits_where_nothing_else_is_said(service: Any, row: Any) -> None:
    default = row("default:nginx.service", target="nginx.service", origin="default")
    service.answers["limits.list"]["limits"] = [default, row()]
    for words in (["backup.service"], ["--unit", "backup.service"]):
        assert limits(service, "set", *words, "--upload", "5 mbit") == 0
    first, second = service.args("limits.set")
    assert first == second
    assert (first["name"], first["target"], first["download"]) == ("backup", "backup.service", 2 << 20)
    assert limits(service, "set", "--unit", "nginx.service", "--upload", "5 mbit") == 0
    assert limits(service, "set", "--slice", "web.slice", "--upload", "5 mbit") == 0
    assert [args["name"] for args in service.args("limits.set")[2:]] == ["nginx.service", "web.slice"]


def test_a_direction_is_taken_away_and_an_engine_changed(service: Any, row: Any) -> None:
    service.answers["limits.list"]["limits"] = [row(upload=125_000, engine="shape", interface="eth0")]
    words = ["--upload", "none", "--engine", "nft", "--traffic", "internet", "--slice", "b.slice"]
    assert limits(service, "set", "backup", *words) == 0
    assert asked(service) == {
        "name": "backup",
        "kind": "slice",
        "target": "b.slice",
        "upload": None,
        "download": 2 << 20,
        "engine": "nft",
        "traffic": "internet",
        "interface": "",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["web", "--upload", "1 mbit"], "there is no limit web yet: say what it limits, --unit backup.service"),
        (["--upload", "1 mbit"], "say which limit, by its NAME or by what it limits"),
        (["backup", "--download", "none"], "limit backup would limit nothing"),
        (["web", "--unit", "nginx", "--upload", "1 mbit"], 'write "nginx.service"'),
        (["web", "--cgroup", "../x", "--upload", "1 mbit"], "leads out of the hierarchy"),
        (["web", "--slice", "web", "--upload", "1 mbit"], 'write "web.slice"'),
        (["default:x.service", "--upload", "1 mbit"], "the name of a bucket that default_limit makes"),
        ([r"a\x2db.service", "--upload", "1 mbit"], r"say another NAME, and --unit 'a\x2db.service'"),
        (["a\nb", "--unit", "x.service", "--upload", "1 mbit"], "control characters"),
        (["x.service", "--upload", "1 mbit", "--interface", "eth0"], "--interface cannot apply to engine auto"),
        (["x.service", "--upload", "1 mbit", "--engine", "police"], "engine police limits everybody on an interface"),
        (
            ["x.service", "--upload", "1 mbit", "--engine", "police", "--interface", "e0", "--traffic", "local"],
            "engine police counts all of an interface",
        ),
        (["x.service", "--upload", "1 mbit", "--engine", "shape", "--interface", "e*"], "stands for several"),
    ],
)
def test_what_makes_no_sense_is_usage_and_reaches_nobody(
    service: Any, words: list[str], says: str, capsys: Any
) -> None:
    assert limits(service, "set", *words) == 2
    assert says in capsys.readouterr().err
    assert service.args("limits.set") == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--upload", "5"], "has no unit"),
        (["--upload", "5 mbps"], "tc among them"),
        (["--upload", "0 mbit"], "lets nothing through"),
        (["--upload", "20 GiB/s"], "more than 17 GiB/s"),
        (["--engine", "nftt"], "invalid choice"),
        (["--unit", "a.service", "--slice", "b.slice"], "not allowed with"),
    ],
)
def test_words_that_cannot_be_understood(service: Any, words: list[str], says: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        limits(service, "set", "backup", *words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_small_rate_is_warned_of(service: Any, capsys: Any) -> None:
    assert limits(service, "set", "backup", "--download", "10 KiB/s", "--json") == 0
    said = capsys.readouterr()
    says = "download is less than 50 KiB/s, and held roughly: the kernel's packets are up to 64 KiB"
    assert said.err.startswith(f"glacic: warning: {says}")
    answer = json.loads(said.out)
    assert answer["saved"] is None
    assert [sentence.startswith(says) for sentence in answer["warnings"]] == [True]


def test_a_unit_that_looks_like_a_slip_is_warned_of(service: Any, row: Any, capsys: Any, monkeypatch: Any) -> None:
    from glacic.ctlplane import units

    monkeypatch.setattr(units, "known_units", lambda: frozenset({"nginx.service"}))
    service.answers["limits.set"] = lambda args: row(**args, state="waiting", why="it does not run")
    assert limits(service, "set", "ngnix.service", "--upload", "1 mbit") == 0
    said = capsys.readouterr()
    assert said.err == "glacic: warning: this machine has no unit ngnix.service: did you mean nginx.service?\n"
    assert "(it waits: it does not run)" in said.out
    assert limits(service, "set", "x", "--cgroup", "ngnix.service", "--upload", "1 mbit") == 0
    service.answers["limits.set"] = lambda args: row(**args, state="active")
    assert limits(service, "set", "ngnix.service", "--upload", "1 mbit") == 0
    assert capsys.readouterr().err == ""


def test_save_changes_the_file_that_the_service_runs(service: Any, config: Path, capsys: Any) -> None:
    assert limits(service, "set", "backup", "--upload", "5 mbit", "--save") == 0
    assert config.read_text() == CONFIG.replace("# b\n", '# b\n  upload   = "5 mbit"\n')
    assert f"written into {config}" in capsys.readouterr().out
    assert limits(service, "set", "n.service", "--upload", "5 mbit", "--save", "--json") == 0
    assert json.loads(capsys.readouterr().out)["saved"] == str(config)
    assert config.read_text().endswith('\nlimit "n.service" {\n  unit   = "n.service"\n  upload = "5 mbit"\n}\n')


def test_save_of_another_file_than_the_services_is_refused(service: Any, tmp_path: Path, capsys: Any) -> None:
    service.answers["status"] = {"config": "/etc/glacic/glacic.hcl"}
    assert limits(service, "set", "backup", "--upload", "5 mbit", "--save") == 1
    assert limits(service, "clear", "backup", "--save") == 1
    assert capsys.readouterr().err.count("the service runs /etc/glacic/glacic.hcl: say --config") == 2
    assert service.args("limits.set") + service.args("limits.clear") == []


def test_the_services_file_may_be_named_by_another_way_to_its_folder(
    service: Any, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    service.answers["status"] = {"config": str(tmp_path / "link" / ".." / tmp_path.name / config.name)}
    assert limits(service, "set", "backup", "--upload", "5 mbit", "--save") == 0
    assert "5 mbit" in config.read_text()


def test_commands_that_save_at_one_time_all_do(service: Any, config: Path, capsys: Any) -> None:
    """Each in a process of its own, as people have them."""
    words = [sys.executable, "-m", "glacic", "limits", "set", "--save", "--upload", "1 mbit"]
    words += ["--socket", str(service.path), "-c", str(config)]
    ours = Path(glacic.__file__).parents[1]
    running = [
        subprocess.Popen([*words, f"x{number}", "--unit", f"x{number}.service"], cwd=ours) for number in range(6)
    ]
    assert [process.wait(120) for process in running] == [0] * 6
    assert {limit.name for limit in load(config).limits} == {"backup", *(f"x{number}" for number in range(6))}


def test_what_cannot_be_saved_is_not_set_either(service: Any, config: Path, capsys: Any) -> None:
    config.write_text(CONFIG + "nonsense = 1\n")
    assert limits(service, "set", "backup", "--upload", "5 mbit", "--save") == 1
    assert "unknown attribute nonsense" in capsys.readouterr().err
    assert service.args("limits.set") == []


def test_what_the_service_refuses_is_not_saved(service: Any, config: Path) -> None:
    def refuse(_: Any) -> None:
        raise GlacicError("no")

    service.answers["limits.set"] = service.answers["limits.clear"] = refuse
    assert limits(service, "set", "backup", "--upload", "5 mbit", "--save") == 1
    assert limits(service, "clear", "backup", "--save") == 1
    assert config.read_text() == CONFIG


def test_a_write_that_fails_says_what_holds_nevertheless(
    service: Any, config: Path, monkeypatch: Any, capsys: Any
) -> None:
    from glacic.ctlplane import saving

    def fail(_: Any) -> None:
        raise GlacicError("cannot write it: full")

    monkeypatch.setattr(saving, "write", fail)
    assert limits(service, "set", "backup", "--upload", "5 mbit", "--save") == 1
    assert "cannot write it: full (the limit holds until the service is started anew)" in capsys.readouterr().err
    assert len(service.args("limits.set")) == 1


def test_clear(service: Any, config: Path, capsys: Any) -> None:
    assert limits(service, "clear", "backup") == 0
    assert config.read_text() == CONFIG
    assert capsys.readouterr().out.startswith("limit backup is cleared, until the service is started anew")
    config.write_text(f'{CONFIG}zone "lan" {{ interface = "lan0" }}\n')
    assert limits(service, "clear", "backup", "--save", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"cleared": "backup", "saved": str(config)}
    assert config.read_text() == '# mine\nzone "lan" { interface = "lan0" }\n'
    assert limits(service, "clear", "backup", "--save", "--json") == 0  # set at run time alone
    assert json.loads(capsys.readouterr().out) == {"cleared": "backup", "saved": None}


def test_what_is_cleared_already_can_be_taken_out_of_the_file_still(service: Any, config: Path) -> None:
    service.answers["limits.list"]["limits"] = []
    config.write_text(f'{CONFIG}zone "lan" {{ interface = "lan0" }}\n')
    assert limits(service, "clear", "backup", "--save") == 0
    assert config.read_text() == '# mine\nzone "lan" { interface = "lan0" }\n'
    assert service.args("limits.clear") == []
    assert limits(service, "clear", "backup", "--save") == 0  # which is the service's to refuse
    assert len(service.args("limits.clear")) == 1


def test_a_request_becomes_the_attributes_that_the_request_means() -> None:
    limit = {"name": "x", "kind": "unit", "target": "x.service", "upload": 625_000, "download": None}
    limit |= {"engine": "shape", "traffic": "all", "interface": "eth0"}
    assert limits_change.attributes(limit) == {
        "unit": "x.service",
        "upload": "5 mbit",
        "engine": "shape",
        "traffic": "all",
        "interface": "eth0",
    }
